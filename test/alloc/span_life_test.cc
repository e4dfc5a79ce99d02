#include "alloc/span_life.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>
#include <vector>

#include "alloc/base/check.h"
#include "child.h"
#include "test/support/own_heap.h"

using namespace tricolor::impl;
using tricolor::test::count_set;
using tricolor::test::in_child;
using tricolor::test::OwnHeap;
namespace detail = tricolor::detail;

namespace {

bool has_head_bit(const PageRecord* span) {
  Arena* const arena = arena_of(span);
  const auto page = static_cast<std::size_t>(span - arena->records());
  return (arena->heads[page / 64].load(std::memory_order_acquire) >> (page % 64) & 1) != 0;
}

std::size_t head_bits(OwnHeap& heap) {
  std::size_t heads = 0;
  heap.for_each_span([&](PageRecord*) { ++heads; });
  return heads;
}

PageRecord* publish(OwnHeap& heap, Kind& kind, std::size_t pages) {
  const auto run = heap.allocator.pages.take({pages});
  REQUIRE(run.has_value());
  return publish_span(heap.allocator, kind, run->first, {pages}, run->zero, PageState::in_use);
}

}  // namespace

TEST_CASE("a span is published swept, empty, and found from every page") {
  OwnHeap heap;
  heap.allocator.sweep_epoch.store(41);
  for (const std::size_t c : {1, 3, 4, 33, 48, 67}) {
    CAPTURE(c);
    Kind& kind = c == 1 ? heap.pointer_free(c) : heap.typed(c);
    const std::size_t before = heap.allocator.span_count.load();
    PageRecord* const span = publish(heap, kind, kind.pages);
    CHECK(span->kind == &kind);
    CHECK(span->reciprocal == kind.reciprocal);
    CHECK(span->head_delta == 0);
    CHECK(span->cells == kind.cells);
    CHECK(span->size_class == kind.size_class);
    CHECK(span->hint_word == 0);
    CHECK(span->needs_zero == 0);  // the pages are fresh
    CHECK(span->scan == kind.scan);
    CHECK(span->rescan.load() == 0);
    CHECK(is_swept(heap.allocator, span));
    CHECK(pages_of(span).value == kind.pages);
    CHECK(count_set(alloc_words(span), span->cells) == 0);
    CHECK(count_set(mark_words(span), span->cells) == 0);
    CHECK(has_head_bit(span));
    CHECK(heap.allocator.span_count.load() == before + 1);
    for (std::size_t page = 0; page < kind.pages; ++page) {
      std::uintptr_t offset = 0;
      const std::uintptr_t address = (page_of_record(span) + PageCount{page}).address();
      CHECK(head_of(heap.allocator.map, heap.allocator.map.record_of(address), address, offset) ==
            span);
      CHECK(has_head_bit(span + page) == (page == 0));
    }
  }
  CHECK(head_bits(heap) == 6);
}

TEST_CASE("a span of used pages says that its cells are not zero") {
  OwnHeap heap;
  Kind& kind = heap.typed(10);
  PageRecord* const span = publish(heap, kind, 1);
  CHECK(span->needs_zero == 0);
  free_span(heap.allocator, span);
  CHECK(publish(heap, kind, 1) == span);
  CHECK(span->needs_zero == 1);
}

TEST_CASE("a freed span leaves nothing behind") {
  OwnHeap heap;
  for (const std::size_t c : {1, 2, 3, 4, 33, 48, 67}) {
    CAPTURE(c);
    Kind& kind = heap.pointer_free(c);
    PageRecord* const span = publish(heap, kind, kind.pages);
    char* const first = page_of_record(span).data();
    for (std::uint32_t w = 0; w < bit_words(span); ++w)
      alloc_words(span)[w].store(~std::uint64_t{0});
    span->rescan.store(1);
    span->hint_word = 7;
    span->sweep_epoch.store(0);
    free_span(heap.allocator, span);
    CHECK(!has_head_bit(span));
    for (std::size_t page = 0; page < kind.pages; ++page) {
      CHECK((span + page)->state.load() == PageState::free);
      CHECK(!heap.find(first + page * kPageBytes));
    }
    CHECK(heap.allocator.span_count.load() == 0);
    CHECK(heap.allocator.pages.in_use_bytes() == 0);
    // A span of any class comes to the same pages with all bits zero.
    for (const std::size_t next : {1, 2, 3, 4, 67}) {
      CAPTURE(next);
      Kind& other = heap.pointer_free(next);
      PageRecord* const reused = publish(heap, other, other.pages);
      REQUIRE(reused == span);
      CHECK(count_set(alloc_words(span), bit_words(span) * 64) == 0);
      CHECK(count_set(mark_words(span), bit_words(span) * 64) == 0);
      CHECK(span->rescan.load() == 0);
      CHECK(span->hint_word == 0);
      CHECK(is_swept(heap.allocator, span));
      free_span(heap.allocator, reused);
    }
  }
}

TEST_CASE("a page of the middle of one span can be the head of the next") {
  OwnHeap heap;
  Kind& five_pages = heap.typed(detail::size_class_for(6784, 8));
  PageRecord* const span = publish(heap, five_pages, 5);
  free_span(heap.allocator, span);
  for (std::size_t page = 0; page < 5; ++page) {
    PageRecord* const head = publish(heap, heap.typed(10), 1);
    REQUIRE(head == span + page);
    CHECK(head->head_delta == 0);
    CHECK(heap.find(page_of_record(head).data() + kPageBytes - 1).span == head);
  }
}

