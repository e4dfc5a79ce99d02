// Sweeping one span: mark bits become allocation bits. No work a cell, no free lists.
#pragma once

#include <cstdint>

#include "alloc/allocator.h"
#include "alloc/span.h"

namespace tricolor::impl {

// Sweeps an unswept span: its unmarked cells are free, its mark bits zero. Returns the number of cells left. The caller
// holds the lock of the span's kind [span.one-sweeper]; the world is not marking.
std::uint32_t sweep_span(Allocator& allocator, PageRecord* span);

// Sweeps `span` if that is still to do, and frees it when nothing is left. Returns the pages freed. Takes the kind's lock.
PageCount sweep_and_free(Allocator& allocator, PageRecord* span);

// Acquire: what the sweeper wrote to the bits. Pairs with sweep_span (release).
inline bool is_swept(const Allocator& allocator, const PageRecord* span) {
  return span->sweep_epoch.load(std::memory_order_acquire) ==
         allocator.sweep_epoch.load(std::memory_order_relaxed);
}

}  // namespace tricolor::impl
