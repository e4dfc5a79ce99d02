#include "gc/sweeper.h"

#include <tricolor/gc.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>
#include <vector>

#include "test/gc/support.h"

using namespace tricolor::test;

namespace {

// A cycle that comes by itself: nothing is swept at its end but what allocation asks for.
void let_a_cycle_come() {
  on_thread([] {
    const std::uint64_t cycles = gc::stats().cycles_total;
    while (gc::stats().cycles_total == cycles) gc::make_array<char>(100'000);
  });
}

}  // namespace

TEST_CASE("a forced cycle is swept to its end, another one is swept by who allocates") {
  on_thread([] {
    for (std::uint64_t i = 0; i < 100'000; ++i) make_node(i);
  });
  collect();
  auto& sweeper = tricolor::impl::Heap::existing()->cycle().sweeper();
  CHECK(sweeper.done());
  const int percent = gc::set_percent(100);
  on_thread([] {
    for (std::uint64_t i = 0; i < 100'000; ++i) make_node(i);
  });
  let_a_cycle_come();
  gc::set_percent(percent);
  collect();
  CHECK(sweeper.done());
}

TEST_CASE("what a cycle found dead is found again by allocation, before the heap grows") {
  if (stressed()) {
    WARN("skipped: under stress=n every cycle is swept to its end");
    return;
  }
  collect();
  const int percent = gc::set_percent(-1);
  on_thread([] {
    for (std::uint64_t i = 0; i < 300'000; ++i) make_node(i);  // 9.6 MB
  });
  const std::uint64_t mapped = gc::stats().heap_mapped_bytes;
  gc::set_percent(1);
  let_a_cycle_come();
  gc::set_percent(-1);
  on_thread([] {
    for (std::uint64_t i = 0; i < 100'000; ++i) make_node(i);    // of the same kind
    for (int i = 0; i < 100; ++i) gc::make_array<char>(40'000);  // of another
  });
  CHECK(gc::stats().heap_mapped_bytes <= mapped + (1 << 20));
  gc::set_percent(percent);
  collect();
}

TEST_CASE("threads that allocate all kinds sweep together, and lose nothing") {
  const int percent = gc::set_percent(20);
  std::atomic<int> lost{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.push_back(start_thread([&, t] {
      gc::root<Node> kept;
      std::uint64_t length = 0;
      for (std::uint64_t i = 0; i < many(60'000); ++i) {
        if (i % 3 == 0) kept = make_node(length++, kept);
        make_node(i);
        if (i % 7 == 0) gc::make_array<char>((i * 37 + static_cast<unsigned>(t)) % 3'000);
        if (i % 1'000 == 0) gc::make_array<gc::ptr<Node>>(10'000);
      }
      for (const Node* node = kept; node != nullptr; node = node->next) {
        if (!intact(node, --length)) ++lost;
      }
      if (length != 0) ++lost;
    }));
  }
  for (std::thread& thread : threads) join(thread);
  gc::set_percent(percent);
  CHECK(lost == 0);
  collect();
}

namespace {

struct OnlyHere {
  gc::ptr<OnlyHere> next;
  char bytes[2'000];
  static constexpr auto gc_fields = gc::fields(&OnlyHere::next);
};

}  // namespace

TEST_CASE("pages of a kind that has died out serve another kind") {
  if (stressed()) {
    WARN("skipped: under stress=n the heap never grows so far");
    return;
  }
  const std::uint64_t min_heap =
      gc::set_min_heap(64 << 20);  // so that they are not given back to the system
  collect();
  on_thread([] {
    for (int i = 0; i < 5'000; ++i) gc::make<OnlyHere>();
  });
  collect();
  const auto stats = gc::stats();
  CHECK(stats.heap_free_bytes >= 8u << 20);
  on_thread([] {
    for (int i = 0; i < 200; ++i) gc::make_array<char>(35'000);
  });
  CHECK(gc::stats().heap_mapped_bytes <= stats.heap_mapped_bytes + (1 << 20));
  gc::set_min_heap(min_heap);
  collect();
}

TEST_CASE("free memory beyond what the heap may grow to goes back to the system") {
  collect();
  on_thread([] {
    gc::root<char> large(gc::make_array<char>(200 << 20).data());
    CHECK(gc::stats().heap_mapped_bytes >= 200u << 20);
  });
  collect();
  // At leisure. How exactly is in scavenger_test.cc; in a nearly empty heap fragmentation may double the pages of a goal.
  auto now = gc::stats();
  for (int wait = 0; wait < 3'000 && now.heap_mapped_bytes > 2 * now.heap_goal_bytes + (4 << 20);
       ++wait) {
    gc::blocking_call([] { usleep(10'000); });
    now = gc::stats();
  }
  CHECK(now.heap_mapped_bytes <= 2 * now.heap_goal_bytes + (4 << 20));
}
