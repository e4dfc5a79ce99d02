// Everything of layer 1 that belongs to one heap, and the numbers about it. No phases, no policy: what is missing is
// reported to the caller (gc/allocate.cc), who decides.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "alloc/kind.h"
#include "alloc/metadata.h"
#include "alloc/page_heap.h"
#include "alloc/page_map.h"

namespace tricolor::impl {

struct Allocator {
  // False when the kernel refuses the first memory.
  bool create() { return map.create() && kinds.create(); }

  Metadata metadata;
  ArenaMap map;
  PageHeap pages{map};
  KindTable kinds{metadata};

  // Spans whose sweep_epoch differs have not been swept since the last mark. Moves on by one a cycle, world stopped; all
  // spans are swept before it moves again, so a span is at most one behind.
  std::atomic<std::uint32_t> sweep_epoch{1};

  // Invariant [alloc.black]: while a cycle marks, a cell gets its mark bit together with its claim, before its alloc bit: what is
  //   allocated is black. Written by the collector while every thread that may allocate is stopped outside of its critical
  //   sections, so that it does not change in one. What a thread has claimed so and not used stays claimed when marking
  //   ends: the sweep finds it marked and leaves it alone.
  std::atomic<bool> allocate_black{false};
  // Cells and bytes that have become black so in this cycle.
  std::atomic<std::uint64_t> black_objects{0};
  std::atomic<std::uint64_t> black_bytes{0};

  // Bytes in cells handed out to threads (claims count whole) less those swept.
  std::atomic<std::int64_t> live_bytes{0};
  // Of those handed out since the last mark, the ones that are to be scanned if they live.
  std::atomic<std::uint64_t> new_scan_bytes{0};
  // Bytes that the program holds outside of the heap through managed objects (gc::external_memory). Relaxed: a number.
  std::atomic<std::int64_t> external_bytes{0};
  // Since the start, for statistics: claimed less given back; swept.
  std::atomic<std::uint64_t> allocated_bytes{0};
  std::atomic<std::uint64_t> freed_bytes{0};
  std::atomic<std::uint64_t> span_count{0};
  std::atomic<std::size_t> swept_pages{
      0};  // of spans, since the last mark; set to 0 by who begins a sweep
  std::atomic<std::uint64_t> small_cell_pages{0};  // that have SmallCellBits

  // Debug aids, set before the first allocation.
  bool clobber_free = false;                    // free cells are filled with 0xdeadbeef
  std::uint32_t most_cells_a_claim = 1u << 16;  // stress: claims this small

  // What the process is larger by because of this heap: pages with memory behind them, records and bits, structures.
  std::uint64_t mapped_bytes() const {
    return pages.ready_bytes() + page_record_bytes() + metadata.mapped_bytes();
  }
  std::uint64_t page_record_bytes() const {
    return pages.metadata_bytes() +
           small_cell_pages.load(std::memory_order_relaxed) * sizeof(SmallCellBits);
  }
  std::uint64_t held_outside_bytes() const {
    return static_cast<std::uint64_t>(
        std::max<std::int64_t>(0, external_bytes.load(std::memory_order_relaxed)));
  }

  // Cells, and what they hold outside: the heap as the pacer sees it.
  std::uint64_t heap_bytes() const {
    return static_cast<std::uint64_t>(
               std::max<std::int64_t>(0, live_bytes.load(std::memory_order_relaxed))) +
           held_outside_bytes();
  }

  void count_claimed(std::size_t bytes, detail::ScanMode scan) {
    if (scan != detail::ScanMode::none) new_scan_bytes.fetch_add(bytes, std::memory_order_relaxed);
    live_bytes.fetch_add(static_cast<std::int64_t>(bytes), std::memory_order_relaxed);
    allocated_bytes.fetch_add(bytes, std::memory_order_relaxed);
  }
  void count_black(std::size_t objects, std::size_t bytes) {
    black_objects.fetch_add(objects, std::memory_order_relaxed);
    black_bytes.fetch_add(bytes, std::memory_order_relaxed);
  }
  void count_returned(std::size_t bytes) {
    live_bytes.fetch_sub(static_cast<std::int64_t>(bytes), std::memory_order_relaxed);
    allocated_bytes.fetch_sub(bytes, std::memory_order_relaxed);
  }
};

}  // namespace tricolor::impl
