#include "barrier/mark_queue.h"

#include <algorithm>
#include <new>

#include "alloc/base/fault.h"
#include "alloc/base/os.h"
#include "alloc/cell.h"

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

// [queue.bounded]
void PacketPool::postpone(PageRecord* span, std::uint32_t index) {
  // Release: the mark bit, and that of `grey`. Pair with Marker::rescan (acquire). Exchanges, so that they also pass on what
  // others released.
  grey_words(span)[index / 64].fetch_or(std::uint64_t{1} << (index % 64),
                                        std::memory_order_acq_rel);
  span->rescan.exchange(1, std::memory_order_acq_rel);
  x_postponed.exchange(true, std::memory_order_acq_rel);
}

void PacketPool::give_empty(WorkPacket* packet) {
  const Guard guard(x_lock);
  packet->next = x_empty;
  x_empty = packet;
}

void PacketPool::share(WorkPacket* packet) {
  bool wake = false;
  {
    const Guard guard(x_lock);
    packet->next = x_shared;
    x_shared = packet;
    x_shared_count.fetch_add(1, std::memory_order_relaxed);
    x_news.fetch_add(1, std::memory_order_relaxed);
    wake = x_hungry.load(std::memory_order_relaxed);
  }
  if (wake) os::futex_wake_one(x_news);
}

WorkPacket* PacketPool::take_shared() {
  const Guard guard(x_lock);
  return pop_shared();
}

WorkPacket* PacketPool::pop_shared() {
  WorkPacket* const packet = x_shared;
  if (packet != nullptr) {
    x_shared = packet->next;
    packet->next = nullptr;
    x_shared_count.fetch_sub(1, std::memory_order_relaxed);
  }
  return packet;
}

void PacketPool::begin(bool helped) {
  const Guard guard(x_lock);
  dcheck(x_working == 0, "queue.end");
  x_working = 1;
  x_helped = helped;
  x_hungry.store(helped && x_waiting != 0, std::memory_order_relaxed);
}

WorkPacket* PacketPool::next_or_end() {
  const Guard guard(x_lock);
  --x_working;
  for (;;) {
    if (x_pause.load(std::memory_order_relaxed)) {
      ++x_working;
      rest_with_lock();
      --x_working;
    }
    if (WorkPacket* const packet = pop_shared(); packet != nullptr) {
      ++x_working;
      return packet;
    }
    if (x_working == 0) {  // [queue.end]
      x_helped = false;
      x_hungry.store(false, std::memory_order_relaxed);
      return nullptr;
    }
    wait_for_news();
  }
}

WorkPacket* PacketPool::next_as_helper(bool worked) {
  const Guard guard(x_lock);
  if (worked && --x_working == 0 && x_shared == nullptr) {
    x_news.fetch_add(1, std::memory_order_relaxed);
    os::futex_wake_all(x_news);  // the coordinator is among those who wait
  }
  while (!x_end_helpers) {
    if (x_helped && !x_pause.load(std::memory_order_relaxed)) {
      if (WorkPacket* const packet = pop_shared(); packet != nullptr) {
        ++x_working;
        return packet;
      }
    }
    wait_for_news();
  }
  return nullptr;
}

void PacketPool::end_helpers() {
  const Guard guard(x_lock);
  x_end_helpers = true;
  x_news.fetch_add(1, std::memory_order_relaxed);
  os::futex_wake_all(x_news);
}

void PacketPool::let_helpers_come() {
  const Guard guard(x_lock);
  x_end_helpers = false;
}

void PacketPool::pause() {
  const Guard guard(x_lock);
  x_pause.store(true, std::memory_order_relaxed);
}

void PacketPool::resume() {
  const Guard guard(x_lock);
  x_pause.store(false, std::memory_order_relaxed);
  x_news.fetch_add(1, std::memory_order_relaxed);
  os::futex_wake_all(x_news);
}

bool PacketPool::all_rest() {
  const Guard guard(x_lock);
  return x_working != 0 && x_resting == x_working;
}

void PacketPool::rest() {
  const Guard guard(x_lock);
  rest_with_lock();
}

void PacketPool::rest_with_lock() {
  while (x_pause.load(std::memory_order_relaxed)) {
    ++x_resting;
    x_rests.fetch_add(1, std::memory_order_relaxed);
    os::futex_wake_all(x_rests);
    wait_for_news();
    --x_resting;
  }
}

void PacketPool::forget_helpers(WorkPacket* more) {
  const auto forget = [this](WorkPacket* packet) {
    packet->count = 0;
    packet->next = x_empty;
    x_empty = packet;
  };
  if (more != nullptr) forget(more);
  while (WorkPacket* const packet = pop_shared()) forget(packet);
  x_working = 0;
  x_resting = 0;
  x_helped = false;
  x_pause.store(false, std::memory_order_relaxed);
  x_postponed.store(false, std::memory_order_relaxed);
  x_waiting = 0;
  x_end_helpers = false;
  x_hungry.store(false, std::memory_order_relaxed);
}

// With the lock held, which it gives up meanwhile. What is waited for may be missed only by news that came before the lock
// was given up, and those have changed the word.
void PacketPool::wait_for_news() {
  constexpr int kLooks = 200;  // a few microseconds: a packet is often about to come
  const std::uint32_t news = x_news.load(std::memory_order_relaxed);
  ++x_waiting;
  x_hungry.store(x_helped, std::memory_order_relaxed);
  const bool spin = x_helped;
  x_lock.unlock();
  // Relaxed: the lock below orders.
  for (int i = 0; spin && i < kLooks && x_news.load(std::memory_order_relaxed) == news; ++i)
    os::relax();
  os::futex_wait(x_news, news);
  x_lock.lock();
  --x_waiting;
  x_hungry.store(x_helped && x_waiting != 0, std::memory_order_relaxed);
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
  if (is_planted(Fault::dropped_packet)) x_packet->count = 1;
  x_pool.share(x_packet);
  x_packet = packet;
  return true;
}

void MarkQueue::share_half() {
  WorkPacket* const packet = x_pool.take_empty();
  if (packet == nullptr) return;
  const std::size_t half = x_packet->count / 2;
  std::copy_n(x_packet->entries.begin(), half, packet->entries.begin());
  std::copy(x_packet->entries.begin() + half, x_packet->entries.begin() + x_packet->count,
            x_packet->entries.begin());
  packet->count = half;
  x_packet->count -= half;
  x_pool.share(packet);
}

bool MarkQueue::accept(WorkPacket* packet) {
  if (packet == nullptr) return false;
  x_pool.give_empty(x_packet);
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
