#include "gc/pacer.h"

#include <catch2/catch.hpp>
#include <climits>
#include <cstdint>
#include <random>

#include "test/support/own_heap.h"

using namespace tricolor::impl;

namespace {

constexpr std::uint64_t kMiB = 1u << 20;
constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

PacerInput marked(std::uint64_t bytes, int percent = 100) {
  return {.marked_bytes = bytes, .percent = percent, .memory_limit_bytes = kNoGoal};
}

std::uint64_t goal_under_limit(std::uint64_t marked_bytes, std::uint64_t limit,
                               std::uint64_t non_heap = 0) {
  PacerInput in = marked(marked_bytes, -1);
  in.memory_limit_bytes = limit;
  in.non_heap_bytes = non_heap;
  return heap_goal_bytes(in);
}

}  // namespace

TEST_CASE("the heap may grow by its percentage of what is alive, stacks and globals included") {
  CHECK(heap_goal_bytes(marked(100 * kMiB)) == 200 * kMiB);
  CHECK(heap_goal_bytes(marked(100 * kMiB, 50)) == 150 * kMiB);
  CHECK(heap_goal_bytes(marked(100 * kMiB, 400)) == 500 * kMiB);
  PacerInput in = marked(100 * kMiB);
  in.stack_bytes = 10 * kMiB;
  in.globals_bytes = 5 * kMiB;
  CHECK(heap_goal_bytes(in) == 215 * kMiB);
  in.percent = 200;
  CHECK(heap_goal_bytes(in) == 330 * kMiB);
  // No byte is lost to the division.
  CHECK(heap_goal_bytes(marked(10 * kMiB + 99, 1)) == 10 * kMiB + 99 + (10 * kMiB + 99) / 100);
  CHECK(heap_goal_bytes(marked(10 * kMiB + 7, 150)) == 10 * kMiB + 7 + (10 * kMiB + 7) * 3 / 2);
}

TEST_CASE("a small heap grows to 4 MiB, scaled by the percentage, before it is collected") {
  CHECK(heap_goal_bytes(marked(0)) == 4 * kMiB);
  CHECK(heap_goal_bytes(marked(kMiB)) == 4 * kMiB);
  CHECK(heap_goal_bytes(marked(2 * kMiB)) == 4 * kMiB);
  CHECK(heap_goal_bytes(marked(2 * kMiB + 1)) == 4 * kMiB + 2);
  CHECK(heap_goal_bytes(marked(0, 50)) == 2 * kMiB);
  CHECK(heap_goal_bytes(marked(0, 1000)) == 40 * kMiB);
  CHECK(heap_goal_bytes(marked(0, 1)) == 4 * kMiB / 100);
}

TEST_CASE("min_heap raises the goal and never lowers it") {
  PacerInput in = marked(10 * kMiB);
  in.min_heap_bytes = 64 * kMiB;
  CHECK(heap_goal_bytes(in) == 64 * kMiB);
  in.marked_bytes = 40 * kMiB;
  CHECK(heap_goal_bytes(in) == 80 * kMiB);
  in.percent = 0;
  CHECK(heap_goal_bytes(in) == 64 * kMiB);
}

TEST_CASE("at 0 percent the heap does not grow, when off it grows without goal") {
  CHECK(heap_goal_bytes(marked(0, 0)) == 0);
  CHECK(heap_goal_bytes(marked(7 * kMiB, 0)) == 7 * kMiB);
  CHECK(heap_goal_bytes(marked(7 * kMiB, -1)) == kNoGoal);
  CHECK(heap_goal_bytes(marked(0, -1)) == kNoGoal);
  PacerInput in = marked(kMiB, -1);
  in.min_heap_bytes = 64 * kMiB;
  CHECK(heap_goal_bytes(in) == kNoGoal);
}

TEST_CASE("the limit is for everything, and 3 percent of it but at least 1 MiB stay free") {
  CHECK(goal_under_limit(10 * kMiB, 1000 * kMiB) == 1000 * kMiB - 1000 * kMiB / 100 * 3);
  CHECK(goal_under_limit(10 * kMiB, 1000 * kMiB, 400 * kMiB) == 600 * kMiB - 600 * kMiB / 100 * 3);
  CHECK(goal_under_limit(10 * kMiB, 30 * kMiB) == 29 * kMiB);
  CHECK(goal_under_limit(kMiB, 3 * kMiB) == 2 * kMiB);
  // Where that would take more than half, it does not.
  CHECK(goal_under_limit(0, 2 * kMiB) == kMiB);
  CHECK(goal_under_limit(0, kMiB) == kMiB);
  CHECK(goal_under_limit(0, kMiB / 2) == kMiB / 2);
}

