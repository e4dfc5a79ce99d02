#include "gc/pacer.h"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <climits>
#include <cmath>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <random>
#include <string>
#include <vector>

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

TEST_CASE("what is over the limit has to go, so the goal is lower by it") {
  PacerInput in = marked(10 * kMiB, -1);
  in.memory_limit_bytes = 1000 * kMiB;
  in.ready_bytes = 1000 * kMiB;
  CHECK(heap_goal_bytes(in) == 1000 * kMiB - 1000 * kMiB / 100 * 3);
  in.ready_bytes = 1200 * kMiB;
  CHECK(heap_goal_bytes(in) == 800 * kMiB - 800 * kMiB / 100 * 3);
  in.ready_bytes = 2100 * kMiB;
  CHECK(heap_goal_bytes(in) == 10 * kMiB);
}

// ---- workers

TEST_CASE("workers make up a quarter of the CPUs, rounded as Go rounds it") {
  struct Row {
    std::uint32_t cpus, dedicated;
    double fractional_cpus, fractional_share;
    std::uint32_t idle;
  };
  for (const Row& row : {
           Row{1, 0, 0.25, 0.25, 1},  //
           Row{2, 0, 0.5, 0.25, 2},
           Row{3, 0, 0.75, 0.25, 3},
           Row{4, 1, 0, 0, 3},
           Row{5, 1, 0, 0, 4},
           Row{6, 1, 0.5, 0.5 / 6, 5},
           Row{7, 2, 0, 0, 5},
           Row{8, 2, 0, 0, 6},
           Row{9, 2, 0, 0, 7},
           Row{10, 3, 0, 0, 7},
           Row{64, 16, 0, 0, 48},
           Row{1024, 256, 0, 0, 768},
       }) {
    CAPTURE(row.cpus);
    const MarkWorkers workers = mark_workers(row.cpus, CycleKind::kHeap);
    CHECK(workers.dedicated == row.dedicated);
    CHECK(workers.fractional_cpus == Approx(row.fractional_cpus));
    CHECK(workers.fractional_share == Approx(row.fractional_share));
    CHECK(workers.idle_at_most == row.idle);
  }
  for (std::uint32_t cpus = 1; cpus <= 1024; ++cpus) {
    const double share = mark_workers(cpus, CycleKind::kHeap).share(cpus);
    CAPTURE(cpus, share);
    REQUIRE(std::abs(share / kCollectorShare - 1) <= 0.3);
  }
  CHECK(mark_workers(0, CycleKind::kHeap).fractional_cpus == 0.25);
  CHECK(mark_workers(UINT32_MAX, CycleKind::kHeap).dedicated == 1u << 30);
}

TEST_CASE("an idle program is not woken up on every CPU, a forced or stopped one marks on all") {
  CHECK(mark_workers(8, CycleKind::kPeriodic).dedicated == 2);
  CHECK(mark_workers(8, CycleKind::kPeriodic).idle_at_most == 0);
  CHECK(mark_workers(2, CycleKind::kPeriodic).dedicated == 0);
  CHECK(mark_workers(2, CycleKind::kPeriodic).idle_at_most == 1);
  for (const CycleKind kind : {CycleKind::kForced, CycleKind::kStopped}) {
    const MarkWorkers workers = mark_workers(2, kind);
    CHECK(workers.dedicated == 2);
    CHECK(workers.fractional_cpus == 0);
    CHECK(workers.fractional_share == 0);
    CHECK(workers.idle_at_most == 0);
  }
}

TEST_CASE("of a CPU quota the workers take a quarter, to the part of a CPU") {
  for (const double cpus : {0.1, 0.5, 1.5, 2.25, 4.0, 4.7, 63.9}) {
    CAPTURE(cpus);
    for (const CycleKind kind : {CycleKind::kHeap, CycleKind::kPeriodic}) {
      const MarkWorkers workers = mark_workers_of_quota(cpus, kind);
      CHECK(workers.dedicated + workers.fractional_cpus == Approx(cpus * kCollectorShare));
      CHECK(workers.fractional_cpus < 1);
    }
    CHECK(mark_workers_of_quota(cpus, CycleKind::kForced).dedicated == std::ceil(cpus));
  }
}

TEST_CASE("a fractional worker starts when it is behind its share and leaves a fifth ahead of it") {
  CHECK(fractional_may_start(0.25, 0, 0));
  CHECK(fractional_may_start(0.25, 250, 1000));
  CHECK_FALSE(fractional_may_start(0.25, 251, 1000));
  CHECK_FALSE(fractional_may_start(0, 0, 1000));
  CHECK_FALSE(fractional_must_leave(0.25, 100, 0));
  CHECK_FALSE(fractional_must_leave(0.25, 299, 1000));
  CHECK(fractional_must_leave(0.25, 301, 1000));
  CHECK(fractional_must_leave(0.25, UINT64_MAX, 1));
}

// ---- one cycle, by hand

namespace {

// A pacer after a cycle that has marked `marked_bytes`, all of it scanned, with cons/mark so that the runway is `runway`.
Pacer after_cycle(std::uint64_t marked_bytes, std::uint64_t runway,
                  const PacerSettings& settings = {}, const PacerMemory& memory = {}) {
  Pacer pacer;
  pacer.commit(settings, memory);
  pacer.start_cycle({.live_bytes = marked_bytes, .heap_scan_bytes = marked_bytes});
  // At a quarter, what is allocated in a cycle is the runway of the next one.
  pacer.end_cycle({.now_ns = 1000,
                   .live_bytes = marked_bytes + runway,
                   .marked_bytes = marked_bytes,
                   .heap_work_bytes = marked_bytes,
                   .background_ns = 250});
  pacer.commit(settings, memory);
  return pacer;
}

}  // namespace

