#include "gc/mark_crew.h"

#include <algorithm>
#include <new>

#include "gc/library_thread.h"

namespace tricolor::impl {

bool MarkCrew::create(std::size_t packet_entries) {
  x_packet_entries = packet_entries;
  return make_marker();
}

bool MarkCrew::make_marker() {
  Metadata& metadata = x_allocator.metadata;
  x_pool.set_most_packets(SIZE_MAX);  // the one that every queue has is not bounded
  WorkPacket* const packet = x_pool.take_empty();
  void* const memory = packet == nullptr ? nullptr : metadata.take(sizeof(Marker));
  if (memory == nullptr) {
    if (packet != nullptr) x_pool.give_empty(packet);
    return false;
  }
  x_markers[x_made++] = ::new (memory) Marker(x_allocator, x_pool, packet, x_packet_entries);
  return true;
}

bool MarkCrew::start_helper() {
  if (x_started == x_made && !make_marker()) return false;
  const auto thread = start_library_thread(
      "tricolor mark", [](void* marker) { static_cast<Marker*>(marker)->help(); },
      x_markers[x_started]);
  if (!thread) return false;
  x_threads[x_started++] = *thread;
  return true;
}

void MarkCrew::begin(std::size_t markers, std::size_t most, Markers sharing) {
  while (x_started < std::min(most, kMostMarkers) && start_helper()) {
  }
  x_active = markers == 1 ? 1 : x_started;
  for (std::size_t i = 0; i < x_made; ++i)
    x_markers[i]->begin(x_active > 1 ? Markers::several : sharing);
  const std::size_t most_packets =
      x_packet_entries < WorkPacket::kEntries
          ? 1
          : std::max<std::size_t>(64, x_allocator.pages.in_use_bytes() >> 16);
  x_pool.set_most_packets(most_packets + x_made);
  x_pool.begin(x_active > 1);
}

void MarkCrew::finish() {
  for (;;) {
    coordinator().finish();
    if (!x_pool.take_postponed()) return;
    begin_again();
    coordinator().rescan();
  }
}

void MarkCrew::forget_helpers(WorkPacket* more) {
  for (std::size_t i = 0; i < x_made; ++i) x_markers[i]->abandon();
  x_pool.forget_helpers(more);
  x_started = 1;
}

void MarkCrew::end_helpers() {
  if (x_started == 1) return;
  x_pool.end_helpers();
  while (x_started > 1) pthread_join(x_threads[--x_started], nullptr);
  x_pool.let_helpers_come();
}

std::uint64_t MarkCrew::sum(std::uint64_t (Marker::*count)() const) const {
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < x_made; ++i) total += (x_markers[i]->*count)();
  return total;
}

}  // namespace tricolor::impl
