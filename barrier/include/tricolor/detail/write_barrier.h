// The inline half of the write barrier: hands off. What it does and why is barrier/color.h; the log is barrier/write_log.h.
//
// Each function here is one unit [unit.no-stop]: test of `armed`, log, store. While no cycle marks, a store costs the unit and
// the test; while one marks, the rest is out of line (write_barrier.cc).
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>

#include <tricolor/detail/thread_cache.h>

namespace tricolor::detail {
inline namespace abi1 {

// A slot of any pointer type, as the library reads and writes it.
using managed_word [[gnu::may_alias]] = std::uintptr_t;

// The words are plain members that are accessed by the atomic builtins only: a constructor must be able to look at what its
// slot held before (construct_slot), which std::atomic's would have overwritten.
template <class T>
inline T* load_slot(T* const& slot) noexcept {
  // Relaxed: who needs another thread's writes to the object synchronises as for any C++ object.
  return __atomic_load_n(&slot, __ATOMIC_RELAXED);
}

// The rest of the functions below, when the thread is not attached (`cache` is null and no unit open) or a cycle marks.
enum class slot_owner : std::uint8_t { program, library };
void store_slow(thread_cache* cache, managed_word* slot, managed_word value, slot_owner owner);
void construct_slow(thread_cache* cache, managed_word* slot, managed_word value);
managed_word exchange_slow(thread_cache* cache, managed_word* slot, managed_word value);
bool compare_exchange_slow(thread_cache* cache, managed_word* slot, managed_word& expected,
                           managed_word value);

// Inside a unit of an armed thread: room for so many words in the log. It may leave the unit and enter it again; false when
// the thread is not armed any more then.
bool make_log_room(thread_cache& cache, std::size_t words);
inline void append_to_log(thread_cache& cache, managed_word word) {
  // Relaxed: the owner's. Release: the word. Pairs with WriteLog::shade_new (acquire).
  managed_word* const next = cache.log_next.load(std::memory_order_relaxed);
  *next = word;
  cache.log_next.store(next + 1, std::memory_order_release);
}

template <class T>
inline managed_word* slot_word(T** slot) noexcept {
  return reinterpret_cast<managed_word*>(slot);
}
template <class T>
inline managed_word word_of(T* value) noexcept {
  return reinterpret_cast<managed_word>(value);
}

// Attaches the thread before it reads a managed pointer that it is going to keep: until then nobody knows what it holds.
inline void attach_to_read() {
  if (current_cache == nullptr) [[unlikely]]
    attach_slow();
}

// Stores a managed pointer into a slot that the collector scans while the program runs (a field, a global, a
// thread_local).
template <class T>
inline void barriered_store(T** slot, T* value, slot_owner owner = slot_owner::program) {
  thread_cache* const cache = current_cache;
  if (cache == nullptr) [[unlikely]]
    return store_slow(nullptr, slot_word(slot), word_of(value), owner);
  cache->enter_unit();
  // Relaxed: written only while this thread is stopped, and a unit is not stopped in its middle.
  if (cache->armed.load(std::memory_order_relaxed) != 0) [[unlikely]]
    return store_slow(cache, slot_word(slot), word_of(value), owner);
  // Release: what was written into *value is visible to the marker that finds it here. Pairs with the marker's load of the
  // slot (acquire).
  __atomic_store_n(slot, value, __ATOMIC_RELEASE);
  cache->leave_unit();
}

// What a slot held before its constructor runs: any word. The address is hidden from the compiler, to which the read would be
// one of an object that does not live yet.
inline managed_word word_before_construction(const void* slot) noexcept {
  const void* hidden = slot;
  asm("" : "+r"(hidden));
  return __atomic_load_n(static_cast<const managed_word*>(hidden), __ATOMIC_RELAXED);
}

// The store of a constructor. It may run over a slot that holds a reference (optional::emplace, a vector's push_back after
// pop_back, placement new), which nobody has taken out: gc::ptr has no destructor. Memory from an allocation is zero, and
// then there is nothing to lose.
//
// Relaxed: the marker follows what it finds here only where the object is older than the cycle, or it is marked anyhow.
template <class T>
inline void construct_slot(T** slot, T* value) {
  if (word_before_construction(slot) != 0) {
    thread_cache* const cache = current_cache;
    if (cache == nullptr) [[unlikely]]
      return construct_slow(nullptr, slot_word(slot), word_of(value));
    cache->enter_unit();
    if (cache->armed.load(std::memory_order_relaxed) != 0) [[unlikely]]
      return construct_slow(cache, slot_word(slot), word_of(value));
    __atomic_store_n(slot, value, __ATOMIC_RELAXED);
    cache->leave_unit();
    return;
  }
  __atomic_store_n(slot, value, __ATOMIC_RELAXED);
}

// Sequentially consistent, as std::atomic's by default.
template <class T>
inline T* barriered_exchange(T** slot, T* value) {
  thread_cache* const cache = current_cache;
  if (cache == nullptr) [[unlikely]]
    return reinterpret_cast<T*>(exchange_slow(nullptr, slot_word(slot), word_of(value)));
  cache->enter_unit();
  if (cache->armed.load(std::memory_order_relaxed) != 0) [[unlikely]]
    return reinterpret_cast<T*>(exchange_slow(cache, slot_word(slot), word_of(value)));
  T* const old = __atomic_exchange_n(slot, value, __ATOMIC_SEQ_CST);
  cache->leave_unit();
  return old;
}

template <class T>
inline bool barriered_compare_exchange(T** slot, T*& expected, T* value) {
  thread_cache* const cache = current_cache;
  if (cache != nullptr) [[likely]] {
    cache->enter_unit();
    if (cache->armed.load(std::memory_order_relaxed) == 0) [[likely]] {
      const bool done = __atomic_compare_exchange_n(slot, &expected, value, false, __ATOMIC_SEQ_CST,
                                                    __ATOMIC_SEQ_CST);
      cache->leave_unit();
      return done;
    }
  }
  managed_word word = word_of(expected);
  const bool done = compare_exchange_slow(cache, slot_word(slot), word, word_of(value));
  if (!done) expected = reinterpret_cast<T*>(word);
  return done;
}

}  // namespace abi1
}  // namespace tricolor::detail
