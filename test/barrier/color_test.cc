#include "barrier/color.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "test/support/own_heap.h"

using namespace tricolor::impl;
using tricolor::test::count_set;
using tricolor::test::OwnHeap;
namespace detail = tricolor::detail;

TEST_CASE("a white cell turns grey once, its neighbours stay what they are") {
  const std::uint64_t seed = tricolor::test::seed_of("shading");
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  OwnHeap heap;
  for (const Markers markers : {Markers::one, Markers::several}) {
    for (std::size_t c = 1; c < detail::kClassCount; ++c) {
      CAPTURE(c);
      PageRecord* const span = heap.claim_fresh(heap.pointer_free(c), 1).span;
      std::set<std::uint32_t> grey;
      for (std::uint32_t i = 0; i < std::min(100u, span->cells + 5u); ++i) {
        const auto index = static_cast<std::uint32_t>(random() % span->cells);
        const bool was_white = grey.insert(index).second;
        REQUIRE(is_marked({span, index}) == !was_white);
        REQUIRE(shade(span, index, markers) == was_white);
        REQUIRE(is_marked({span, index}));
        REQUIRE(!shade(span, index, markers));
      }
      CHECK(count_set(mark_words(span), bit_words(span) * 64) == grey.size());
      for (const std::uint32_t index : grey) CHECK(is_marked({span, index}));
      CHECK(count_set(alloc_words(span), span->cells) == 1);  // not its business
    }
  }
}

TEST_CASE("the only cell of a large object can be shaded") {
  OwnHeap heap;
  char* const object = heap.allocate_large(heap.typed(detail::kLargeClass), 100);
  const Cell cell = heap.find(object + 50 * kPageBytes);
  CHECK(!is_marked(cell));
  CHECK(shade(cell.span, cell.index, Markers::several));
  CHECK(!shade(cell.span, cell.index, Markers::several));
  CHECK(is_marked(cell));
}

TEST_CASE("of the markers that race to a cell exactly one shades it") {
  constexpr unsigned kThreads = 4;
  OwnHeap heap;
  std::vector<PageRecord*> spans;
  std::size_t cells = 0;
  for (std::size_t i = 0; i < 300; ++i) {
    spans.push_back(heap.claim_fresh(heap.pointer_free(1 + i % 3), 1).span);
    cells += spans.back()->cells;
  }
  // Whether threads meet in a word is up to the machine, so they are sent there again and again.
  for (int round = 0; round < 12; ++round) {
    std::atomic<std::size_t> arrived{0};
    std::atomic<std::size_t> shaded{0};
    std::atomic<std::size_t> unmarked{0};
    const auto race = [&] {
      std::size_t mine = 0;
      std::size_t met = 0;
      for (PageRecord* span : spans) {
        arrived.fetch_add(1, std::memory_order_relaxed);
        met += kThreads;
        while (arrived.load(std::memory_order_relaxed) < met) std::this_thread::yield();
        for (std::uint32_t index = 0; index < span->cells; ++index) {
          mine += shade(span, index, Markers::several);
          if (!is_marked({span, index})) unmarked.fetch_add(1, std::memory_order_relaxed);
        }
      }
      shaded.fetch_add(mine);
    };
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < kThreads; ++t) threads.emplace_back(race);
    for (std::thread& thread : threads) thread.join();
    CHECK(shaded.load() == cells);
    CHECK(unmarked.load() == 0);
    for (PageRecord* span : spans) {
      REQUIRE(count_set(mark_words(span), span->cells) == span->cells);
      for (std::uint32_t w = 0; w < bit_words(span); ++w) mark_words(span)[w].store(0);
    }
  }
}
