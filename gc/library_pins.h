// Which libraries are to be pinned, because a cycle has found roots in them [library.pinned] (roots/libraries.h).
//
// A cycle only notes them: to pin takes the lock that constructors of libraries hold, and such a constructor may wait for the cycle.
// When nobody waits for it any more they are pinned by a thread that ends when it is done, or by gc::collect() before it returns.
// One case is left: gc::collect(), or the first object of a library's type, inside a callback of dl_iterate_phdr that has to pin
// waits for a thread that is inside dlopen, which waits for the callback. (The same holds for a first cycle there, which starts
// threads, beside a dlclose.)
//
// Lists are in metadata memory. Where that is refused, the rest comes in the next cycle.
#pragma once

#include <cstddef>

#include "alloc/base/lock.h"

namespace tricolor::impl {

class Heap;

class LibraryPins {
 public:
  explicit LibraryPins(Heap& heap) : x_heap(heap) {}

  // ---- Who runs the cycle.

  void begin_cycle();
  // When the cycle began, everything was pinned that earlier ones had found.
  bool all_pinned() const { return x_all_pinned; }
  // A reference lies in the library at this address. False when that could not be noted.
  bool add(const void* in_library);
  // What the cycle has found becomes everybody's. False when a library was closed before it was pinned: another one may be in its
  // place by now.
  bool end_cycle();

  // ---- Any thread that is no running mutator and holds no lock of ours.

  // Returns when all are pinned that cycles have found so far.
  void pin();
  // Has a thread do it, if there are any.
  void pin_apart();

  // ---- fork.h

  void lock_for_fork() { x_lock.lock(); }
  void forget_thread() { x_has_thread = false; }
  void unlock_after_fork() { x_lock.unlock(); }

 private:
  struct Addresses {
    const void** words = nullptr;
    std::size_t count = 0;
    std::size_t capacity = 0;
    const void** begin() const { return words; }
    const void** end() const { return words + count; }
  };
  bool append(Addresses& addresses, const void* in_library);

  Heap& x_heap;
  Mutex x_lock{LockRank::kPins};
  Addresses x_wanted;         // guarded by x_lock
  Addresses x_just_pinned;    // guarded by x_lock
  bool x_has_thread = false;  // guarded by x_lock
  bool x_failed = false;      // guarded by x_lock
  // The cycle's own: what it has found, and what was pinned before it began and stays where it is.
  Addresses x_found;
  Addresses x_pinned;
  bool x_all_pinned = false;
};

}  // namespace tricolor::impl
