// The colours of cells, and the one place where white turns grey.
//
// A cell is
//   white  when it is not marked: garbage so far,
//   grey   when it is marked and its references are still to be followed; it then stands in exactly one mark queue, or its
//          span says `rescan`,
//   black  when it is marked and scanned. A cell without references is black as soon as it is marked.
//
//   predicate   mark bit   in a queue, or span->rescan
//   white         0            -
//   grey          1           yes
//   black         1           no
//
// Marking is done when no cell is grey: then no black cell refers to a white one, and every white cell is unreachable.
//
// Invariant [color.one-shade]: only shade() sets mark bits. Whatever finds a reference (roots, marker, tracer, barrier) goes
//   through it, and the caller whose shade() returns true queues the cell, so a grey cell is queued once.
// Invariant [color.test-then-or]: a mark bit is tested before it is set, by an atomic or when other markers run. Most
//   references lead to marked cells, and those then cost no write to a shared line; of two markers that race to one cell
//   exactly one sees it white. A single marker with the world stopped stores instead (an atomic or costs it 6 ns of 15).
//
// While the program runs and a cycle marks, a pointer store first shades the old and the new value of its slot (hybrid
// barrier, Dijkstra insertion + Yuasa deletion; Go's runtime/mbarrier.go). In this version a cycle marks with the world
// stopped (gcstoptheworld=1), so no thread is ever armed; the store, its test and its unit are in place
// (<tricolor/detail/write_barrier.h>).
#pragma once

#include <cstdint>

#include "alloc/cell.h"

namespace tricolor::impl {

inline bool is_marked(const Cell& cell) { return test_bit(mark_words(cell.span), cell.index); }

// How many markers may be setting bits.
enum class Markers : std::uint8_t { one, several };

// White -> grey (or black, for cells without references). True for the one caller that did it.
inline bool shade(PageRecord* span, std::uint32_t index, Markers markers) {
  BitWord& word = mark_words(span)[index / 64];
  const std::uint64_t bit = std::uint64_t{1} << (index % 64);
  // Relaxed: a mark bit publishes nothing. The cell's content is ordered by the slot through which it was found, the bit
  // itself is read again by the sweeper, after the markers have stopped.
  const std::uint64_t before = word.load(std::memory_order_relaxed);
  if ((before & bit) != 0) return false;
  if (markers == Markers::one) {
    word.store(before | bit, std::memory_order_relaxed);
    return true;
  }
  return (word.fetch_or(bit, std::memory_order_relaxed) & bit) == 0;
}

}  // namespace tricolor::impl
