// The library's mutex. Ranks are the lock order, outermost first: a thread may take a lock only when its rank is higher
// than that of every lock it holds. Debug builds check that on every lock (after Go's runtime/lockrank.go).
//
// Whoever holds one of these from a mutator is inside its critical section (gc/mutator.h): the collector cannot stop it
// there, so a stopped world never holds a lock of ours. (A thread that no stop concerns may: it holds the root table for 2 KiB of a
// range at most.)
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "alloc/base/check.h"

namespace tricolor::impl {

// The lock order, in order.
enum class LockRank : std::uint8_t {
  kInit,       // creation of the process's heap
  kRun,        // a cycle, one at a time
  kCycle,      // requests to the collector
  kPins,       // libraries that are to be pinned
  kRegistry,   // list of mutators; held for the whole of a stop
  kTurn,       // one mutator: its frames, its log
  kKinds,      // registration of types
  kSweep,      // cursor of the sweeper
  kCentral,    // one kind's spans
  kPageHeap,   // pages
  kRootTable,  // slots of gc::root, registered ranges
  kSlotCheck,  // samples of stores
  kAssists,    // threads that wait in line for credit
  kPacer,      // numbers of the pacer
  kQueue,      // shared part of the mark queue
  kMetadata,   // metadata memory
};

// Invariant [lock.order]: locks are taken in the order of LockRank.
//
// A futex lock with three states (Drepper, "Futexes Are Tricky", mutex2) that spins for a moment first: nearly all of our
// critical sections are shorter than a sleep and a wake-up. Two threads that allocate in 8 KiB claims spend 1.5 times as
// much CPU each with std::mutex. It is also none of the host's: nothing that the host does to pthreads concerns it.
class Mutex {
 public:
  explicit constexpr Mutex(LockRank rank) : x_rank(rank) {}
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void lock() {
    if constexpr (kDebugChecks) note_lock(x_rank);
    std::uint32_t free = kFree;
    // Acquire: what the last holder wrote. Pairs with unlock (release).
    if (!x_state.compare_exchange_strong(free, kHeld, std::memory_order_acquire,
                                         std::memory_order_relaxed))
      lock_slow();
  }
  // False when somebody holds it.
  bool try_lock() {
    std::uint32_t free = kFree;
    // Acquire: as lock().
    if (!x_state.compare_exchange_strong(free, kHeld, std::memory_order_acquire,
                                         std::memory_order_relaxed))
      return false;
    if constexpr (kDebugChecks) note_lock(x_rank);
    return true;
  }
  void unlock() {
    if constexpr (kDebugChecks) note_unlock(x_rank);
    // The next holder may free the memory that this lock is in (a mutator that detaches): only its address is used after this.
    if (x_state.exchange(kFree, std::memory_order_release) == kHeldAndWaitedFor) wake_one();
  }

 private:
  static constexpr std::uint32_t kFree = 0;
  static constexpr std::uint32_t kHeld = 1;
  static constexpr std::uint32_t kHeldAndWaitedFor = 2;

  [[gnu::noinline, gnu::cold]] void lock_slow();
  [[gnu::noinline, gnu::cold]] void wake_one();
  static void note_lock(LockRank rank);
  static void note_unlock(LockRank rank);

  std::atomic<std::uint32_t> x_state{kFree};  // any thread, as above
  const LockRank x_rank;
};

using Guard = std::lock_guard<Mutex>;

// Debug builds call it before every lock: it ends the process when the calling thread must not take one now. Null checks
// nothing. Returns the one before.
using LockCheck = void (*)();
LockCheck set_lock_check(LockCheck check_thread);

}  // namespace tricolor::impl