TEST_CASE("before the first cycle the trigger is just short of the smallest goal") {
  Pacer pacer;
  pacer.commit({}, {});
  CHECK(pacer.goal_bytes() == 4 * kMiB);
  CHECK(pacer.trigger_bytes() == 4 * kMiB / 64 * 61);
  CHECK(pacer.runway_bytes() == 0);
  pacer.commit({.percent = -1}, {});
  CHECK(pacer.goal_bytes() == kNoGoal);
  CHECK(pacer.trigger_bytes() == kNoGoal);
  pacer.commit({.percent = 0}, {});
  CHECK(pacer.trigger_bytes() == 0);
}

TEST_CASE("a cycle starts a runway before the goal, within bounds") {
  const std::uint64_t m = 64 * kMiB;
  CHECK(after_cycle(m, 10 * kMiB).goal_bytes() == 2 * m);
  CHECK(after_cycle(m, 10 * kMiB).runway_bytes() == 10 * kMiB);
  CHECK(after_cycle(m, 10 * kMiB).trigger_bytes() == 2 * m - 10 * kMiB);
  CHECK(after_cycle(m, 30 * kMiB).trigger_bytes() == m + m / 64 * 45);
  // 4 MiB is all that a large heap keeps in hand, 3/64 of the way a small one.
  CHECK(after_cycle(m, kMiB).trigger_bytes() == 2 * m - 3 * kMiB);
  CHECK(after_cycle(2 * m, kMiB).trigger_bytes() == 4 * m - 4 * kMiB);
  CHECK(after_cycle(16 * kMiB, kMiB / 2).trigger_bytes() == 32 * kMiB - 16 * kMiB / 64 * 3);
}

TEST_CASE("the largest cons/mark of the last five cycles counts") {
  Pacer pacer = after_cycle(64 * kMiB, 16 * kMiB);
  const double high = pacer.cons_mark();
  CHECK(high == Approx(16.0 / 64 / 3));
  const auto cycle = [&](std::uint64_t allocated) {
    pacer.start_cycle({.live_bytes = 100 * kMiB});
    return pacer
        .end_cycle({.now_ns = 1000,
                    .live_bytes = 100 * kMiB + allocated,
                    .marked_bytes = 64 * kMiB,
                    .heap_work_bytes = 64 * kMiB})
        .cons_mark;
  };
  for (int i = 0; i < 4; ++i) CHECK(cycle(kMiB) == high);
  // A cycle that says nothing takes no place among the five.
  CHECK(cycle(0) == high);
  CHECK(cycle(kMiB) == Approx(1.0 / 64 / 3));
  CHECK(cycle(8 * kMiB) == Approx(8.0 / 64 / 3));
}

TEST_CASE("cons/mark is of CPU time: assists, idle workers and every CPU of a forced cycle count") {
  const auto cons_mark = [](CycleEnd end) {
    Pacer pacer;
    pacer.start_cycle({.now_ns = 5000, .live_bytes = kMiB, .cpus = 4});
    end.now_ns = 6000;
    end.live_bytes = 2 * kMiB;
    end.heap_work_bytes = kMiB;
    return pacer.end_cycle(end).cons_mark;
  };
  CHECK(cons_mark({}) == Approx(0.25 / 0.75));
  CHECK(cons_mark({.background_ns = 1000}) == Approx(0.25 / 0.75));
  CHECK(cons_mark({.background_ns = 500}) == Approx(0.25 / 0.75));
  CHECK(cons_mark({.background_ns = 1000, .assist_ns = 1000}) == Approx(0.5 / 0.5));
  CHECK(cons_mark({.background_ns = 1000, .idle_ns = 1000}) == Approx(0.5 / 0.75));
  CHECK(cons_mark({.background_ns = 3000}) == Approx(0.75 / 0.25));
  CHECK(cons_mark({.background_ns = 4000}) == Approx(0.99 / 0.01));
  CHECK(cons_mark({.background_ns = 1000, .assist_ns = 9000}) == Approx(0.99 / 0.01));
}

TEST_CASE("the outcome of a cycle is as measured") {
  Pacer pacer = after_cycle(64 * kMiB, 10 * kMiB);
  pacer.start_cycle({.now_ns = 1000,
                     .live_bytes = 120 * kMiB,
                     .heap_scan_bytes = 120 * kMiB,
                     .stack_bytes = kMiB,
                     .globals_bytes = 2 * kMiB,
                     .cpus = 2});
  CHECK(pacer.expected_work_bytes() == 66 * kMiB);
  const CycleOutcome outcome = pacer.end_cycle({.now_ns = 2000,
                                                .live_bytes = 128 * kMiB,
                                                .marked_bytes = 70 * kMiB,
                                                .heap_work_bytes = 60 * kMiB,
                                                .stack_work_bytes = kMiB,
                                                .globals_work_bytes = 2 * kMiB,
                                                .background_ns = 500,
                                                .assist_ns = 100,
                                                .idle_ns = 300});
  CHECK(outcome.collector_share == Approx(0.3));
  CHECK(outcome.idle_share == Approx(0.15));
  CHECK(outcome.work_bytes == 63 * kMiB);
  CHECK(outcome.expected_work_bytes == 66 * kMiB);
  CHECK(outcome.goal_bytes == 130 * kMiB);  // the globals are known by now
  pacer.commit({}, {});
  CHECK(pacer.goal_bytes() == 70 * kMiB + 73 * kMiB);
}

