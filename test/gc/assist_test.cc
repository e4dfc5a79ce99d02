// What an allocation pays while a cycle marks. A trace function that waits holds a mark in its middle, on the collector's
// thread; what lies behind it is there for others to mark.
#include "gc/assist.h"

#include <tricolor/gc.h>

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "alloc/base/fault.h"
#include "gc/library_thread.h"
#include "gc/mark_crew.h"
#include "test/gc/support.h"

using namespace tricolor::test;
using tricolor::impl::Assists;
using tricolor::impl::Fault;
using tricolor::impl::Heap;
namespace os = tricolor::impl::os;

namespace {

std::atomic<bool> hold_next{false};
std::atomic<bool> reached{false};
std::atomic<bool> let_go{false};

// The first one that is traced waits. 256 bytes of work.
struct Part {
  gc::ptr<Node> node;
  std::array<char, 248> rest = {};
  void trace(gc::tracer& t) const noexcept {
    if (hold_next.exchange(false)) {
      reached = true;
      while (!let_go) std::this_thread::yield();
    }
    t(node);
  }
};
static_assert(sizeof(Part) == 256);

class HeldMark {
 public:
  explicit HeldMark(std::size_t parts) : x_parts(gc::make_array<gc::ptr<Part>>(parts)) {
    for (std::size_t i = 0; i < parts; ++i) {
      x_parts[i] = gc::make<Part>();
      x_parts[i]->node = make_node(i);
    }
    reached = false;
    let_go = false;
    hold_next = true;
    x_thread = start_thread([] { gc::collect(); });
    while (!reached) gc::safepoint();
  }
  void end() {
    let_go = true;
    join(x_thread);
  }
  bool intact() const {
    for (std::size_t i = 0; i < x_parts.size(); ++i) {
      if (!tricolor::test::intact(x_parts[i]->node, i)) return false;
    }
    return true;
  }

 private:
  gc::array<gc::ptr<Part>> x_parts;
  std::thread x_thread;
};

void plant() {
  const char* const wanted = std::getenv("TRICOLOR_TEST_FAULT");
  const gc::thread_scope attach;
  if (wanted == nullptr) return;
  for (const auto& [name, fault] : {std::pair{"assist_keeps_work", Fault::assist_keeps_work},
                                    std::pair{"assists_not_forgiven", Fault::assists_not_forgiven},
                                    std::pair{"assists_pay_nothing", Fault::assists_pay_nothing}}) {
    if (std::string(wanted) == name) tricolor::impl::planted_fault = fault;
  }
}

Assists& assists() { return Heap::existing()->assists(); }

// Waits for it, but no longer than half a minute.
template <class Condition>
bool comes_true(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    gc::blocking_call([] { std::this_thread::yield(); });
  }
  return true;
}

constexpr std::uint64_t kParts = 4'000;
constexpr const char* kOneMarker = "workers=1,gccheckmark=1,clobberfree=1";

