// From an address to its cell, and from a cell to its bits. Arithmetic only (page_map.h): two loads besides the object,
// three in the middle of a span of several pages.
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>

#include "alloc/kind.h"
#include "alloc/page_map.h"
#include "alloc/span.h"

namespace tricolor::impl {

using BitWord = std::atomic<std::uint64_t>;

inline constexpr std::uint32_t kClassOf8 = 1;
inline constexpr std::uint32_t kClassOf24 = 3;  // classes 1..3 keep bits out of line

// The words of a span's bitmaps; (cells + 63) / 64 of them count.
inline BitWord* mark_words(PageRecord* span) {
  return span->size_class == kClassOf8 ? small_cell_bits(span)->more.data() : span->gc_bits;
}
inline bool has_small_cells(const PageRecord* span) {
  return span->size_class - kClassOf8 <= kClassOf24 - kClassOf8;
}
inline BitWord* alloc_words(PageRecord* span) {
  return has_small_cells(span) ? small_cell_bits(span)->alloc.data() : span->alloc_bits;
}
// Only of spans whose cells can hold references.
inline BitWord* grey_words(PageRecord* span) {
  return has_small_cells(span) ? small_cell_bits(span)->more.data() : span->gc_bits + 4;
}
inline std::uint32_t bit_words(const PageRecord* span) { return (span->cells + 63u) / 64u; }

inline bool test_bit(const BitWord* words, std::uint32_t index) {
  // Relaxed: a bit publishes nothing; what it protects is ordered by its span's state, lock or the stop.
  return (words[index / 64].load(std::memory_order_relaxed) >> (index % 64) & 1) != 0;
}

// Acquire: a cell that is allocated while a cycle marks is seen marked too. Pairs with Central::claim_from (release).
inline bool is_allocated(PageRecord* span, std::uint32_t index) {
  return (alloc_words(span)[index / 64].load(std::memory_order_acquire) >> (index % 64) & 1) != 0;
}

// Nothing in the span is grey or black any more. Nobody marks.
inline void clear_marks(PageRecord* span) {
  for (std::uint32_t w = 0; w < bit_words(span); ++w) {
    mark_words(span)[w].store(0, std::memory_order_relaxed);
    if (span->scan != detail::ScanMode::none)
      grey_words(span)[w].store(0, std::memory_order_relaxed);
  }
  span->rescan.store(0, std::memory_order_relaxed);
}

struct Cell {
  PageRecord* span = nullptr;
  std::uint32_t index = 0;

  explicit operator bool() const { return span != nullptr; }
  std::uintptr_t address() const {
    return page_of_record(span).address() + std::uintptr_t{index} * span->kind->cell_bytes;
  }
  std::size_t bytes() const {
    return span->kind->cell_bytes != 0 ? span->kind->cell_bytes
                                       : PageCount{span->slot_or_pages}.bytes();
  }
};

// The head of the span in whose page `record` (not null) is, or null when the page is free. `offset` becomes that of
// `address` from the span's first byte.
inline PageRecord* head_of(const ArenaMap& map, PageRecord* record, std::uintptr_t address,
                           std::uintptr_t& offset) {
  // Acquire: the fields below were written before the state. Pairs with publish_span (release) [span.publish].
  const PageState state = record->state.load(std::memory_order_acquire);
  if (state == PageState::free) [[unlikely]]
    return nullptr;
  offset = address & (kPageBytes - 1);
  if (state != PageState::interior) return record;
  const std::uintptr_t head_page = page_of(address).value - record->head_delta;
  offset += PageCount{record->head_delta}.bytes();
  PageRecord* const head = map.record_of(PageId{head_page});  // may lie in an arena below
  // Acquire: as above; the head is published after its interior pages, so it may not be in use yet.
  return head == nullptr || head->state.load(std::memory_order_acquire) == PageState::free ? nullptr
                                                                                           : head;
}

// The cell that contains `address`, whether or not it is allocated; none when the address is in no span or behind a span's
// last cell. Any word may be given.
inline Cell find_cell(const ArenaMap& map, std::uintptr_t address) {
  PageRecord* const record = map.record_of(address);
  if (record == nullptr) return {};
  std::uintptr_t offset = 0;
  PageRecord* const span = head_of(map, record, address, offset);
  if (span == nullptr) return {};
  const auto index = static_cast<std::uint32_t>(offset * span->reciprocal >> 32);
  if (index >= span->cells) return {};
  return {span, index};
}

// Fetches what find_allocated_cell and a look at the mark bit read, for a word that comes up soon.
inline void fetch_record(const PageRecord* record) {
  __builtin_prefetch(record, 1);
  __builtin_prefetch(record->alloc_bits);
}
inline void fetch_record(const ArenaMap& map, std::uintptr_t address) {
  if (const PageRecord* const record = map.record_of(address); record != nullptr)
    fetch_record(record);
}

// The same for words that may be anything (stacks, registers, globals): the cell must be allocated too, so that a free
// cell's stale content is never followed. Cells that a thread has claimed but not used count as allocated; they are zero
// where the kind has references, and the arming stop gives them back first.
inline Cell find_allocated_cell(const ArenaMap& map, std::uintptr_t address) {
  const Cell cell = find_cell(map, address);
  if (!cell || !is_allocated(cell.span, cell.index)) return {};
  return cell;
}

}  // namespace tricolor::impl