TEST_CASE("an allocated byte costs the work that is left for each byte to the goal") {
  Pacer pacer = after_cycle(64 * kMiB, 10 * kMiB);
  pacer.start_cycle({.live_bytes = 118 * kMiB, .heap_scan_bytes = 118 * kMiB});
  AssistRatio ratio = pacer.assist_ratio(118 * kMiB, 0);
  CHECK(ratio.work_per_byte == Approx(6.4));
  CHECK(ratio.bytes_per_work == Approx(1 / 6.4));
  CHECK(work_for(ratio, 1000) == 6400);
  CHECK(work_for(ratio, 0) == 0);
  CHECK(work_for(ratio, -5) == 0);
  CHECK(work_for(ratio, INT64_MAX) == INT64_MAX);
  CHECK(bytes_for(ratio, 6400) == 1000);
  CHECK(bytes_for(ratio, 1) == 1);
  // On schedule it does not change, behind it rises, ahead it falls.
  CHECK(pacer.assist_ratio(123 * kMiB, 32 * kMiB).work_per_byte == Approx(6.4));
  CHECK(pacer.assist_ratio(123 * kMiB, 16 * kMiB).work_per_byte == Approx(9.6));
  CHECK(pacer.assist_ratio(123 * kMiB, 48 * kMiB).work_per_byte == Approx(3.2));
  // The end is in sight: a thousand bytes may be left.
  CHECK(pacer.assist_ratio(127 * kMiB, 64 * kMiB).work_per_byte == Approx(1000.0 / kMiB));
}

TEST_CASE("a byte costs more the nearer the heap is to the limit, and all that is left behind it") {
  CHECK(AssistRatio::of(1000, 100, 50).work_per_byte == Approx(20));
  CHECK(AssistRatio::of(1000, 100, 90).work_per_byte == Approx(100));
  for (const std::uint64_t live : {std::uint64_t{99}, std::uint64_t{100}, kNoGoal}) {
    CHECK(AssistRatio::of(1000, 100, live).work_per_byte == 1000);
    CHECK(AssistRatio::of(1000, 100, live).bytes_per_work == Approx(0.001));
  }
}

TEST_CASE("a heap that grows moves the goal out, so that the ratio stays") {
  Pacer pacer = after_cycle(64 * kMiB, 10 * kMiB);
  pacer.start_cycle({.live_bytes = 118 * kMiB, .heap_scan_bytes = 118 * kMiB});
  // Everything expected is done, at the goal, and there is more: all 118 MiB may be alive.
  const double ratio = pacer.assist_ratio(128 * kMiB, 64 * kMiB + 1).work_per_byte;
  CHECK(ratio == Approx(6.4).epsilon(0.01));
  // Not past what the next goal will be.
  pacer = after_cycle(64 * kMiB, 10 * kMiB, {.percent = 10});
  const std::uint64_t goal = pacer.goal_bytes();
  REQUIRE(goal == Approx(1.1 * 64 * kMiB));
  pacer.start_cycle({.live_bytes = 67 * kMiB, .heap_scan_bytes = 1000 * kMiB});
  CHECK(pacer.assist_ratio(70 * kMiB, 65 * kMiB).work_per_byte ==
        Approx(935.0 / (1.1 * 1.1 * 64 - 70)));
  // And not past the goal of the limit.
  pacer = after_cycle(64 * kMiB, 10 * kMiB, {.memory_limit_bytes = 140 * kMiB});
  pacer.start_cycle({.live_bytes = 118 * kMiB, .heap_scan_bytes = 118 * kMiB});
  CHECK(pacer.assist_ratio(128 * kMiB, 65 * kMiB).work_per_byte ==
        Approx(53.0 / (140 * 0.97 - 128)).epsilon(0.001));
}

TEST_CASE(
    "past the goal a tenth of it is left for the worst case, and past that everything at once") {
  Pacer pacer = after_cycle(64 * kMiB, 10 * kMiB);
  pacer.start_cycle({.live_bytes = 118 * kMiB, .heap_scan_bytes = 118 * kMiB});
  CHECK(pacer.assist_ratio(128 * kMiB, 32 * kMiB).work_per_byte ==
        Approx(32.0 * kMiB));  // at the goal, not past it
  CHECK(pacer.assist_ratio(129 * kMiB, 32 * kMiB).work_per_byte ==
        Approx((118.0 - 32) / (128 * 1.1 - 129)));
  CHECK(pacer.assist_ratio(141 * kMiB, 32 * kMiB).work_per_byte == Approx(86.0 * kMiB));
  // With more work done than expected the goal is 136.4 MiB by now.
  CHECK(pacer.assist_ratio(150 * kMiB, 118 * kMiB).work_per_byte < 1);
  CHECK(pacer.assist_ratio(151 * kMiB, 118 * kMiB).work_per_byte == 1000);
}

TEST_CASE("past the goal of a memory limit there is as much left as below the limit") {
  Pacer pacer = after_cycle(64 * kMiB, 10 * kMiB, {.memory_limit_bytes = 100 * kMiB});
  pacer.start_cycle({.live_bytes = 90 * kMiB, .heap_scan_bytes = 90 * kMiB});
  REQUIRE(pacer.goal_bytes() == 97 * kMiB);
  CHECK(pacer.assist_ratio(98 * kMiB, 32 * kMiB).work_per_byte ==
        Approx((90.0 - 32) / (97 * 33.0 / 32 - 98)));
  CHECK(pacer.assist_ratio(101 * kMiB, 32 * kMiB).work_per_byte == Approx(58.0 * kMiB));
}