// Allocates past any goal, or says that it holds as much outside.
class Allocating {
 public:
  enum class How : std::uint8_t { kPaying, kNeverPaying, kOutside };
  explicit Allocating(How how)
      : x_thread(start_thread([this, how] {
          const gc::thread_scope attach;
          std::optional<gc::never_assist> never;
          if (how == How::kNeverPaying) never.emplace();
          for (int i = 0; i < 1'000; ++i) {
            if (how == How::kOutside) {
              gc::external_memory(60'000);
            } else {
              gc::make_array<char>(60'000);
            }
          }
          if (how == How::kNeverPaying) {
            // A large one is claimed after the account has been looked at.
            gc::make_array<char>(10'000'000);
            const tricolor::impl::Mutator& mutator = *tricolor::impl::current_mutator();
            owed_bytes = static_cast<std::int64_t>(mutator.claimed_bytes - mutator.paid_bytes);
          }
          done = true;
        })) {}
  Allocating(const Allocating&) = delete;
  Allocating& operator=(const Allocating&) = delete;
  ~Allocating() { join(x_thread); }
  std::atomic<bool> done{false};
  std::int64_t owed_bytes = 0;  // in the end; when done

 private:
  std::thread x_thread;
};

}  // namespace

TEST_CASE("child marks a part of what is held", "[.child]") {
  plant();
  HeldMark mark(kParts);
  auto& heap = *Heap::existing();
  auto& mutator = *tricolor::impl::current_mutator();
  for (int i = 0; i < 3; ++i) {
    const std::uint64_t before = assists().assist_work_bytes();
    std::uint64_t done = 0;
    heap.handshake().while_blocked(mutator, [&] {
      const tricolor::impl::OwnThread own;
      tricolor::impl::Marker* const marker = heap.cycle().crew().borrow();
      done = marker->assist(100'000);
      heap.cycle().crew().give_back(marker);
    });
    CHECK(done >= 100'000);
    CHECK(done < 101'000);
    CHECK(assists().assist_work_bytes() - before == done);
  }
  mark.end();
  CHECK(mark.intact());
}

TEST_CASE("an assist does the work that it is asked for, and leaves the rest to others",
          "[process]") {
  const ProgramEnd end =
      run_program("child marks a part of what is held", {{"TRICOLOR_DEBUG", kOneMarker}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("an assist that does not give back what it has found is caught", "[process]") {
  const ProgramEnd end =
      run_program("child marks a part of what is held",
                  {{"TRICOLOR_DEBUG", kOneMarker}, {"TRICOLOR_TEST_FAULT", "assist_keeps_work"}});
  INFO(end.output);
  CHECK(end.exit_code != 0);
  CHECK(has_line(end.output, "verify.no-hidden-white"));
}

namespace {

constexpr std::uint64_t kInLineNs = 50'000'000;

void allocate_while_a_mark_is_held(Allocating::How how) {
  plant();
  HeldMark mark(kParts);
  gc::set_percent(100);
  const std::uint64_t begin_ns = os::now_ns();
  {
    const Allocating thread(how);
    // It marks all that is left, and then waits in line.
    CHECK(comes_true([] { return assists().anybody_waits(); }));
    CHECK(!thread.done);
    CHECK(assists().assist_work_bytes() > kParts * sizeof(Part) * 9 / 10);
    CHECK(assists().assist_work_bytes() <= kParts * (sizeof(Part) + sizeof(Node)));
    const std::uint64_t in_line_ns = os::now_ns();
    comes_true([&] { return os::now_ns() - in_line_ns >= kInLineNs; });
    mark.end();
    const bool goes_on = comes_true([&] { return thread.done.load(); });
    if (!goes_on) {
      std::fputs("IN LINE FOR EVER\n", stderr);
      std::_Exit(9);
    }
  }
  CHECK(mark.intact());
  CHECK(gc::stats().assists.total_count() > 0);
  CHECK(gc::stats().assists.quantile_ns(1) >= kInLineNs);
  CHECK(gc::stats().assists.quantile_ns(1) <= (os::now_ns() - begin_ns) * 5 / 4);  // of the bucket
  CHECK(gc::stats().assist_cpu_ns_total > 0);
}

}  // namespace

TEST_CASE("child allocates while a mark is held", "[.child]") {
  allocate_while_a_mark_is_held(Allocating::How::kPaying);
}

TEST_CASE("child holds memory outside while a mark is held", "[.child]") {
  allocate_while_a_mark_is_held(Allocating::How::kOutside);
}

TEST_CASE("who allocates past the goal marks what there is and waits, until marking ends",
          "[process]") {
  const ProgramEnd end =
      run_program("child allocates while a mark is held", {{"TRICOLOR_DEBUG", kOneMarker}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("memory held outside is paid for like what is allocated", "[process]") {
  const ProgramEnd end = run_program("child holds memory outside while a mark is held",
                                     {{"TRICOLOR_DEBUG", kOneMarker}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("a thread that nobody lets go when marking ends is noticed", "[process]") {
  const ProgramEnd end = run_program(
      "child allocates while a mark is held",
      {{"TRICOLOR_DEBUG", kOneMarker}, {"TRICOLOR_TEST_FAULT", "assists_not_forgiven"}});
  INFO(end.output);
  CHECK(end.exit_code == 9);
  CHECK(has_line(end.output, "IN LINE FOR EVER"));
}

TEST_CASE("debts that are paid with nothing are noticed", "[process]") {
  const ProgramEnd end =
      run_program("child allocates while a mark is held",
                  {{"TRICOLOR_DEBUG", kOneMarker}, {"TRICOLOR_TEST_FAULT", "assists_pay_nothing"}});
  INFO(end.output);
  CHECK(end.exit_code != 0);
}

TEST_CASE("child pays for much at once while a mark is held", "[.child]") {
  gc::set_percent(
      -1);  // no cycle is in the middle of its mark when the one to be held is asked for
  HeldMark mark(100'000);
  gc::set_percent(100);
  std::atomic<std::uint64_t> clock_ns{0}, said_ns{0};
  std::thread thread = start_thread([&] {
    const gc::thread_scope attach;
    {
      const gc::never_assist past_the_goal;
      for (int i = 0; i < 1'000; ++i) gc::make_array<char>(60'000);
    }
    const std::uint64_t said_before_ns = assists().cpu_ns();
    const std::uint64_t begin_ns = os::thread_cpu_ns();
    gc::make_array<char>(60'000);
    clock_ns = os::thread_cpu_ns() - begin_ns;
    said_ns = assists().cpu_ns() - said_before_ns;
  });
  const bool waits = comes_true([] { return assists().anybody_waits(); });
  const std::uint64_t marked_bytes = assists().assist_work_bytes();
  mark.end();
  join(thread);
  CHECK(waits);
  CHECK(mark.intact());
  std::printf("%llu bytes marked; by the thread's clock %llu ns, by the statistics %llu ns\n",
              static_cast<unsigned long long>(marked_bytes),
              static_cast<unsigned long long>(clock_ns), static_cast<unsigned long long>(said_ns));
  CHECK(marked_bytes >= 25'000'000);
  CHECK(said_ns <= clock_ns);
  // Its way in and out, and 60 KB of its own.
  CHECK(clock_ns <= said_ns + said_ns / 20 + 500'000);
}

TEST_CASE("the CPU time of assists is what their threads' clocks say", "[process]") {
  const ProgramEnd end = run_program("child pays for much at once while a mark is held",
                                     {{"TRICOLOR_DEBUG", "workers=1"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
  if (std::getenv("TRICOLOR_TEST_SHOW") != nullptr) std::printf("%s", end.output.c_str());
}

TEST_CASE("child feeds a line of two", "[.child]") {
  HeldMark mark(kParts);
  gc::set_percent(10);
  {
    // Past the goal each pays at once, and a byte costs the same for both.
    const gc::never_assist past_the_goal;
    gc::make_array<char>(20'000'000);
  }
  auto& cycle = Heap::existing()->cycle();
  as_library_thread<tricolor::impl::OwnThread>([&] {
    tricolor::impl::Marker* const marker = cycle.crew().borrow();
    while (marker->assist(1'000'000) != 0) {
    }
    cycle.crew().give_back(marker);
    cycle.pacing().revise_assist_ratio();
  });
  REQUIRE(cycle.pacing().at_goal());
  constexpr std::int64_t kMuch = 36'000'000, kLittle = 60'000;  // bytes, 600 to 1
  std::atomic<bool> much_done{false}, little_done{false};
  const auto allocating = [](std::int64_t bytes, std::atomic<bool>& done) {
    return start_thread([&done, bytes] {
      const gc::thread_scope attach;
      gc::make_array<char>(static_cast<std::size_t>(bytes));
      done = true;
    });
  };
  std::thread much = allocating(kMuch, much_done);
  CHECK(comes_true([] { return assists().waiting() == 1; }));
  std::thread little = allocating(kLittle, little_done);
  CHECK(comes_true([] { return assists().waiting() == 2; }));
  // How much they owe is for the pacer to say; here it is found out.
  std::uint64_t fed = 0;
  const auto feed_until = [&](std::uint32_t waiting, std::uint64_t step) {
    as_library_thread<tricolor::impl::OwnThread>([&] {
      for (int i = 0; i < 1'000'000 && assists().waiting() > waiting; ++i, fed += step)
        assists().count_work(step, Assists::By::worker);
    });
  };
  // By turns, so that as much goes to each.
  feed_until(1, 1'000'000);
  const auto owed_little = static_cast<double>(fed) / 2;
  CHECK(comes_true([&] { return little_done.load(); }));
  CHECK(!much_done);
  CHECK(assists().waiting() == 1);
  feed_until(0, 1'000'000'000);
  const double owed_much = static_cast<double>(fed) - owed_little;
  CHECK(comes_true([&] { return much_done.load(); }));
  CHECK(owed_much == Approx(owed_little * kMuch / kLittle).epsilon(0.01));
  mark.end();
  join(much);
  join(little);
  CHECK(mark.intact());
}

TEST_CASE("who owes little is not held up by who came before and owes much", "[process]") {
  const ProgramEnd end =
      run_program("child feeds a line of two", {{"TRICOLOR_DEBUG", "workers=1"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child comes back while a mark is held", "[.child]") {
  gc::set_percent(2'000);  // a goal far above the 50 MB
  std::atomic<int> ready{0}, go{0};
  std::atomic<bool> done{false};
  std::thread thread = start_thread([&] {
    for (int i = 0; i < 50; ++i) gc::make_array<char>(1'000'000);
    gc::blocking_call([&] {
      raise(ready, 1);
      wait_until(go, 1);
    });
    make_node(1);
    done = true;
  });
  wait_until(ready, 1);
  HeldMark mark(kParts);
  raise(go, 1);
  CHECK(comes_true([&] { return done.load(); }));
  CHECK(assists().assist_work_bytes() == 0);
  mark.end();
  join(thread);
}

TEST_CASE("a thread that was idle when marking began does not owe for what it allocated before",
          "[process]") {
  const ProgramEnd end =
      run_program("child comes back while a mark is held", {{"TRICOLOR_DEBUG", kOneMarker}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child never assists while a mark is held", "[.child]") {
  HeldMark mark(kParts);
  gc::set_percent(100);
  {
    const Allocating thread(Allocating::How::kNeverPaying);
    CHECK(comes_true([&] { return thread.done.load(); }));
    CHECK(thread.owed_bytes <= 16 << 10);  // pages are whole
    CHECK(assists().assist_work_bytes() == 0);
  }
  mark.end();
}

TEST_CASE("a thread inside gc::never_assist neither marks nor waits", "[process]") {
  const ProgramEnd end =
      run_program("child never assists while a mark is held", {{"TRICOLOR_DEBUG", kOneMarker}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

// ------------------------------------------------------------------------------------- a real program

namespace {

constexpr std::size_t kLive = 1 << 20;  // nodes of 32 bytes

// Replaces nodes of a table of kLive, and thinks of so many things in between.
void replace(gc::array<gc::ptr<Node>>& table, std::uint64_t times, std::uint64_t seed,
             int thoughts = 0) {
  std::mt19937_64 random(seed);
  for (std::uint64_t i = 0; i < times; ++i) {
    table[random() % table.size()] = make_node(i);
    volatile std::uint64_t thought = 0;
    for (int t = 0; t < thoughts; ++t) thought = thought + random();
  }
}

}  // namespace

TEST_CASE("child lives on 40 MB", "[.child]") {
  gc::array<gc::ptr<Node>> table = gc::make_array<gc::ptr<Node>>(kLive);
  for (std::size_t i = 0; i < kLive; ++i) table[i] = make_node(i);
  const char* const threads = std::getenv("TRICOLOR_TEST_THREADS");
  std::vector<std::thread> others;
  for (int t = 1; t < (threads != nullptr ? std::atoi(threads) : 1); ++t) {
    others.push_back(start_thread([&table, t] {
      gc::array<gc::ptr<Node>> mine = table;
      while (gc::stats().cycles_total < 60) replace(mine, 1'000, static_cast<std::uint64_t>(t));
    }));
  }
  const char* const thoughts = std::getenv("TRICOLOR_TEST_THOUGHTS");
  while (gc::stats().cycles_total < 60)
    replace(table, 1'000, 0, thoughts != nullptr ? std::atoi(thoughts) : 0);
  for (std::thread& other : others) join(other);
}

namespace {

struct PacedCycle {
  std::uint64_t end_bytes;
  std::int64_t beyond_goal_bytes;
  std::uint64_t cpu_percent;
};

// From the lines `pacer: N% CPU (...) ... B -> N B (goal +N, ...)`.
std::vector<PacedCycle> paced_cycles(const std::string& output) {
  std::vector<PacedCycle> cycles;
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t arrow = line.find(" B -> ");
    const std::size_t goal = line.find("(goal ");
    if (!line.starts_with("pacer: ") || arrow == std::string::npos || goal == std::string::npos)
      continue;
    cycles.push_back({std::stoull(line.substr(arrow + 6)), std::stoll(line.substr(goal + 6)),
                      std::stoull(line.substr(7))});
  }
  return cycles;
}

template <class T>
T median(std::vector<T> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

TEST_CASE(
    "a program that goes on as it is ends its cycles at the goal, with a quarter of the CPUs or "
    "less",
    "[process]") {
  // One that does not allocate so fast that 30 percent of the way to the goal, the most a cycle may have, is too short.
  const ProgramEnd end = run_program(
      "child lives on 40 MB",
      {{"TRICOLOR_DEBUG", "gcpacertrace=1,idleworkers=0"}, {"TRICOLOR_TEST_THOUGHTS", "30"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
  const std::vector<PacedCycle> cycles = paced_cycles(end.output);
  REQUIRE(cycles.size() >= 50);
  std::vector<double> reached_goal;
  std::vector<std::uint64_t> cpu_percent;
  for (std::size_t i = 25; i < cycles.size(); ++i) {
    const auto bytes = static_cast<double>(cycles[i].end_bytes);
    reached_goal.push_back(bytes / (bytes - static_cast<double>(cycles[i].beyond_goal_bytes)));
    cpu_percent.push_back(cycles[i].cpu_percent);
  }
  CHECK(median(reached_goal) > 0.95);
  CHECK(median(reached_goal) < 1.05);
  // Other processes may keep it from its share, not give it more.
  CHECK(median(cpu_percent) > 0);
  CHECK(median(cpu_percent) <= 35);
}

TEST_CASE("however many threads allocate, the heap stays within 3 percent of its goal",
          "[process]") {
  const ProgramEnd end = run_program("child lives on 40 MB", {{"TRICOLOR_DEBUG", "gcpacertrace=1"},
                                                              {"TRICOLOR_TEST_THREADS", "8"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
  const std::vector<PacedCycle> cycles = paced_cycles(end.output);
  REQUIRE(cycles.size() >= 50);
  double worst = 0;
  for (std::size_t i = 5; i < cycles.size(); ++i) {
    const auto bytes = static_cast<double>(cycles[i].end_bytes);
    worst = std::max(worst, bytes / (bytes - static_cast<double>(cycles[i].beyond_goal_bytes)));
  }
  CHECK(worst <= 1.03);
}

namespace {

struct Tree {
  Tree(Tree* left_, Tree* right_) : left(left_), right(right_) {}
  gc::ptr<Tree> left, right;
  static constexpr auto gc_fields = gc::fields(&Tree::left, &Tree::right);
};

Tree* grow(int depth) {
  if (depth == 0) return gc::make<Tree>(nullptr, nullptr);
  Tree* const left = grow(depth - 1);
  return gc::make<Tree>(left, grow(depth - 1));
}

std::size_t count(const Tree* tree) {
  return tree == nullptr ? 0 : 1 + count(tree->left) + count(tree->right);
}

}  // namespace

// As examples/binary_trees.cc does: a tree that stays, and many that do not.
constexpr int kTreeDepth = 18;
// At most alive: one tree of a depth more, or two.
constexpr double kTreesLive =
    sizeof(Tree) * static_cast<double>(std::size_t{2} << (kTreeDepth + 1));

TEST_CASE("child builds binary trees", "[.child]") {
  plant();
  CHECK(count(grow(kTreeDepth + 1)) == (std::size_t{2} << (kTreeDepth + 1)) - 1);
  const gc::root<Tree> stays = grow(kTreeDepth);
  std::uint64_t most_live = 0, most_mapped = 0;
  for (int depth = 4; depth <= kTreeDepth; depth += 2) {
    for (int i = 0; i < 1 << (kTreeDepth - depth + 2); ++i) {
      REQUIRE(count(grow(depth)) == (std::size_t{2} << depth) - 1);
      if (i % 16 != 0) continue;
      const auto now = gc::stats();
      most_live = std::max(most_live, now.heap_live_bytes);
      most_mapped = std::max(most_mapped, now.heap_mapped_bytes);
    }
  }
  CHECK(count(stays) == (std::size_t{2} << kTreeDepth) - 1);
  gc::collect();  // says the goal after the last one that came by itself
  const auto now = gc::stats();
  const std::uint64_t marking_ns = now.dedicated_cpu_ns_total + now.fractional_cpu_ns_total +
                                   now.idle_cpu_ns_total + now.assist_cpu_ns_total;
  const auto number = [](std::uint64_t n) { return static_cast<unsigned long long>(n); };
  std::printf("\nMOST %llu %llu\n", number(most_live), number(most_mapped));
  std::printf("SPENT %llu %llu %llu %llu\n", number(marking_ns), number(now.marked_bytes_total),
              number(os::thread_cpu_ns() - now.assist_cpu_ns_total),
              number(now.allocated_bytes_total));
}

// Where a cycle finds more alive than the ones before, its goal was too low: the pacer lets the heap pass it rather than the
// program stand. It still is no larger than percent allows for what is alive, which the next goal says.
TEST_CASE("a program that grows and shrinks stays within 3 percent of its goal, or of the next one",
          "[process]") {
  const ProgramEnd end = run_program("child builds binary trees",
                                     {{"TRICOLOR_DEBUG", "gcpacertrace=1,idleworkers=0"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
  const std::vector<PacedCycle> cycles = paced_cycles(end.output);
  REQUIRE(cycles.size() >= 5);  // with sanitizers there are few
  const auto goal = [&](std::size_t i) {
    return static_cast<double>(cycles[i].end_bytes) -
           static_cast<double>(cycles[i].beyond_goal_bytes);
  };
  double largest = 0, largest_goal = 0;
  std::vector<double> end_bytes;
  std::vector<std::uint64_t> cpu_percent;
  for (std::size_t i = 0; i < cycles.size(); ++i) {
    const auto bytes = static_cast<double>(cycles[i].end_bytes);
    if (i + 1 < cycles.size()) CHECK(bytes <= 1.03 * std::max(goal(i), goal(i + 1)));
    largest = std::max(largest, bytes);
    largest_goal = std::max(largest_goal, goal(i));
    end_bytes.push_back(bytes);
    cpu_percent.push_back(cycles[i].cpu_percent);
  }
  double live = 0, mapped = 0;
  if (const std::size_t at = end.output.find("MOST "); at != std::string::npos)
    std::istringstream(end.output.substr(at + 5)) >> live >> mapped;
  if (std::getenv("TRICOLOR_TEST_SHOW") != nullptr)
    std::printf(
        "%zu cycles to %.0f B of %.0f B, half of them to %.0f B; live %.0f B, mapped %.0f B, %llu "
        "%% CPU\n",
        cycles.size(), largest, largest_goal, median(end_bytes), live, mapped,
        static_cast<unsigned long long>(median(cpu_percent)));
  CHECK(largest <= 1.03 * largest_goal);
  // A goal grows with what is allocated while a cycle marks, which it takes for alive: held against themselves, goals do not
  // say that assists pay nothing. What is alive at most does. (Of the few cycles near that size one may find so much alive that
  // its goal was too low; so here it is the median, and what is seen now and then.)
  CHECK(live > 0);
  if (!kShadowMemory) {
    CHECK(median(end_bytes) <= 2 * kTreesLive);
    CHECK(live <= 1.3 * 2 * kTreesLive);
    CHECK(mapped <= 1.3 * 2 * kTreesLive);
  }
  // A program that does nothing but allocate pays with more than the workers' quarter: a cycle has at most 30 percent of the way to
  // the goal, which here is as much as is alive, so while its worker and its assists mark that, it allocates 0.3 of it at least.
  // How large a share of the CPUs that is says the time that either takes for a byte, on this machine, built as this is. (Seen: 55 to
  // 58 percent where this says 59 to 62.)
  double marking_ns = 0, marked = 0, program_ns = 0, allocated = 0;
  if (const std::size_t at = end.output.find("SPENT "); at != std::string::npos)
    std::istringstream(end.output.substr(at + 6)) >> marking_ns >> marked >> program_ns >>
        allocated;
  REQUIRE(allocated > 0);
  const double to_mark = marking_ns / marked, to_allocate = program_ns / allocated;
  const double cpus = os::cpu_count();
  // Of all that work; on one CPU, where the program has 0.75, too.
  const double share =
      std::min(1.0, (1 + 0.25 * cpus) / cpus) * to_mark / (to_mark + 0.3 * to_allocate);
  INFO("ns a byte: to mark " << to_mark << ", to allocate " << to_allocate << "; " << cpus
                             << " CPUs");
  CHECK(median(cpu_percent) > 0);
  CHECK(static_cast<double>(median(cpu_percent)) <= 1.1 * 100 * std::max(0.25, share));
}

// --------------------------------------------------------------------------------- whose CPU time

TEST_CASE("child counts the collector's CPU time", "[.child]") {
  gc::array<gc::ptr<Node>> table = gc::make_array<gc::ptr<Node>>(kLive);
  for (std::size_t i = 0; i < kLive; ++i) table[i] = make_node(i);
  gc::collect();
  const auto before = gc::stats();
  const std::uint64_t process_before = os::process_cpu_ns() - os::thread_cpu_ns();
  for (int i = 0; i < 20; ++i) gc::collect();
  const std::uint64_t process = os::process_cpu_ns() - os::thread_cpu_ns() - process_before;
  const auto after = gc::stats();
  const auto spent = static_cast<double>(after.gc_cpu_ns_total - after.pause_cpu_ns_total -
                                         (before.gc_cpu_ns_total - before.pause_cpu_ns_total));
  CHECK(spent / static_cast<double>(process) > 0.95);
  CHECK(spent / static_cast<double>(process) < 1.05);
  CHECK(after.gc_cpu_ns_total == after.dedicated_cpu_ns_total + after.fractional_cpu_ns_total +
                                     after.idle_cpu_ns_total + after.assist_cpu_ns_total +
                                     after.pause_cpu_ns_total + after.sweep_cpu_ns_total);
}

TEST_CASE("the collector's CPU time is what the system says", "[process]") {
  const ProgramEnd end = run_program("child counts the collector's CPU time");
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

namespace {

std::uint64_t used_cpu_ns() {
  rusage used = {};
  getrusage(RUSAGE_SELF, &used);
  const auto ns = [](const timeval& time) {
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(time.tv_usec) * 1'000;
  };
  return ns(used.ru_utime) + ns(used.ru_stime);
}

// Of threads that only the collector has. (An assist's is its thread's, a pause has no thread.)
std::uint64_t collector_threads_ns(const gc::statistics& at) {
  return at.dedicated_cpu_ns_total + at.fractional_cpu_ns_total + at.idle_cpu_ns_total +
         at.sweep_cpu_ns_total + at.scavenge_background_cpu_ns_total;
}

}  // namespace

TEST_CASE("child allocates beside 130 MB and keeps the books of CPU time", "[.child]") {
  gc::array<gc::ptr<Node>> table = gc::make_array<gc::ptr<Node>>(many(4 * kLive));
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = make_node(i);
  gc::collect();
  const auto before = gc::stats();
  const std::uint64_t begin_ns = os::now_ns();
  const std::uint64_t used_before_ns = used_cpu_ns();
  const std::uint64_t own_before_ns = os::thread_cpu_ns();
  const auto work = [&](std::uint64_t seed) {
    gc::array<gc::ptr<Node>> mine = table;
    while (os::now_ns() - begin_ns < 3'000'000'000 ||
           gc::stats().cycles_total < before.cycles_total + 3)
      replace(mine, 1'000, seed);
  };
  std::atomic<std::uint64_t> program_ns{0};
  std::vector<std::thread> others;
  for (int t = 1; t < std::atoi(std::getenv("TRICOLOR_TEST_THREADS")); ++t) {
    others.push_back(start_thread([&, t] {
      work(static_cast<std::uint64_t>(t));
      program_ns += os::thread_cpu_ns();
    }));
  }
  work(0);
  for (std::thread& other : others) join(other);
  gc::collect();  // what has begun ends, its sweep too
  program_ns += os::thread_cpu_ns() - own_before_ns;
  const std::uint64_t used_ns = used_cpu_ns() - used_before_ns;
  const auto now = gc::stats();
  const std::uint64_t left_ns = used_ns - program_ns;
  const std::uint64_t said_ns = collector_threads_ns(now) - collector_threads_ns(before);
  const auto number = [](std::uint64_t n) { return static_cast<unsigned long long>(n); };
  std::printf(
      "\nBOOKS of %llu cycles, ns: used %llu, by the program %llu, so by others %llu; said %llu\n",
      number(now.cycles_total - before.cycles_total), number(used_ns), number(program_ns),
      number(left_ns), number(said_ns));
  std::printf("TOTALS %llu %llu %llu %llu %llu\n", number(now.cycles_total),
              number(now.pause_cpu_ns_total), number(now.assist_cpu_ns_total),
              number(now.dedicated_cpu_ns_total + now.fractional_cpu_ns_total),
              number(now.idle_cpu_ns_total));
  // Nobody's is what stops, printing, and the ends of threads take.
  constexpr std::uint64_t kNobodysNs = 20'000'000;
  CHECK(said_ns <= left_ns + left_ns / 20 + kNobodysNs);
  CHECK(left_ns <= said_ns + left_ns / 20 + kNobodysNs);
}

namespace {

// Numbers as gctrace prints them, in ms and cut off, added up: what was printed is `least` or more, and less than `below`.
struct PrintedNs {
  double least = 0, below = 0;
  void add(const std::string& text) {
    const std::size_t point = text.find('.');
    const std::size_t places = text == "0"                  ? 3
                               : point == std::string::npos ? 0
                                                            : text.size() - point - 1;
    least += std::stod(text) * 1e6;
    below += (std::stod(text) + std::pow(10, -static_cast<double>(places))) * 1e6;
  }
  bool is(double ns) const { return least <= ns * (1 + 1e-9) && ns < below; }
};

}  // namespace

TEST_CASE(
    "the collector's threads say what CPU time they take while the program allocates and so do the "
    "traces",
    "[process]") {
  const char* const threads = GENERATE("1", "3");
  const ProgramEnd end =
      run_program("child allocates beside 130 MB and keeps the books of CPU time",
                  {{"TRICOLOR_DEBUG", "gctrace=1"}, {"TRICOLOR_TEST_THREADS", threads}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
  if (std::getenv("TRICOLOR_TEST_SHOW") != nullptr) std::printf("%s", end.output.c_str());
  std::uint64_t cycles = 0;
  PrintedNs pauses, assists, workers, idle;
  std::array<double, 5> totals = {};
  std::istringstream lines(end.output);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("TOTALS ")) {
      std::istringstream numbers(line.substr(7));
      for (double& total : totals) numbers >> total;
    }
    const std::size_t clock = line.find(" ms clock, ");
    if (!line.starts_with("gc ") || clock == std::string::npos) continue;
    // `a+b/c/d+e ms cpu`
    std::string cpu = line.substr(clock + 11, line.find(" ms cpu") - clock - 11);
    std::replace_if(
        cpu.begin(), cpu.end(), [](char c) { return c == '+' || c == '/'; }, ' ');
    std::istringstream numbers(cpu);
    std::array<std::string, 5> ms;
    for (std::string& number : ms) REQUIRE(numbers >> number);
    ++cycles;
    pauses.add(ms[0]);
    assists.add(ms[1]);
    workers.add(ms[2]);
    idle.add(ms[3]);
    pauses.add(ms[4]);
  }
  CHECK(cycles == totals[0]);
  CHECK(cycles >= 5);
  CAPTURE(pauses.least, assists.least, workers.least, idle.least);
  CHECK(pauses.is(totals[1]));
  CHECK(assists.is(totals[2]));
  CHECK(workers.is(totals[3]));
  CHECK(idle.is(totals[4]));
}
