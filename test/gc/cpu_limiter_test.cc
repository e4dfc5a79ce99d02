#include "gc/cpu_limiter.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <initializer_list>
#include <random>

#include "test/support/own_heap.h"

using namespace tricolor::impl;

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kMs = 1'000'000;

using Marking = CpuLimiter::Marking;

struct Apart {
  std::uint64_t assist_ns = 0;
  std::uint64_t idle_ns = 0;
};

// A limiter with a clock of its own.
struct Bench {
  explicit Bench(std::uint32_t cpus_) : cpus(cpus_), limiter(cpus_, now_ns) {}

  // Workers have their quarter while they mark, and mutators what is left.
  CpuLimiter::Spent all_cpus_for(std::uint64_t ns, Apart apart = {}) const {
    CpuLimiter::Spent spent;
    spent.assist_ns = apart.assist_ns;
    spent.worker_ns = marking == Marking::kOn ? ns * cpus / 4 : 0;
    const std::uint64_t others = apart.assist_ns + apart.idle_ns + spent.worker_ns;
    spent.mutator_ns = ns * cpus - std::min(ns * cpus, others);
    return spent;
  }
  void pass(std::uint64_t ns, Apart apart = {}) { pass(ns, all_cpus_for(ns, apart)); }
  void pass(std::uint64_t ns, CpuLimiter::Spent spent) {
    now_ns += ns;
    limiter.update(now_ns, spent);
  }
  void stop_for(std::uint64_t ns, Marking from_now_on) {
    limiter.begin_stop(now_ns, {});
    now_ns += ns;
    limiter.end_stop(now_ns, from_now_on);
    marking = from_now_on;
  }

  std::uint32_t cpus;
  std::uint64_t now_ns = 12'345;
  Marking marking = Marking::kOff;
  CpuLimiter limiter;
};

}  // namespace

TEST_CASE("the bucket holds one second of each CPU and starts empty") {
  for (const std::uint32_t cpus : {1u, 2u, 14u, 1024u}) {
    const Bench bench(cpus);
    CHECK(bench.limiter.capacity_ns() == cpus * kSecond);
    CHECK(bench.limiter.fill_ns() == 0);
    CHECK_FALSE(bench.limiter.limiting());
  }
  CHECK(CpuLimiter(0, 0).capacity_ns() == kSecond);
}