TEST_CASE("a cycle that starts late has 64 KiB to its goal, but not near the limit") {
  Pacer pacer = after_cycle(64 * kMiB, 10 * kMiB);
  pacer.start_cycle({.live_bytes = 130 * kMiB});
  CHECK(pacer.goal_bytes() == 130 * kMiB + 64 * 1024);
  pacer = after_cycle(64 * kMiB, 10 * kMiB, {.memory_limit_bytes = 100 * kMiB});
  pacer.start_cycle({.live_bytes = 130 * kMiB});
  CHECK(pacer.goal_bytes() == 97 * kMiB);
}

TEST_CASE("a sweep that has not ended gets a megabyte, once, but not near the limit") {
  PacerSettings settings = {.percent = 1};
  PacerMemory memory = {.live_bytes = 64 * kMiB, .sweep = SweepState::kUnfinished};
  Pacer pacer = after_cycle(64 * kMiB, 10 * kMiB, settings, memory);
  CHECK(pacer.goal_bytes() == 65 * kMiB);
  CHECK(pacer.trigger_bytes() == 65 * kMiB);
  memory.live_bytes += kMiB / 2;
  pacer.commit(settings, memory);
  CHECK(pacer.goal_bytes() == 65 * kMiB);
  memory.sweep = SweepState::kDone;
  pacer.commit(settings, memory);
  CHECK(pacer.goal_bytes() == 64 * kMiB + 64 * kMiB / 100 + 64 * kMiB % 100 / 100);
  settings.memory_limit_bytes = 60 * kMiB;
  memory.sweep = SweepState::kUnfinished;
  pacer.commit(settings, memory);
  CHECK(pacer.goal_bytes() == 64 * kMiB);
  // The next cycle's sweep has a megabyte of its own.
  settings.memory_limit_bytes = kNoGoal;
  pacer.commit(settings, memory);
  pacer.start_cycle({.live_bytes = 70 * kMiB});
  pacer.end_cycle({.marked_bytes = 68 * kMiB});
  memory.live_bytes = 68 * kMiB;
  pacer.commit(settings, memory);
  CHECK(pacer.goal_bytes() == 69 * kMiB);
}

TEST_CASE("a sweep that has not ended does not hold the goal where external memory was") {
  Pacer pacer;
  pacer.start_cycle({.live_bytes = 39 * kMiB, .heap_scan_bytes = kMiB});
  pacer.end_cycle({.marked_bytes = kMiB, .external_bytes = 38 * kMiB});
  PacerMemory memory = {
      .live_bytes = 39 * kMiB, .external_bytes = 38 * kMiB, .sweep = SweepState::kUnfinished};
  pacer.commit({}, memory);
  CHECK(pacer.goal_bytes() == 78 * kMiB);
  memory.live_bytes = 7 * kMiB;  // what the dead held has been given back
  memory.external_bytes = 6 * kMiB;
  pacer.commit({}, memory);
  CHECK(pacer.goal_bytes() == 14 * kMiB);
  CHECK(pacer.trigger_bytes() >= 8 * kMiB);
}

TEST_CASE("no cycle starts below min_heap, and it has its runway above it") {
  const PacerSettings settings = {.min_heap_bytes = 256 * kMiB};
  const Pacer pacer = after_cycle(64 * kMiB, 10 * kMiB, settings);
  CHECK(pacer.trigger_bytes() == 256 * kMiB);
  CHECK(pacer.goal_bytes() == 266 * kMiB);
  const Pacer fast = after_cycle(64 * kMiB, 1000 * kMiB, settings);
  CHECK(fast.trigger_bytes() >= 256 * kMiB);
  CHECK(fast.trigger_bytes() < 257 * kMiB);
  CHECK(fast.goal_bytes() == Approx(64 * kMiB + (256.0 - 64) * kMiB * 64 / 45));
  // The limit is stronger.
  const Pacer limited = after_cycle(
      64 * kMiB, 10 * kMiB, {.min_heap_bytes = 256 * kMiB, .memory_limit_bytes = 200 * kMiB});
  CHECK(limited.goal_bytes() == Approx(194.0 * kMiB));
  CHECK(limited.trigger_bytes() == Approx(184.0 * kMiB));
  // And a heap that is large enough knows nothing of it.
  CHECK(after_cycle(300 * kMiB, 10 * kMiB, settings).goal_bytes() == 600 * kMiB);
  CHECK(after_cycle(300 * kMiB, 10 * kMiB, settings).trigger_bytes() == 590 * kMiB);
}

TEST_CASE("external memory counts as marked as far as it is still there") {
  Pacer pacer;
  PacerMemory memory = {.external_bytes = 100 * kMiB};
  pacer.commit({}, memory);
  CHECK(pacer.goal_bytes() == 4 * kMiB);  // nothing has been marked yet
  pacer.start_cycle({.live_bytes = 110 * kMiB});
  pacer.end_cycle({.marked_bytes = 10 * kMiB, .external_bytes = 100 * kMiB});
  pacer.commit({}, memory);
  CHECK(pacer.marked_bytes() == 110 * kMiB);
  CHECK(pacer.goal_bytes() == 220 * kMiB);
  CHECK(pacer.expected_work_bytes() == 0);
  memory.external_bytes = 30 * kMiB;  // destructors have run
  pacer.commit({}, memory);
  CHECK(pacer.goal_bytes() == 80 * kMiB);
  memory.external_bytes = 70 * kMiB;  // new ones, since
  pacer.commit({}, memory);
  CHECK(pacer.goal_bytes() == 80 * kMiB);
  // It counts for the limit: as heap, and where it is over it.
  pacer.commit({.percent = -1, .memory_limit_bytes = 200 * kMiB}, memory);
  CHECK(pacer.goal_bytes() == Approx(194.0 * kMiB));
  memory.ready_bytes = 150 * kMiB;
  pacer.commit({.percent = -1, .memory_limit_bytes = 200 * kMiB}, memory);
  CHECK(pacer.goal_bytes() == Approx(180 * 0.97 * kMiB));
}

