#include "barrier/mark_queue.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "alloc/base/sanitizer.h"
#include "test/alloc/child.h"
#include "test/support/own_heap.h"

using namespace tricolor::impl;
using tricolor::test::in_child;

namespace {

constexpr std::size_t kFull = WorkPacket::kEntries;

struct Fixture {
  Metadata metadata;
  PacketPool pool{metadata};
};

// Work number i; never an address of anything.
GreyWork work(std::size_t i) { return grey_work(8 * (i + 1), 1); }

std::size_t push_until_refused(MarkQueue& queue, std::size_t most) {
  std::size_t pushed = 0;
  while (pushed < most && queue.push(work(pushed))) ++pushed;
  return pushed;
}

}  // namespace

TEST_CASE("a unit of work keeps its address, its kind, and whether it is the rest of an object") {
  for (const std::uintptr_t address :
       {std::uintptr_t{8}, std::uintptr_t{0x7fff'ffff'fff8}, std::uintptr_t{0xffff'ffff'fff8}}) {
    for (const std::uint32_t kind : {1u, 69u, 65535u}) {
      const GreyWork cell = grey_work(address, kind);
      CHECK(address_of(cell) == address);
      CHECK(kind_of(cell) == kind);
      CHECK((cell & kRestOfObject) == 0);
      const GreyWork rest = grey_work(address | kRestOfObject, kind);
      CHECK(address_of(rest) == address);
      CHECK(kind_of(rest) == kind);
      CHECK((rest & kRestOfObject) != 0);
    }
  }
}

TEST_CASE("a queue is last in, first out, over many packets too") {
  Fixture f;
  MarkQueue queue(f.pool, f.pool.take_empty());
  GreyWork got = 0;
  CHECK(!queue.pop(got));
  for (const std::size_t count :
       {std::size_t{1}, kFull - 1, kFull, kFull + 1, 5 * kFull, 5 * kFull + 1}) {
    CAPTURE(count);
    for (std::size_t i = 0; i < count; ++i) REQUIRE(queue.push(work(i)));
    for (std::size_t i = count; i-- != 0;) {
      REQUIRE(queue.pop(got));
      REQUIRE(got == work(i));
    }
    CHECK(!queue.pop(got));
    CHECK(!f.pool.has_shared());
  }
}

