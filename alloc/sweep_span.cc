#include "alloc/sweep_span.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "alloc/cell.h"
#include "alloc/span_life.h"

namespace tricolor::impl {

namespace {

// So that the use of a freed object shows: every word becomes 0xdeadbeefdeadbeef.
void clobber(char* cell, std::size_t bytes) {
  const std::uint64_t pattern = 0xdeadbeefdeadbeef;
  for (std::size_t i = 0; i + sizeof pattern <= bytes; i += sizeof pattern)
    std::memcpy(cell + i, &pattern, sizeof pattern);
}

}  // namespace

std::uint32_t sweep_span(Allocator& allocator, PageRecord* span) {
  dcheck(!is_swept(allocator, span), "span.one-sweeper");
  BitWord* const marks = mark_words(span);
  BitWord* const allocs = alloc_words(span);
  char* const first = page_of_record(span).data();
  const std::size_t cell_bytes = Cell{span, 0}.bytes();
  std::uint32_t before = 0;
  std::uint32_t left = 0;
  for (std::uint32_t w = 0; w < bit_words(span); ++w) {
    // Relaxed throughout: the markers are done (the last stop orders them before us), and the claims are guarded by our lock.
    const std::uint64_t found = marks[w].load(std::memory_order_relaxed);
    const std::uint64_t allocated = allocs[w].load(std::memory_order_relaxed);
    // A field that holds a stale or a past-the-end address may have marked a free cell, which stays free.
    const std::uint64_t marked = found & allocated;
    before += static_cast<std::uint32_t>(std::popcount(allocated));
    left += static_cast<std::uint32_t>(std::popcount(marked));
    if (allocator.clobber_free) [[unlikely]] {
      for (std::uint64_t dead = allocated & ~marked; dead != 0; dead &= dead - 1) {
        const auto index = w * 64 + static_cast<std::uint32_t>(std::countr_zero(dead));
        clobber(first + index * cell_bytes, cell_bytes);
      }
    }
    // Atomic: the owner of claimed cells may be giving some back (return_all).
    if (allocated != marked) allocs[w].fetch_and(marked, std::memory_order_relaxed);
    if (found != 0) marks[w].store(0, std::memory_order_relaxed);
  }
  if (left != before) {
    span->needs_zero = 1;
    allocator.freed_bytes.fetch_add((before - left) * cell_bytes, std::memory_order_relaxed);
  }
  span->hint_word = 0;
  allocator.swept_pages.fetch_add(pages_of(span).value, std::memory_order_relaxed);
  // Release: whoever sees the span swept sees its bits. Pairs with is_swept (acquire).
  span->sweep_epoch.store(allocator.sweep_epoch.load(std::memory_order_relaxed),
                          std::memory_order_release);
  return left;
}

PageCount sweep_and_free(Allocator& allocator, PageRecord* span) {
  return span->kind->central.sweep(allocator, span);
}

}  // namespace tricolor::impl