// ---- simulated programs

namespace {

using Curve = std::function<double(int cycle)>;

Curve always(double value) {
  return [value](int) { return value; };
}
// From 0 in cycle 0 to `value` in cycle `cycles`, and on.
Curve ramp(double value, int cycles) {
  return [=](int cycle) { return value * std::min(1.0, static_cast<double>(cycle) / cycles); };
}
Curve step(double before, double after, int at) {
  return [=](int cycle) { return cycle < at ? before : after; };
}
// Between (1 - part) and (1 + part) times the curve, at random.
Curve jitter(Curve curve, double part, std::uint64_t seed) {
  return [=, random = std::mt19937_64(seed)](int cycle) mutable {
    return curve(cycle) * (1 + part * std::uniform_real_distribution<double>(-1, 1)(random));
  };
}

// A program and the machine under it, cycle by cycle. The curves are asked once a cycle, in order.
struct Program {
  std::uint32_t cpus = 8;
  PacerSettings settings = {};
  Curve allocates = always(33);            // KiB in a millisecond of CPU time
  Curve is_scanned = always(1024);         // KiB in a millisecond of CPU time
  Curve survives = ramp(64.0 * kMiB, 12);  // bytes in cells
  Curve has_pointers = always(1);          // part of those
  Curve stacks = always(8192);             // bytes
  Curve globals = always(32 << 10);        // bytes
  Curve external = always(0);              // bytes that survivors hold
  double external_per_byte = 0;            // allocated
  double non_heap = 0;                     // bytes
  double workers_get = 1;                  // of the CPU time they are to have
  double idle = 0;                         // part of the CPUs that idle workers mark on
};

struct SimulatedCycle {
  std::uint64_t marked_before, triggered, peak, goal;
  double share;  // of the CPUs that the collector took
  double goal_ratio() const { return static_cast<double>(peak) / static_cast<double>(goal); }
};

std::uint64_t whole(double bytes) { return static_cast<std::uint64_t>(std::max(0.0, bytes)); }

// Time goes by in steps of half a millisecond, as often is the ratio revised. Assists are ideal: while the ratio asks for more
// work than the workers do, mutators spend just the time on it that keeps work and allocation at that ratio,
//   scan rate * u = ratio * allocation rate * (1 - u)     u: the collector's share of the CPUs
// Garbage is swept, and its external memory given back, before the next cycle.
std::vector<SimulatedCycle> simulate(Program program, int cycles) {
  constexpr double kStepMs = 0.5;
  std::vector<SimulatedCycle> results;
  Pacer pacer;
  PacerMemory memory;
  std::uint64_t now_ns = 1'000'000'000;
  double external = 0;
  memory.non_heap_bytes = whole(program.non_heap);
  const auto remember = [&](double live) {
    memory.live_bytes = whole(live);
    memory.external_bytes = whole(external);
    memory.ready_bytes = whole(live - external + program.non_heap);
    pacer.commit(program.settings, memory);
  };
  remember(0);
  double live = 0;
  for (int n = 0; n < cycles; ++n) {
    const double allocates = std::max(program.allocates(n), 1e-4);
    const double scans = std::max(program.is_scanned(n), 1e-4);
    const double pointers = std::clamp(program.has_pointers(n), 0.0, 1.0);
    const double stacks = program.stacks(n);
    const double globals = program.globals(n);
    const double survives = program.survives(n);
    // Without a goal, nothing but a request starts a cycle.
    const double trigger = static_cast<double>(pacer.trigger_bytes());
    REQUIRE(pacer.trigger_bytes() <= pacer.goal_bytes());
    REQUIRE(pacer.marked_bytes() <= pacer.trigger_bytes());
    const double grown = std::max(0.0, trigger - live);
    external += grown * program.external_per_byte / (1 + program.external_per_byte);
    live += grown;
    remember(live);
    const std::uint64_t marked_before = pacer.marked_bytes();
    const MarkWorkers workers =
        pacer.start_cycle({.now_ns = now_ns,
                           .live_bytes = whole(live),
                           .heap_scan_bytes = whole((live - external) * pointers),
                           .stack_bytes = whole(stacks),
                           .globals_bytes = whole(globals),
                           .cpus = program.cpus});
    const double workers_share = workers.share(program.cpus) * program.workers_get;
    const double heap_work = survives * pointers;
    const double work = globals + stacks + heap_work;
    const double triggered = live;
    double done = 0;
    double elapsed_ms = 0;
    double assist_ms = 0;
    while (done < work) {
      const double ratio = pacer.assist_ratio(whole(live), whole(done)).work_per_byte;
      const double share = std::max(workers_share, ratio * allocates / (ratio * allocates + scans));
      const double scanned_per_ms = scans * 1024 * program.cpus * (share + program.idle);
      const double step_ms = std::min(kStepMs, (work - done) / scanned_per_ms);
      const double allocated = allocates * 1024 * program.cpus * (1 - share) * step_ms;
      done = step_ms < kStepMs ? work : done + scanned_per_ms * step_ms;
      external += allocated * program.external_per_byte;
      live += allocated * (1 + program.external_per_byte);
      elapsed_ms += step_ms;
      assist_ms += step_ms * program.cpus * (share - workers_share);
      remember(live);
    }
    now_ns += whole(elapsed_ms * 1e6);
    const double black = (live - triggered) / (1 + program.external_per_byte);
    const SimulatedCycle result = {marked_before, whole(triggered), whole(live), pacer.goal_bytes(),
                                   workers_share + assist_ms / (elapsed_ms * program.cpus)};
    const CycleOutcome outcome =
        pacer.end_cycle({.now_ns = now_ns,
                         .live_bytes = whole(live),
                         .marked_bytes = whole(survives + black),
                         .external_bytes = whole(external),
                         .heap_work_bytes = whole(heap_work),
                         .stack_work_bytes = whole(stacks),
                         .globals_work_bytes = whole(globals),
                         .background_ns = whole(elapsed_ms * program.cpus * workers_share * 1e6),
                         .assist_ns = whole(assist_ms * 1e6),
                         .idle_ns = whole(elapsed_ms * program.cpus * program.idle * 1e6)});
    REQUIRE(outcome.collector_share == Approx(result.share).epsilon(0.02));
    results.push_back(result);
    live = survives + black + external;
    remember(live);
    // The destructors run.
    external = std::min(external, program.external(n) + black * program.external_per_byte);
    live = survives + black + external;
    remember(live);
  }
  return results;
}

std::string told(const std::vector<SimulatedCycle>& cycles) {
  std::string text;
  for (std::size_t n = 0; n < cycles.size(); ++n) {
    const SimulatedCycle& c = cycles[n];
    const auto kib = [](std::uint64_t bytes) { return std::to_string(bytes >> 10); };
    text += "\n" + std::to_string(n) + ": " + kib(c.marked_before) + "->" + kib(c.triggered) +
            "->" + kib(c.peak) + " KiB, goal " + kib(c.goal) + ", " +
            std::to_string(c.share * 100) + " %";
  }
  return text;
}

struct Range {
  double least, most;
};
constexpr Range kAtGoal = {0.95, 1.05};
constexpr Range kAQuarter = {0.24, 0.26};

// On average over the cycles from `first` on.
double mean_share(const std::vector<SimulatedCycle>& cycles, std::size_t first) {
  double sum = 0;
  for (std::size_t n = first; n < cycles.size(); ++n) sum += cycles[n].share;
  return sum / static_cast<double>(cycles.size() - first);
}

void check_a_quarter_on_average(const std::vector<SimulatedCycle>& cycles, std::size_t first) {
  INFO(told(cycles));
  CHECK(mean_share(cycles, first) >= kAQuarter.least);
  CHECK(mean_share(cycles, first) <= kAQuarter.most);
}

// Every cycle from `first` on ends at its goal and takes its share.
void check_settled(const std::vector<SimulatedCycle>& cycles, std::size_t first,
                   Range goal_ratio = kAtGoal, Range share = kAQuarter) {
  INFO(told(cycles));
  for (std::size_t n = first; n < cycles.size(); ++n) {
    CAPTURE(n, cycles[n].goal_ratio(), cycles[n].share);
    CHECK(cycles[n].goal_ratio() >= goal_ratio.least);
    CHECK(cycles[n].goal_ratio() <= goal_ratio.most);
    CHECK(cycles[n].share >= share.least);
    CHECK(cycles[n].share <= share.most);
  }
}

}  // namespace

