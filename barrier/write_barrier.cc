// The armed half of the write barrier, and that of threads that are not attached yet.
#include <tricolor/detail/write_barrier.h>

#include "alloc/base/fault.h"
#include "barrier/log_words.h"

namespace tricolor::detail {
inline namespace abi1 {

using impl::Fault;
using impl::is_planted;
using impl::log_new;
using impl::log_old;

namespace {

// Opens a unit of the calling thread, which it attaches first. Null: there is no heap yet, so there is nothing a barrier could
// protect.
thread_cache* attach_and_enter() {
  thread_cache* const cache = attach_slow();
  if (cache != nullptr) cache->enter_unit();
  return cache;
}

bool is_armed(const thread_cache& cache) {
  return cache.armed.load(std::memory_order_relaxed) != 0;
}

}  // namespace

// Invariant [barrier.room]: a full log is flushed between two units, and then nothing that was read before counts: a cycle may
//   have ended and another one have begun meanwhile.
bool make_log_room(thread_cache& cache, std::size_t words) {
  while (static_cast<std::size_t>(cache.log_end - cache.log_next.load(std::memory_order_relaxed)) <
         words) {
    cache.leave_unit();
    cache.flush_log(cache);
    cache.enter_unit();
    if (!is_armed(cache)) return false;
  }
  return true;
}

[[gnu::noinline]] void store_slow(thread_cache* cache, managed_word* slot, managed_word value,
                                  slot_owner owner) {
  if (cache == nullptr) cache = attach_and_enter();
  if (cache == nullptr) return __atomic_store_n(slot, value, __ATOMIC_RELEASE);
  if (is_armed(*cache) && make_log_room(*cache, 2)) {
    // Relaxed: the old value is only shaded, never followed by this thread.
    log_old(*cache, __atomic_load_n(slot, __ATOMIC_RELAXED));
    log_new(*cache, value);
    cache->stored_slot = owner == slot_owner::program ? slot : nullptr;
    cache->stored_at = __builtin_return_address(0);
  }
  // Release: as in barriered_store.
  __atomic_store_n(slot, value, __ATOMIC_RELEASE);
  cache->leave_unit();
}

void construct_slow(thread_cache* cache, managed_word* slot, managed_word value) {
  if (cache == nullptr) {
    // On a stack there may be anything, and a thread that has nothing to do with the heap is left alone.
    cache = attach_to_overwrite(word_before_construction(slot));
    if (cache == nullptr) return __atomic_store_n(slot, value, __ATOMIC_RELAXED);
    cache->enter_unit();
  }
  if (is_armed(*cache) && make_log_room(*cache, 1) && !is_planted(Fault::no_constructor_shade)) {
    log_old(*cache, __atomic_load_n(slot, __ATOMIC_RELAXED));
  }
  __atomic_store_n(slot, value, __ATOMIC_RELAXED);
  cache->leave_unit();
}

// The old word is known, and logged, only after the operation. Nobody misses it in between: the unit is not stopped, so the last stop
// of a cycle, which looks at all logs, comes after both; and there was room before, so no flush splits them.
managed_word exchange_slow(thread_cache* cache, managed_word* slot, managed_word value) {
  if (cache == nullptr) cache = attach_and_enter();
  if (cache == nullptr) return __atomic_exchange_n(slot, value, __ATOMIC_SEQ_CST);
  const bool logs = is_armed(*cache) && make_log_room(*cache, 2);
  if (logs) log_new(*cache, value);
  const managed_word old = __atomic_exchange_n(slot, value, __ATOMIC_SEQ_CST);
  if (logs) log_old(*cache, old);
  cache->leave_unit();
  return old;
}

bool compare_exchange_slow(thread_cache* cache, managed_word* slot, managed_word& expected,
                           managed_word value) {
  if (cache == nullptr) cache = attach_and_enter();
  const bool logs = cache != nullptr && is_armed(*cache) && make_log_room(*cache, 2);
  const managed_word old = expected;
  if (logs) log_new(*cache, value);
  const bool done = __atomic_compare_exchange_n(slot, &expected, value, false, __ATOMIC_SEQ_CST,
                                                __ATOMIC_SEQ_CST);
  if (logs && done) log_old(*cache, old);
  if (cache != nullptr) cache->leave_unit();
  return done;
}

}  // namespace abi1
}  // namespace tricolor::detail
