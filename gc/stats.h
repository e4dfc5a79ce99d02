// What one cycle cost, and the gctrace line that says so; a clock for what it costs.
//
// The collector fills a CycleRecord while it runs and hands it over when the cycle ends; this is
// the only file that knows what the line looks like. Formatting allocates nothing, so the record
// may be printed with the world stopped.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include <tricolor/detail/size_class.h>
#include <tricolor/stats.h>

#include "alloc/base/log.h"
#include "alloc/base/os.h"
#include "gc/pacer.h"

namespace tricolor::impl {

// One finished cycle. _ns is nanoseconds; a clock is wall time, a cpu is processor time summed over
// threads.
struct CycleRecord {
  std::uint64_t number = 0;          // 1 is the first cycle
  std::uint64_t start_ns = 0;        // from init to the request of the first stop
  std::uint32_t gc_cpu_percent = 0;  // of the processor time available since init, truncated

  std::uint64_t first_stop_clock_ns = 0;  // from the request to stop until the world runs again
  std::uint64_t mark_clock_ns = 0;        // concurrent mark, between the stops
  std::uint64_t last_stop_clock_ns = 0;   // mark termination

  std::uint64_t first_stop_cpu_ns = 0;  // the clock times the processors kept from running
  std::uint64_t assist_cpu_ns = 0;      // marking done by allocating threads
  std::uint64_t worker_cpu_ns = 0;      // by the mark workers
  std::uint64_t idle_cpu_ns = 0;        // by workers on processors nobody else wanted
  std::uint64_t last_stop_cpu_ns = 0;

  std::uint64_t heap_start_bytes = 0;   // statistics::heap_live_bytes when the cycle started
  std::uint64_t heap_end_bytes = 0;     // the same when the mark ended
  std::uint64_t heap_marked_bytes = 0;  // found alive
  std::uint64_t goal_bytes = 0;         // the goal of this cycle, not of the next
  std::uint64_t stacks_bytes = 0;       // scanned
  std::uint64_t globals_bytes = 0;      // scanned

  // What gcpacertrace says besides.
  MarkWorkers workers;
  double first_assist_ratio = 0;       // work for each byte when marking began
  std::uint64_t first_goal_bytes = 0;  // the goal then
  std::uint64_t scannable_bytes = 0;   // of the heap
  CycleOutcome outcome;
  std::uint64_t heap_work_bytes = 0;
  double cons_mark_before = 0;

  std::uint32_t processors_count = 0;
  bool forced = false;  // somebody asked for it
};

// gctrace=2: objects scanned for references in a cycle, by size class; the large ones first. What is postponed because no memory
// is left for queues may count twice.
using ScanCounts = std::array<std::uint64_t, detail::kClassCount>;

// The sweep of a cycle, for gcpacertrace. Bytes are of the live heap, as the pacer counts it.
struct SweepRecord {
  std::uint64_t heap_bytes = 0;       // when it is done
  std::uint64_t allocated_bytes = 0;  // since the pace was set last
  std::uint64_t pages = 0;            // swept
  double pages_a_byte = 0;            // the pace
};

// A histogram that one thread at a time counts into while others read.
class Histogram {
 public:
  void count(std::uint64_t ns) {
    x_counts[histogram::bucket_of(ns)].fetch_add(1, std::memory_order_relaxed);
  }
  void read(histogram& out) const {
    for (std::size_t i = 0; i < x_counts.size(); ++i)
      out.counts[i] = x_counts[i].load(std::memory_order_relaxed);
  }

 private:
  std::array<std::atomic<std::uint64_t>, histogram::buckets> x_counts = {};  // relaxed: numbers
};

// Holds every trace line: 18 numbers of at most 21 characters and fewer than 100 bytes of words.
inline constexpr std::size_t kMaxTraceBytes = 512;
static_assert(18 * 21 + 100 <= kMaxTraceBytes && kMaxTraceBytes < kMaxLineBytes,
              "a trace line is never cut");

// Nanoseconds as milliseconds in Go's way: two significant digits and at most three decimals
// below 10 ms, whole ones from there on, always truncated; "0" below a microsecond.
void append_ms(Line& line, std::uint64_t ns) noexcept;

// Writes the line without its newline into out[0, n) and returns its length. It is never cut when
// n >= kMaxTraceBytes.
std::size_t format_trace(const CycleRecord& cycle, char* out, std::size_t n) noexcept;

// The same on stderr.
void print_trace(const CycleRecord& cycle) noexcept;

// gctrace=2: the objects scanned in that cycle, on stderr: all, then a line for each size class that has some. (Go's
// dumpScanStats, as it is where each object is scanned by itself; "L" are large ones.)
void print_scan_trace(const ScanCounts& scanned) noexcept;

// gcpacertrace: the plan of a cycle and its outcome, a line each, on stderr.
void print_pacer_trace(const CycleRecord& cycle) noexcept;

// gcpacertrace: a sweep that is done, on stderr.
void print_sweep_trace(const SweepRecord& sweep) noexcept;

// Adds the CPU time of the calling thread while it lives.
class CountCpu {
 public:
  explicit CountCpu(std::atomic<std::uint64_t>& to) : x_to(to), x_begin_ns(os::thread_cpu_ns()) {}
  CountCpu(const CountCpu&) = delete;
  CountCpu& operator=(const CountCpu&) = delete;
  ~CountCpu() { x_to.fetch_add(os::thread_cpu_ns() - x_begin_ns, std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t>& x_to;
  const std::uint64_t x_begin_ns;
};

}  // namespace tricolor::impl