TEST_CASE("a steady program ends its cycles at the goal, with a quarter of the CPUs") {
  for (const std::uint32_t cpus : {1u, 2u, 3u, 4u, 6u, 8u, 16u, 64u, 1024u}) {
    CAPTURE(cpus);
    check_settled(simulate({.cpus = cpus}, 50), 25);
  }
}

TEST_CASE("where a quarter of the CPUs is no number of workers, the rounded share is enough") {
  for (const std::uint32_t cpus : {5u, 7u, 9u, 10u}) {
    CAPTURE(cpus);
    const double share = mark_workers(cpus, CycleKind::kHeap).share(cpus);
    check_settled(simulate({.cpus = cpus}, 50), 25, kAtGoal, {share - 0.01, share + 0.01});
  }
}

TEST_CASE("workers that do not get their CPU time start sooner instead of calling for assists") {
  Program program;
  program.workers_get = 0.6;
  check_settled(simulate(program, 50), 25, kAtGoal, {0.14, 0.16});
}

TEST_CASE("idle workers end a cycle early, and do not take part in the next one's plan") {
  Program program;
  program.idle = 0.5;
  check_settled(simulate(program, 50), 25, {0.93, 1});
}

TEST_CASE("a heap that grows or shrinks does so at a quarter of the CPUs") {
  SECTION("5 percent a cycle") {
    Program program;
    program.survives = [](int n) { return 8.0 * kMiB * std::pow(1.05, n); };
    const auto cycles = simulate(program, 80);
    check_settled(cycles, 25, {0.95, 1.1}, {0.24, 0.27});
    check_a_quarter_on_average(cycles, 25);
  }
  SECTION("to a tenth in twenty cycles") {
    Program program;
    program.survives = [](int n) {
      return 256.0 * kMiB * (1 - 0.9 * std::clamp((n - 10) / 20.0, 0.0, 1.0));
    };
    const auto cycles = simulate(program, 60);
    check_settled(cycles, 10, {0.85, 1.05});
    check_settled(cycles, 36);
  }
  SECTION("to twice its size and back") {
    Program program;
    program.survives = [](int n) { return (n < 30 || n >= 60 ? 32.0 : 64.0) * kMiB; };
    const auto cycles = simulate(program, 90);
    check_settled({cycles.begin(), cycles.begin() + 30}, 25);
    check_settled({cycles.begin(), cycles.begin() + 60}, 55);
    check_settled(cycles, 85);
    // In the cycle that finds it out the goal is passed rather than the mutators held up.
    INFO(told(cycles));
    CHECK(cycles[30].goal_ratio() <= 2);
    CHECK(cycles[30].share < 0.35);
  }
}