TEST_CASE("random pushes and pops do what a stack does") {
  const std::uint64_t seed = tricolor::test::seed_of("mark queue");
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  Fixture f;
  f.pool.set_most_packets(8);
  MarkQueue queue(f.pool, f.pool.take_empty());
  std::vector<GreyWork> model;
  for (int i = 0; i < 100'000; ++i) {
    if (random() % 100 < (i / 10'000 % 2 == 0 ? 75 : 25)) {
      const GreyWork item = work(random() % 100'000);
      if (queue.push(item)) {
        model.push_back(item);
      } else {
        REQUIRE(model.size() > 7 * kFull);
      }
    } else {
      GreyWork got = 0;
      const bool popped = queue.pop(got);
      REQUIRE(popped == !model.empty());
      if (!popped) continue;
      REQUIRE(got == model.back());
      model.pop_back();
    }
  }
}

TEST_CASE("full packets are shared, the one in hand is not") {
  Fixture f;
  MarkQueue giver(f.pool, f.pool.take_empty());
  MarkQueue taker(f.pool, f.pool.take_empty());
  GreyWork got = 0;
  for (std::size_t i = 0; i < kFull; ++i) REQUIRE(giver.push(work(i)));
  CHECK(!f.pool.has_shared());
  CHECK(!taker.pop(got));
  for (std::size_t i = kFull; i < 2 * kFull + 1; ++i) REQUIRE(giver.push(work(i)));
  CHECK(f.pool.has_shared());
  for (std::size_t i = 2 * kFull; i-- != 0;) {
    REQUIRE(taker.pop(got));
    CHECK(got == work(i));
  }
  CHECK(!taker.pop(got));
  CHECK(!f.pool.has_shared());
  REQUIRE(giver.pop(got));
  CHECK(got == work(2 * kFull));
  CHECK(!giver.pop(got));
}

TEST_CASE("at the bound push refuses, nothing is lost, and the next pop makes room") {
  for (const std::size_t most : {std::size_t{1}, std::size_t{2}, std::size_t{5}}) {
    CAPTURE(most);
    Fixture f;
    f.pool.set_most_packets(most);
    MarkQueue queue(f.pool, f.pool.take_empty());
    CHECK(push_until_refused(queue, 10 * kFull) == most * kFull);
    CHECK(!queue.push(work(0)));
    CHECK(f.pool.packets_most_used() == most);
    GreyWork got = 0;
    REQUIRE(queue.pop(got));
    CHECK(got == work(most * kFull - 1));
    CHECK(queue.push(got));
    CHECK(!queue.push(work(0)));
    for (std::size_t i = most * kFull; i-- != 0;) {
      REQUIRE(queue.pop(got));
      REQUIRE(got == work(i));
    }
    CHECK(!queue.pop(got));
    CHECK(push_until_refused(queue, 10 * kFull) == most * kFull);
  }
}

TEST_CASE("whatever others hold, a queue's own packet serves after a pop has failed") {
  Fixture f;
  f.pool.set_most_packets(4);
  MarkQueue greedy(f.pool, f.pool.take_empty());
  MarkQueue poor(f.pool, f.pool.take_empty());
  CHECK(push_until_refused(greedy, 10 * kFull) == 3 * kFull);
  CHECK(push_until_refused(poor, 10 * kFull) == kFull);
  GreyWork got = 0;
  std::size_t popped = 0;
  while (poor.pop(got)) ++popped;
  CHECK(popped == 3 * kFull);  // its own and what was shared
  CHECK(poor.push(work(0)));
  CHECK(poor.pop(got));
  while (greedy.pop(got)) ++popped;
  CHECK(popped == 4 * kFull);
  CHECK(greedy.push(work(0)));
}

TEST_CASE("an empty packet is used again before a new one is made") {
  Fixture f;
  MarkQueue queue(f.pool, f.pool.take_empty());
  for (int round = 0; round < 5; ++round) {
    for (std::size_t i = 0; i < 3 * kFull; ++i) REQUIRE(queue.push(work(i)));
    GreyWork got = 0;
    while (queue.pop(got)) {
    }
  }
  CHECK(f.pool.packets_most_used() == 3);
}

TEST_CASE("trim gives back the empty packets, and those alone") {
  Fixture f;
  f.pool.set_most_packets(5);
  WorkPacket* const own = f.pool.take_empty();
  MarkQueue queue(f.pool, own);
  for (std::size_t i = 0; i < 2 * kFull; ++i) REQUIRE(queue.push(work(i)));
  WorkPacket* const spare[] = {f.pool.take_empty(), f.pool.take_empty(), f.pool.take_empty()};
  CHECK(f.pool.take_empty() == nullptr);
  f.pool.give_empty(spare[0]);
  f.pool.give_empty(spare[1]);
  f.pool.trim();
  f.pool.trim();
  // Their memory is there for others.
  std::set<void*> given_back = {f.metadata.take(sizeof(WorkPacket)),
                                f.metadata.take(sizeof(WorkPacket))};
  CHECK(given_back == std::set<void*>{spare[0], spare[1]});
  CHECK(f.metadata.take(sizeof(WorkPacket)) != spare[2]);
  // Two more may be had, no third; what was queued is there.
  WorkPacket* const fresh = f.pool.take_empty();
  REQUIRE(fresh != nullptr);
  CHECK(fresh->count == 0);
  CHECK(fresh->next == nullptr);
  CHECK(f.pool.take_empty() != nullptr);
  CHECK(f.pool.take_empty() == nullptr);
  GreyWork got = 0;
  for (std::size_t i = 2 * kFull; i-- != 0;) {
    REQUIRE(queue.pop(got));
    REQUIRE(got == work(i));
  }
  CHECK(!queue.pop(got));
}

TEST_CASE("when the kernel refuses memory push refuses, as at the bound", "[kernel]") {
  const auto end = in_child([] {
    Fixture f;
    MarkQueue queue(f.pool, f.pool.take_empty());
    rlimit limit = {};
    getrlimit(RLIMIT_AS, &limit);
    const rlimit none = {1 << 20, limit.rlim_max};
    if (setrlimit(RLIMIT_AS, &none) != 0) return 1;
    for (std::size_t bytes = 65536; bytes >= 64; bytes /= 2) {
      while (f.metadata.take(bytes) != nullptr) {
      }
    }
    const std::size_t pushed = push_until_refused(queue, 10 * kFull);
    setrlimit(RLIMIT_AS, &limit);
    if (pushed != kFull) return 2;
    if (f.pool.packets_most_used() != 1) return 3;
    if (!queue.push(work(kFull))) return 4;
    GreyWork got = 0;
    for (std::size_t i = kFull + 1; i-- != 0;) {
      if (!queue.pop(got) || got != work(i)) return 5;
    }
    return 0;
  });
  CHECK(end.exit_code == 0);
}

TEST_CASE("markers that share packets see every unit of work once") {
  constexpr unsigned kThreads = 4;
  constexpr std::size_t kItems = 60'000;  // made in generations: each but the last makes two more
  Fixture f;
  f.pool.set_most_packets(1000);
  std::vector<std::atomic<std::uint8_t>> seen(kItems);
  std::atomic<std::size_t> todo{1};  // units of work queued or in hand
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, first = t == 0] {
      MarkQueue queue(f.pool, f.pool.take_empty());
      if (first) queue.push(work(0));
      GreyWork got = 0;
      while (todo.load(std::memory_order_relaxed) != 0) {
        if (!queue.pop(got)) {
          std::this_thread::yield();
          continue;
        }
        const std::size_t item = address_of(got) / 8 - 1;
        if (seen[item].fetch_add(1, std::memory_order_relaxed) != 0) wrong.fetch_add(1);
        for (std::size_t next = 2 * item + 1; next <= 2 * item + 2 && next < kItems; ++next) {
          todo.fetch_add(1, std::memory_order_relaxed);
          if (!queue.push(work(next))) wrong.fetch_add(1);
        }
        todo.fetch_sub(1, std::memory_order_relaxed);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong.load() == 0);
  CHECK(std::all_of(seen.begin(), seen.end(), [](const auto& n) { return n.load() == 1; }));
  CHECK(!f.pool.has_shared());
}

// ------------------------------------------------------------------------------- several markers

namespace {

// A complete binary tree as work: number i leads to 2i + 1 and 2i + 2. Every number must be met once.
class Tree {
 public:
  explicit Tree(std::size_t size) : x_met(size) {}

  void follow(MarkQueue& queue) {
    GreyWork got = 0;
    while (queue.pop(got)) {
      queue.share_if_wanted();
      const std::size_t number = address_of(got) / 8 - 1;
      x_met[number].fetch_add(1, std::memory_order_relaxed);
      for (const std::size_t child : {2 * number + 1, 2 * number + 2}) {
        if (child < x_met.size() && !queue.push(work(child))) std::abort();
      }
    }
  }
  void forget() {
    for (auto& n : x_met) n.store(0, std::memory_order_relaxed);
  }
  std::size_t met_once() const {
    return static_cast<std::size_t>(
        std::count_if(x_met.begin(), x_met.end(), [](const auto& n) { return n.load() == 1; }));
  }

 private:
  std::vector<std::atomic<std::uint8_t>> x_met;
};

}  // namespace

TEST_CASE("helpers and the coordinator together meet all work exactly once, cycle after cycle") {
  const std::size_t helpers = GENERATE(0u, 1u, 3u, 7u);
  const std::size_t entries = GENERATE(std::size_t{40}, kFull);
  Fixture f;
  f.pool.set_most_packets(SIZE_MAX);
  MarkQueue coordinator(f.pool, f.pool.take_empty(), entries);
  Tree tree(30'000);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < helpers; ++i) {
    threads.emplace_back([&, own = f.pool.take_empty()] {
      MarkQueue queue(f.pool, own, entries);
      for (PacketPool::Stint stint; queue.refill_as_helper(stint);) tree.follow(queue);
    });
  }
  const int cycles = kThreadSanitizer ? 10 : 100;
  for (int cycle = 0; cycle < cycles; ++cycle) {
    // Now and then without help, and half of the others with idle helpers.
    const std::size_t all = cycle % 10 == 9 ? 0 : helpers;
    const std::size_t dedicated = cycle % 2 == 0 ? all : all / 2;
    f.pool.begin(dedicated, all - dedicated, PacketPool::Assisted::no);
    if (!coordinator.push(work(0))) std::abort();
    do {
      tree.follow(coordinator);
    } while (coordinator.refill_or_end());
    const std::size_t met = tree.met_once();
    if (met != 30'000) FAIL(met << " in cycle " << cycle);
    tree.forget();
    f.pool.trim();
  }
  f.pool.end_helpers();
  for (std::thread& thread : threads) thread.join();
}

TEST_CASE("marking ends without waiting for helpers that never came") {
  Fixture f;
  MarkQueue queue(f.pool, f.pool.take_empty());
  for (int cycle = 0; cycle < 3; ++cycle) {
    f.pool.begin(1, 0, PacketPool::Assisted::no);
    CHECK(queue.push(work(1)));
    GreyWork got = 0;
    CHECK(queue.pop(got));
    CHECK(!queue.refill_or_end());
  }
}

TEST_CASE("half of a packet is shared when somebody waits, and nothing when nobody does") {
  Fixture f;
  MarkQueue mine(f.pool, f.pool.take_empty());
  f.pool.begin(1, 0, PacketPool::Assisted::no);
  for (std::size_t i = 0; i < 100; ++i) CHECK(mine.push(work(i)));
  mine.share_if_wanted();
  CHECK(!f.pool.has_shared());
  std::atomic<std::size_t> got{0};
  std::thread helper([&, own = f.pool.take_empty()] {
    MarkQueue theirs(f.pool, own);
    for (PacketPool::Stint stint; theirs.refill_as_helper(stint);) {
      for (GreyWork one = 0; theirs.pop(one);) ++got;
    }
  });
  while (!f.pool.is_wanted()) std::this_thread::yield();
  mine.share_if_wanted();
  std::size_t left = 0;
  do {
    for (GreyWork one = 0; mine.pop(one);) ++left;
  } while (mine.refill_or_end());
  CHECK(got + left == 100);
  CHECK((left == 50 || left == 100));  // 100 when we were quicker than the helper
  f.pool.end_helpers();
  helper.join();
}

TEST_CASE("an idle helper that has left is not there again before the coordinator begins anew") {
  Fixture f;
  MarkQueue mine(f.pool, f.pool.take_empty());
  MarkQueue theirs(f.pool, f.pool.take_empty());
  const auto share_one = [&] {
    for (int i = 0; i < 100; ++i) REQUIRE(mine.push(work(1)));
    REQUIRE(mine.give_all());
  };
  PacketPool::Stint stint;
  GreyWork one = 0;
  // The second of two helpers is the idle one.
  f.pool.begin(1, 1, PacketPool::Assisted::no);
  MarkQueue others(f.pool, f.pool.take_empty());
  PacketPool::Stint dedicated;
  share_one();
  REQUIRE(others.refill_as_helper(dedicated));
  CHECK_FALSE(dedicated.is_idle);
  share_one();
  REQUIRE(theirs.refill_as_helper(stint));
  CHECK(stint.is_idle);
  CHECK(f.pool.most_helpers() == 2);
  // It leaves, with all that it had.
  CHECK_FALSE(f.pool.leave_if_above(2));
  REQUIRE(f.pool.leave_if_above(0));
  CHECK_FALSE(f.pool.leave_if_above(0));  // never the dedicated one
  f.pool.stay_after_all();
  REQUIRE(f.pool.leave_if_above(1));
  REQUIRE(theirs.give_all());
  CHECK(f.pool.has_shared());
  std::atomic<bool> came{false};
  std::thread waits([&] {
    while (theirs.refill_as_helper(stint)) {
      came = true;
      while (theirs.pop(one)) {
      }
    }
  });
  CHECK(f.pool.most_helpers() == 1);
  // As long as the dedicated one works it is not there, though there is work.
  CHECK(f.pool.has_shared());
  while (others.pop(one)) {
  }
  CHECK_FALSE(f.pool.has_shared());
  std::thread ends([&] { CHECK_FALSE(others.refill_as_helper(dedicated)); });
  while (mine.refill_or_end()) {
    while (mine.pop(one)) {
    }
  }
  CHECK(f.pool.most_helpers() == 1);
  f.pool.begin(1, 1, PacketPool::Assisted::no);
  CHECK(f.pool.most_helpers() == 2);
  CHECK_FALSE(mine.refill_or_end());
  f.pool.end_helpers();
  waits.join();
  ends.join();
  CHECK_FALSE(came);
}
