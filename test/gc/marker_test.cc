// Shapes that are hard on a marker: deep, wide, and with queues that are full. The same runs under tinybuffers=1.
#include "gc/marker.h"

#include <tricolor/gc.h>

#include <array>
#include <catch2/catch.hpp>
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
