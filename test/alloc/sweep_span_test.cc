#include "alloc/sweep_span.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <set>
#include <vector>

#include "alloc/base/check.h"
#include "child.h"
#include "test/support/own_heap.h"

using namespace tricolor::impl;
using tricolor::test::all_bytes_are;
using tricolor::test::cells_of;
using tricolor::test::count_set;
using tricolor::test::in_child;
using tricolor::test::kEverySpan;
using tricolor::test::OwnHeap;
namespace detail = tricolor::detail;

namespace {

void set(BitWord* words, std::uint32_t index) {
  words[index / 64].fetch_or(std::uint64_t{1} << (index % 64), std::memory_order_relaxed);
}

char* cell_at(const PageRecord* span, std::uint32_t index) {
  return page_of_record(span).data() + std::size_t{index} * span->kind->cell_bytes;
}

}  // namespace

TEST_CASE("sweeping makes the mark bits the alloc bits, in every class") {
  const std::uint64_t seed = tricolor::test::seed_of("sweeping a span");
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  OwnHeap heap;
  for (std::size_t c = 1; c < detail::kClassCount; ++c) {
    CAPTURE(c);
    Kind& kind = heap.typed(c);
    PageRecord* const span = heap.claim_fresh(kind, 1).span;
    alloc_words(span)[0].store(0);
    std::set<std::uint32_t> marked;
    std::uint32_t allocated = 0;
    for (std::uint32_t i = 0; i < span->cells; ++i) {
      const auto dice = random() % 3;
      if (dice == 0 && i + 1 != span->cells) continue;
      set(alloc_words(span), i);
      ++allocated;
      if (dice != 1) continue;
      set(mark_words(span), i);
      marked.insert(i);
    }
    span->hint_word = 1;
    const std::uint64_t freed_before = heap.allocator.freed_bytes.load();
    heap.allocator.sweep_epoch.fetch_add(1);
    CHECK(!is_swept(heap.allocator, span));
    CHECK(sweep_span(heap.allocator, span) == marked.size());
    CHECK(is_swept(heap.allocator, span));
    std::set<std::uint32_t> left;
    for (std::uint32_t i = 0; i < span->cells; ++i) {
      if (test_bit(alloc_words(span), i)) left.insert(i);
    }
    CHECK(left == marked);
    CHECK(count_set(alloc_words(span), bit_words(span) * 64) == marked.size());
    CHECK(count_set(mark_words(span), bit_words(span) * 64) == 0);
    CHECK(heap.allocator.freed_bytes.load() - freed_before ==
          (allocated - marked.size()) * kind.cell_bytes);
    CHECK(span->hint_word == 0);
    CHECK(span->needs_zero == (marked.size() == allocated ? 0 : 1));
  }
}

TEST_CASE("a mark on a free cell does not make an object of it") {
  OwnHeap heap;
  Kind& kind = heap.typed(6);
  PageRecord* const span = heap.claim_fresh(kind, 3).span;
  set(mark_words(span), 1);
  set(mark_words(span), 3);
  set(mark_words(span), 70);
  heap.begin_sweep();
  CHECK(sweep_span(heap.allocator, span) == 1);
  CHECK(count_set(alloc_words(span), span->cells) == 1);
  CHECK(test_bit(alloc_words(span), 1));
  CHECK(count_set(mark_words(span), span->cells) == 0);
  CHECK(heap.allocator.freed_bytes.load() == 2 * kind.cell_bytes);
  // And a span with no other marks is empty.
  mark_words(span)[1].store(1);
  heap.begin_sweep();
  CHECK(sweep_and_free(heap.allocator, span).value == 1);
  CHECK(heap.allocator.span_count.load() == 0);
}

TEST_CASE("when nothing has died, fresh cells need no zeroing still") {
  OwnHeap heap;
  Kind& kind = heap.typed(6);
  PageRecord* const span = heap.claim_fresh(kind, 2).span;
  for (int cycle = 0; cycle < 3; ++cycle) {
    set(mark_words(span), 0);
    set(mark_words(span), 1);
    heap.begin_sweep();
    CHECK(sweep_span(heap.allocator, span) == 2);
    CHECK(span->needs_zero == 0);
  }
  set(mark_words(span), 1);
  heap.begin_sweep();
  CHECK(sweep_span(heap.allocator, span) == 1);
  CHECK(span->needs_zero == 1);
  // What was left in a cell once stays a reason to zero.
  set(mark_words(span), 1);
  heap.begin_sweep();
  CHECK(sweep_span(heap.allocator, span) == 1);
  CHECK(span->needs_zero == 1);
}

TEST_CASE("a span without marks is freed, one with marks is not, a swept one is left alone") {
  OwnHeap heap;
  for (const std::size_t c : {1, 4, 33, 67}) {
    CAPTURE(c);
    Kind& kind = heap.pointer_free(c);
    PageRecord* const kept = heap.claim_fresh(kind, 1).span;
    PageRecord* const dead = heap.claim_fresh(kind, 1).span;
    REQUIRE(kept != dead);
    CHECK(sweep_and_free(heap.allocator, dead).value == 0);
    set(mark_words(kept), 0);
    heap.begin_sweep();
    CHECK(sweep_and_free(heap.allocator, dead).value == kind.pages);
    CHECK(sweep_and_free(heap.allocator, kept).value == 0);
    CHECK(sweep_and_free(heap.allocator, kept).value == 0);
    CHECK(heap.find(page_of_record(kept).data()).span == kept);
    CHECK(!heap.find(page_of_record(dead).data()));
    CHECK(heap.allocator.pages.in_use_bytes() == kind.pages * kPageBytes);
    heap.begin_sweep();
    CHECK(heap.sweep_all() == kind.pages);
    CHECK(heap.allocator.pages.in_use_bytes() == 0);
    CHECK(heap.allocator.freed_bytes.load() == 2 * kind.cell_bytes);
    heap.allocator.freed_bytes.store(0);
  }
}

