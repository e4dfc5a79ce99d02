#include "alloc/span_life.h"

#include "alloc/cell.h"

namespace tricolor::impl {
namespace {

void set_interior(Allocator& allocator, PageId first, PageCount pages, PageState state) {
  for (std::size_t i = 1; i < pages.value; ++i) {
    PageRecord* const record = allocator.map.record_of(first + PageCount{i});
    check(record != nullptr, "pagemap.covers", {first.address(), i});
    record->head_delta = static_cast<std::uint32_t>(i);
    // Release: head_delta first. Pairs with head_of (acquire).
    record->state.store(state, std::memory_order_release);
  }
}

void set_head_bit(PageRecord* span, bool set) {
  Arena* const arena = arena_of(span);
  const auto page = static_cast<std::size_t>(span - arena->records());
  const std::uint64_t bit = std::uint64_t{1} << (page % 64);
  // Release: the sweeper that finds the bit finds the span. Pairs with Sweeper (acquire).
  if (set) {
    arena->heads[page / 64].fetch_or(bit, std::memory_order_release);
  } else {
    arena->heads[page / 64].fetch_and(~bit, std::memory_order_release);
  }
}

}  // namespace

PageRecord* publish_span(Allocator& allocator, Kind& kind, PageId first, PageCount pages, bool zero,
                         PageState state) {
  PageRecord* const span = allocator.map.record_of(first);
  check(span != nullptr, "pagemap.covers", {first.address()});
  dcheck(span->state.load(std::memory_order_relaxed) == PageState::free, "span.publish");
  span->kind = &kind;
  span->reciprocal = kind.reciprocal;
  span->head_delta = 0;
  // Relaxed, as everything but the state: the state publishes it.
  span->sweep_epoch.store(allocator.sweep_epoch.load(std::memory_order_relaxed),
                          std::memory_order_relaxed);
  span->slot_or_pages = static_cast<std::uint32_t>(pages.value);
  span->hint_word = 0;
  span->cells = static_cast<std::uint16_t>(kind.cells);
  span->size_class = static_cast<std::uint8_t>(kind.size_class);
  span->needs_zero = zero ? 0 : 1;
  span->scan = kind.scan;
  span->rescan.store(0, std::memory_order_relaxed);
  set_interior(allocator, first, pages, PageState::interior);
  // Release: [span.publish]. Pairs with head_of (acquire).
  span->state.store(state, std::memory_order_release);
  set_head_bit(span, true);
  allocator.span_count.fetch_add(1, std::memory_order_relaxed);
  if (has_small_cells(span))
    allocator.small_cell_pages.fetch_add(pages.value, std::memory_order_relaxed);
  return span;
}

void free_span(Allocator& allocator, PageRecord* span) {
  const PageId first = page_of_record(span);
  const PageCount pages = pages_of(span);
  for (std::uint32_t w = 0; w < bit_words(span); ++w) {
    alloc_words(span)[w].store(0, std::memory_order_relaxed);
    dcheck(mark_words(span)[w].load(std::memory_order_relaxed) == 0, "span.no-free-while-marking");
    dcheck(span->scan == detail::ScanMode::none ||
               grey_words(span)[w].load(std::memory_order_relaxed) == 0,
           "span.no-free-while-marking");
  }
  set_head_bit(span, false);
  span->state.store(PageState::free, std::memory_order_release);
  set_interior(allocator, first, pages, PageState::free);
  allocator.span_count.fetch_sub(1, std::memory_order_relaxed);
  if (has_small_cells(span))
    allocator.small_cell_pages.fetch_sub(pages.value, std::memory_order_relaxed);
  allocator.pages.give_back(first, pages);
}

}  // namespace tricolor::impl
