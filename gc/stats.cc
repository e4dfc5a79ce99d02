#include "gc/stats.h"

#include <algorithm>
#include <numeric>
#include <string_view>

namespace tricolor::impl {
namespace {

constexpr std::uint64_t kNsPerUs = 1000;
constexpr std::uint64_t kNsPerMs = 1000 * kNsPerUs;

// Go says MB and means MiB, truncated.
Line& append_mb(Line& line, std::uint64_t bytes) noexcept { return line.count(bytes >> 20); }

}  // namespace

void append_ms(Line& line, std::uint64_t ns) noexcept {
  if (ns >= 10 * kNsPerMs) {
    line.count(ns / kNsPerMs);
    return;
  }
  const std::uint64_t us = ns / kNsPerUs;
  if (us == 0) {
    line.text("0");
  } else if (us < 100) {
    line.decimal(us, 3);  // 0.001 to 0.099
  } else if (us < 1000) {
    line.decimal(us / 10, 2);  // 0.10 to 0.99
  } else {
    line.decimal(us / 100, 1);  // 1.0 to 9.9
  }
}

std::size_t format_trace(const CycleRecord& cycle, char* out, std::size_t n) noexcept {
  Line line(out, n);
  const auto ms = [&](std::uint64_t ns, std::string_view after) {
    append_ms(line, ns);
    line.text(after);
  };
  const auto mb = [&](std::uint64_t bytes, std::string_view after) {
    append_mb(line, bytes).text(after);
  };

  line.text("gc ").count(cycle.number).text(" @").decimal(cycle.start_ns / kNsPerMs, 3).text("s ");
  line.count(cycle.gc_cpu_percent).text("%: ");
  ms(cycle.first_stop_clock_ns, "+");
  ms(cycle.mark_clock_ns, "+");
  ms(cycle.last_stop_clock_ns, " ms clock, ");
  ms(cycle.first_stop_cpu_ns, "+");
  ms(cycle.assist_cpu_ns, "/");
  ms(cycle.worker_cpu_ns, "/");
  ms(cycle.idle_cpu_ns, "+");
  ms(cycle.last_stop_cpu_ns, " ms cpu, ");
  mb(cycle.heap_start_bytes, "->");
  mb(cycle.heap_end_bytes, "->");
  mb(cycle.heap_marked_bytes, " MB, ");
  mb(cycle.goal_bytes, " MB goal, ");
  mb(cycle.stacks_bytes, " MB stacks, ");
  mb(cycle.globals_bytes, " MB globals, ");
  line.count(cycle.processors_count).text(" P");
  if (cycle.forced) line.text(" (forced)");
  return line.size();
}

namespace {

// Three decimals; whole numbers from 2^53 / 1000 on.
void append_ratio(Line& line, double value) noexcept {
  if (!(value < 9e12)) {
    line.text("inf");
  } else {
    line.decimal(static_cast<std::uint64_t>(std::max(value, 0.0) * 1000), 3);
  }
}

}  // namespace

void print_pacer_trace(const CycleRecord& cycle) noexcept {
  LineBuffer<kMaxTraceBytes> plan;
  plan.text("pacer: assist ratio=");
  append_ratio(plan, cycle.first_assist_ratio);
  append_mb(plan.text(" (scan "), cycle.scannable_bytes).text(" MB in ");
  append_mb(plan, cycle.heap_start_bytes).text("->");
  append_mb(plan, cycle.first_goal_bytes).text(" MB) workers=");
  append_ratio(plan.count(cycle.workers.dedicated).text("+"), cycle.workers.fractional_cpus);
  log_line(plan.view());

  LineBuffer<kMaxTraceBytes> end;
  const auto percent = [](double share) { return static_cast<std::uint64_t>(100 * share); };
  end.text("pacer: ").count(percent(cycle.outcome.collector_share)).text("% CPU (");
  end.count(percent(kCollectorShare)).text(" exp.) for ").count(cycle.heap_work_bytes).text("+");
  end.count(cycle.stacks_bytes).text("+").count(cycle.globals_bytes).text(" B work (");
  end.count(cycle.outcome.expected_work_bytes).text(" B exp.) in ").count(cycle.heap_start_bytes);
  end.text(" B -> ").count(cycle.heap_end_bytes).text(" B (goal ");
  if (cycle.heap_end_bytes >= cycle.goal_bytes) end.text("+");
  end.number(static_cast<std::int64_t>(cycle.heap_end_bytes - cycle.goal_bytes));
  append_ratio(end.text(", cons/mark "), cycle.cons_mark_before);
  log_line(end.text(")").view());
}

void print_sweep_trace(const SweepRecord& sweep) noexcept {
  LineBuffer<kMaxTraceBytes> line;
  append_mb(line.text("pacer: sweep done at heap size "), sweep.heap_bytes).text("MB; allocated ");
  append_mb(line, sweep.allocated_bytes).text("MB during sweep; swept ").count(sweep.pages);
  line.text(" pages at ").scientific(sweep.pages_a_byte).text(" pages/byte");
  log_line(line.view());
}

void print_scan_trace(const ScanCounts& scanned) noexcept {
  LineBuffer<kMaxTraceBytes> all;
  all.text("scan: total ");
  log_line(all.count(std::accumulate(scanned.begin(), scanned.end(), std::uint64_t{0}))
               .text(" objs")
               .view());
  for (std::size_t c = 0; c < scanned.size(); ++c) {
    if (scanned[c] == 0) continue;
    LineBuffer<kMaxTraceBytes> line;
    line.text("scan: class ");
    if (c == detail::kLargeClass) {
      line.text("L");
    } else {
      line.count(detail::kSizeClasses[c].cell_bytes).text("B");
    }
    log_line(line.text(" ").count(scanned[c]).text(" objs").view());
  }
}

void print_trace(const CycleRecord& cycle) noexcept {
  char bytes[kMaxTraceBytes];
  log_line({bytes, format_trace(cycle, bytes, sizeof bytes)});
}

}  // namespace tricolor::impl
