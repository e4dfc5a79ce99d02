// Birth and death of a span (drawn in span.h).
#pragma once

#include "alloc/allocator.h"
#include "alloc/span.h"

namespace tricolor::impl {

// Makes the free pages [first, first + pages) a span of `kind` in state `state` (in_use or unready), swept, with no cell
// allocated. Any thread may find it from the return on.
PageRecord* publish_span(Allocator& allocator, Kind& kind, PageId first, PageCount pages, bool zero,
                         PageState state);

// Frees a span with no marked cell and gives its pages back. Not while marking.
void free_span(Allocator& allocator, PageRecord* span);

inline PageCount pages_of(const PageRecord* span) {
  return {span->kind->pages != 0 ? span->kind->pages : span->slot_or_pages};
}

}  // namespace tricolor::impl
