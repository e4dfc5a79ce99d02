// Shapes that are hard on a marker: deep, wide, and with queues that are full. The same runs under tinybuffers=1.
#include "gc/marker.h"

#include <tricolor/gc.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "test/gc/support.h"

using namespace tricolor::test;

namespace {

std::uint64_t marked_objects() { return gc::stats().marked_objects_count; }

struct Fan {
  std::array<gc::ptr<Fan>, 200> children;
};

// Has trace, so that it takes the other way through the marker.
struct TracedTree {
  gc::ptr<TracedTree> left;
  gc::ptr<TracedTree> right;
  void trace(gc::tracer& t) const noexcept {
    t(left);
    t(right);
  }
};

template <class Tree>
Tree* make_tree(int depth) {
  Tree* const tree = gc::make<Tree>();
  if (depth > 0) {
    tree->left = make_tree<Tree>(depth - 1);
    tree->right = make_tree<Tree>(depth - 1);
  }
  return tree;
}

struct Tree {
  gc::ptr<Tree> left;
  gc::ptr<Tree> right;
};

template <class Tree>
std::uint64_t count(const Tree* tree) {
  return tree == nullptr ? 0 : 1 + count<Tree>(tree->left) + count<Tree>(tree->right);
}

}  // namespace

TEST_CASE("a list of a million marks without recursion") {
  const std::uint64_t length = many(1'000'000);
  collect();
  const std::uint64_t before = marked_objects();
  gc::root<Node> list;
  on_thread([&] {
    for (std::uint64_t i = 0; i < length; ++i) list = make_node(i, list);
  });
  collect();
  CHECK(marked_objects() >= before + length);
  CHECK(marked_objects() < before + length + 10);
  apart([&] {
    std::uint64_t expected = length;
    for (const Node* node = list; node != nullptr; node = node->next) {
      if (!intact(node, --expected)) FAIL(expected);
    }
    CHECK(expected == 0);
  });
  list = nullptr;
  collect();
  CHECK(marked_objects() < before + 10);
}

TEST_CASE("wide trees are marked whole, whatever room the queues have") {
  collect();
  const std::uint64_t before = marked_objects();
  gc::root<Fan> root;
  on_thread([&] {
    root = gc::make<Fan>();
    for (auto& child : root->children) {
      child = gc::make<Fan>();
      for (auto& grandchild : child->children) grandchild = gc::make<Fan>();
    }
  });
  collect();
  CHECK(marked_objects() == before + 1 + 200 + 200 * 200);
  apart([&] {
    int lost = 0;
    for (auto& child : root->children) {
      for (auto& grandchild : child->children) lost += !alive(Hidden(grandchild));
    }
    CHECK(lost == 0);
  });
  root = nullptr;
  collect();
  CHECK(marked_objects() < before + 10);
}

TEST_CASE("an array of references to arrays of references is marked whole") {
  collect();
  const std::uint64_t before = marked_objects();
  struct Row {
    gc::array<gc::ptr<Node>> slots;
  };
  gc::root<Row> rows;
  on_thread([&] {
    const auto all = gc::make_array<Row>(300);
    for (Row& row : all.span()) {
      row.slots = gc::make_array<gc::ptr<Node>>(700);
      for (auto& slot : row.slots.span()) slot = make_node(1);
    }
    rows = all.data();
  });
  collect();
  CHECK(marked_objects() == before + 1 + 300 + 300 * 700);
  rows = nullptr;
  collect();
  CHECK(marked_objects() < before + 10);
}

TEST_CASE("binary trees are marked whole, with and without trace") {
  collect();
  const std::uint64_t before = marked_objects();
  const int depth = stressed() ? 12 : 16;
  gc::root<Tree> tree;
  gc::root<TracedTree> traced;
  on_thread([&] {
    tree = make_tree<Tree>(depth);
    traced = make_tree<TracedTree>(depth);
  });
  collect();
  CHECK(marked_objects() == before + 2 * ((2u << depth) - 1));
  apart([&] {
    CHECK(count<Tree>(tree) == (2u << depth) - 1);
    CHECK(count<TracedTree>(traced) == (2u << depth) - 1);
  });
  tree = nullptr;
  traced = nullptr;
  collect();
  CHECK(marked_objects() < before + 10);
}

