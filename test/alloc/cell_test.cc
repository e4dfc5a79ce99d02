#include "alloc/cell.h"

#include <catch2/catch.hpp>
#include <cstdint>

#include "test/support/own_heap.h"

using namespace tricolor::impl;
using tricolor::test::OwnHeap;
namespace detail = tricolor::detail;

TEST_CASE("every byte of a span of every size class leads to its cell, and the gap to none") {
  OwnHeap heap;
  // Spans do not begin where an arena does.
  REQUIRE(heap.allocate_large(heap.pointer_free(detail::kLargeClass), 3) != nullptr);
  for (std::size_t c = 1; c < detail::kClassCount; ++c) {
    CAPTURE(c);
    Kind& kind = heap.pointer_free(c);
    PageRecord* const span = heap.claim_fresh(kind, 1).span;
    REQUIRE(span != nullptr);
    const std::uintptr_t first = page_of_record(span).address();
    const std::uint32_t bytes = detail::kSizeClasses[c].cell_bytes;
    const std::uint32_t span_bytes = detail::kSizeClasses[c].span_pages * kPageBytes;
    std::uint32_t wrong = 0;
    for (std::uint32_t offset = 0; offset < span_bytes; ++offset) {
      const Cell cell = find_cell(heap.allocator.map, first + offset);
      if (offset / bytes < span_bytes / bytes) {
        wrong += cell.span != span || cell.index != offset / bytes;
      } else {
        wrong += static_cast<bool>(cell);
      }
    }
    CHECK(wrong == 0);
    CHECK(span->cells == span_bytes / bytes);
    const std::uint32_t last = span->cells - 1u;
    const Cell cell = find_cell(heap.allocator.map, first + std::uintptr_t{last + 1} * bytes - 1);
    CHECK(cell.address() == first + std::uintptr_t{last} * bytes);
    CHECK(cell.bytes() == bytes);
  }
}

TEST_CASE("an address in a page of the middle has its offset from the head") {
  OwnHeap heap;
  const std::size_t c = detail::size_class_for(27264, 8);  // three cells on ten pages
  REQUIRE(detail::kSizeClasses[c].span_pages == 10);
  PageRecord* const span = heap.claim_fresh(heap.pointer_free(c), 1).span;
  for (std::uintptr_t page = 0; page < 10; ++page) {
    const std::uintptr_t address = page_of_record(span).address() + page * kPageBytes + 77;
    std::uintptr_t offset = 1;
    CHECK(head_of(heap.allocator.map, heap.allocator.map.record_of(address), address, offset) ==
          span);
    CHECK(offset == page * kPageBytes + 77);
  }
}

TEST_CASE("every page of a large object leads to it, over several arenas too") {
  OwnHeap heap;
  Kind& kind = heap.typed(detail::kLargeClass);
  for (const std::size_t pages :
       {std::size_t{1}, std::size_t{5}, kArenaPages + 3, 2 * kArenaPages + 3}) {
    CAPTURE(pages);
    char* const object = heap.allocate_large(kind, pages);
    REQUIRE(object != nullptr);
    std::size_t wrong = 0;
    for (std::size_t page = 0; page < pages; ++page) {
      for (const std::size_t offset : {std::size_t{0}, kPageBytes - 1}) {
        const Cell cell = heap.find(object + page * kPageBytes + offset);
        if (!cell) {
          ++wrong;
          continue;
        }
        wrong += cell.address() != reinterpret_cast<std::uintptr_t>(object) ||
                 cell.bytes() != pages * kPageBytes || cell.index != 0;
      }
      wrong += !heap.allocated(object + page * kPageBytes + 8);
    }
    CHECK(wrong == 0);
    CHECK(!heap.find(object + pages * kPageBytes));
  }
}

TEST_CASE("a large object that is not zeroed yet is found") {
  OwnHeap heap;
  char* const object =
      heap.allocate_large(heap.typed(detail::kLargeClass), kArenaPages + 1, PageState::unready);
  REQUIRE(object != nullptr);
  const Cell cell = heap.find(object + kArenaBytes + 100);
  REQUIRE(cell);
  CHECK(cell.address() == reinterpret_cast<std::uintptr_t>(object));
  CHECK(cell.span->state.load(std::memory_order_relaxed) == PageState::unready);
  CHECK(heap.allocated(object + 1));
}

