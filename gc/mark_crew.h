// Everyone who marks in a cycle: the coordinator, on the thread that runs the cycle, and helpers on threads of their own.
//
// Helpers are started before the first cycle that wants them and then sleep until there is work to share
// (barrier/mark_queue.h). A small heap is marked sooner by one than several are woken, so it gets one.
#pragma once

#include <pthread.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "alloc/allocator.h"
#include "barrier/mark_queue.h"
#include "gc/marker.h"

namespace tricolor::impl {

class MarkCrew {
 public:
  MarkCrew(Allocator& allocator, PacketPool& pool) : x_allocator(allocator), x_pool(pool) {}

  // Packets are filled up to `packet_entries`. False when memory is refused.
  bool create(std::size_t packet_entries);

  // Opens a cycle with about `markers`: fewer where memory or threads are refused; when there are to be several, helpers that an
  // earlier cycle has started take part too. Helpers for `most` of them are started if they are not there yet: by the first cycle of
  // a heap that may want them, and not when memory has ended and a cycle is forced. The world runs.
  // With Markers::several mark bits are set atomically also by a single marker: others set them too.
  void begin(std::size_t markers, std::size_t most, Markers sharing);

  // The one that roots are given to.
  Marker& coordinator() { return *x_markers[0]; }

  // Until nothing is grey that is in a queue or with a marker. By the coordinator's thread.
  void finish();
  // Opens the next round of the same cycle: the coordinator works again.
  void begin_again() { x_pool.begin(x_active > 1); }

  // Ends a cycle that marked nothing, or that is finished: memory goes back.
  void close() { x_pool.trim(); }

  // Ends the helpers' threads and waits for them. Not during a cycle. The next one starts them again.
  void end_helpers();

  // In a forked child, with the pool's lock held: the helpers are gone, and all work, with `more` (may be null).
  void forget_helpers(WorkPacket* more);

  // What the cycle has marked so far; nobody marks.
  std::uint64_t marked_bytes() const { return sum(&Marker::marked_bytes); }
  std::uint64_t marked_objects() const { return sum(&Marker::marked_objects); }
  std::uint64_t conservative_cells() const { return sum(&Marker::conservative_cells); }

  std::size_t markers() const { return x_active; }

 private:
  static constexpr std::size_t kMostMarkers = 64;

  bool make_marker();
  bool start_helper();
  std::uint64_t sum(std::uint64_t (Marker::*count)() const) const;

  Allocator& x_allocator;
  PacketPool& x_pool;
  std::size_t x_packet_entries = 0;
  std::array<Marker*, kMostMarkers> x_markers = {};  // the first one coordinates
  std::size_t x_made = 0;
  std::array<pthread_t, kMostMarkers> x_threads = {};  // of helper i
  std::size_t x_started = 1;  // markers with a thread; the coordinator has its caller's
  std::size_t x_active = 1;   // in this cycle
};

}  // namespace tricolor::impl
