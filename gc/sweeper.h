// Who sweeps when. A sweep of the whole heap is one walk over the heads of all spans, shared by everyone who takes part:
//   claims            central.h sweeps spans of the kind that it allocates, as it meets them
//   before it grows   who needs pages from the page heap first takes as many out of the sweep, if it finds them soon: reclaim() looks ahead of the
//                     walk for spans with no mark in them, which are free as a whole. What it frees beyond that is credit for
//                     the next
//   in proportion     owes() says who allocates to sweep along, so that the walk is over before the next cycle is due
//   the collector     in the background, and finish() before the next cycle and at the end of a forced one
// A span swept by one of them is skipped by the others (its sweep_epoch tells, under its kind's lock).
//
// In proportion: pages swept for each byte allocated, so that what is left of the sweep is done 1 MiB before the heap is at its
// trigger (Go's sweepPagesPerByte, runtime/mgcsweep.go). Reclaiming needs no bitmap of marks a page as Go's does: the marks of
// a span are in the record of its first page, so a look at it costs what a look at such a map would cost markers.
//
// Invariant [sweep.once]: in one sweep the head of a span that was there when it began is handed out once, by the walk or by
//   reclaim(). So a span is not freed behind the back of who looks at it, and none is left over.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "alloc/allocator.h"
#include "alloc/base/lock.h"
#include "gc/stats.h"

namespace tricolor::impl {

class Sweeper {
 public:
  explicit Sweeper(Allocator& allocator) : x_allocator(allocator) {}

  // All spans are unswept from now on. World stopped.
  void arm();

  // Sweeps until `wanted` pages have been freed, `most_spans` have been swept, or no span is left. Returns the pages freed. A
  // mutator calls it in a critical section; holds no lock between spans.
  PageCount sweep_for(PageCount wanted, std::size_t most_spans = SIZE_MAX);

  // The next cycle is due at `trigger_bytes` of live bytes; now there are `live_bytes`. Whenever that changes.
  void pace(std::uint64_t live_bytes, std::uint64_t trigger_bytes);

  // Is sweeping behind, for somebody who is about to claim so many bytes? Then sweep_for() some.
  bool owes(std::size_t bytes) const;

  // Of the sweep that is done, for gcpacertrace.
  SweepRecord record() const;

  // Takes up to `wanted` pages of what has been reclaimed beyond need. Returns what is still wanted.
  PageCount take_credit(PageCount wanted);

  // Frees some spans without a mark, if it finds any in the 512 pages that it looks at. What is more than `wanted` becomes credit.
  // Returns what is still wanted; 0 when there are no more such spans. In a critical section, as sweep_for().
  PageCount reclaim(PageCount wanted);

  // Sweeps what is left and waits for those that are still at a span.
  void finish();

  // Nobody is between taking a span from the walk and the end of its sweep.
  bool nobody_sweeps() const { return x_sweeping.load(std::memory_order_acquire) == 0; }

  bool done() const { return x_done.load(std::memory_order_acquire); }

 private:
  // A place in the walk: a word of an arena's bitmap of heads. Null: behind the last one.
  struct Place {
    Arena* arena = nullptr;
    std::size_t word = 0;

    void advance();
    bool operator==(const Place&) const = default;
    bool is_before(const Place& other) const;
  };

  // Spans whose heads are in one word.
  struct Heads {
    PageRecord* records = nullptr;  // of the word's 64 pages
    std::uint64_t bits = 0;
  };

  void begin_word();
  PageRecord* next_span();
  std::optional<Heads> next_dead(std::size_t most_words);
  void begin_sweeping();
  void end_sweeping();

  Allocator& x_allocator;
  Mutex x_lock{LockRank::kSweep};
  Place x_walk;                    // guarded by x_lock, as are the next two
  std::uint64_t x_bits = 0;        // heads of x_walk's word which are still to visit
  Place x_ahead;                   // where reclaim() looks next, unless the walk is there already
  std::atomic<bool> x_done{true};  // the walk is over (sweeps may still be under way)
  std::atomic<std::uint32_t> x_sweeping{0};  // threads between next_span and the end of its sweep

  std::atomic<std::size_t> x_credit_pages{0};

  // Written when it changes what is due, one after the other; who pays by a mixture of old and new pays a little too much
  // or too little.
  std::atomic<std::size_t> x_pages{0};          // that were in use when the sweep began
  std::atomic<double> x_pages_a_byte{0};        // to sweep, from
  std::atomic<std::size_t> x_basis_pages{0};    // swept then, and
  std::atomic<std::uint64_t> x_basis_bytes{0};  // live then
};

}  // namespace tricolor::impl