TEST_CASE("a large object over several arenas is published and freed whole") {
  OwnHeap heap;
  Kind& kind = heap.typed(detail::kLargeClass);
  constexpr std::size_t kPages = 2 * kArenaPages + 7;
  char* const object = heap.allocate_large(kind, kPages);
  REQUIRE(object != nullptr);
  PageRecord* const span = heap.find(object).span;
  CHECK(pages_of(span).value == kPages);
  CHECK(span->slot_or_pages == kPages);
  CHECK(head_bits(heap) == 1);
  free_span(heap.allocator, span);
  CHECK(head_bits(heap) == 0);
  CHECK(heap.allocator.pages.in_use_bytes() == 0);
  std::size_t found = 0;
  for (std::size_t page = 0; page < kPages; ++page)
    found += static_cast<bool>(heap.find(object + page * kPageBytes));
  CHECK(found == 0);
  CHECK(heap.allocate_large(kind, kPages) == object);
}

TEST_CASE("neighbours of a freed span keep what they have") {
  OwnHeap heap;
  Kind& kind = heap.pointer_free(detail::size_class_for(6784, 8));  // five pages
  PageRecord* const below = publish(heap, kind, kind.pages);
  PageRecord* const span = publish(heap, kind, kind.pages);
  PageRecord* const above = publish(heap, kind, kind.pages);
  REQUIRE(span == below + kind.pages);
  REQUIRE(above == span + kind.pages);
  free_span(heap.allocator, span);
  for (PageRecord* const neighbour : {below, above}) {
    for (std::size_t page = 0; page < kind.pages; ++page) {
      CHECK(heap.find((page_of_record(neighbour) + PageCount{page}).data()).span == neighbour);
    }
    CHECK(has_head_bit(neighbour));
  }
}

TEST_CASE("a span with marks is not freed") {
  if (!kDebugChecks) return;
  const auto end = in_child([] {
    OwnHeap heap;
    char* const object = heap.allocate_large(heap.typed(detail::kLargeClass), 2);
    heap.mark(object);
    free_span(heap.allocator, heap.find(object).span);
    return 0;
  });
  CHECK(end.signal == SIGABRT);
  CHECK_THAT(end.errors, Catch::Contains("span.no-free-while-marking"));
}

TEST_CASE("pages in use do not become a span again") {
  if (!kDebugChecks) return;
  const auto end = in_child([] {
    OwnHeap heap;
    Kind& kind = heap.typed(10);
    PageRecord* const span = heap.claim_fresh(kind, 1).span;
    publish_span(heap.allocator, kind, page_of_record(span), {1}, true, PageState::in_use);
    return 0;
  });
  CHECK(end.signal == SIGABRT);
  CHECK_THAT(end.errors, Catch::Contains("span.publish"));
}

TEST_CASE("a look-up beside publication finds nothing or a whole span") {
  OwnHeap heap;
  Kind& kind = heap.typed(detail::size_class_for(6784, 8));  // five pages
  constexpr std::size_t kSpans = 500;
  std::vector<PageId> runs;
  for (std::size_t i = 0; i < kSpans; ++i) {
    const auto run = heap.allocator.pages.take({kind.pages});
    REQUIRE(run.has_value());
    runs.push_back(run->first);
  }
  std::atomic<bool> started{false};
  std::atomic<std::size_t> wrong{0};
  std::thread reader([&] {
    for (bool last = false; !last;) {
      started.store(true, std::memory_order_relaxed);
      for (const PageId first : runs) {
        for (std::size_t page = kind.pages;
             page-- != 0;) {  // from the back: by way of interior pages
          const Cell cell = heap.find((first + PageCount{page}).data());
          last = static_cast<bool>(cell);
          if (!cell) continue;
          const bool whole = page_of_record(cell.span) == first && cell.span->kind == &kind &&
                             cell.index == page * kPageBytes / kind.cell_bytes &&
                             cell.span->cells == kind.cells;
          if (!whole) wrong.fetch_add(1, std::memory_order_relaxed);
        }
      }
    }
  });
  while (!started.load(std::memory_order_relaxed)) std::this_thread::yield();
  for (const PageId first : runs) {
    publish_span(heap.allocator, kind, first, {kind.pages}, true, PageState::in_use);
  }
  reader.join();
  CHECK(wrong.load() == 0);
}

TEST_CASE("a walk of the heads beside publication meets whole spans only") {
  OwnHeap heap;
  Kind& kind = heap.typed(detail::size_class_for(6784, 8));  // five pages
  constexpr std::size_t kSpans = 500;
  std::vector<PageId> runs;
  for (std::size_t i = 0; i < kSpans; ++i) {
    const auto run = heap.allocator.pages.take({kind.pages});
    REQUIRE(run.has_value());
    runs.push_back(run->first);
  }
  std::atomic<bool> started{false};
  std::atomic<std::size_t> wrong{0};
  std::thread walker([&] {
    for (std::size_t met = 0; met != kSpans;) {
      started.store(true, std::memory_order_relaxed);
      met = 0;
      heap.for_each_span([&](PageRecord* span) {
        ++met;
        if (span->kind != &kind || span->cells != kind.cells)
          wrong.fetch_add(1, std::memory_order_relaxed);
      });
    }
  });
  while (!started.load(std::memory_order_relaxed)) std::this_thread::yield();
  for (const PageId first : runs) {
    publish_span(heap.allocator, kind, first, {kind.pages}, true, PageState::in_use);
  }
  walker.join();
  CHECK(wrong.load() == 0);
}
