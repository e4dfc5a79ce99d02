#include "gc/pacer.h"

#include <algorithm>

namespace tricolor::impl {

namespace {

std::uint64_t times_percent(std::uint64_t bytes, std::uint64_t percent) {
  // GOGC may be any int, so the product may not fit.
  std::uint64_t product = 0;
  if (__builtin_mul_overflow(bytes / 100, percent, &product) || product > kNoGoal) return kNoGoal;
  return std::min(product + bytes % 100 * percent / 100, kNoGoal);
}

std::uint64_t goal_by_percent(const PacerInput& in) {
  if (in.percent < 0) return kNoGoal;
  const auto percent = static_cast<std::uint64_t>(in.percent);
  const std::uint64_t growth =
      times_percent(in.marked_bytes + in.stack_bytes + in.globals_bytes, percent);
  const std::uint64_t goal =
      growth > kNoGoal - in.marked_bytes ? kNoGoal : in.marked_bytes + growth;
  return std::max({goal, times_percent(kSmallestGoalBytes, percent), in.min_heap_bytes});
}

std::uint64_t goal_by_limit(const PacerInput& in) {
  if (in.memory_limit_bytes >= kNoGoal) return kNoGoal;
  if (in.non_heap_bytes >= in.memory_limit_bytes) return in.marked_bytes;
  const std::uint64_t room = in.memory_limit_bytes - in.non_heap_bytes;
  const std::uint64_t headroom = std::max<std::uint64_t>(room / 100 * 3, 1u << 20);
  return std::max(room > 2 * headroom ? room - headroom : std::min(room, headroom),
                  in.marked_bytes);
}

}  // namespace

std::uint64_t heap_goal_bytes(const PacerInput& input) {
  return std::min(goal_by_percent(input), goal_by_limit(input));
}

std::uint64_t trigger_bytes(std::uint64_t marked_bytes, std::uint64_t goal_bytes) {
  if (goal_bytes == kNoGoal || goal_bytes <= marked_bytes) return goal_bytes;
  return marked_bytes + (goal_bytes - marked_bytes) / 10 * 7;
}

}  // namespace tricolor::impl
