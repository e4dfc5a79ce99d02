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

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include <tricolor/options.h>

namespace tricolor {

// How often something took how long: four buckets to each power of two of nanoseconds, so a time is known to a quarter.
struct histogram {
  static constexpr std::size_t buckets = 160;
  std::array<std::uint64_t, buckets> counts = {};

  // Bucket i holds times from begin_ns(i) up to, not including, begin_ns(i + 1); the last one all that are longer.
  static constexpr std::uint64_t begin_ns(std::size_t bucket) {
    return bucket < 8 ? bucket : (4 + bucket % 4) << (bucket / 4 - 1);
  }
  static constexpr std::size_t bucket_of(std::uint64_t ns) {
    if (ns < 8) return static_cast<std::size_t>(ns);
    const auto power = static_cast<std::size_t>(std::bit_width(ns)) - 1;
    const std::size_t bucket = 4 * (power - 1) + static_cast<std::size_t>(ns >> (power - 2) & 3);
    return bucket < buckets ? bucket : buckets - 1;
  }

  constexpr std::uint64_t total_count() const {
    std::uint64_t total = 0;
    for (const std::uint64_t count : counts) total += count;
    return total;
  }
  // A bound that the given share of all times (0 to 1) did not exceed: the end of the bucket it falls into (the last one has
  // none). 0 when nothing has been counted.
  constexpr std::uint64_t quantile_ns(double share) const {
    const double wanted = share * static_cast<double>(total_count());
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < buckets; ++i) {
      seen += counts[i];
      if (counts[i] != 0 && static_cast<double>(seen) >= wanted) return begin_ns(i + 1) - 1;
    }
    return 0;
  }
};

struct statistics {
  // Cycles: the completed ones, and those of them that somebody asked for (collect(),
  // release_memory(), the stress knob). A cycle is counted when it has marked, before the world runs again; its other numbers
  // follow in a moment, or at the return of gc::collect().
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
  //
  //   mapped_bytes = heap_mapped_bytes + metadata_bytes
  //   heap_mapped_bytes = heap_live_bytes + heap_unused_bytes + heap_free_bytes
  //   metadata_bytes = page_record_bytes + structure_bytes
  std::uint64_t mapped_bytes = 0;       // what the process is larger by because of us
  std::uint64_t heap_mapped_bytes = 0;  // heap pages that have been touched, in a span or free
  std::uint64_t heap_unused_bytes = 0;  // in spans, but in no cell that is allocated
  std::uint64_t heap_free_bytes = 0;    // in no span
  std::uint64_t metadata_bytes = 0;     // for ourselves
  std::uint64_t page_record_bytes =
      0;  // what is known of each page: layout, mark and allocation bits
  std::uint64_t structure_bytes = 0;       // threads, queues, lists of spans, handles
  std::uint64_t released_bytes_total = 0;  // ever given back to the system
  std::uint64_t reserved_bytes = 0;        // address space reserved, whatever is in it
  std::uint64_t spans_count = 0;           // runs of pages with equal cells, or one large object
  std::uint64_t external_bytes = 0;        // held through managed objects (gc::external_memory)
  // What the process's control groups allow it, read at the start; no_limit: nothing is said, or nothing could be read. It limits
  // nothing by itself: set GOMEMLIMIT below it.
  std::uint64_t cgroup_limit_bytes = no_limit;
  std::uint64_t types_count = 0;  // types allocated at least once

  // Roots: threads attached now; bytes the last cycle read in stacks, and in globals,
  // thread-locals and registered ranges.
  std::uint64_t threads_count = 0;
  std::uint64_t stacks_scanned_bytes = 0;
  std::uint64_t globals_scanned_bytes = 0;

  // Wall time. A pause runs from the request to stop until the threads may run again; its stop is
  // the part until the last of them stood still. A cycle has two, before and after it marks (with gcstoptheworld, one), and one
  // more for each stop that was in vain and is done again: before marking when a library has just been opened, after it when
  // something grey is found. `last` is the longest one of the last cycle.
  std::uint64_t pause_ns_last = 0;
  std::uint64_t pause_ns_max = 0;
  std::uint64_t pause_ns_total = 0;
  std::uint64_t stop_ns_last = 0;
  std::uint64_t stop_ns_max = 0;
  histogram pauses;        // all of them: the two below together
  histogram first_pauses;  // before marking (with gcstoptheworld: around it)
  histogram last_pauses;   // after it
  histogram stops;
  // Marked by all cycles, of it while the world was stopped. What is allocated while a cycle marks counts in neither.
  std::uint64_t marked_bytes_total = 0;
  std::uint64_t stopped_marked_bytes_total = 0;
  std::uint64_t mark_ns_last = 0;  // of marking, with the world stopped or not
  std::uint64_t mark_ns_total = 0;

  // Processor time of giving memory back to the system: in the background; by threads that allocated at the memory limit.
  std::uint64_t scavenge_background_cpu_ns_total = 0;
  std::uint64_t scavenge_assist_cpu_ns_total = 0;

  // Processor time of the collector, by the clocks of the threads that spent it; for pauses, the time of every processor that
  // they kept from the program. gc_cpu_ns_total is the sum of the six.
  std::uint64_t gc_cpu_ns_total = 0;
  std::uint64_t dedicated_cpu_ns_total = 0;   // workers that mark all the time
  std::uint64_t fractional_cpu_ns_total = 0;  // the worker that marks for its share of a processor
  std::uint64_t idle_cpu_ns_total =
      0;  // marking on processors that no thread of the program could use
  std::uint64_t assist_cpu_ns_total = 0;  // threads of the program that pay for what they allocate
  std::uint64_t pause_cpu_ns_total = 0;
  std::uint64_t sweep_cpu_ns_total =
      0;  // on the collector's thread: sweeping, and what goes back to the system

  // How long a thread of the program was kept at a time by what it allocated while a cycle marked: marking itself, or waiting
  // until others had. Wall time.
  histogram assists;

  // The last cycle in which the collector was kept from taking more than half of the processors; 0: none.
  std::uint64_t limited_cycle_last = 0;
};

// A snapshot; cheap (about 3 KB of counters are copied), stops nobody.
[[nodiscard]] statistics stats();

}  // namespace tricolor
