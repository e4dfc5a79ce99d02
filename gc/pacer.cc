#include "gc/pacer.h"

#include <algorithm>
#include <cmath>

#include "alloc/base/check.h"
#include "alloc/base/stop_code.h"

namespace tricolor::impl {

namespace {

// The trigger is at least 45/64 and at most 61/64 of the way from what is marked to the goal. Earlier, and a program that
// allocates fast marks nearly always: all that it allocates meanwhile is black, and the process grows. Later, and nothing is
// left for what was not foreseen. (Go's minTriggerRatioNum, maxTriggerRatioNum.)
constexpr std::uint64_t kWayParts = 64;
constexpr std::uint64_t kEarliestTrigger = 45;
constexpr std::uint64_t kLatestTrigger = 61;
static_assert(kEarliestTrigger < kLatestTrigger && kLatestTrigger < kWayParts,
              "the bounds are in order, and short of the goal");

constexpr std::uint64_t kLeastRunwayBytes = 64 << 10;  // Go's minRunway
constexpr std::uint64_t kLeastSweepBytes = 1 << 20;    // Go's sweepMinHeapDistance
constexpr std::uint64_t kLeastWorkLeft = 1000;         // bytes; a goal missed by that is not missed
constexpr std::uint64_t kHeadroomPercent = 3;          // Go's memoryLimitHeapGoalHeadroomPercent
constexpr std::uint64_t kLeastHeadroomBytes = 1 << 20;
constexpr std::uint64_t kOvershootParts = 10;  // past the goal, a tenth of it is left
// Past the goal of a memory limit it is as much as is kept free below the limit. (Go: a tenth here, too.)
constexpr std::uint64_t kOvershootPartsAtLimit = 32;
constexpr std::uint64_t kPercentIfOff = 100'000;  // for a forced cycle

// Dedicated workers alone do when they are within this of the quarter. (Go's maxUtilError.)
constexpr double kMostRoundingError = 0.3;
constexpr double kFractionalSlack = 1.2;
// A cycle in which the mutators got nothing would have an infinite cons/mark.
constexpr double kLeastMutatorShare = 0.01;

constexpr double kTwoTo63 = 9223372036854775808.0;

std::uint64_t clamped(std::uint64_t bytes) { return std::min(bytes, kNoGoal); }

std::uint64_t plus(std::uint64_t a, std::uint64_t b) {
  return clamped(clamped(a) + clamped(b));  // two of at most 63 bits do not overflow
}

std::uint64_t minus(std::uint64_t a, std::uint64_t b) { return a > b ? a - b : 0; }

std::uint64_t times_percent(std::uint64_t bytes, std::uint64_t percent) {
  // GOGC may be any int, so the product may not fit.
  std::uint64_t product = 0;
  if (__builtin_mul_overflow(bytes / 100, percent, &product) || product > kNoGoal) return kNoGoal;
  return std::min(product + bytes % 100 * percent / 100, kNoGoal);
}

// Not a number, and less than nothing, are nothing.
std::uint64_t to_bytes(double bytes) {
  if (!(bytes > 0)) return 0;
  return bytes >= kTwoTo63 ? kNoGoal : static_cast<std::uint64_t>(bytes);
}

std::int64_t pay(double ratio, std::int64_t amount) {
  if (amount <= 0) return 0;
  const double paid = ratio * static_cast<double>(amount);
  if (!(paid > 1)) return 1;
  return paid >= kTwoTo63 ? INT64_MAX : static_cast<std::int64_t>(paid);
}

std::uint64_t goal_by_percent(const PacerInput& in) {
  if (in.percent < 0) return kNoGoal;
  const auto percent = static_cast<std::uint64_t>(in.percent);
  const std::uint64_t marked = clamped(in.marked_bytes);
  const std::uint64_t growth =
      times_percent(plus(plus(marked, in.stack_bytes), in.globals_bytes), percent);
  return std::max({plus(marked, growth), times_percent(kSmallestGoalBytes, percent),
                   clamped(in.min_heap_bytes)});
}

std::uint64_t goal_by_limit(const PacerInput& in) {
  if (in.memory_limit_bytes >= kNoGoal) return kNoGoal;
  const std::uint64_t marked = clamped(in.marked_bytes);
  // Free pages may become cells without another byte from the system, so they are not taken off, except for what has to go
  // back to the system because it is over the limit.
  const std::uint64_t taken =
      plus(in.non_heap_bytes, minus(clamped(in.ready_bytes), in.memory_limit_bytes));
  if (taken >= in.memory_limit_bytes) return marked;
  const std::uint64_t room = in.memory_limit_bytes - taken;
  const std::uint64_t headroom = std::max(room / 100 * kHeadroomPercent, kLeastHeadroomBytes);
  return std::max(room > 2 * headroom ? room - headroom : std::min(room, headroom), marked);
}

}  // namespace

std::uint64_t heap_goal_bytes(const PacerInput& input) {
  return std::min(goal_by_percent(input), goal_by_limit(input));
}

// ---- workers

MarkWorkers mark_workers(std::uint32_t cpus, CycleKind kind) {
  cpus = std::max<std::uint32_t>(cpus, 1);
  MarkWorkers workers;
  if (kind == CycleKind::kForced || kind == CycleKind::kStopped) {
    workers.dedicated = cpus;
    return workers;
  }
  const double wanted = cpus * kCollectorShare;
  workers.dedicated = static_cast<std::uint32_t>(std::lround(wanted));
  const double error = workers.dedicated / wanted - 1;
  if (error < -kMostRoundingError || error > kMostRoundingError) {
    if (workers.dedicated > wanted) --workers.dedicated;
    workers.fractional_cpus = wanted - workers.dedicated;
    workers.fractional_share = workers.fractional_cpus / cpus;
  }
  if (kind == CycleKind::kPeriodic) {
    // Fractional workers alone may not be scheduled for long where nothing else runs.
    workers.idle_at_most = workers.dedicated > 0 ? 0 : 1;
  } else {
    workers.idle_at_most = cpus - workers.dedicated;
  }
  return workers;
}

MarkWorkers mark_workers_of_quota(double cpus, CycleKind kind) {
  const auto whole = static_cast<std::uint32_t>(std::ceil(cpus));
  MarkWorkers workers = mark_workers(whole, kind);
  if (kind == CycleKind::kForced || kind == CycleKind::kStopped) return workers;
  const double wanted = cpus * kCollectorShare;
  workers.dedicated = static_cast<std::uint32_t>(wanted);
  workers.fractional_cpus = wanted - workers.dedicated;
  workers.fractional_share = workers.fractional_cpus / std::max<std::uint32_t>(whole, 1);
  return workers;
}

bool fractional_may_start(double share, std::uint64_t marked_ns, std::uint64_t elapsed_ns) {
  return share > 0 && static_cast<double>(marked_ns) <= share * static_cast<double>(elapsed_ns);
}

bool fractional_must_leave(double share, std::uint64_t marked_ns, std::uint64_t elapsed_ns) {
  // At the very start there is nothing to compare with: go on.
  return elapsed_ns != 0 && static_cast<double>(marked_ns) >
                                kFractionalSlack * share * static_cast<double>(elapsed_ns);
}

std::int64_t work_for(AssistRatio ratio, std::int64_t bytes) {
  return pay(ratio.work_per_byte, bytes);
}

std::int64_t bytes_for(AssistRatio ratio, std::int64_t work) {
  return pay(ratio.bytes_per_work, work);
}

// ---- between cycles

TRICOLOR_STOP_CODE void Pacer::commit(const PacerSettings& settings, const PacerMemory& memory) {
  x_settings = settings;
  x_memory = memory;
  x_external_bytes = std::min(x_external_bytes, clamped(memory.external_bytes));
  // The distance is from where the sweep began: measured from live bytes at each call it would run ahead of them.
  if (memory.sweep == SweepState::kDone) {
    x_sweep_end_bytes = 0;
  } else if (x_sweep_end_bytes == 0) {
    x_sweep_end_bytes =
        plus(minus(clamped(memory.live_bytes), clamped(memory.external_bytes)), kLeastSweepBytes);
  }
}

// With the least that has been held outside since: it goes when the cycle's dead are found, and must not keep the goal where it was.
std::uint64_t Pacer::sweep_end_bytes() const {
  return x_sweep_end_bytes == 0 ? 0 : plus(x_sweep_end_bytes, x_external_bytes);
}

TRICOLOR_STOP_CODE double Pacer::cons_mark() const {
  return *std::max_element(x_cons_marks.begin(), x_cons_marks.end());
}

TRICOLOR_STOP_CODE std::uint64_t Pacer::expected_work_bytes() const {
  return plus(plus(x_heap_work_bytes, x_stack_work_bytes), x_globals_bytes);
}

std::uint64_t Pacer::marked_bytes() const { return plus(x_marked_bytes, x_external_bytes); }

std::uint64_t Pacer::runway_bytes() const {
  constexpr double kMutatorsPerCollector = (1 - kCollectorShare) / kCollectorShare;
  return to_bytes(cons_mark() * kMutatorsPerCollector * static_cast<double>(expected_work_bytes()));
}

PacerInput Pacer::input() const {
  PacerInput in;
  in.marked_bytes = marked_bytes();
  in.stack_bytes = x_stack_work_bytes;
  in.globals_bytes = x_globals_bytes;
  in.percent = x_settings.percent;
  // A cycle that starts at min_heap at the earliest needs its runway above it; not more of it than makes min_heap the
  // earliest trigger.
  in.min_heap_bytes = clamped(x_settings.min_heap_bytes);
  in.min_heap_bytes =
      plus(in.min_heap_bytes,
           std::min(runway_bytes(), minus(in.min_heap_bytes, in.marked_bytes) / kEarliestTrigger *
                                        (kWayParts - kEarliestTrigger)));
  in.memory_limit_bytes = x_settings.memory_limit_bytes;
  in.non_heap_bytes = x_memory.non_heap_bytes;
  in.ready_bytes = plus(x_memory.ready_bytes, x_memory.external_bytes);
  return in;
}

Pacer::Goal Pacer::goal() const {
  const PacerInput in = input();
  const std::uint64_t by_percent = goal_by_percent(in);
  const std::uint64_t by_limit = goal_by_limit(in);
  Goal goal = {std::min(by_percent, by_limit), 0};
  // Near the limit nothing moves the goal out, or allows the trigger to be later.
  if (by_limit < by_percent) return goal;
  goal.bytes = std::max(goal.bytes, sweep_end_bytes());
  if (x_running) goal.bytes = std::max(goal.bytes, plus(x_triggered_bytes, kLeastRunwayBytes));
  goal.bytes = std::min(goal.bytes, by_limit);
  goal.least_trigger_bytes =
      std::min(goal.bytes, std::max(sweep_end_bytes(), clamped(x_settings.min_heap_bytes)));
  dcheck(in.marked_bytes <= goal.bytes, "pacer.goal", {in.marked_bytes, goal.bytes});
  return goal;
}

std::uint64_t Pacer::trigger_bytes() const {
  const auto [goal_bytes, least_trigger] = goal();
  const std::uint64_t marked = marked_bytes();
  if (goal_bytes == kNoGoal || marked >= goal_bytes) return goal_bytes;
  const std::uint64_t part = (goal_bytes - marked) / kWayParts;
  const std::uint64_t earliest = std::max(marked + part * kEarliestTrigger, least_trigger);
  // In a large heap what is left for the unforeseen is what a small heap lives on.
  const std::uint64_t latest =
      std::max({earliest, marked + part * kLatestTrigger, minus(goal_bytes, kSmallestGoalBytes)});
  const std::uint64_t trigger = std::clamp(minus(goal_bytes, runway_bytes()), earliest, latest);
  dcheck(marked <= trigger, "pacer.trigger", {marked, trigger});
  dcheck(trigger <= goal_bytes, "pacer.trigger", {trigger, goal_bytes});
  return trigger;
}

// ---- a cycle

TRICOLOR_STOP_CODE MarkWorkers Pacer::start_cycle(const CycleStart& start) {
  x_running = true;
  x_start_ns = start.now_ns;
  x_triggered_bytes = clamped(start.live_bytes);
  x_globals_bytes = clamped(start.globals_bytes);
  x_worst_work_bytes = plus(plus(start.heap_scan_bytes, start.stack_bytes), start.globals_bytes);
  x_cpus = std::max<std::uint32_t>(start.cpus, 1);
  return mark_workers(x_cpus, start.kind);
}

TRICOLOR_STOP_CODE AssistRatio Pacer::assist_ratio(std::uint64_t live_bytes,
                                                   std::uint64_t work_bytes) const {
  live_bytes = clamped(live_bytes);
  std::uint64_t goal_bytes = this->goal_bytes();
  std::uint64_t expected = expected_work_bytes();
  if (work_bytes > expected) {
    goal_bytes = worst_goal_bytes(goal_bytes, expected, x_worst_work_bytes);
    expected = x_worst_work_bytes;
  }
  if (live_bytes > goal_bytes) {
    const PacerInput in = input();
    const bool at_limit = goal_by_limit(in) < goal_by_percent(in);
    goal_bytes =
        plus(goal_bytes, goal_bytes / (at_limit ? kOvershootPartsAtLimit : kOvershootParts));
    expected = x_worst_work_bytes;
  }
  // Marking may find more than the worst case: cells allocated meanwhile, ranges read twice. And the goal may be behind.
  const auto work_left = static_cast<double>(std::max(minus(expected, work_bytes), kLeastWorkLeft));
  const AssistRatio ratio = AssistRatio::of(work_left, goal_bytes, live_bytes);
  dcheck(ratio.work_per_byte > 0, "pacer.ratio");
  dcheck(ratio.bytes_per_work > 0, "pacer.ratio");
  return ratio;
}

// The goal of a cycle that has found more work than expected: as far from the trigger as the worst case is more work.
std::uint64_t Pacer::worst_goal_bytes(std::uint64_t goal_bytes, std::uint64_t expected_work,
                                      std::uint64_t worst_work) const {
  const std::uint64_t runway = minus(goal_bytes, x_triggered_bytes);
  const double longer = static_cast<double>(worst_work) /
                        static_cast<double>(std::max<std::uint64_t>(expected_work, 1));
  const std::uint64_t percent =
      x_settings.percent < 0 ? kPercentIfOff : static_cast<std::uint64_t>(x_settings.percent);
  const std::uint64_t most =
      std::min(plus(goal_bytes, times_percent(goal_bytes, percent)), goal_by_limit(input()));
  return std::max(goal_bytes, std::min(most, plus(x_triggered_bytes,
                                                  to_bytes(static_cast<double>(runway) * longer))));
}

TRICOLOR_STOP_CODE CycleOutcome Pacer::end_cycle(const CycleEnd& end) {
  CycleOutcome outcome;
  outcome.goal_bytes = goal_bytes();
  outcome.expected_work_bytes = expected_work_bytes();
  outcome.work_bytes =
      plus(plus(end.heap_work_bytes, end.stack_work_bytes), end.globals_work_bytes);

  const double cpu_ns = static_cast<double>(minus(end.now_ns, x_start_ns)) * x_cpus;
  const auto share = [cpu_ns](std::uint64_t ns) {
    return cpu_ns > 0 ? static_cast<double>(ns) / cpu_ns : 0.0;
  };
  outcome.collector_share = share(end.background_ns) + share(end.assist_ns);
  outcome.idle_share = share(end.idle_ns);

  // A cycle in which nothing was allocated, or scanned, says nothing about the next one.
  const std::uint64_t allocated = minus(clamped(end.live_bytes), x_triggered_bytes);
  if (x_running && allocated != 0 && outcome.work_bytes != 0) {
    // Workers that got less than their quarter (other processes, rounding) will get less again, so this cycle's runway is
    // right for the next one: the quarter counts, as in Go. Workers that got more, because the cycle was forced, will not
    // get that again. Idle workers take nothing from the mutators; how fast they mark counts.
    const double marking =
        std::min(std::max(kCollectorShare, share(end.background_ns)) + share(end.assist_ns),
                 1 - kLeastMutatorShare);
    std::copy(x_cons_marks.begin() + 1, x_cons_marks.end(), x_cons_marks.begin());
    x_cons_marks.back() = static_cast<double>(allocated) * (marking + outcome.idle_share) /
                          (static_cast<double>(outcome.work_bytes) * (1 - marking));
  }
  outcome.cons_mark = cons_mark();

  x_running = false;
  x_marked_bytes = clamped(end.marked_bytes);
  x_external_bytes = clamped(end.external_bytes);
  x_heap_work_bytes = clamped(end.heap_work_bytes);
  x_stack_work_bytes = clamped(end.stack_work_bytes);
  x_globals_bytes = clamped(end.globals_work_bytes);
  x_sweep_end_bytes = 0;  // the next commit() sets it
  return outcome;
}

}  // namespace tricolor::impl
