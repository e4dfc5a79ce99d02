// The numbers the library publishes.
//
//   const gc::statistics now = gc::stats();
//   std::cout << now.heap_live_bytes << " bytes live, " << now.pause_ns_max << " ns at worst";
//
// Each number is right by itself; two of them may be some allocations apart, because the world is
// not stopped to read them. A name says its unit: _bytes, _ns (nanoseconds), _count, _total (a sum
// since init that never falls, but for allocated_bytes_total, which threads correct when they give
// back cells that they had taken and not used). Numbers of "the last cycle" are 0 before the first one.
#pragma once

#include <cstdint>

namespace tricolor {

struct statistics {
  // Cycles: the completed ones, and those of them that somebody asked for (collect(),
  // release_memory(), the stress knob).
  std::uint64_t cycles_total = 0;
  std::uint64_t cycles_forced = 0;

  // Heap: what the program has, counted in whole cells, not in the bytes it asked for.
  std::uint64_t heap_live_bytes = 0;        // allocated, the dead that are not swept yet included
  std::uint64_t heap_marked_bytes = 0;      // found alive by the last cycle
  std::uint64_t heap_goal_bytes = 0;        // heap size the next mark should end below, or no_limit
  std::uint64_t allocated_bytes_total = 0;  // ever handed out
  std::uint64_t freed_bytes_total = 0;      // ever taken back; the difference is heap_live_bytes
  std::uint64_t marked_objects_count = 0;   // cells found alive by the last cycle
  std::uint64_t conservative_cells_count = 0;  // those of them scanned word by word: no layout

  // Memory: what the system gave. Reserved address space costs nothing; mapped memory does.
  std::uint64_t heap_mapped_bytes = 0;  // heap pages that may be touched, in a span or free
  std::uint64_t heap_free_bytes = 0;    // the part of heap_mapped_bytes that is in no span
  std::uint64_t metadata_bytes = 0;     // mapped for ourselves: page records, bits, queues
  std::uint64_t reserved_bytes = 0;     // address space reserved, whatever is in it
  std::uint64_t spans_count = 0;        // runs of pages with equal cells, or one large object
  std::uint64_t types_count = 0;        // types allocated at least once

  // Roots: threads attached now; bytes the last cycle read in stacks, and in globals,
  // thread-locals and registered ranges.
  std::uint64_t threads_count = 0;
  std::uint64_t stacks_scanned_bytes = 0;
  std::uint64_t globals_scanned_bytes = 0;

  // Wall time. A pause runs from the request to stop until the threads may run again; its stop is
  // the part until the last of them stood still. A cycle with several pauses counts each.
  std::uint64_t pause_ns_last = 0;
  std::uint64_t pause_ns_max = 0;
  std::uint64_t pause_ns_total = 0;
  std::uint64_t stop_ns_last = 0;
  std::uint64_t stop_ns_max = 0;
  std::uint64_t mark_ns_last = 0;  // of marking, with the world stopped or not
  std::uint64_t mark_ns_total = 0;

  // Processor time of everything the collector did, processors kept idle by a pause included.
  std::uint64_t gc_cpu_ns_total = 0;
};

// A snapshot; cheap, stops nobody.
[[nodiscard]] statistics stats();

}  // namespace tricolor
