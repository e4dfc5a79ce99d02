// Where grey work waits. Each marker has a MarkQueue of its own (last in, first out); full packets go to the shared
// PacketPool, from where any marker takes them.
//
// Invariant [queue.exact]: a grey cell is marked and in exactly one packet, or its span has `rescan` set.
// Invariant [queue.bounded]: there are never more than most_packets packets. When no packet can be had (the bound, or the
//   kernel refuses memory) push() says so; the cell stays marked, its span gets `rescan`, and once the queues are empty the
//   marker scans the marked cells of such spans again (gc/marker.cc). Each such round follows the references of at least
//   one more cell, so marking ends whatever memory there is; it costs time, not correctness.
#pragma once

#include <atomic>
#include <cstddef>

#include "alloc/base/lock.h"
#include "alloc/metadata.h"
#include "barrier/work_packet.h"

namespace tricolor::impl {

class PacketPool {
 public:
  explicit PacketPool(Metadata& metadata) : x_metadata(metadata) {}

  // Bound for the next cycle. At least one packet a queue is always granted.
  void set_most_packets(std::size_t packets);

  // An empty packet, or null at the bound.
  WorkPacket* take_empty();
  void give_empty(WorkPacket* packet);

  // Shares a packet with work in it; takes one, or null when none is there.
  void share(WorkPacket* packet);
  WorkPacket* take_shared();
  // Relaxed: a hint that saves the lock; markers that find nothing ask again before they stop.
  bool has_shared() const { return x_shared_count.load(std::memory_order_relaxed) != 0; }

  // Gives the memory of empty packets back. Between cycles.
  void trim();

  std::size_t packets_most_used() const { return x_most_used; }

 private:
  Metadata& x_metadata;
  Mutex x_lock{LockRank::kQueue};
  WorkPacket* x_empty = nullptr;  // guarded by x_lock, as is all below
  WorkPacket* x_shared = nullptr;
  std::atomic<std::size_t> x_shared_count{0};  // written under x_lock
  std::size_t x_packets = 0;                   // that exist
  std::size_t x_most_packets = 64;
  std::size_t x_most_used = 0;
};

// One marker's end of it. Not thread-safe.
class MarkQueue {
 public:
  // `own` is the packet that this queue always has, so that push() can succeed at least once after pop() has failed.
  // Packets are filled up to `entries` (at most WorkPacket::kEntries; fewer to test what happens when there is no room).
  MarkQueue(PacketPool& pool, WorkPacket* own, std::size_t entries = WorkPacket::kEntries)
      : x_pool(pool), x_packet(own), x_entries(entries) {}

  // False when there was no room: nothing is queued.
  bool push(GreyWork work) {
    if (x_packet->count == x_entries && !next_packet()) [[unlikely]]
      return false;
    x_packet->entries[x_packet->count++] = work;
    return true;
  }
  // False when neither this queue nor the pool has work.
  bool pop(GreyWork& work) {
    if (x_packet->count == 0 && (!x_pool.has_shared() || !previous_packet())) [[unlikely]]
      return false;
    work = x_packet->entries[--x_packet->count];
    return true;
  }

 private:
  bool next_packet();
  bool previous_packet();

  PacketPool& x_pool;
  WorkPacket* x_packet;
  const std::size_t x_entries;
};

}  // namespace tricolor::impl
