// pauses LIVE_MB SECONDS STACK_KB WAITING: how long are the stops, and what does the program feel of them?
//
// LIVE_MB megabytes of objects of 64 bytes live, trees of three in two tables. Two threads each replace random objects of their
// table by new ones, steadily, for SECONDS and until there have been kLeastStops stops (but no longer than kMostTimes as long). Before
// that the program settles: each thread has replaced kTurnovers times as many objects as it has, and there have been kSettledStops stops
// (but no longer than kMostTimes SECONDS). Tables as they were built have their objects in the order of their addresses, and until that
// is gone the heap grows (with 2000 MB for a minute, with 20 for less than one second).
// Each of the two parts begins with a collection: so a stop counts only if its cycle has begun while it is measured; and, but for stops
// that came to nothing, which are counted at once, only if that cycle has ended by then.
// One operation allocates an object, and 448 bytes that nobody keeps, and makes one to three pointer stores; it is timed by
// one reading of the clock. Each thread stands on STACK_KB kilobytes of frames, in which every eighth word refers to an object.
// WAITING threads more wait all the time, each with an object on its stack.
//
// longest_us, p9999_us and mean_ns are of the operations; on few processors the longest is also a wait for one's turn, which is
// what malloc shows. stop_us_* are of the contestant's stops by its own account, from the request until all may go on, known
// to a quarter (the longest exactly, if none was longer before); first_us_* and last_us_* are of those that
// begin a cycle's marking and of those that end it. concurrent_percent is the share of the marked bytes that was marked while no
// thread was stopped. The check is the number of objects found in the tables at the end.
//
// taken_us_* say what the machine itself adds to something that takes as long as a stop: before the program begins, both threads
// look at the clock for a second, and of each 0.1 ms they count how long they did not get to.

#include <atomic>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <latch>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "histogram.h"
#include "question.h"

namespace {

constexpr int kMutators = 2;
constexpr std::uint64_t kLeastStops = 3;
constexpr int kMostTimes = 3;
constexpr std::size_t kTurnovers = 2;
constexpr std::uint64_t kSettledStops = 8;
constexpr int kMaxLiveMb = 1'000'000;
constexpr int kMaxSeconds = 3600;
constexpr int kMaxStackKb = 7 * 1024;  // of 8 MB
constexpr int kMaxWaiting = 10'000;

struct Node {
  contestant::field<Node> left{}, right{};
  std::uint64_t numbers[6]{};
};
static_assert(sizeof(Node) == 64);
constexpr std::size_t kObjectsATree = 3;

// What an operation uses for a moment.
struct Scrap {
  [[maybe_unused]] static constexpr bool kNoReferences = true;
  Scrap() {}
  std::byte bytes[448];
};

using Table = std::span<contestant::field<Node>>;

Table build(std::size_t trees) {
  const Table table = contestant::make_table<Node>(trees);
  for (auto& place : table) {
    Node* tree = contestant::make<Node>();
    place = tree;
    tree->left = contestant::make<Node>();
    tree->right = contestant::make<Node>();
  }
  return table;
}

void replace_one(Table table, question::Random& chance) {
  auto& place = table[chance.below(table.size())];
  const std::uint64_t which = chance.below(kObjectsATree);
  auto* scrap = contestant::make<Scrap>();
  scrap->bytes[0] = std::byte{1};
  Node* young = contestant::make<Node>();
  young->numbers[0] = std::to_integer<std::uint64_t>(scrap->bytes[0]);
  contestant::free_by_hand(scrap);
  Node* tree = place;
  Node* old = tree;
  if (which == 0) {
    young->left = tree->left;
    young->right = tree->right;
    place = young;
  } else {
    auto& leaf = which == 1 ? tree->left : tree->right;
    old = leaf;
    leaf = young;
  }
  contestant::free_by_hand(old);
}

std::uint64_t count(Table table) {
  std::uint64_t nodes = 0;
  for (const Node* tree : table) {
    nodes += 1 + std::uint64_t{tree->left != nullptr} + std::uint64_t{tree->right != nullptr};
  }
  return nodes;
}

// Runs fn on top of `kb` KiB of frames.
[[gnu::noinline]] void on_frames(int kb, Table table, const std::function<void()>& fn) {
  if (kb == 0) return fn();
  volatile std::uintptr_t words[120];  // and some for the call
  for (std::size_t i = 0; i < std::size(words); ++i) {
    const Node* object = table[(static_cast<std::size_t>(kb) * 16 + i / 8) % table.size()];
    words[i] = i % 8 == 0 ? reinterpret_cast<std::uintptr_t>(object) : i;
  }
  on_frames(kb - 1, table, fn);
  words[0] = 0;  // so the frame is still there when the call returns
}

std::uint64_t ns_between(question::Clock::time_point begin, question::Clock::time_point end) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(end - begin).count());
}

// For a second: of every kStepNs that the calling thread gets through, how long it was kept from looking at the clock.
void measure_machine(question::Histogram& taken) {
  constexpr std::uint64_t kStepNs = 100'000;
  constexpr std::uint64_t kKeptNs = 1'000;  // two looks are closer than that
  const auto start = question::Clock::now();
  std::uint64_t step_begin = 0;
  std::uint64_t before = 0;
  std::uint64_t kept = 0;
  while (before < 1'000'000'000) {
    const std::uint64_t now = ns_between(start, question::Clock::now());
    if (now - before > kKeptNs) kept += now - before;
    before = now;
    if (now - step_begin - kept < kStepNs) continue;
    taken.add(kept);
    step_begin = now;
    kept = 0;
  }
}

