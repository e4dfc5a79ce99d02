// Nothing is kept that should go, and nothing goes that is reachable.
#define CATCH_CONFIG_EXTERNAL_INTERFACES  // for the listener
#include <tricolor/heap.h>

#include <tricolor/gc.h>

#include <catch2/catch.hpp>
#include <random>
#include <vector>

#include "test/gc/support.h"

using namespace tricolor::test;

namespace {

// A test's frame lies where frames of the tests before it lay: what those left must not keep its objects.
class ScrubsBeforeEachTest : public Catch::TestEventListenerBase {
 public:
  using TestEventListenerBase::TestEventListenerBase;
  void sectionStarting(const Catch::SectionInfo& info) override {
    TestEventListenerBase::sectionStarting(info);
    scrub_stack();
  }
};
CATCH_REGISTER_LISTENER(ScrubsBeforeEachTest)

std::uint64_t marked_objects() { return gc::stats().marked_objects_count; }

}  // namespace

TEST_CASE("a cycle of a million objects is reclaimed") {
  const auto length = static_cast<std::uint64_t>(many(1'000'000));
  collect();
  const std::uint64_t before = marked_objects();
  gc::root<Node> ring;
  Hidden first;
  on_thread([&] {
    Node* const start = make_node(0);
    Node* last = start;
    for (std::uint64_t i = 1; i < length; ++i) {
      last->next = make_node(i);
      last->next->other = last;
      last = last->next;
    }
    last->next = start;
    ring = start;
    first = Hidden(start);
  });
  collect();
  CHECK(marked_objects() >= before + length);
  CHECK(alive(first));
  ring = nullptr;
  const std::uint64_t freed = gc::stats().freed_bytes_total;
  collect();
  CHECK(marked_objects() < before + 10);
  CHECK_FALSE(alive(first));
  CHECK(gc::stats().freed_bytes_total >= freed + length * sizeof(Node));
}

