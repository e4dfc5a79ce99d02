// Everyone who marks in a cycle: the coordinator, on the thread that runs the cycle, and helpers on threads of their own.
//
// Threads of the program that assist borrow a marker each (gc/assist.h): one for each CPU, so that no more of them have work
// in hand than can run.
//
// Helpers are started before the first cycle that wants them and then sleep until there is work to share
// (barrier/mark_queue.h). A small heap is marked sooner by one than several are woken, so it gets one.
#pragma once

#include <pthread.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "alloc/allocator.h"
#include "barrier/mark_queue.h"
#include "gc/marker.h"

namespace tricolor::impl {

class MarkCrew {
 public:
  MarkCrew(Allocator& allocator, PacketPool& pool, Assists& assists)
      : x_allocator(allocator), x_pool(pool), x_assists(assists) {}

  // Packets are filled up to `packet_entries`. False when memory is refused.
  bool create(std::size_t packet_entries, Marker::CountScans count_scans);

  // Opens a cycle with about `markers`, the coordinator included, and `idle` helpers more: fewer where memory or threads are
  // refused. Helpers for `most` of them are started if they are not there yet: by the first cycle of a heap that may want them,
  // and not when memory has ended and a cycle is forced. The world runs.
  // With Markers::several mark bits are set atomically also by a single marker: others set them too. Then threads of the
  // program may assist, on at most `cpus` CPUs.
  void begin(std::size_t markers, std::size_t idle, std::size_t most, Markers sharing,
             std::size_t cpus);

  // The one that roots are given to.
  Marker& coordinator() { return *x_markers[0]; }

  // Until nothing is grey that is in a queue or with a marker. By the coordinator's thread.
  void finish();
  // Opens the next round of the same cycle: the coordinator works again.
  void begin_again();

  // Ends a cycle that marked nothing, or that is finished: memory goes back.
  void close() { x_pool.trim(); }

  // Ends the helpers' threads and waits for them. Not during a cycle. The next one starts them again.
  void end_helpers();

  // In a forked child, with the pool's lock held: the helpers are gone, and all work, with `more` (may be null).
  void forget_helpers(WorkPacket* more);

  // What the cycle has marked so far, without assists; nobody marks.
  std::uint64_t marked_bytes() const { return sum(&Marker::marked_bytes); }
  std::uint64_t marked_objects() const { return sum(&Marker::marked_objects); }
  std::uint64_t conservative_cells() const { return sum(&Marker::conservative_cells); }
  std::uint64_t work_bytes() const { return sum(&Marker::work_bytes); }
  void add_scanned(ScanCounts& to) const;
  std::uint64_t helpers_cpu_ns() const { return sum(&Marker::cpu_ns); }
  std::uint64_t idle_cpu_ns() const { return sum(&Marker::idle_cpu_ns); }

  // A marker for a thread of the program that assists, null when all are lent out. Any thread.
  Marker* borrow();
  void give_back(Marker* marker);

 private:
  static constexpr std::size_t kMostMarkers = 64;

  Marker* make_marker();
  bool start_helper();
  std::uint64_t sum(std::uint64_t (Marker::*count)() const) const;

  Allocator& x_allocator;
  PacketPool& x_pool;
  Assists& x_assists;
  std::size_t x_packet_entries = 0;
  Marker::CountScans x_count_scans = Marker::CountScans::no;
  std::array<Marker*, kMostMarkers> x_markers = {};  // the first one coordinates
  std::size_t x_made = 0;
  std::array<pthread_t, kMostMarkers> x_threads = {};  // of helper i
  std::size_t x_started = 1;  // markers with a thread; the coordinator has its caller's
  std::size_t x_active = 1;   // in this cycle
  std::size_t x_idle = 0;     // and so many idle ones
  PacketPool::Assisted x_assisted = PacketPool::Assisted::no;

  // For assists. Made while no cycle marks; bit i says that the i-th is not lent out.
  std::array<Marker*, kMostMarkers> x_lent = {};
  std::size_t x_lent_made = 0;
  // Acquire and release: the marker, from who gives it back to who borrows it next.
  std::atomic<std::uint64_t> x_free{0};
  static_assert(kMostMarkers <= 64, "a bit each");
};

}  // namespace tricolor::impl
