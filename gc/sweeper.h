// Who sweeps when. A sweep of the whole heap is one walk over the heads of all spans, shared by everyone who takes part:
//   allocation on demand   central.h sweeps spans of the kind that it allocates; when pages are needed, sweep_for() frees
//                          whole spans of any kind before the heap grows
//   the collector          finish() before the next cycle, and at the end of a forced one
// A span swept by one of them is skipped by the others (its sweep_epoch tells, under its kind's lock).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "alloc/allocator.h"
#include "alloc/base/lock.h"

namespace tricolor::impl {

class Sweeper {
 public:
  explicit Sweeper(Allocator& allocator) : x_allocator(allocator) {}

  // All spans are unswept from now on. World stopped.
  void arm();

  // Sweeps until `wanted` pages have been freed, `most_spans` have been swept, or no span is left. Returns the pages freed. A
  // mutator calls it in a critical section; holds no lock between spans.
  PageCount sweep_for(PageCount wanted, std::size_t most_spans = SIZE_MAX);

  // Sweeps what is left and waits for those that are still at a span.
  void finish();

  // Nobody is between taking a span from the walk and the end of its sweep.
  bool nobody_sweeps() const { return x_sweeping.load(std::memory_order_acquire) == 0; }

  bool done() const { return x_done.load(std::memory_order_acquire); }

 private:
  PageRecord* next_span();

  Allocator& x_allocator;
  Mutex x_lock{LockRank::kSweep};
  Arena* x_arena = nullptr;                  // guarded by x_lock, as are the next two: the walk
  std::size_t x_word = 0;                    // of the arena's bitmap of heads
  std::uint64_t x_bits = 0;                  // heads of that word which are still to visit
  std::atomic<bool> x_done{true};            // the walk is over (sweeps may still be under way)
  std::atomic<std::uint32_t> x_sweeping{0};  // threads between next_span and the end of its sweep
};

}  // namespace tricolor::impl