TEST_CASE("a dropped list is reclaimed, one that is held is not") {
  const std::uint64_t length = many(200'000);
  collect();
  const std::uint64_t before = marked_objects();
  gc::root<Node> held;
  gc::root<Node> dropped;
  on_thread([&] {
    for (std::uint64_t i = 0; i < length; ++i) {
      held = make_node(i, held);
      dropped = make_node(i, dropped);
    }
  });
  dropped = nullptr;
  collect();
  CHECK(marked_objects() >= before + length);
  CHECK(marked_objects() < before + length + 10);
  apart([&] {
    std::uint64_t expected = length;
    for (const Node* node = held; node != nullptr; node = node->next) {
      if (!intact(node, --expected)) FAIL("node " << expected);
    }
    CHECK(expected == 0);
  });
  held = nullptr;
  collect();
  CHECK(marked_objects() < before + 10);
}

TEST_CASE("an object that refers to itself is reclaimed") {
  std::vector<Hidden> notes;
  on_thread([&] {
    for (int i = 0; i < 1'000; ++i) {
      Node* const node = make_node(1);
      node->next = node;
      notes.emplace_back(node);
    }
  });
  collect();
  CHECK(count_alive(notes) == 0);
}

TEST_CASE("what only garbage refers to is garbage, what garbage refers to and a root too is not") {
  std::vector<Hidden> garbage;
  std::vector<Hidden> shared;
  gc::root<Node> root;
  on_thread([&] {
    root = make_node(5);
    for (int i = 0; i < 100; ++i) {
      root = make_node(5, root);
      shared.emplace_back(root.get());
      Node* const dead = make_node(6, root);
      dead->other = make_node(7, dead);
      garbage.emplace_back(dead);
      garbage.emplace_back(dead->other);
    }
  });
  collect();
  CHECK(count_alive(garbage) == 0);
  CHECK(count_alive(shared) == 100);
}

TEST_CASE("a random graph keeps exactly what can be reached from its roots") {
  const auto seed = test_seed();
  INFO("TRICOLOR_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  constexpr std::size_t kNodes = 20'000;
  // The program's own idea of the graph: indices, never addresses.
  std::vector<std::array<std::size_t, 2>> edges(kNodes, {kNodes, kNodes});
  std::vector<Hidden> nodes;
  std::vector<std::pair<std::size_t, gc::root<Node>>> roots;
  on_thread([&] {
    const auto all = gc::make_array<gc::ptr<Node>>(kNodes);
    for (std::size_t i = 0; i < kNodes; ++i) {
      all[i] = make_node(i);
      nodes.emplace_back(all[i]);
    }
    for (std::size_t i = 0; i < kNodes; ++i) {
      if (random() % 3 != 0) all[i]->next = all[edges[i][0] = random() % kNodes];
      if (random() % 4 == 0) all[i]->other = all[edges[i][1] = random() % kNodes];
    }
    for (int i = 0; i < 20; ++i) {
      const std::size_t index = random() % kNodes;
      roots.emplace_back(index, gc::root<Node>(all[index]));
    }
  });
  for (int round = 0; round < 5; ++round) {
    collect();
    std::vector<bool> reachable(kNodes);
    std::vector<std::size_t> grey;
    for (const auto& [index, root] : roots) grey.push_back(index);
    while (!grey.empty()) {
      const std::size_t index = grey.back();
      grey.pop_back();
      if (reachable[index]) continue;
      reachable[index] = true;
      for (const std::size_t target : edges[index]) {
        if (target != kNodes) grey.push_back(target);
      }
    }
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < kNodes; ++i) {
      wrong += alive(nodes[i]) != reachable[i];
      if (reachable[i]) wrong += !intact(reinterpret_cast<const Node*>(nodes[i].address()), i);
    }
    scrub_stack();
    CHECK(wrong == 0);
    for (int i = 0; i < 4; ++i) roots.pop_back();
  }
  collect();
  CHECK(count_alive(nodes) == 0);
}

TEST_CASE("two collections in a row mark the same") {
  gc::root<Node> list;
  on_thread([&] {
    for (std::uint64_t i = 0; i < 1'000; ++i) list = make_node(i, list);
  });
  collect();
  const auto first = gc::stats();
  collect();
  const auto second = gc::stats();
  CHECK(second.marked_objects_count == first.marked_objects_count);
  CHECK(second.heap_marked_bytes == first.heap_marked_bytes);
  CHECK(second.cycles_total >= first.cycles_total + 1);
  CHECK(second.cycles_forced >= first.cycles_forced + 1);
}

TEST_CASE("after a collection the live bytes are the marked bytes") {
  on_thread([] {
    for (int i = 0; i < 10'000; ++i) make_node(1);
  });
  collect();
  const auto stats = gc::stats();
  // Swept to the end: what was found dead is gone from the books.
  CHECK(stats.heap_live_bytes == stats.heap_marked_bytes);
  CHECK(stats.allocated_bytes_total - stats.freed_bytes_total == stats.heap_live_bytes);
}

TEST_CASE("memory of dropped objects serves the next ones: the heap does not grow for ever") {
  const int percent = gc::set_percent(100);
  std::uint64_t mapped = 0;
  for (int round = 0; round < 20; ++round) {
    on_thread([] {
      gc::root<Node> list;
      for (std::uint64_t i = 0; i < many(50'000); ++i) list = make_node(i, list);
    });
    if (round == 9) mapped = gc::stats().heap_mapped_bytes;
  }
  CHECK(gc::stats().heap_mapped_bytes <= mapped + (8 << 20));
  gc::set_percent(percent);
  collect();
}

TEST_CASE("dead objects of one kind make room for objects of another") {
  std::uint64_t mapped = 0;
  for (int round = 0; round < 6; ++round) {
    on_thread([&] {
      gc::root<Node> list;
      for (std::uint64_t i = 0; i < many(100'000); ++i) list = make_node(i, list);  // 3.2 MB
    });
    collect();
    on_thread([&] {
      std::vector<gc::root<char>> arrays;
      for (int i = 0; i < 100; ++i) arrays.emplace_back(gc::make_array<char>(30'000).data());
    });
    collect();
    if (round == 1) mapped = gc::stats().heap_mapped_bytes;
  }
  CHECK(gc::stats().heap_mapped_bytes <= mapped + (1 << 20));
}

TEST_CASE(
    "a collection of an empty program reads the stack and the globals, and shutdown is no end") {
  collect();
  CHECK(gc::stats().stacks_scanned_bytes > 0);
  CHECK(gc::stats().globals_scanned_bytes > 0);
  gc::shutdown();
  gc::shutdown();
  collect();
  Node* const node = make_node(1);
  collect();
  CHECK(intact(node, 1));
}

TEST_CASE("a collection right after shutdown is not lost") {
  for (int i = 0; i < static_cast<int>(many(1'000)); ++i) {
    const std::uint64_t cycles = gc::stats().cycles_forced;
    gc::shutdown();
    gc::collect();
    CHECK(gc::stats().cycles_forced > cycles);
  }
}

// ---------------------------------------------------------------------------- what runs by itself

namespace {

void pause_us(unsigned us) {
  gc::blocking_call([us] { usleep(us); });
}

}  // namespace

TEST_CASE("child idles after a cycle that was due", "[.child]") {
  constexpr std::uint64_t kMiB = 1 << 20;
  static gc::ptr<Node> kept;
  on_thread([] {
    // 32 bytes each; what is dropped stands between what is kept, and in spans of its own.
    for (std::uint64_t i = 0; i < 400'000; ++i) {
      Node* const node = make_node(i);
      if (i % 1'000 == 0) kept = make_node(i, kept);
      if (i > 395'000) node->next = kept;
    }
    const std::uint64_t cycles = gc::stats().cycles_total;
    while (gc::stats().cycles_total == cycles) gc::make_array<char>(100'000);
  });
  CHECK(gc::stats().cycles_forced == 0);
  // Nobody allocates or collects any more.
  auto now = gc::stats();
  for (int wait = 0; wait < 2'000 && now.heap_live_bytes > now.heap_goal_bytes + kMiB; ++wait) {
    pause_us(5'000);
    now = gc::stats();
  }
  INFO("live " << now.heap_live_bytes << " marked " << now.heap_marked_bytes);
  // The thread may have allocated up to the goal since.
  CHECK(now.heap_live_bytes <= now.heap_goal_bytes + kMiB);
  for (int wait = 0; wait < 2'000 && now.heap_mapped_bytes > now.heap_goal_bytes * 7 / 4; ++wait) {
    pause_us(5'000);
    now = gc::stats();
  }
  CHECK(now.heap_mapped_bytes <= now.heap_goal_bytes * 7 / 4);
}

TEST_CASE("what a cycle has left is swept in the background, and memory follows the heap down",
          "[process]") {
  const ProgramEnd end = run_program("child idles after a cycle that was due");
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child waits for the timer", "[.child]") {
  make_node(1);
  gc::collect();
  for (int wait = 0; wait < 10'000 && gc::stats().cycles_total < 5; ++wait) pause_us(1'000);
  CHECK(gc::stats().cycles_total >= 5);
  CHECK(gc::stats().cycles_forced == 1);
  gc::set_percent(-1);
  pause_us(50'000);  // one may be under way
  const std::uint64_t cycles = gc::stats().cycles_total;
  pause_us(200'000);
  CHECK(gc::stats().cycles_total == cycles);
}

TEST_CASE("a cycle runs by itself when there has been none for a period, unless GOGC is off",
          "[process]") {
  const ProgramEnd end =
      run_program("child waits for the timer", {{"TRICOLOR_DEBUG", "period=20"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}