// Threads that wait until this ends.
class Waiting {
 public:
  explicit Waiting(int threads) : all_here_(threads + 1) {
    for (int i = 0; i < threads; ++i) {
      threads_.emplace_back([this] {
        contestant::ThreadScope scope;
        Node* volatile mine = contestant::make<Node>();
        contestant::wait([this] {
          all_here_.arrive_and_wait();
          end_.wait();
        });
        Node* object = mine;
        contestant::free_by_hand(object);
      });
    }
    contestant::wait([this] { all_here_.arrive_and_wait(); });
  }
  ~Waiting() {
    end_.count_down();
    contestant::wait([this] { threads_.clear(); });
  }

 private:
  std::latch all_here_;
  std::latch end_{1};
  std::vector<std::jthread> threads_;
};

}  // namespace

int main(int argc, char** argv) {
  int live_mb = 0;
  int seconds = 0;
  int stack_kb = 0;
  int waiting = 0;
  if (argc != 5 || !question::parse(argv[1], 1, kMaxLiveMb, live_mb) ||
      !question::parse(argv[2], 1, kMaxSeconds, seconds) ||
      !question::parse(argv[3], 0, kMaxStackKb, stack_kb) ||
      !question::parse(argv[4], 0, kMaxWaiting, waiting)) {
    std::fprintf(stderr, "usage: pauses LIVE_MB SECONDS STACK_KB WAITING  (up to %d, %d, %d, %d)\n",
                 kMaxLiveMb, kMaxSeconds, kMaxStackKb, kMaxWaiting);
    return 2;
  }
  contestant::Program program(kMutators + waiting);
  const auto trees =
      (static_cast<std::size_t>(live_mb) << 20) / sizeof(Node) / kObjectsATree / kMutators;

  std::optional<Waiting> threads(waiting);
  std::barrier barrier(kMutators);
  const auto meet = [&] { contestant::wait([&] { barrier.arrive_and_wait(); }); };
  std::optional<contestant::Stops> stops;
  std::atomic<bool> done = false;
  std::vector<question::Histogram> times(kMutators);
  std::vector<question::Histogram> taken(kMutators);
  std::vector<double> ms(kMutators);
  const auto from_now_on = [&](int t) {
    meet();
    if (t == 0) {
      contestant::collect();  // so that none runs now
      stops.emplace();
    }
    meet();
  };
  const auto settle = [&](Table table, question::Random& chance) {
    constexpr std::size_t kAtOnce = 1000;
    const auto latest = question::Clock::now() + kMostTimes * std::chrono::seconds(seconds);
    const std::size_t wanted = kTurnovers * kObjectsATree * table.size();
    for (std::size_t replaced = 0;
         replaced < wanted || (contestant::kCollects && stops->count() < kSettledStops &&
                               question::Clock::now() < latest);
         replaced += kAtOnce) {
      for (std::size_t i = 0; i < kAtOnce; ++i) replace_one(table, chance);
    }
  };
  const auto operate = [&](int t, Table table, question::Random& chance) {
    meet();
    question::Histogram& mine = times[static_cast<std::size_t>(t)];
    const auto start = question::Clock::now();
    const auto end = start + std::chrono::seconds(seconds);
    const auto latest = start + kMostTimes * std::chrono::seconds(seconds);
    auto before = start;
    // Relaxed: whichever thread sees that it is enough tells the other.
    while (!done.load(std::memory_order_relaxed)) {
      for (int i = 0; i < 1000; ++i) {
        replace_one(table, chance);
        const auto now = question::Clock::now();
        mine.add(ns_between(before, now));
        before = now;
      }
      if (before >= latest || (before >= end && stops->count() >= kLeastStops))
        done.store(true, std::memory_order_relaxed);
      before = question::Clock::now();
    }
    ms[static_cast<std::size_t>(t)] = question::ms_since(start);
    meet();
    if (t == 0) stops->end();
    meet();
  };
  const std::uint64_t check = question::on_threads(kMutators, [&](int t) {
    contestant::wait([&] {
      barrier.arrive_and_wait();
      measure_machine(taken[static_cast<std::size_t>(t)]);
    });
    const Table table = build(trees);
    question::Random chance;
    from_now_on(t);
    settle(table, chance);
    from_now_on(t);
    on_frames(stack_kb, table, [&] { operate(t, table, chance); });
    return count(table);
  });
  threads.reset();

  question::Histogram all;
  for (const question::Histogram& one : times) all.add(one);
  question::Histogram machine;
  for (const question::Histogram& one : taken) machine.add(one);
  std::printf(
      "question=pauses contestant=%s live_mb=%d seconds=%d stack_kb=%d waiting=%d longest_us=%.1f "
      "p9999_us=%.1f mean_ns=%.1f taken_us_p99=%.1f taken_us_max=%.1f",
      contestant::kName, live_mb, seconds, stack_kb, waiting,
      static_cast<double>(all.longest()) / 1e3, static_cast<double>(all.percentile(0.9999)) / 1e3,
      (ms[0] + ms[1]) * 1e6 / static_cast<double>(all.count()),
      static_cast<double>(machine.percentile(0.99)) / 1e3,
      static_cast<double>(machine.longest()) / 1e3);
  stops->print(stdout);
  std::printf(" histogram=");
  all.print(stdout);
  question::print_rest(check);
}
