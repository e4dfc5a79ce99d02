#include "alloc/central.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "alloc/allocator.h"
#include "alloc/cell.h"
#include "alloc/span_life.h"
#include "alloc/sweep_span.h"

namespace tricolor::impl {

namespace {

// In no cache each of them takes 0.1 us.
constexpr std::uint32_t kFullSpans = 400;

}  // namespace

bool Central::claim(Allocator& allocator, std::uint32_t wanted, std::uint32_t tries, Claim& out) {
  const Guard guard(x_lock);
  start_again_after_a_cycle(allocator);
  const std::uint32_t end =
      tries == kEverySpan ? x_count : std::min(x_count, x_cursor + kFullSpans);
  for (; x_cursor < end; ++x_cursor) {
    PageRecord* const span = x_spans[x_cursor];
    if (!is_swept(allocator, span)) {
      if (tries-- == 0) return false;
      sweep_span(allocator, span);  // even if nothing is left: we are about to use it
    }
    if (claim_from(allocator, span, wanted, out)) return true;
  }
  return false;
}

bool Central::add_span(Allocator& allocator, Kind& kind, PageId first, bool zero,
                       std::uint32_t wanted, Claim& out) {
  const Guard guard(x_lock);
  start_again_after_a_cycle(allocator);
  if (!make_room(allocator)) {  // before anybody can find the span [span.no-free-while-marking]
    allocator.pages.give_back(first, PageCount{kind.pages});
    return false;
  }
  PageRecord* const span =
      publish_span(allocator, kind, first, PageCount{kind.pages}, zero, PageState::in_use);
  append(span);
  return claim_from(allocator, span, wanted, out);
}

PageCount Central::sweep(Allocator& allocator, PageRecord* span) {
  const Guard guard(x_lock);
  if (is_swept(allocator, span) || sweep_span(allocator, span) != 0) return {};
  start_again_after_a_cycle(allocator);
  const PageCount pages = pages_of(span);
  if (span->kind->cell_bytes != 0) remove(span);  // large objects are in no list
  free_span(allocator, span);
  return pages;
}

void Central::give_back(Allocator& allocator, PageRecord* span, std::uint32_t index) {
  const Guard guard(x_lock);
  if (!is_swept(allocator, span)) sweep_span(allocator, span);
  // Release: what the constructor wrote. Pairs with claim_from (acquire).
  alloc_words(span)[index / 64].fetch_and(~(std::uint64_t{1} << (index % 64)),
                                          std::memory_order_release);
}

void Central::revisit(const Allocator& allocator, PageRecord* span) {
  const Guard guard(x_lock);
  start_again_after_a_cycle(allocator);
  span->hint_word = 0;
  const std::uint32_t slot = span->slot_or_pages;
  if (slot >= x_cursor) return;
  // Trade places with the last visited one, and let the cursor go back over it.
  --x_cursor;
  std::swap(x_spans[slot], x_spans[x_cursor]);
  x_spans[slot]->slot_or_pages = slot;
  x_spans[x_cursor]->slot_or_pages = x_cursor;
}

void Central::start_again_after_a_cycle(const Allocator& allocator) {
  // Relaxed: it moves on while every thread that may be here is stopped elsewhere.
  const std::uint32_t now = allocator.sweep_epoch.load(std::memory_order_relaxed);
  if (x_cursor_epoch == now) return;
  x_cursor_epoch = now;
  x_cursor = 0;
}

// Claims free cells from at most Claim::kWords consecutive words of the bitmap.
bool Central::claim_from(Allocator& allocator, PageRecord* span, std::uint32_t wanted, Claim& out) {
  dcheck(wanted != 0, "central.claim");
  BitWord* const allocs = alloc_words(span);
  // Relaxed: see allocator.h; it does not change while we are here.
  const bool black = allocator.allocate_black.load(std::memory_order_relaxed);
  std::size_t blackened = 0;
  const std::uint32_t cells = span->cells;
  std::uint32_t w = span->hint_word;
  const std::uint32_t words = bit_words(span);
  std::uint32_t found = 0;
  for (; w < words && (found == 0 || w - out.first_word < Claim::kWords) && found < wanted; ++w) {
    const std::uint64_t exists = w == words - 1 && cells % 64 != 0
                                     ? (std::uint64_t{1} << (cells % 64)) - 1
                                     : ~std::uint64_t{0};
    // Cells only become free behind our back (returned claims), never taken; the lock orders the takers. Acquire: what
    // their last owner wrote to them. Pairs with return_bits (release).
    std::uint64_t free = ~allocs[w].load(std::memory_order_acquire) & exists;
    if (free == 0) continue;
    if (found == 0) {
      out = Claim{.span = span, .first_word = w, .needs_zero = span->needs_zero != 0};
    }
    if (const auto many = static_cast<std::uint32_t>(std::popcount(free)); found + many > wanted) {
      // Keep the lowest ones.
      std::uint64_t kept = 0;
      for (std::uint32_t left = wanted - found; left != 0; --left) {
        kept |= free & -free;
        free &= free - 1;
      }
      free = kept;
    }
    found += static_cast<std::uint32_t>(std::popcount(free));
    out.mask[w - out.first_word] = free;
    if (black) {
      // The one bitmap that says black: grey bits (mark_queue.h) are for what is still to be scanned. A stray word may have marked
      // a free cell already.
      const std::uint64_t before = mark_words(span)[w].fetch_or(free, std::memory_order_relaxed);
      blackened += static_cast<std::size_t>(std::popcount(free & ~before));
    }
    // Release: who sees the cell allocated sees it marked [alloc.black]. Pairs with is_allocated (acquire).
    allocs[w].fetch_or(free, std::memory_order_release);
  }
  if (blackened != 0) allocator.count_black(blackened, blackened * span->kind->cell_bytes);
  if (found == 0) {
    span->hint_word = static_cast<std::uint8_t>(words);
    return false;
  }
  // Words before the last one visited are used up; that one may have more.
  span->hint_word = static_cast<std::uint8_t>(w - 1);
  return true;
}

bool Central::make_room(Allocator& allocator) {
  if (x_count < x_capacity) return true;
  const std::uint32_t capacity = x_capacity == 0 ? 8 : 2 * x_capacity;
  auto* const spans =
      static_cast<PageRecord**>(allocator.metadata.take(capacity * sizeof(PageRecord*)));
  if (spans == nullptr) return false;
  if (x_count != 0) {
    std::memcpy(spans, x_spans, x_count * sizeof(PageRecord*));
    allocator.metadata.give_back(x_spans, x_capacity * sizeof(PageRecord*));
  }
  x_spans = spans;
  x_capacity = capacity;
  return true;
}

// Puts the span where the cursor is: it is the next to claim from. There is room.
void Central::append(PageRecord* span) {
  x_spans[x_count] = span;
  std::swap(x_spans[x_count], x_spans[x_cursor]);
  x_spans[x_count]->slot_or_pages = x_count;
  span->slot_or_pages = x_cursor;
  ++x_count;
}

void Central::remove(PageRecord* span) {
  const std::uint32_t slot = span->slot_or_pages;
  dcheck(slot < x_count && x_spans[slot] == span, "central.list");
  // What has been visited is swept, and what has been swept is not removed before the next cycle.
  dcheck(slot >= x_cursor, "central.list");
  x_spans[slot] = x_spans[--x_count];
  x_spans[slot]->slot_or_pages = slot;
}

}  // namespace tricolor::impl