TEST_CASE("a large object lives while it is marked, and its bytes are counted") {
  OwnHeap heap;
  Kind& kind = heap.typed(detail::kLargeClass);
  char* const object = heap.allocate_large(kind, 20);
  PageRecord* const span = heap.find(object).span;
  CHECK(sweep_and_free(heap.allocator, span).value == 0);  // born swept
  heap.mark(object);
  heap.begin_sweep();
  CHECK(sweep_and_free(heap.allocator, span).value == 0);
  CHECK(heap.allocated(object));
  CHECK(heap.allocated_less_freed() == 20 * std::int64_t{kPageBytes});
  CHECK(heap.live() == heap.allocated_less_freed());
  heap.begin_sweep();
  CHECK(sweep_and_free(heap.allocator, span).value == 20);
  CHECK(!heap.find(object));
  CHECK(heap.allocated_less_freed() == 0);
  CHECK(heap.live() == 0);
  CHECK(heap.allocator.pages.in_use_bytes() == 0);
}

TEST_CASE("dead cells are clobbered when that is asked for, and only those") {
  for (const bool clobber : {false, true}) {
    OwnHeap heap;
    heap.allocator.clobber_free = clobber;
    for (const std::size_t c : {1, 3, 6, 40}) {
      CAPTURE(clobber, c);
      Kind& kind = heap.typed(c);
      const std::uint32_t cells = std::min(kind.cells, 100u);
      PageRecord* const span = heap.claim_fresh(kind, cells).span;
      std::memset(page_of_record(span).data(), 1, PageCount{kind.pages}.bytes());
      for (std::uint32_t i = 0; i < cells; i += 3) set(mark_words(span), i);
      heap.begin_sweep();
      sweep_span(heap.allocator, span);
      for (std::uint32_t i = 0; i < kind.cells; ++i) {
        const bool dead = i < cells && i % 3 != 0;
        std::uint64_t first = 0;
        std::uint64_t last = 0;
        std::memcpy(&first, cell_at(span, i), 8);
        std::memcpy(&last, cell_at(span, i) + kind.cell_bytes - 8, 8);
        const std::uint64_t expected = clobber && dead ? 0xdeadbeefdeadbeef : 0x0101010101010101;
        REQUIRE(first == expected);
        REQUIRE(last == expected);
      }
      const std::size_t used = std::size_t{kind.cells} * kind.cell_bytes;
      CHECK(all_bytes_are(page_of_record(span).data() + used, PageCount{kind.pages}.bytes() - used,
                          1));
    }
  }
}

TEST_CASE("a dead large object is clobbered to its end") {
  OwnHeap heap;
  heap.allocator.clobber_free = true;
  char* const object = heap.allocate_large(heap.typed(detail::kLargeClass), 3);
  std::memset(object, 1, 3 * kPageBytes);
  heap.begin_sweep();
  CHECK(sweep_span(heap.allocator, heap.find(object).span) == 0);
  for (std::size_t i = 0; i < 3 * kPageBytes; i += 8) {
    REQUIRE(*reinterpret_cast<std::uint64_t*>(object + i) == 0xdeadbeefdeadbeef);
  }
}

TEST_CASE("a span is not swept twice") {
  if (!kDebugChecks) return;
  const auto end = in_child([] {
    OwnHeap heap;
    PageRecord* const span = heap.claim_fresh(heap.typed(6), 1).span;
    sweep_span(heap.allocator, span);
    return 0;
  });
  CHECK(end.signal == SIGABRT);
  CHECK_THAT(end.errors, Catch::Contains("span.one-sweeper"));
}

TEST_CASE("cells that died are claimed again, from the first") {
  OwnHeap heap;
  Kind& kind = heap.typed(2);  // 512 cells
  PageRecord* const span = heap.claim_fresh(kind, 256).span;
  Claim claim;
  REQUIRE(kind.central.claim(heap.allocator, 256, kEverySpan, claim));
  REQUIRE(!kind.central.claim(heap.allocator, 1, kEverySpan, claim));
  for (std::uint32_t i = 0; i < 512; ++i) {
    if (i != 5 && i != 63 && i != 64 && i != 300 && i != 511) set(mark_words(span), i);
  }
  heap.begin_sweep();
  claim = {};
  REQUIRE(kind.central.claim(heap.allocator, 100, kEverySpan, claim));
  CHECK(cells_of(claim) == std::vector<std::uint32_t>{5, 63, 64});
  CHECK(claim.needs_zero);
  REQUIRE(kind.central.claim(heap.allocator, 100, kEverySpan, claim));
  CHECK(cells_of(claim) == std::vector<std::uint32_t>{300, 511});
  CHECK(!kind.central.claim(heap.allocator, 100, kEverySpan, claim));
}
