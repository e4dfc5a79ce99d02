#include "barrier/shader.h"

#include "alloc/cell.h"

namespace tricolor::impl {

void Shader::shade_word(std::uintptr_t word) {
  const Cell cell = find_allocated_cell(x_map, word);
  if (!cell || !shade(cell.span, cell.index, Markers::several)) return;
  x_counts.objects.fetch_add(1, std::memory_order_relaxed);
  x_counts.bytes.fetch_add(cell.bytes(), std::memory_order_relaxed);
  if (cell.span->scan == detail::ScanMode::none) return;
  if (x_packet == nullptr) x_packet = x_pool.take_empty();
  if (x_packet == nullptr) return x_pool.postpone(cell.span, cell.index);
  x_packet->entries[x_packet->count++] = grey_work(cell.address(), cell.span->kind->id);
  if (x_packet->count == WorkPacket::kEntries) share();
}

// Somebody's frames: sanitizers have no say.
[[gnu::noinline]] __attribute__((no_sanitize("address", "thread", "undefined"))) void
Shader::shade_range(const void* begin, const void* end, std::uintptr_t lowest,
                    std::uintptr_t highest) {
  const auto* word = reinterpret_cast<const volatile std::uintptr_t*>(
      round_up(reinterpret_cast<std::uintptr_t>(begin), sizeof(std::uintptr_t)));
  const auto* const last = static_cast<const volatile std::uintptr_t*>(end);
  for (; word < last; ++word) {
    const std::uintptr_t value = *word;
    if (value - lowest < highest - lowest) shade_word(value);
  }
}

void Shader::share() {
  if (x_packet == nullptr) return;
  x_pool.share(x_packet);
  x_packet = nullptr;
}

}  // namespace tricolor::impl
