// A gc::ptr in memory that the collector never scans (a std::vector on malloc memory, a std::function, a coroutine frame) keeps
// nothing alive, and works until it does not. This finds such slots by samples (checkslot=1, the default): while a cycle marks,
// now and then the last slot that a thread has stored to is noted; what is in no place that is scanned is reported, once for
// each place in the code.
//
// Whether a slot is in a library is known by the list of segments, which may be older than the library. So a suspect is looked
// at again in the next cycle, with that cycle's list, before it is reported: the loader is not asked here, whose lock may be
// held by somebody who waits for a cycle.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "alloc/base/lock.h"
#include "gc/mutator.h"
#include "roots/segments.h"

namespace tricolor::impl {

class Heap;

class SlotCheck {
 public:
  explicit SlotCheck(Heap& heap) : x_heap(heap) {}

  // Notes the last slot that `mutator` has stored to, unless that is on its own stack, in its own thread-local storage, or in a
  // gc::root_range. By its owner, in a critical section, now and then.
  void sample(Mutator& mutator);

  // The thread detaches: its stack and its thread-local storage will be unknown soon. Drops suspects in them.
  void forget(const Mutator& mutator);

  // Looks at what has been noted. By the collector, between arming a cycle and its end, no thread stopped.
  void look(const SegmentList& segments);

 private:
  struct Suspect {
    const void* slot = nullptr;
    const void* stored_at = nullptr;  // in the code
    bool again = false;               // found in no known place by an earlier cycle
  };

  bool is_scanned(const void* slot, const SegmentList& segments);
  void report(const Suspect& suspect);

  static constexpr std::size_t kMostSuspects = 32;
  static constexpr std::size_t kMostReports = 64;

  Heap& x_heap;
  Mutex x_lock{LockRank::kSlotCheck};
  std::array<Suspect, kMostSuspects> x_suspects;  // guarded by x_lock, as is the count
  std::size_t x_count = 0;
  std::array<const void*, kMostReports> x_reported = {};  // places in the code; the collector's
  std::size_t x_reports = 0;
};

}  // namespace tricolor::impl
