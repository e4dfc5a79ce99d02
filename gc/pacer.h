// When the next cycle starts: pure arithmetic over numbers, no clock, no threads (after Go's runtime/mgcpacer.go).
//
// With marking stopped there is no runway: the cycle starts when the heap reaches its goal.
//
// Invariant [pacer.goal]: marked <= goal, whatever the settings.
#pragma once

#include <cstdint>

namespace tricolor::impl {

struct PacerInput {
  std::uint64_t marked_bytes = 0;  // M: what the last cycle found alive
  std::uint64_t stack_bytes = 0;   // S: stacks scanned
  std::uint64_t globals_bytes =
      0;              // G: writable segments, thread-local storage and root slots scanned
  int percent = 100;  // GOGC; -1 = off
  std::uint64_t min_heap_bytes = 0;
  std::uint64_t memory_limit_bytes = 0;  // soft
  std::uint64_t non_heap_bytes =
      0;  // Ready memory that is not in cells: metadata, free pages, fragmentation
};

inline constexpr std::uint64_t kSmallestGoalBytes = 4u << 20;  // at GOGC=100
inline constexpr std::uint64_t kNoGoal = INT64_MAX;

// The heap size at which the next cycle starts.
//   by GOGC: max(4 MiB * percent / 100, min_heap, M + (M + S + G) * percent / 100)
//   by limit: limit - non-heap, less 3 % (at least 1 MiB) of headroom, and never below M
//   the lower of the two
std::uint64_t heap_goal_bytes(const PacerInput& input);

// The heap size at which a cycle that marks beside the program starts: 70 % of the way from what is alive to the goal (Go's
// smallest runway, runtime/mgcpacer.go).
std::uint64_t trigger_bytes(std::uint64_t marked_bytes, std::uint64_t goal_bytes);

}  // namespace tricolor::impl