TEST_CASE("a program without cycles earns no credit") {
  Bench bench(10);
  bench.pass(86'400 * kSecond);
  CHECK(bench.limiter.fill_ns() == 0);
  bench.stop_for(kSecond, Marking::kOff);
  CHECK(bench.limiter.limiting());
}

TEST_CASE("a stopped world fills the bucket with the time of every CPU") {
  Bench bench(10);
  bench.stop_for(10 * kMs, Marking::kOn);
  CHECK(bench.limiter.fill_ns() == 100 * kMs);
  bench.stop_for(0, Marking::kOff);
  CHECK(bench.limiter.fill_ns() == 100 * kMs);
}

TEST_CASE("workers alone drain the bucket: they take a quarter, the mutators three") {
  Bench bench(8);
  bench.stop_for(500 * kMs, Marking::kOn);
  REQUIRE(bench.limiter.fill_ns() == 4000 * kMs);
  bench.pass(100 * kMs);
  CHECK(bench.limiter.fill_ns() == 4000 * kMs - 400 * kMs);  // 200 in, 600 out
  bench.stop_for(0, Marking::kOff);
  bench.pass(100 * kMs);
  CHECK(bench.limiter.fill_ns() == 4000 * kMs - 400 * kMs - 800 * kMs);
}

TEST_CASE("assists count as they are measured, also when nothing marks") {
  Bench bench(4);
  bench.stop_for(0, Marking::kOn);
  bench.pass(100 * kMs, Apart{.assist_ns = 200 * kMs});  // 100 + 200 in, 100 out
  CHECK(bench.limiter.fill_ns() == 200 * kMs);
  bench.pass(100 * kMs, Apart{.assist_ns = 100 * kMs});  // half and half
  CHECK(bench.limiter.fill_ns() == 200 * kMs);
  bench.stop_for(0, Marking::kOff);
  bench.pass(100 * kMs, Apart{.assist_ns = 300 * kMs});  // releasing memory, say
  CHECK(bench.limiter.fill_ns() == 400 * kMs);
}

TEST_CASE("idle time counts for neither side") {
  Bench bench(4);
  bench.stop_for(100 * kMs, Marking::kOn);
  REQUIRE(bench.limiter.fill_ns() == 400 * kMs);
  // A quarter of all four CPUs marks, two of them are idle, one is left for the mutators.
  bench.pass(100 * kMs, Apart{.idle_ns = 200 * kMs});
  CHECK(bench.limiter.fill_ns() == 400 * kMs);
  bench.pass(100 * kMs, Apart{.idle_ns = 300 * kMs});
  CHECK(bench.limiter.fill_ns() == 500 * kMs);
}

TEST_CASE("what other processes have of the CPUs counts for neither side") {
  Bench bench(4);
  bench.stop_for(100 * kMs, Marking::kOn);
  REQUIRE(bench.limiter.fill_ns() == 400 * kMs);
  // One CPU is ours, by turns.
  bench.pass(100 * kMs, CpuLimiter::Spent{
                            .assist_ns = 40 * kMs, .worker_ns = 30 * kMs, .mutator_ns = 30 * kMs});
  CHECK(bench.limiter.fill_ns() == 440 * kMs);
}

TEST_CASE("a worker that has its quarter by turns has had a quarter") {
  for (const bool at_first : {true, false}) {
    Bench bench(2);
    bench.stop_for(100 * kMs, Marking::kOn);
    REQUIRE(bench.limiter.fill_ns() == 200 * kMs);
    for (int i = 0; i < 20; ++i) {
      const bool now = at_first == (i % 2 == 0);
      bench.pass(10 * kMs, CpuLimiter::Spent{.worker_ns = now ? 10 * kMs : 0});
    }
    CHECK(bench.limiter.fill_ns() == 200 * kMs + 100 * kMs);
  }
}

TEST_CASE("what workers have beyond a quarter of the CPUs counts for neither side") {
  Bench bench(4);
  bench.stop_for(100 * kMs, Marking::kOn);
  REQUIRE(bench.limiter.fill_ns() == 400 * kMs);
  bench.pass(100 * kMs, CpuLimiter::Spent{.worker_ns = 300 * kMs, .mutator_ns = 100 * kMs});
  CHECK(bench.limiter.fill_ns() == 400 * kMs);
  bench.stop_for(0, Marking::kOff);
  bench.pass(100 * kMs, CpuLimiter::Spent{.worker_ns = 300 * kMs, .mutator_ns = 100 * kMs});
  CHECK(bench.limiter.fill_ns() == 300 * kMs);
}

TEST_CASE("a full bucket limits until it has drained a little") {
  Bench bench(2);
  bench.stop_for(kSecond - 1, Marking::kOn);
  CHECK_FALSE(bench.limiter.limiting());
  bench.stop_for(1, Marking::kOff);
  CHECK(bench.limiter.limiting());
  CHECK(bench.limiter.overflow_ns() == 0);
  bench.stop_for(kSecond, Marking::kOn);
  CHECK(bench.limiter.limiting());
  CHECK(bench.limiter.fill_ns() == 2 * kSecond);
  CHECK(bench.limiter.overflow_ns() == 2 * kSecond);
  // As much for the one side as for the other leaves it on.
  bench.pass(kMs, Apart{.assist_ns = kMs / 2});
  CHECK(bench.limiter.limiting());
  bench.pass(1, Apart{.assist_ns = 0});
  CHECK_FALSE(bench.limiter.limiting());
}

TEST_CASE("in the long run half of the CPU time goes to a collector that takes what it gets") {
  for (const std::uint32_t cpus : {1u, 2u, 16u}) {
    Bench bench(cpus);
    bench.stop_for(0, Marking::kOn);
    // Mutators assist all the time they may, and tell often; where they may not, nobody tells before an update is due.
    std::uint64_t collector_ns = 0;
    std::uint64_t total_ns = 0;
    while (bench.now_ns < 100 * kSecond) {
      const bool limiting = bench.limiter.limiting();
      const std::uint64_t ns =
          limiting ? CpuLimiter::kUpdatePeriodNs + 1 : CpuLimiter::kAssistPeriodNs + 1;
      const std::uint64_t assist = limiting ? 0 : ns * cpus - ns * cpus / 4;
      bench.pass(ns, Apart{.assist_ns = assist});
      collector_ns += ns * cpus / 4 + assist;
      total_ns += ns * cpus;
    }
    const double share = static_cast<double>(collector_ns) / static_cast<double>(total_ns);
    CAPTURE(cpus, share);
    CHECK(share >= 0.5);
    CHECK(share < 0.53);
  }
}

TEST_CASE(
    "the collector is ahead of the mutators by the bucket and what went over, however long the "
    "windows") {
  const std::uint64_t seed = tricolor::test::seed_of("cpu_limiter");
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  Bench bench(1 + static_cast<std::uint32_t>(random() % 64));
  bench.stop_for(0, Marking::kOn);
  std::int64_t ahead_ns = 0;
  for (int i = 0; i < 10'000; ++i) {
    const std::uint64_t total = bench.cpus * (1 + random() % (10 * kMs));
    const std::uint64_t assist = bench.limiter.limiting() ? 0 : random() % (total / 4 * 3 + 1);
    bench.pass(total / bench.cpus, Apart{.assist_ns = assist});
    const auto collector = static_cast<std::int64_t>(total / 4 + assist);
    // Never behind: the bucket does not go below empty.
    ahead_ns =
        std::max<std::int64_t>(0, ahead_ns + 2 * collector - static_cast<std::int64_t>(total));
    REQUIRE(ahead_ns ==
            static_cast<std::int64_t>(bench.limiter.fill_ns() + bench.limiter.overflow_ns()));
  }
}

TEST_CASE("another number of CPUs is another capacity, and what was full stays full") {
  Bench bench(4);
  bench.stop_for(kSecond, Marking::kOff);
  REQUIRE(bench.limiter.limiting());
  bench.limiter.set_cpus(8, bench.now_ns, {});
  CHECK_FALSE(bench.limiter.limiting());
  CHECK(bench.limiter.fill_ns() == 4 * kSecond);
  bench.limiter.set_cpus(2, bench.now_ns, {});
  CHECK(bench.limiter.limiting());
  CHECK(bench.limiter.fill_ns() == 2 * kSecond);
  // The time before the change is that of the CPUs before the change.
  bench.limiter.set_cpus(8, bench.now_ns + 100 * kMs, {.mutator_ns = 200 * kMs});
  CHECK(bench.limiter.fill_ns() == 2 * kSecond - 200 * kMs);
}

TEST_CASE("an update is due ten milliseconds after the last one") {
  Bench bench(1);
  CHECK_FALSE(bench.limiter.update_due(bench.now_ns + 10 * kMs));
  CHECK(bench.limiter.update_due(bench.now_ns + 10 * kMs + 1));
  bench.pass(5 * kMs);
  CHECK_FALSE(bench.limiter.update_due(bench.now_ns + 10 * kMs));
  CHECK_FALSE(bench.limiter.update_due(0));
}

TEST_CASE("a clock read too early takes nothing back, and assists told with it count") {
  Bench bench(2);
  bench.stop_for(100 * kMs, Marking::kOn);
  const std::uint64_t fill = bench.limiter.fill_ns();
  bench.limiter.update(bench.now_ns - 50 * kMs, {.assist_ns = 7});
  CHECK(bench.limiter.fill_ns() == fill + 7);
  // The 50 ms are not counted again either.
  bench.pass(0);
  CHECK(bench.limiter.fill_ns() == fill + 7);
}

TEST_CASE("no time and no number of CPUs overflows the limiter") {
  const std::initializer_list<std::uint64_t> times = {
      0, 1, kSecond, INT64_MAX, UINT64_MAX / 1024, UINT64_MAX - 1, UINT64_MAX};
  for (const std::uint32_t cpus : {0u, 1u, 2u, 1024u, UINT32_MAX}) {
    for (const std::uint64_t now : times) {
      for (const std::uint64_t assist : times) {
        for (const std::uint64_t other : times) {
          CpuLimiter limiter(cpus, 0);
          limiter.begin_stop(now / 2, {assist, other, ~other});
          limiter.end_stop(now - now / 4, Marking::kOn);
          limiter.update(now, {assist, other, ~other});
          limiter.update(now, {assist, other, ~other});
          REQUIRE(limiter.fill_ns() <= limiter.capacity_ns());
          REQUIRE(limiter.limiting() == (limiter.fill_ns() == limiter.capacity_ns()));
          limiter.set_cpus(1, now, {assist, other, ~other});
          REQUIRE(limiter.fill_ns() <= kSecond);
        }
      }
    }
  }
}