TEST_CASE("a word that leads into no span has no cell") {
  OwnHeap heap;
  CHECK(!find_cell(heap.allocator.map, 4711));  // before there is an arena
  char* const object = heap.allocate_large(heap.pointer_free(detail::kLargeClass), 2);
  const auto address = reinterpret_cast<std::uintptr_t>(object);
  for (const std::uintptr_t word :
       {std::uintptr_t{0}, address - 1, address + 2 * kPageBytes, address + kArenaBytes,
        address | std::uintptr_t{1} << 63, std::uintptr_t{1} << kAddressBits, UINTPTR_MAX}) {
    CAPTURE(word);
    CHECK(!find_cell(heap.allocator.map, word));
    CHECK(!find_allocated_cell(heap.allocator.map, word));
  }
}

TEST_CASE("an interior page whose head is not published yet leads nowhere") {
  OwnHeap heap;
  // Their last span has left its fields in the head.
  Kind& kind = heap.pointer_free(detail::size_class_for(3072, 8));
  REQUIRE(kind.pages == 3);
  PageRecord* const head = heap.claim_fresh(kind, 1).span;
  free_span(heap.allocator, head);
  REQUIRE(heap.allocator.pages.take({3})->first == page_of_record(head));
  // What publish_span() has done when it has come to the last page.
  head[2].head_delta = 2;
  head[2].state.store(PageState::interior, std::memory_order_release);
  for (std::size_t page = 0; page < 3; ++page) {
    CHECK(!heap.find((page_of_record(head) + PageCount{page}).data() + 10));
  }
}

TEST_CASE("only cells that are allocated are found for words that may be anything") {
  OwnHeap heap;
  for (const std::size_t c : {1, 2, 3, 4, 5, 20, 67}) {
    CAPTURE(c);
    Kind& kind = heap.pointer_free(c);
    PageRecord* const span = heap.claim_fresh(kind, 1).span;
    alloc_words(span)[0].store(0, std::memory_order_relaxed);
    char* const first = page_of_record(span).data();
    for (const std::uint32_t index : {0u, span->cells / 2u, span->cells - 1u}) {
      CAPTURE(index);
      char* const cell = first + std::size_t{index} * kind.cell_bytes;
      BitWord& word = alloc_words(span)[index / 64];
      CHECK(!heap.allocated(cell));
      word.fetch_or(std::uint64_t{1} << (index % 64), std::memory_order_relaxed);
      CHECK(heap.allocated(cell));
      CHECK(heap.allocated(cell + kind.cell_bytes - 1));
      CHECK(tricolor::test::count_set(alloc_words(span), span->cells) == 1);
      word.store(0, std::memory_order_relaxed);
    }
  }
}

TEST_CASE("no bit of a span is a bit of another, nor its mark an alloc bit") {
  OwnHeap heap;
  std::vector<PageRecord*> spans;
  for (const std::size_t c : {1, 2, 3, 4, 1, 2, 3, 4, 1}) {
    spans.push_back(heap.claim_fresh(heap.pointer_free(c), 1).span);
  }
  // Each word of a bitmap says whose it is; nobody may have overwritten it in the end.
  const auto stamp = [&](std::size_t i, std::uint32_t w, bool mark) {
    return i << 16 | std::uint64_t{w} << 8 | (mark ? 1 : 0);
  };
  for (std::size_t i = 0; i < spans.size(); ++i) {
    for (std::uint32_t w = 0; w < bit_words(spans[i]); ++w) {
      mark_words(spans[i])[w].store(stamp(i, w, true), std::memory_order_relaxed);
      alloc_words(spans[i])[w].store(stamp(i, w, false), std::memory_order_relaxed);
    }
  }
  for (std::size_t i = 0; i < spans.size(); ++i) {
    CAPTURE(i);
    CHECK(bit_words(spans[i]) == (spans[i]->cells + 63u) / 64);
    std::uint32_t wrong = 0;
    for (std::uint32_t w = 0; w < bit_words(spans[i]); ++w) {
      wrong += mark_words(spans[i])[w].load(std::memory_order_relaxed) != stamp(i, w, true);
      wrong += alloc_words(spans[i])[w].load(std::memory_order_relaxed) != stamp(i, w, false);
    }
    CHECK(wrong == 0);
    CHECK(spans[i]->kind->size_class == spans[i]->size_class);
    CHECK(spans[i]->state.load(std::memory_order_relaxed) == PageState::in_use);
  }
}
