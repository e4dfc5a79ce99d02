// Memory that goes back to the system: how much, when, and at whose cost. What the system says of the process counts
// (/proc/self/statm), not what the library says.
#include "gc/scavenger.h"

#include <tricolor/gc.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <regex>
#include <string>
#include <thread>
#include <vector>

#include "alloc/base/os.h"
#include "test/gc/support.h"

using namespace tricolor::test;
using tricolor::impl::kNoGoal;
using tricolor::impl::retained_bytes;
using tricolor::impl::ScavengePace;
namespace os = tricolor::impl::os;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

// The whole process, in bytes.
std::uint64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::uint64_t size = 0;
  std::uint64_t resident = 0;
  statm >> size >> resident;
  return resident * os::kernel_page_bytes();
}

// Small objects of different sizes, alive together.
Node* list_of(std::uint64_t bytes) {
  Node* list = nullptr;
  for (std::uint64_t i = 0; i < bytes / sizeof(Node); ++i) list = make_node(i, list);
  return list;
}

void pause_ms(unsigned ms) {
  gc::blocking_call([ms] { usleep(ms * 1'000); });
}

}  // namespace

// -------------------------------------------------------------------------------------- arithmetic

TEST_CASE("the pages of a goal are kept, with what fragmentation made of the last one") {
  CHECK(retained_bytes(64 * kMiB, 0, 0) == 65 * kMiB);
  CHECK(retained_bytes(64 * kMiB, 100 * kMiB, 100 * kMiB) == 65 * kMiB);
  CHECK(retained_bytes(64 * kMiB, 150 * kMiB, 100 * kMiB) == 65 * kMiB * 3 / 2);
  // Cells that are claimed count as live; pages without a cell are no fragmentation.
  CHECK(retained_bytes(64 * kMiB, 50 * kMiB, 100 * kMiB) == 65 * kMiB);
  CHECK(retained_bytes(64 * kMiB, 100 * kMiB, 1) == 2 * 65 * kMiB);
  CHECK(retained_bytes(0, 0, 0) == 0);
  CHECK(retained_bytes(kNoGoal, 100 * kMiB, 50 * kMiB) == kNoGoal);
  CHECK(retained_bytes(kNoGoal - 1, 100 * kMiB, 50 * kMiB) == kNoGoal);
}

TEST_CASE("after work there is a rest of 99 times as long, from the beginning of the work on") {
  ScavengePace pace;
  CHECK(pace.due_in_ns(0) == 0);
  CHECK(pace.due_in_ns(1'000) == 0);
  pace.worked(1'000, 10);
  CHECK(pace.due_in_ns(1'010) == 990);
  CHECK(pace.due_in_ns(2'000) == 0);
  CHECK(pace.due_in_ns(1'000'000) == 0);
  // Whoever comes late has not lost CPU time: it does not work more for it.
  std::uint64_t now = 0;
  std::uint64_t cpu = 0;
  for (int i = 0; i < 1'000; ++i) {
    now += pace.due_in_ns(now) + static_cast<std::uint64_t>(i % 3) * 1'000'000;
    const std::uint64_t took = 1'000'000 + static_cast<std::uint64_t>(i % 7) * 300'000;
    pace.worked(now, took);
    cpu += took;
    now += took;
  }
  now += pace.due_in_ns(now);
  CHECK(cpu <= now / 100);
  CHECK(cpu >= now / 100 * 97 / 100);
}

// ----------------------------------------------------------------------------------- in the background

TEST_CASE("child shrinks after a spike", "[.child]") {
  const std::uint64_t without_heap = resident_bytes();
  gc::root<Node> kept;
  gc::root<Node> spike;
  const int percent = gc::set_percent(-1);
  on_thread([&] {
    kept = list_of(48 * kMiB);
    spike = list_of(400 * kMiB);
  });
  gc::set_percent(percent);
  CHECK(resident_bytes() >= without_heap + 440 * kMiB);
  spike = nullptr;
  collect();
  const auto begin = gc::stats();
  const std::uint64_t begin_ns = os::now_ns();
  const std::uint64_t after_collect = resident_bytes();
  const std::uint64_t goal = begin.heap_goal_bytes;
  CHECK(goal <= 105 * kMiB);
  // The program lives on, with little to do.
  on_thread([&] {
    while (gc::stats().heap_live_bytes < goal / 4 * 3) make_node(1);
  });
  CHECK(gc::stats().cycles_total <= begin.cycles_total + 1);
  const std::uint64_t wanted = without_heap + goal + goal / 20;
  std::uint64_t now = 0;
  while ((now = resident_bytes()) > wanted && os::now_ns() - begin_ns < 30'000'000'000)
    pause_ms(10);
  const auto end = gc::stats();
  const std::uint64_t took_ns = os::now_ns() - begin_ns;
  const std::uint64_t cpu_ns =
      end.scavenge_background_cpu_ns_total - begin.scavenge_background_cpu_ns_total;
  std::printf(
      "goal %llu KiB, resident %llu KiB without a heap, %llu after the cycle, %llu at the end; "
      "%llu ms, %llu us of CPU time; heap %llu metadata %llu\n",
      static_cast<unsigned long long>(goal >> 10),
      static_cast<unsigned long long>(without_heap >> 10),
      static_cast<unsigned long long>(after_collect >> 10),
      static_cast<unsigned long long>(now >> 10),
      static_cast<unsigned long long>(took_ns / 1'000'000),
      static_cast<unsigned long long>(cpu_ns / 1'000),
      static_cast<unsigned long long>(end.heap_mapped_bytes >> 10),
      static_cast<unsigned long long>(end.metadata_bytes >> 10));
  CHECK(now <= wanted);
  // It was done in the background, in 1 % of the time: the last stretch may just have ended.
  CHECK(after_collect > wanted);
  CHECK(cpu_ns > 0);
  CHECK(cpu_ns <= took_ns / 100 + 3'000'000);
  CHECK(end.scavenge_assist_cpu_ns_total == 0);
}

TEST_CASE("after a spike the process is within 5 % of the heap goal in 30 s", "[process]") {
  if (kShadowMemory) {
    WARN("skipped: the sanitizer keeps memory of its own");
    return;
  }
  const ProgramEnd end = run_program("child shrinks after a spike");
  INFO(end.output);
  CHECK(end.exit_code == 0);
  if (std::getenv("TRICOLOR_TEST_SHOW") != nullptr) std::printf("%s", end.output.c_str());
}

// Of 100 MiB; goals are farther with a sanitizer, whose globals count.
constexpr std::uint64_t kGivenBack = (kShadowMemory ? 60 : 90) * kMiB;

TEST_CASE("child traces what it gives back", "[.child]") {
  on_thread([] {
    gc::root<char> large(gc::make_array<char>(100 * kMiB).data());
    std::memset(large.get(), 1, 100 * kMiB);
  });
  collect();
  for (int wait = 0; wait < 3'000 && gc::stats().released_bytes_total < kGivenBack; ++wait)
    pause_ms(10);
  collect();
  gc::make_array<char>(kMiB);
  gc::release_memory();
}

TEST_CASE("scavtrace=1 says in Go's grammar what has gone back to the system", "[process]") {
  const ProgramEnd end =
      run_program("child traces what it gives back", {{"TRICOLOR_DEBUG", "scavtrace=1"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
  const std::regex grammar(
      R"(scav (\d+) KiB work \(bg\), (\d+) KiB work \(eager\), (\d+) KiB now, (\d+)% util( \(forced\)| \[controller reset\])?)");
  std::uint64_t background = 0;
  int forced = 0;
  int lines = 0;
  for (std::size_t at = 0; at < end.output.size();) {
    const std::size_t newline = std::min(end.output.find('\n', at), end.output.size());
    const std::string line = end.output.substr(at, newline - at);
    at = newline + 1;
    if (line.rfind("scav ", 0) != 0) continue;
    std::smatch fields;
    REQUIRE(std::regex_match(line, fields, grammar));
    ++lines;
    background += std::stoull(fields[1]);
    CHECK(std::stoull(fields[4]) <= 100);
    if (fields[5].matched) {
      ++forced;
      CHECK(fields[1] == "0");
      CHECK(std::stoull(fields[2]) >= 1024);
      CHECK(std::stoull(fields[3]) >= kGivenBack >> 10);
    }
  }
  CHECK(lines >= 3);
  CHECK(forced == 1);
  CHECK(background >= kGivenBack >> 10);
}

TEST_CASE("what the heap needs up to its next goal stays: a steady heap gives nothing back") {
  if (stressed()) {
    WARN("skipped: under stress=n the heap never fills");
    return;
  }
  const int percent = gc::set_percent(100);
  gc::root<Node> kept;
  on_thread([&] {
    kept = list_of(16 * kMiB);
    for (int i = 0; i < 2'000'000; ++i) make_node(1);
  });
  const auto before = gc::stats();
  // A slow mark (with sanitizers) moves its goal out: fewer cycles for the same bytes.
  for (int round = 0; round < 10 || gc::stats().cycles_total < before.cycles_total + 5; ++round) {
    on_thread([] {
      for (int i = 0; i < 500'000; ++i) make_node(1);
    });
    pause_ms(5);
  }
  const auto after = gc::stats();
  // Goals differ a little from cycle to cycle, and who runs past one leaves pages that the next does not need. If what is free
  // after each went back, it would be as much as is allocated.
  CHECK(after.released_bytes_total - before.released_bytes_total <=
        (after.allocated_bytes_total - before.allocated_bytes_total) / 4);
  gc::set_percent(percent);
  kept = nullptr;
  collect();
}

// ------------------------------------------------------------------------------- by the memory limit

namespace {

// The most that the process has ever been, looked at all the time.
class Watch {
 public:
  Watch()
      : x_thread([this] {
          while (!x_end) {
            const std::uint64_t now = resident_bytes();
            if (now > x_most) x_most = now;
            usleep(500);
          }
        }) {}
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch() {
    x_end = true;
    join(x_thread);
  }
  // Since the last call.
  std::uint64_t take_most() { return x_most.exchange(0); }

 private:
  std::atomic<std::uint64_t> x_most{0};
  std::atomic<bool> x_end{false};
  std::thread x_thread;
};

}  // namespace

TEST_CASE("child has much free memory when it needs a large object", "[.child]") {
  // 100 MiB in objects of 1 MiB, of which every second one goes: no free run is large.
  std::vector<gc::root<char>> kept;
  on_thread([&] {
    for (int i = 0; i < 100; ++i) {
      kept.emplace_back(gc::make_array<char>(kMiB - 1).data());
      std::memset(kept.back().get(), 1, kMiB - 1);
    }
    for (std::size_t i = 0; i < kept.size(); i += 2) kept[i] = nullptr;
  });
  collect();
  const auto before = gc::stats();
  REQUIRE(before.heap_free_bytes >= 45 * kMiB);
  const std::uint64_t resident = resident_bytes();
  Watch watch;
  on_thread([&] {
    gc::root<char> large(gc::make_array<char>(40 * kMiB).data());
    std::memset(large.get(), 1, 40 * kMiB);
    const auto now = gc::stats();
    CHECK(now.released_bytes_total - before.released_bytes_total >= 35 * kMiB);
    CHECK(now.scavenge_assist_cpu_ns_total > before.scavenge_assist_cpu_ns_total);
    CHECK(now.mapped_bytes <= before.mapped_bytes + 5 * kMiB);
  });
  CHECK(watch.take_most() <= resident + 6 * kMiB);
}

TEST_CASE("an allocation at the memory limit gives free pages back before it touches new ones",
          "[process]") {
  if (kShadowMemory) {
    WARN("skipped: the sanitizer keeps memory of its own");
    return;
  }
  // Without a background that has had the time: min_heap keeps it from wanting to.
  const ProgramEnd end = run_program("child has much free memory when it needs a large object",
                                     {{"GOMEMLIMIT", "104MiB"}, {"GOGC", "off"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child lives on more and more of a memory limit", "[.child]") {
  constexpr std::uint64_t kLimit = 256 * kMiB;
  const std::uint64_t without_heap = resident_bytes();
  Watch watch;
  std::uint64_t worst = 0;
  std::atomic<std::uint64_t> read = 0;
  // Lists of 1 MiB; at each step one in ten more. One after the other is replaced, and for each as many are read as there are: a program that does
  // nothing but allocate would take more than half of the CPU time for its collector, which the limiter ends, at the cost
  // of the limit.
  const auto thread_count =
      static_cast<std::size_t>(std::atoi(std::getenv("TRICOLOR_TEST_THREADS")));
  std::vector<std::vector<gc::root<Node>>> kept(thread_count);
  for (std::uint64_t percent = 10; percent <= 90; percent += 10) {
    std::vector<std::thread> threads;
    for (auto& mine : kept) {
      threads.push_back(start_thread([&] {
        std::uint64_t lengths = 0;
        while (mine.size() * kMiB < kLimit / 100 * percent / kept.size())
          mine.emplace_back(list_of(kMiB));
        for (std::uint64_t made = 0; made < kLimit / 2 / kept.size(); made += kMiB) {
          mine[made / kMiB % mine.size()] = list_of(kMiB);
          for (std::size_t times = 0; times < kept.size(); ++times) {
            for (const auto& list : mine) lengths += length_of(list.get());
          }
        }
        read += lengths;
      }));
    }
    for (std::thread& thread : threads) join(thread);
    const std::uint64_t most = watch.take_most();
    std::printf("%llu %%: %llu KiB\n", static_cast<unsigned long long>(percent),
                static_cast<unsigned long long>((most - without_heap) >> 10));
    worst = std::max(worst, most);
  }
  std::printf("without a heap %llu KiB; %llu cycles, limited in %llu; read %llu\n",
              static_cast<unsigned long long>(without_heap >> 10),
              static_cast<unsigned long long>(gc::stats().cycles_total),
              static_cast<unsigned long long>(gc::stats().limited_cycle_last),
              static_cast<unsigned long long>(read));
  CHECK(worst <= kLimit + 16 * kMiB + without_heap);
}

TEST_CASE("from 10 to 90 % of a memory limit live, the process stays within 16 MiB of it",
          "[process]") {
  if (kShadowMemory) {
    WARN("skipped: the sanitizer keeps memory of its own");
    return;
  }
  using Case = std::pair<const char*, const char*>;
  const auto [percent, threads] = GENERATE(Case{"100", "1"}, Case{"off", "2"});
  const ProgramEnd end = run_program(
      "child lives on more and more of a memory limit",
      {{"GOMEMLIMIT", "256MiB"}, {"GOGC", percent}, {"TRICOLOR_TEST_THREADS", threads}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
  if (std::getenv("TRICOLOR_TEST_SHOW") != nullptr) std::printf("%s", end.output.c_str());
}