TEST_CASE("a program that allocates twice or ten times as fast is met again") {
  for (const double times : {2.0, 10.0}) {
    Program program;
    program.allocates = step(11, 11 * times, 50);
    const auto cycles = simulate(program, 100);
    CAPTURE(times);
    check_settled({cycles.begin(), cycles.begin() + 50}, 25);
    check_settled(cycles, 52);
    INFO(told(cycles));
    // The cycle that is surprised makes the mutators pay.
    CHECK(cycles[50].share > 0.25);
    CHECK(cycles[50].goal_ratio() <= 1.1);
  }
}

TEST_CASE("large stacks and large globals are work like any other") {
  SECTION("stacks") {
    Program program = {.allocates = always(132), .survives = ramp(8.0 * kMiB, 12)};
    program.stacks = ramp(128.0 * kMiB, 8);
    check_settled(simulate(program, 50), 25);
  }
  SECTION("globals") {
    Program program = {.allocates = always(132), .survives = ramp(8.0 * kMiB, 12)};
    program.globals = always(128.0 * kMiB);
    check_settled(simulate(program, 50), 25);
  }
  SECTION("part of the heap has pointers, then more of it") {
    Program program = {.allocates = always(128)};
    program.has_pointers = step(0.2, 0.7, 50);
    const auto cycles = simulate(program, 100);
    check_settled({cycles.begin(), cycles.begin() + 50}, 25);
    check_settled(cycles, 75);
  }
}

TEST_CASE("a program that allocates unevenly pays with cycles that start early, not with assists") {
  const std::uint64_t seed = tricolor::test::seed_of("pacer");
  CAPTURE(seed);
  SECTION("in waves") {
    Program program;
    program.allocates = [](int n) { return 67 + 13 * std::sin(n * 2 * 3.14159265358979 / 8); };
    const auto cycles = simulate(program, 25 + 5 * 8);
    check_settled(cycles, 25, kAtGoal, {0.25, 0.3});
    check_a_quarter_on_average(cycles, 25);
  }
  SECTION("by chance") {
    Program program;
    program.allocates = jitter(always(60), 0.1, seed);
    program.survives = jitter(ramp(64.0 * kMiB, 12), 0.01, seed + 1);
    const auto cycles = simulate(program, 200);
    check_settled(cycles, 25, {0.95, 1.05}, {0.24, 0.28});
    check_a_quarter_on_average(cycles, 25);
  }
  SECTION("by chance, and faster than a quarter of the CPUs marks") {
    Program program;
    program.allocates = jitter(always(330), 0.1, seed);
    program.survives = jitter(ramp(64.0 * kMiB, 12), 0.01, seed + 1);
    const auto cycles = simulate(program, 200);
    check_settled(cycles, 25, kAtGoal, {0.3, 0.6});
    // What is short is the runway that the lowest trigger leaves; so the share is that, give or take the chance. (It is about
    // 43 percent, of which assists make up what is beyond a quarter: here a quarter is out of the pacer's reach.)
    const double mean = cycles[24].share;
    check_settled(cycles, 25, kAtGoal, {mean - 0.06, mean + 0.06});
  }
}

TEST_CASE("any percentage is kept to") {
  struct Row {
    int percent;
    double allocates;
  };
  for (const Row row : {Row{10, 8}, Row{25, 16}, Row{50, 33}, Row{100, 33}, Row{200, 66},
                        Row{400, 132}, Row{800, 165}, Row{1500, 165}}) {
    CAPTURE(row.percent);
    Program program = {.settings = {.percent = row.percent}};
    program.allocates = always(row.allocates);
    check_settled(simulate(program, 50), 25);
  }
  SECTION("1500, and the heap grows fifteenfold") {
    Program program = {.settings = {.percent = 1500}};
    program.allocates = always(165);
    program.survives = step(4.0 * kMiB, 60.0 * kMiB, 25);
    const auto cycles = simulate(program, 60);
    INFO(told(cycles));
    CHECK(cycles[25].goal_ratio() <= 16);
    CHECK(cycles[25].share < 0.3);
    check_settled(cycles, 27, {0.9, 1.05});
  }
}

TEST_CASE(
    "a small heap, or one with next to nothing to scan, ends short of the goal rather than past "
    "it") {
  for (const double mib : {1.0, 16.0, 256.0}) {
    CAPTURE(mib);
    Program program = {.allocates = always(1), .is_scanned = always(2048)};
    program.survives = ramp(mib * kMiB, 4);
    program.has_pointers = always(0.01);
    check_settled(simulate(program, 50), 25, {0.925, 1.025});
  }
}

TEST_CASE("a memory limit is what the heap grows to, or does not get in the way") {
  for (const int percent : {100, -1}) {
    CAPTURE(percent);
    Program program = {.settings = {percent, 0, 512 * kMiB}};
    program.non_heap = 12.0 * kMiB;
    const std::uint64_t limit_goal = 500 * kMiB - 500 * kMiB / 100 * 3;
    SECTION("far below it") {
      const auto cycles = simulate(program, 50);
      check_settled(cycles, 25);
      CHECK(cycles.back().goal < limit_goal + (percent < 0 ? 1 : 0));
      if (percent < 0) CHECK(cycles.back().goal == limit_goal);
    }
    SECTION("at it") {
      program.survives = ramp(400.0 * kMiB, 12);
      const auto cycles = simulate(program, 50);
      INFO(told(cycles));
      CHECK(cycles.back().goal == limit_goal);
      check_settled(cycles, 25, kAtGoal, {0.24, 0.7});
      for (std::size_t n = 12; n < cycles.size(); ++n) CHECK(cycles[n].peak <= 500 * kMiB);
    }
    SECTION("while the heap grows to it, the limit holds") {
      program.survives = ramp(400.0 * kMiB, 30);
      const auto cycles = simulate(program, 50);
      INFO(told(cycles));
      for (const SimulatedCycle& cycle : cycles) CHECK(cycle.peak <= 500 * kMiB);
    }
    SECTION("over it") {
      program.survives = ramp(600.0 * kMiB, 12);
      const auto cycles = simulate(program, 50);
      INFO(told(cycles));
      for (std::size_t n = 25; n < cycles.size(); ++n) {
        CHECK(cycles[n].goal == cycles[n].marked_before);
        // Assists push back, up to the tenth over the goal; how much is too much, it is not for the pacer to say.
        CHECK(cycles[n].share > 0.3);
        CHECK(cycles[n].goal_ratio() <= 1.11);
      }
    }
  }
}

