// The library's mutex. Ranks are the lock order, outermost first: a thread may take a lock only when its rank is higher
// than that of every lock it holds. Debug builds check that on every lock (after Go's runtime/lockrank.go).
//
// Whoever holds one of these from a mutator is inside its critical section (gc/mutator.h): the collector cannot stop it
// there, so a stopped world never holds a lock of ours.
#pragma once

#include <cstdint>
#include <mutex>

#include "alloc/base/check.h"

namespace tricolor::impl {

// The lock order, in order.
enum class LockRank : std::uint8_t {
  kInit,       // creation of the process's heap
  kRun,        // a cycle, one at a time
  kCycle,      // requests to the collector
  kRegistry,   // list of mutators; held for the whole of a stop
  kKinds,      // registration of types
  kSweep,      // cursor of the sweeper
  kCentral,    // one kind's spans
  kPageHeap,   // pages
  kRootTable,  // slots of gc::root
  kQueue,      // shared part of the mark queue
  kMetadata,   // metadata memory
};

// Invariant [lock.order]: locks are taken in the order of LockRank.
class Mutex {
 public:
  explicit constexpr Mutex(LockRank rank) : x_rank(rank) {}
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void lock() {
    if constexpr (kDebugChecks) note_lock(x_rank);
    x_mutex.lock();
  }
  void unlock() {
    x_mutex.unlock();
    if constexpr (kDebugChecks) note_unlock(x_rank);
  }

 private:
  static void note_lock(LockRank rank);
  static void note_unlock(LockRank rank);

  std::mutex x_mutex;
  const LockRank x_rank;
};

using Guard = std::lock_guard<Mutex>;

}  // namespace tricolor::impl