TEST_CASE("a list of large arrays is marked whole: each queues the rest of itself") {
  struct Link {
    gc::array<gc::ptr<Link>> slots;
  };
  collect();
  const std::uint64_t before = marked_objects();
  gc::root<Link> list;
  on_thread([&] {
    for (int i = 0; i < 40; ++i) {
      Link* const link = gc::make<Link>();
      link->slots = gc::make_array<gc::ptr<Link>>(50'000);  // four pieces
      link->slots[0] = list;
      link->slots[20'000] = gc::make<Link>();
      link->slots[49'999] = gc::make<Link>();
      list = link;
    }
  });
  collect();
  CHECK(marked_objects() == before + 40 * 4);
  list = nullptr;
  collect();
  CHECK(marked_objects() < before + 10);
}

TEST_CASE("a stale address of a free cell marks nothing") {
  Hidden dead;
  on_thread([&] { dead = Hidden(make_node(1)); });
  collect();
  REQUIRE_FALSE(alive(dead));
  const auto look = [&]() __attribute__((noinline)) {
    void* volatile stale = reinterpret_cast<void*>(dead.address());
    collect();
    CHECK_FALSE(alive(dead));
    CHECK(stale != nullptr);
    stale = nullptr;
  };
  look();
}

TEST_CASE("addresses behind the last cell of a span and of free pages mark nothing") {
  // 8192 bytes are 5 cells of 1536 bytes and a rest of 512.
  struct Cells {
    std::array<gc::ptr<Node>, 190> slots;
  };
  collect();
  const auto look = [&]() __attribute__((noinline)) {
    const gc::root<Cells> kept = gc::make<Cells>();
    const std::uintptr_t page =
        reinterpret_cast<std::uintptr_t>(kept.get()) & ~std::uintptr_t{8191};
    void* volatile words[3] = {reinterpret_cast<void*>(page + 8191),
                               reinterpret_cast<void*>(page + 8192 * 50),
                               reinterpret_cast<void*>(page + 7'700)};
    collect();
    CHECK(alive(Hidden(kept.get())));
    for (auto& word : words) word = nullptr;
  };
  look();
}

// ------------------------------------------------------------------------------- pieces

namespace {

std::atomic<bool> hold_next{false};
std::atomic<bool> reached{false};
std::atomic<bool> let_go{false};

// The first one that is traced holds the marker.
struct Holding {
  gc::ptr<Node> node;
  void trace(gc::tracer& t) const noexcept {
    if (hold_next.exchange(false)) {
      reached = true;
      while (!let_go) std::this_thread::yield();
    }
    t(node);
  }
};

bool is_marked_now(Hidden object) {
  const auto& map = tricolor::impl::Heap::existing()->allocator().map;
  const tricolor::impl::Cell cell = tricolor::impl::find_allocated_cell(map, object.address());
  return cell && tricolor::impl::is_marked(cell);
}

}  // namespace

TEST_CASE("child is held by what it finds in the first piece of a large array", "[.child]") {
  constexpr std::size_t kSlots = (1 << 20) / sizeof(void*);
  constexpr std::size_t kPiece = (128 << 10) / sizeof(void*);
  constexpr std::size_t kMany = 100;  // more than a marker has in its rings
  gc::root<gc::ptr<void>> kept;
  std::vector<Hidden> notes;  // the first reference of each piece
  on_thread([&] {
    const auto array = gc::make_array<gc::ptr<void>>(kSlots);
    for (std::size_t at = 0; at < kSlots; at += kPiece) {
      for (std::size_t i = 0; i < kMany; ++i) {
        if (at == 0) {
          const auto holding = gc::make<Holding>();
          holding->node = make_node(i);
          array[i] = holding;
        } else {
          array[at + i] = make_node(at + i);
        }
      }
      notes.emplace_back(array[at]);
    }
    kept = array.data();
  });
  collect();
  CHECK(count_alive(notes) == notes.size());
  hold_next = true;
  std::thread collector = start_thread([] { gc::collect(); });
  gc::blocking_call([] {
    while (!reached) std::this_thread::yield();
  });
  // It has scanned the first piece and follows what that has led to. All others wait in its queue.
  std::size_t marked = 0;
  for (const Hidden note : notes) marked += is_marked_now(note);
  CHECK(is_marked_now(notes[0]));
  CHECK(marked == 1);
  let_go = true;
  join(collector);
  CHECK(count_alive(notes) == notes.size());
  for (std::size_t at = kPiece; at < kSlots; at += kPiece) {
    for (std::size_t i = 0; i < kMany; ++i) {
      if (!intact(static_cast<Node*>(kept.get()[at + i].get()), at + i)) FAIL(at + i);
    }
  }
}

TEST_CASE("a large array is marked piece by piece, and what it leads to in between", "[process]") {
  const ProgramEnd end =
      run_program("child is held by what it finds in the first piece of a large array",
                  {{"TRICOLOR_DEBUG", "workers=1"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

// ----------------------------------------------------------------------------- several markers

namespace {

struct Knot {
  std::array<gc::ptr<Knot>, 3> to;
  gc::array<gc::ptr<Knot>> more;
  std::uint64_t number = 0;
};

}  // namespace

// A graph with everything that markers race for: cells with many references to them, long chains, wide arrays.
TEST_CASE("child marks a random graph again and again", "[.child]") {
  constexpr std::uint64_t kKnots = 60'000;
  std::mt19937_64 random(7);
  gc::root<Knot> first;
  on_thread([&] {
    std::vector<gc::root<Knot>> some;
    const auto all = gc::make_array<gc::ptr<Knot>>(kKnots);
    for (std::uint64_t i = 0; i < kKnots; ++i) {
      Knot* const knot = gc::make<Knot>();
      knot->number = i;
      all[i] = knot;
      if (i > 0) all[i - 1]->to[0] = knot;  // a chain through all of them
      for (std::size_t k = 1; k < 3; ++k) knot->to[k] = all[random() % (i + 1)];
      if (i % 5'000 == 0) {
        knot->more = gc::make_array<gc::ptr<Knot>>(40'000);
        for (auto& slot : knot->more) slot = all[random() % (i + 1)];
      }
    }
    first = all[0];
  });
  for (int cycle = 0; cycle < 20; ++cycle) {
    collect();
    const std::uint64_t marked = gc::stats().marked_objects_count;
    INFO(marked);
    CHECK(marked >= kKnots + kKnots / 5'000);
    CHECK(marked < kKnots + kKnots / 5'000 + 20);
    for (int i = 0; i < 1'000; ++i) gc::make<Knot>()->number = 0;  // takes what was lost
  }
  std::uint64_t expected = 0;
  for (const Knot* knot = first; knot != nullptr; knot = knot->to[0]) {
    if (knot->number != expected++) FAIL(expected);
  }
  CHECK(expected == kKnots);
}

TEST_CASE("several markers find what one finds, also with queues that are always full",
          "[process]") {
  const std::string knobs = GENERATE("workers=1", "workers=2", "workers=4", "workers=16",
                                     "workers=1,tinybuffers=1", "workers=3,tinybuffers=1");
  const ProgramEnd end =
      run_program("child marks a random graph again and again", {{"TRICOLOR_DEBUG", knobs}});
  INFO(knobs << ": " << end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child ends its threads", "[.child]") {
  const auto threads = [] {
    std::size_t ours = 0;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      std::string name;
      std::getline(std::ifstream(task.path() / "comm"), name);
      ours += name.rfind("tricolor", 0) == 0;
    }
    return ours;
  };
  CHECK(threads() == 0);
  gc::root<Node> list;
  for (std::uint64_t i = 0; i < 500'000; ++i) list = make_node(i, list);
  for (int i = 0; i < 20; ++i) {
    gc::collect();
    CHECK(threads() == 4);  // three that help to mark, and the collector's own
    gc::shutdown();
    // The latter ends by itself.
    for (int wait = 0; wait < 10'000 && threads() > 0; ++wait) usleep(1'000);
    CHECK(threads() == 0);
  }
}

TEST_CASE("shutdown ends the threads that mark, and the next cycle starts them again",
          "[process]") {
  const ProgramEnd end = run_program("child ends its threads", {{"TRICOLOR_DEBUG", "workers=4"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}
