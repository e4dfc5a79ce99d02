#include "gc/mark_crew.h"

#include <algorithm>
#include <bit>
#include <new>

#include "alloc/base/stop_code.h"
#include "gc/library_thread.h"

namespace tricolor::impl {

bool MarkCrew::create(std::size_t packet_entries, Marker::CountScans count_scans) {
  x_count_scans = count_scans;
  x_packet_entries = packet_entries;
  x_markers[0] = make_marker();
  x_made = x_markers[0] != nullptr ? 1 : 0;
  return x_made != 0;
}

Marker* MarkCrew::make_marker() {
  Metadata& metadata = x_allocator.metadata;
  x_pool.set_most_packets(SIZE_MAX);  // the one that every queue has is not bounded
  WorkPacket* const packet = x_pool.take_empty();
  void* const memory = packet == nullptr ? nullptr : metadata.take(sizeof(Marker));
  if (memory == nullptr) {
    if (packet != nullptr) x_pool.give_empty(packet);
    return nullptr;
  }
  return ::new (memory)
      Marker(x_allocator, x_pool, x_assists, packet, x_packet_entries, x_count_scans);
}

bool MarkCrew::start_helper() {
  if (x_started == x_made) {
    Marker* const marker = make_marker();
    if (marker == nullptr) return false;
    x_markers[x_made++] = marker;
  }
  const auto thread = start_library_thread(
      "tricolor mark", [](void* marker) { static_cast<Marker*>(marker)->help(); },
      x_markers[x_started]);
  if (!thread) return false;
  x_threads[x_started++] = *thread;
  return true;
}

void MarkCrew::begin(std::size_t markers, std::size_t idle, std::size_t most, Markers sharing,
                     std::size_t cpus) {
  while (x_started < std::min(most, kMostMarkers) && start_helper()) {
  }
  x_active = std::min(markers, x_started);
  x_idle = std::min(idle, x_started - x_active);
  x_assisted = sharing == Markers::several ? PacketPool::Assisted::yes : PacketPool::Assisted::no;
  if (sharing == Markers::several) {
    while (x_lent_made < std::min(cpus, kMostMarkers)) {
      Marker* const marker = make_marker();
      if (marker == nullptr) break;  // fewer, then
      x_lent[x_lent_made] = marker;
      x_free.fetch_or(std::uint64_t{1} << x_lent_made++, std::memory_order_release);
    }
  }
  const Markers together = x_active + x_idle > 1 ? Markers::several : sharing;
  for (std::size_t i = 0; i < x_made; ++i) x_markers[i]->begin(together);
  const std::size_t most_packets =
      x_packet_entries < WorkPacket::kEntries
          ? 1
          : std::max<std::size_t>(64, x_allocator.pages.in_use_bytes() >> 16);
  x_pool.set_most_packets(most_packets + x_made + x_lent_made);
  begin_again();
}

void MarkCrew::begin_again() { x_pool.begin(x_active - 1, x_idle, x_assisted); }

Marker* MarkCrew::borrow() {
  std::uint64_t free = x_free.load(std::memory_order_relaxed);
  while (free != 0) {
    if (x_free.compare_exchange_weak(free, free & (free - 1), std::memory_order_acquire,
                                     std::memory_order_relaxed))
      return x_lent[static_cast<std::size_t>(std::countr_zero(free))];
  }
  return nullptr;
}

void MarkCrew::give_back(Marker* marker) {
  const auto at = std::find(x_lent.begin(), x_lent.end(), marker) - x_lent.begin();
  x_free.fetch_or(std::uint64_t{1} << at, std::memory_order_release);
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
  for (std::size_t i = 0; i < x_lent_made; ++i) {
    x_lent[i]->abandon();
    x_free.fetch_or(std::uint64_t{1} << i, std::memory_order_relaxed);
  }
  x_pool.forget_helpers(more);
  x_started = 1;
}

void MarkCrew::end_helpers() {
  if (x_started == 1) return;
  x_pool.end_helpers();
  while (x_started > 1) pthread_join(x_threads[--x_started], nullptr);
  x_pool.let_helpers_come();
}

void MarkCrew::add_scanned(ScanCounts& to) const {
  for (std::size_t i = 0; i < x_made; ++i) {
    for (std::size_t c = 0; c < to.size(); ++c) to[c] += x_markers[i]->scanned()[c];
  }
}

TRICOLOR_STOP_CODE std::uint64_t MarkCrew::sum(std::uint64_t (Marker::*count)() const) const {
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < x_made; ++i) total += (x_markers[i]->*count)();
  return total;
}

}  // namespace tricolor::impl
