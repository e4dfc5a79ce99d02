#include "barrier/mark_queue.h"

#include <algorithm>
#include <new>

namespace tricolor::impl {

void PacketPool::set_most_packets(std::size_t packets) {
  const Guard guard(x_lock);
  x_most_packets = packets;
}

WorkPacket* PacketPool::take_empty() {
  const Guard guard(x_lock);
  WorkPacket* packet = x_empty;
  if (packet != nullptr) {
    x_empty = packet->next;
    packet->next = nullptr;
    return packet;
  }
  if (x_packets >= x_most_packets) return nullptr;
  void* const memory = x_metadata.take(sizeof(WorkPacket));
  if (memory == nullptr) return nullptr;
  ++x_packets;
  x_most_used = std::max(x_most_used, x_packets);
  return ::new (memory) WorkPacket;
}

void PacketPool::give_empty(WorkPacket* packet) {
  const Guard guard(x_lock);
  packet->next = x_empty;
  x_empty = packet;
}

void PacketPool::share(WorkPacket* packet) {
  const Guard guard(x_lock);
  packet->next = x_shared;
  x_shared = packet;
  x_shared_count.fetch_add(1, std::memory_order_relaxed);
}

WorkPacket* PacketPool::take_shared() {
  const Guard guard(x_lock);
  WorkPacket* const packet = x_shared;
  if (packet != nullptr) {
    x_shared = packet->next;
    packet->next = nullptr;
    x_shared_count.fetch_sub(1, std::memory_order_relaxed);
  }
  return packet;
}

void PacketPool::trim() {
  const Guard guard(x_lock);
  while (x_empty != nullptr) {
    WorkPacket* const packet = x_empty;
    x_empty = packet->next;
    x_metadata.give_back(packet, sizeof(WorkPacket));
    --x_packets;
  }
}

// The packet is full: share it and go on with an empty one.
bool MarkQueue::next_packet() {
  WorkPacket* const packet = x_pool.take_empty();
  if (packet == nullptr) return false;
  x_pool.share(x_packet);
  x_packet = packet;
  return true;
}

// The packet is empty: go on with the one shared last.
bool MarkQueue::previous_packet() {
  WorkPacket* const packet = x_pool.take_shared();
  if (packet == nullptr) return false;
  x_pool.give_empty(x_packet);
  x_packet = packet;
  return true;
}

}  // namespace tricolor::impl
