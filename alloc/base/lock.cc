// Waiting for a lock, and the check of the lock order [lock.order], in debug builds.
//
// Since a thread takes locks in strictly rising rank, the stack of what it holds is a set, and the
// set is a mask: one bit a rank, the highest bit is the lock taken last.
#include "alloc/base/lock.h"

#include <atomic>
#include <bit>

#include "alloc/base/os.h"

namespace tricolor::impl {
namespace {

// Ranks of the locks this thread holds. Static TLS where the linker allows it, never initialised
// lazily: a lock may be the first thing that a thread does with us.
constinit thread_local std::uint32_t held_ranks = 0;

static_assert(static_cast<unsigned>(LockRank::kMetadata) < 32, "a rank is a bit of the mask");

std::atomic<LockCheck> thread_check{nullptr};

// About half a microsecond: longer than what is done under our hot locks, shorter than a sleep.
constexpr int kSpins = 40;

}  // namespace

void Mutex::lock_slow() {
  for (int i = 0; i < kSpins; ++i) {
    os::relax();
    std::uint32_t free = kFree;
    if (x_state.load(std::memory_order_relaxed) == kFree &&
        x_state.compare_exchange_weak(free, kHeld, std::memory_order_acquire,
                                      std::memory_order_relaxed)) {
      return;
    }
  }
  // Whoever gets it here says that others may wait too, which costs at most one wake-up in vain.
  while (x_state.exchange(kHeldAndWaitedFor, std::memory_order_acquire) != kFree)
    os::futex_wait(x_state, kHeldAndWaitedFor);
}

void Mutex::wake_one() { os::futex_wake_one(x_state); }

void Mutex::note_lock(LockRank rank) {
  const auto bit = static_cast<unsigned>(rank);
  // Acquire: what the check looks at. Pairs with set_lock_check (release).
  if (LockCheck const check_thread = thread_check.load(std::memory_order_acquire)) check_thread();
  // Before the lock is taken, so that a wrong order is a report and not a deadlock.
  check((held_ranks >> bit) == 0, "lock.order",
        {bit, static_cast<std::uint64_t>(std::bit_width(held_ranks)) - 1});
  held_ranks |= 1U << bit;
}

void Mutex::note_unlock(LockRank rank) {
  const auto bit = static_cast<unsigned>(rank);
  check((held_ranks >> bit & 1U) != 0, "lock.order", {bit, held_ranks});
  held_ranks &= ~(1U << bit);
}

LockCheck set_lock_check(LockCheck check_thread) {
  return thread_check.exchange(check_thread, std::memory_order_acq_rel);
}

}  // namespace tricolor::impl