TEST_CASE("a limit below what is alive asks for a collection at once, and for no more than that") {
  CHECK(goal_under_limit(100 * kMiB, 100 * kMiB) == 100 * kMiB);
  CHECK(goal_under_limit(100 * kMiB, 50 * kMiB) == 100 * kMiB);
  CHECK(goal_under_limit(100 * kMiB, 200 * kMiB, 150 * kMiB) == 100 * kMiB);
  CHECK(goal_under_limit(100 * kMiB, 200 * kMiB, 200 * kMiB) == 100 * kMiB);
  CHECK(goal_under_limit(100 * kMiB, 200 * kMiB, 300 * kMiB) == 100 * kMiB);
  CHECK(goal_under_limit(0, 10 * kMiB, 10 * kMiB) == 0);
  CHECK(goal_under_limit(100 * kMiB, 0) == 100 * kMiB);
}

TEST_CASE("the lower of the two goals counts") {
  PacerInput in = marked(100 * kMiB);
  in.memory_limit_bytes = 150 * kMiB;
  CHECK(heap_goal_bytes(in) == 150 * kMiB - 150 * kMiB / 100 * 3);
  in.memory_limit_bytes = kGiB;
  CHECK(heap_goal_bytes(in) == 200 * kMiB);
  in.memory_limit_bytes = 50 * kMiB;
  in.min_heap_bytes = kGiB;
  CHECK(heap_goal_bytes(in) == 100 * kMiB);
  // Neither limit nor percentage.
  in.memory_limit_bytes = UINT64_MAX;
  in.percent = -1;
  CHECK(heap_goal_bytes(in) == kNoGoal);
}

TEST_CASE("what does not fit into 63 bits is no goal") {
  for (const int percent : {101, 1000, INT_MAX - 1, INT_MAX}) {
    CAPTURE(percent);
    CHECK(heap_goal_bytes(marked(kNoGoal - 1, percent)) == kNoGoal);
    CHECK(heap_goal_bytes(marked(kNoGoal / 2 + 1, percent)) == kNoGoal);
  }
  CHECK(heap_goal_bytes(marked(1000 * kGiB, INT_MAX)) == kNoGoal);
  // Here the product of the hundreds fits into 64 bits just so, and what is added to it does not.
  CHECK(heap_goal_bytes(marked(858'993'459'699, INT_MAX)) == kNoGoal);
  CHECK(heap_goal_bytes(marked(kGiB, INT_MAX)) ==
        kGiB + kGiB / 100 * INT_MAX + kGiB % 100 * INT_MAX / 100);
}

TEST_CASE("random inputs keep the bounds of every goal") {
  const std::uint64_t seed = tricolor::test::seed_of("pacer");
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const auto bytes = [&](unsigned most_log2) {
    return random() >> (64 - 1 - random() % most_log2);
  };
  for (int i = 0; i < 20'000; ++i) {
    PacerInput in;
    in.marked_bytes = bytes(48);
    in.stack_bytes = bytes(32);
    in.globals_bytes = bytes(32);
    in.percent = random() % 10 == 0 ? -1 : static_cast<int>(bytes(31));
    in.min_heap_bytes = bytes(40);
    in.memory_limit_bytes = random() % 4 == 0 ? kNoGoal : bytes(49);
    in.non_heap_bytes = bytes(40);
    CAPTURE(in.marked_bytes, in.stack_bytes, in.globals_bytes, in.percent, in.min_heap_bytes,
            in.memory_limit_bytes, in.non_heap_bytes);
    const std::uint64_t goal = heap_goal_bytes(in);
    // Invariant [pacer.goal]: a goal below what is alive would collect for ever.
    REQUIRE(goal >= in.marked_bytes);
    REQUIRE(goal <= kNoGoal);
    if (in.memory_limit_bytes != kNoGoal) {
      REQUIRE((goal <= in.memory_limit_bytes || goal == in.marked_bytes));
    }
    // More room never means less heap, but for the rounding of the headroom.
    PacerInput more = in;
    more.min_heap_bytes += bytes(40);
    REQUIRE(heap_goal_bytes(more) >= goal);
    more = in;
    if (more.percent >= 0)
      more.percent += static_cast<int>(random() % (INT_MAX - more.percent + 1u));
    REQUIRE(heap_goal_bytes(more) >= goal);
    more = in;
    more.memory_limit_bytes = std::min(kNoGoal, more.memory_limit_bytes + bytes(40));
    REQUIRE(heap_goal_bytes(more) + 3 >= goal);
  }
}
