// Objects that have pages of their own.
#include <tricolor/array.h>

#include <tricolor/gc.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <random>
#include <thread>
#include <vector>

#include "test/gc/support.h"

using namespace tricolor::test;

namespace {

constexpr std::size_t kMiB = 1 << 20;

}  // namespace

TEST_CASE("large objects keep their content and are reclaimed") {
  const auto seed = test_seed();
  INFO("TRICOLOR_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  std::vector<std::pair<gc::root<std::uint64_t>, std::size_t>> arrays;
  collect();
  const std::uint64_t live = gc::stats().heap_live_bytes;
  on_thread([&] {
    for (int i = 0; i < 200; ++i) {
      const std::size_t n = 4'096 + random() % 100'000;
      const auto array = gc::make_array_for_overwrite<std::uint64_t>(n);
      for (std::size_t k = 0; k < n; ++k) array[k] = n ^ k;
      if (arrays.size() < 20) {
        arrays.emplace_back(array.data(), n);
      } else {
        arrays[random() % 20] = {gc::root<std::uint64_t>(array.data()), n};
      }
    }
  });
  collect();
  apart([&] {
    for (const auto& [array, n] : arrays) {
      for (std::size_t k = 0; k < n; ++k) {
        if (array.get()[k] != (n ^ k)) FAIL("element " << k << " of " << n);
      }
    }
  });
  arrays.clear();
  collect();
  CHECK(gc::stats().heap_live_bytes < live + kMiB);
}

TEST_CASE(
    "every reference in a large array is followed, at the start, at the end and around each "
    "piece") {
  gc::root<gc::ptr<Node>> kept;
  constexpr std::size_t kSlots = 3 * kMiB / 8 + 5;
  std::vector<Hidden> notes;
  on_thread([&] {
    const auto array = gc::make_array<gc::ptr<Node>>(kSlots);
    for (std::size_t i = 0; i < kSlots;
         i += i % 16'384 < 3 || i % 16'384 > 16'380 || i > kSlots - 10 ? 1 : 97) {
      array[i] = make_node(i, make_node(i + 1));
      notes.emplace_back(array[i]);
      notes.emplace_back(array[i]->next);
    }
    kept = array.data();
  });
  CHECK(notes.size() > 2'000);
  collect();
  CHECK(count_alive(notes) == notes.size());
  apart([&] {
    for (std::size_t i = 0; i < kSlots; ++i) {
      const Node* const node = kept.get()[i];
      if (node != nullptr && !(intact(node, i) && intact(node->next, i + 1))) FAIL(i);
    }
  });
  kept = nullptr;
  collect();
  CHECK(count_alive(notes) == 0);
}

TEST_CASE("large arrays of classes are followed across pieces, whatever the size of an element") {
  struct Odd {  // 40 bytes: elements lie across the borders of pieces
    std::uint64_t before[2];
    gc::ptr<Node> node;
    std::uint64_t between;
    gc::ptr<Node> other;
  };
  gc::root<Odd> kept;
  constexpr std::size_t kElements = 20'000;
  std::vector<Hidden> notes;
  on_thread([&] {
    const auto array = gc::make_array<Odd>(kElements);
    for (std::size_t i = 0; i < kElements; ++i) {
      array[i].node = make_node(i);
      array[i].other = make_node(i + 1);
      notes.emplace_back(array[i].node);
      notes.emplace_back(array[i].other);
    }
    kept = array.data();
  });
  collect();
  CHECK(count_alive(notes) == 2 * kElements);
  kept = nullptr;
  collect();
  CHECK(count_alive(notes) == 0);
}

TEST_CASE("one element above the size of a piece is scanned once, to its end") {
  struct Huge {
    std::array<std::uint64_t, 40'000> numbers;
    gc::ptr<Node> last;
  };
  std::vector<Hidden> notes;
  gc::root<Huge> kept;
  gc::root<Huge> array;
  on_thread([&] {
    kept = gc::make<Huge>();
    kept->last = make_node(1);
    notes.emplace_back(kept->last);
    const auto a = gc::make_array<Huge>(3);
    for (Huge& huge : a.span()) {
      huge.last = make_node(2);
      notes.emplace_back(huge.last);
    }
    array = a.data();
  });
  collect();
  CHECK(count_alive(notes) == 4);
  kept = nullptr;
  array = nullptr;
  collect();
  CHECK(count_alive(notes) == 0);
}

TEST_CASE("an object across the border of two arenas is one object") {
  // 100 MiB lie in at least two arenas of 64 MiB.
  gc::root<gc::ptr<Node>> kept;
  gc::root<gc::ptr<Node>> end;
  std::vector<Hidden> notes;
  constexpr std::size_t kSlots = 100 * kMiB / 8;
  on_thread([&] {
    const auto array = gc::make_array<gc::ptr<Node>>(kSlots);
    for (std::size_t i = 0; i < kSlots; i += 50'021) {
      array[i] = make_node(i);
      notes.emplace_back(array[i]);
    }
    end = &array[kSlots - 1];
  });
  collect();
  CHECK(count_alive(notes) == notes.size());
  end = nullptr;
  collect();
  CHECK(count_alive(notes) == 0);
  CHECK(gc::stats().heap_live_bytes < 100 * kMiB);
}

// (That nobody reads them before: fault_test.cc, "child makes large objects of what dead ones have left".)
TEST_CASE("large objects are zeroed while others collect") {
  std::atomic<bool> end{false};
  std::thread collector = start_thread([&] {
    while (!end) gc::collect();
  });
  for (int i = 0; i < 100; ++i) {
    {
      const auto dirty = gc::make_array_for_overwrite<std::uint64_t>(300'000);
      for (std::uint64_t& word : dirty.span()) word = 0xdeadbeefdeadbeef;
    }
    const auto clean = gc::make_array<gc::ptr<Node>>(300'000);
    for (const auto& slot : clean.span()) {
      if (slot != nullptr) FAIL("not zero");
    }
  }
  end = true;
  join(collector);
}
