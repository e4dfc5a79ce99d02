// The arena map's slow half: creation and growth. Look-ups are inline in page_map.h.
#include "alloc/page_map.h"

#include "alloc/base/os.h"

namespace tricolor::impl {

bool ArenaMap::create() {
  dcheck(x_table == nullptr, "pagemap.monotonic");
  // Fresh memory reads as zero: every entry is a null pointer from the start.
  x_table = static_cast<std::atomic<PageRecord*>*>(
      os::map(kEntries * sizeof(*x_table), os::kernel_page_bytes(), "tricolor arena map"));
  return x_table != nullptr;
}

void ArenaMap::add(Arena* arena) {
  const std::uintptr_t number = arena->first.address() >> kArenaShift;
  check(number < kEntries, "pagemap.covers", {arena->first.address()});
  // Relaxed: only add() writes entries, under the page heap's lock, which the caller holds.
  check(x_table[number].load(std::memory_order_relaxed) == nullptr, "pagemap.monotonic", {number});
  // Release: whoever finds the entry finds the header and zeroed records. Pairs with record_of().
  x_table[number].store(arena->records(), std::memory_order_release);
}

}  // namespace tricolor::impl
