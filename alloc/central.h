// The spans of one kind, and the claims that threads take from them.
//
// All spans of a kind stand in one list; a cursor walks it once a cycle. Before the cursor: spans that have been visited
// since the last cycle (full or claimed from). From the cursor on: spans to visit, which are swept as they are met. After a
// cycle the first who comes moves the cursor back to the start. There are no partial and full lists to keep apart: what a span is
// shows in its bits. A heap may be full for gigabytes on end, and a stop waits for who walks it, so a claim goes only part of
// the way: a thread gets a fresh span instead, one for each kFullSpans at most, and the next claim goes on there.
//
// A claim is a set of free cells of one span that one thread takes together (512 bytes of them at first, more as the thread
// comes back). Claimed cells have their alloc bit set, so to everyone else they are allocated; the thread hands them out
// one after another without a lock and gives back what is left when a cycle begins or it exits.
//
// Invariant [central.claim]: a claim is asked for at least one cell, and has at least one.
// Invariant [central.list]: span->slot_or_pages is the span's place in the list of span->kind.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "alloc/base/lock.h"
#include "alloc/span.h"

namespace tricolor::impl {

struct Allocator;
struct Kind;

// Cells of one span that a thread has taken and not used: bit i of mask[w] is cell (first_word + w) * 64 + i.
struct Claim {
  static constexpr std::uint32_t kWords = 4;

  PageRecord* span = nullptr;
  std::uint32_t first_word = 0;
  bool needs_zero = false;
  std::uint64_t mask[kWords] = {};
};

class Central {
 public:
  Central() = default;

  // Claims up to `wanted` free cells (at least one) from the spans at hand, sweeping at most `tries` of them and passing by some
  // hundred full ones (kEverySpan: as many as there are). False when that found none: the caller brings a fresh span, or calls again
  // with more tries.
  static constexpr std::uint32_t kEverySpan = UINT32_MAX;
  bool claim(Allocator& allocator, std::uint32_t wanted, std::uint32_t tries, Claim& out);

  // Enters a fresh span of this kind: pages that its caller took, of which `zero` says that they read as zero, and claims
  // from it. False when memory for the list was refused; the pages are then given back.
  bool add_span(Allocator& allocator, Kind& kind, PageId first, bool zero, std::uint32_t wanted,
                Claim& out);

  // Sweeps `span` if it is still unswept, and gives its pages back when nothing in it is left. Returns the pages freed.
  PageCount sweep(Allocator& allocator, PageRecord* span);

  // Frees one allocated cell, whose owner knows it to be dead. Sweeps its span first if need be: a cycle that ran since the
  // cell was allocated has marked it, and a free cell must not look allocated to the next one.
  void give_back(Allocator& allocator, PageRecord* span, std::uint32_t index);

  // Cells of `span` have become free again: the next claims look there. Not in a signal handler: takes the lock.
  void revisit(const Allocator& allocator, PageRecord* span);

 private:
  void start_again_after_a_cycle(const Allocator& allocator);
  bool claim_from(Allocator& allocator, PageRecord* span, std::uint32_t wanted, Claim& out);
  bool make_room(Allocator& allocator);
  void append(PageRecord* span);
  void remove(PageRecord* span);

  Mutex x_lock{LockRank::kCentral};
  PageRecord** x_spans = nullptr;  // guarded by x_lock, as is all below
  std::uint32_t x_count = 0;
  std::uint32_t x_capacity = 0;
  std::uint32_t x_cursor = 0;
  std::uint32_t x_cursor_epoch =
      0;  // the allocator's sweep_epoch when the cursor was set back last
};

}  // namespace tricolor::impl
