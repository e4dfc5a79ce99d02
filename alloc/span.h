// Spans and page records: where the bits are.
//
// A span is a run of pages cut into cells of one size and one kind (layout), or one large object. It has no object of its
// own: the record of its first page is its head; the records of its other pages lead back to it. A record is 128 bytes,
// two cache lines, so that markers and allocators do not share one:
//
//   line 0, written by markers                      line 1, written by allocator and sweeper
//   cells of 32 bytes and more                        alloc_bits[4]    256 cells
//     gc_bits[0..3] mark   gc_bits[4..7] grey         reciprocal, head_delta, kind, sweep_epoch, slot_or_pages,
//   cells of 16 and 24 bytes (512 and 341 a page)     cells, hint_word, size_class, needs_zero, ... state
//     gc_bits[0..7] mark, SmallCellBits::more grey    (alloc: SmallCellBits::alloc)
//   cells of 8 bytes (1024 a page, pointer-free: never grey)
//     mark: SmallCellBits::more                       (alloc: SmallCellBits::alloc)
//
//   mark     the cell is grey or black in this cycle
//   grey     the cell is grey and in no queue, for want of room (barrier/mark_queue.h)
//   alloc    the cell is allocated, or a thread has claimed it and not used it yet; what is not set is free
//
// One life of a span:
//   free --PageHeap::take--> fresh --publish--> in use --(cycle: mark; epoch moves on)--> unswept --sweep--> in use
//                                                                                            \--no mark--> free
//
// Invariant [span.publish]: every field of a span is written before its head's state becomes in_use (release); a look-up
//   from an untrusted word loads the state first (acquire).
// Invariant [span.sweep-before-use]: a run of cells is taken only from a span whose sweep_epoch is the heap's.
// Invariant [span.no-free-while-marking]: a span goes from in use to free only while the phase is not mark, so a stale word
//   can be looked up safely at any time.
// Invariant [span.one-sweeper]: a span is swept, and its alloc bits are set, under its kind's lock (central.h). Clearing the
//   alloc bits of claimed cells that were not used is done by the thread that claimed them or, when that is stopped, for
//   it: atomically, without lock.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include <tricolor/detail/type_info.h>

#include "alloc/base/units.h"

namespace tricolor::impl {

struct Kind;

enum class PageState : std::uint8_t {
  free,      // in no span
  interior,  // of a span, not its first page: head_delta leads back
  in_use,    // first page of a span
  unready,   // head of a large object that is not zeroed yet: marked when reached, nothing to scan
};

struct alignas(128) PageRecord {
  // Line 0. Written by markers (atomic or), zeroed by the sweeper.
  std::atomic<std::uint64_t> gc_bits[8];

  // Line 1. Written under the kind's lock, except for returned cells (see [span.one-sweeper]).
  std::atomic<std::uint64_t> alloc_bits[4];
  Kind* kind;  // layout of the cells and the list the span is in
  std::uint32_t
      reciprocal;  // ceil(2^32 / cell size): index = offset * reciprocal >> 32; 0 for large
  std::uint32_t head_delta;                // pages back to the span's head; 0 in a head
  std::atomic<std::uint32_t> sweep_epoch;  // the allocator's when swept (allocator.h)
  std::uint32_t slot_or_pages;             // small: place in Central's list; large: its pages
  std::uint16_t cells;                     // in the span
  std::uint8_t hint_word;                  // no cell in a word of alloc bits below this one is free
  std::uint8_t size_class;
  std::uint8_t needs_zero;           // free cells may hold what their last owner left
  detail::ScanMode scan;             // copy of the kind's
  std::atomic<std::uint8_t> rescan;  // some cell's grey bit may be set
  std::atomic<PageState> state;      // written last (release) when a span is published
};
static_assert(sizeof(PageRecord) == 128, "two cache lines");

}  // namespace tricolor::impl
