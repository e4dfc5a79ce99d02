// The colours of cells, and the one place where white turns grey.
//
// A cell is
//   white  when it is not marked: garbage so far,
//   grey   when it is marked and its references are still to be followed; it then stands in exactly one mark queue, or
//          has its grey bit set,
//   black  when it is marked and scanned. A cell without references is black as soon as it is marked.
//
//   predicate   mark bit   in a queue, or grey bit
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
// Marking beside the program. At the arming stop (gc/handshake.h) the references that running threads hold in their stacks and
// registers are captured, at one instant; from then on every thread's pointer stores are barriered and its new cells black.
// What was reachable at that instant, the snapshot, will be marked, and what has been made since is marked:
//
// Invariant [color.deletion]: a store to a slot that the collector scans shades the word that it overwrites (Yuasa). So a
//   reference of the snapshot that is taken out of a slot before the marker has been there is not missed: every object of
//   the snapshot is marked in the end, wherever the program has moved its references. A thread's registers and stack can
//   hold, after its capture, only references to objects of the snapshot or to new ones. So a stack is captured once a cycle
//   and never again. It does not matter which word of two racing stores the marker sees: each shades what it overwrites.
// Invariant [color.insertion]: it shades the new word, too (Dijkstra). Stacks of threads inside blocking_call are no part of
//   the instant: they are captured later. While such a thread is blocked, nobody takes a reference out of its
//   frames (<tricolor/thread.h>), so what others read there is found by the capture, and the deletion half alone would do
//   (test/model/barrier.pml, RULE_NEVER). The insertion half is kept all the same: a program that breaks the rule by moving a
//   reference from such a frame into a slot loses nothing by it.
// Invariant [color.construction]: a constructor of a slot shades the word that it overwrites. It need not shade the new one:
//   the thread that constructs holds it, and was captured.
// Invariant [color.roots-go]: what stops being a root while marking shades what it held: a gc::root or a range (roots/root_set.h),
//   a thread that detaches (gc/handshake.cc), a library (pinned, roots/libraries.h).
//
// The barrier is Go's (runtime/mbarrier.go), with the capture of all stacks at one instant in place of one after another:
// native threads write into each other's frames, where no barrier is.
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