TEST_CASE("external memory is paced like the heap, and garbage that holds it does not pile up") {
  SECTION("little cells that hold much") {
    Program program;
    program.survives = ramp(8.0 * kMiB, 12);
    program.external = ramp(256.0 * kMiB, 12);
    program.external_per_byte = 32;
    program.allocates = always(8);
    const auto cycles = simulate(program, 60);
    check_settled(cycles, 25);
    INFO(told(cycles));
    // Without the least there has been since, goals double with every cycle.
    CHECK(cycles.back().goal < 2 * 300 * kMiB);
  }
  SECTION("under a limit") {
    Program program = {.settings = {-1, 0, 512 * kMiB}};
    program.survives = ramp(8.0 * kMiB, 12);
    program.external = ramp(256.0 * kMiB, 12);
    program.external_per_byte = 32;
    program.allocates = always(8);
    const auto cycles = simulate(program, 60);
    check_settled(cycles, 25);
    for (const SimulatedCycle& cycle : cycles) CHECK(cycle.peak < 512 * kMiB);
  }
}

// ---- whatever comes in

TEST_CASE("no input overflows the pacer, and its random cycles keep the invariants") {
  const std::uint64_t seed = tricolor::test::seed_of("pacer");
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const auto any = [&]() -> std::uint64_t {
    constexpr std::array<std::uint64_t, 12> kOdd = {0,
                                                    1,
                                                    63,
                                                    1000,
                                                    4 << 20,
                                                    UINT32_MAX,
                                                    INT64_MAX,
                                                    kNoGoal - 1,
                                                    kNoGoal + 1ull,
                                                    UINT64_MAX - 1,
                                                    UINT64_MAX,
                                                    UINT64_MAX / 100};
    return random() % 2 == 0 ? kOdd[random() % kOdd.size()] : random() >> (random() % 64);
  };
  const auto any_percent = [&]() {
    constexpr std::array<int, 8> kOdd = {-1, 0, 1, 100, 1500, INT_MAX, INT_MAX - 1, INT_MIN};
    return kOdd[random() % kOdd.size()];
  };
  const auto any_cpus = [&]() {
    constexpr std::array<std::uint32_t, 7> kOdd = {0, 1, 2, 3, 6, 1024, UINT32_MAX};
    return kOdd[random() % kOdd.size()];
  };
  Pacer pacer;
  for (int i = 0; i < 100'000; ++i) {
    const auto commit = [&] {
      pacer.commit({any_percent(), any(), any()},
                   {any(), any(), any(), any(),
                    random() % 2 == 0 ? SweepState::kDone : SweepState::kUnfinished});
      const std::uint64_t goal = pacer.goal_bytes();
      const std::uint64_t trigger = pacer.trigger_bytes();
      CAPTURE(i, goal, trigger, pacer.marked_bytes(), pacer.runway_bytes());
      REQUIRE(goal <= kNoGoal);
      REQUIRE(trigger <= goal);
      REQUIRE(pacer.marked_bytes() <= trigger);
      REQUIRE(std::isfinite(pacer.cons_mark()));
      REQUIRE(pacer.cons_mark() >= 0);
    };
    commit();
    const std::uint32_t cpus = any_cpus();
    const MarkWorkers workers = pacer.start_cycle(
        {any(), any(), any(), any(), any(), cpus, static_cast<CycleKind>(random() % 4)});
    REQUIRE(workers.dedicated <= std::max(cpus, 1u));
    REQUIRE(workers.idle_at_most <= std::max(cpus, 1u));
    REQUIRE(workers.dedicated + workers.idle_at_most > 0);
    if (i % 3 == 0) commit();
    for (int j = 0; j < 3; ++j) {
      const AssistRatio ratio = pacer.assist_ratio(any(), any());
      REQUIRE(std::isfinite(ratio.work_per_byte));
      REQUIRE(std::isfinite(ratio.bytes_per_work));
      REQUIRE(ratio.work_per_byte > 0);
      REQUIRE(ratio.bytes_per_work > 0);
      REQUIRE(work_for(ratio, static_cast<std::int64_t>(any())) >= 0);
      REQUIRE(bytes_for(ratio, static_cast<std::int64_t>(any())) >= 0);
    }
    const CycleOutcome outcome =
        pacer.end_cycle({any(), any(), any(), any(), any(), any(), any(), any(), any(), any()});
    REQUIRE(outcome.collector_share >= 0);
    REQUIRE(std::isfinite(outcome.collector_share));
    REQUIRE(std::isfinite(outcome.idle_share));
    const std::uint64_t marked_ns = any();
    const std::uint64_t elapsed_ns = any();
    const double share = workers.fractional_share;
    REQUIRE_FALSE((fractional_may_start(share, marked_ns, elapsed_ns) &&
                   fractional_must_leave(share, marked_ns, elapsed_ns)));
  }
}
