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
  const std::atomic<std::uint32_t>* wake = nullptr;
  {
    const Guard guard(x_lock);
    packet->next = x_shared;
    x_shared = packet;
    x_shared_count.fetch_add(1, std::memory_order_relaxed);
    if (x_coordinator_waits == Waits::for_work) {
      x_coordinator_news.fetch_add(1, std::memory_order_relaxed);
      wake = &x_coordinator_news;
    } else if (x_waiting_helpers != 0 && helpers_may_come()) {
      x_helper_news.fetch_add(1, std::memory_order_relaxed);
      wake = &x_helper_news;  // any of them may come
    }
  }
  if (wake != nullptr) os::futex_wake_one(*wake);
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

void PacketPool::begin(std::size_t most_helpers, std::size_t idle_helpers, Assisted assisted) {
  const Guard guard(x_lock);
  dcheck(x_working == 0, "queue.end");
  x_working = 1;
  x_open = true;
  x_dedicated_helpers = most_helpers;
  x_most_helpers.store(most_helpers + idle_helpers, std::memory_order_relaxed);
  x_assisted = assisted == Assisted::yes;
  note_hunger();
}

WorkPacket* PacketPool::next_or_end(std::uint64_t not_before_ns) {
  const Guard guard(x_lock);
  --x_working;
  for (;;) {
    if (x_pause.load(std::memory_order_relaxed)) {
      ++x_working;
      rest_with_lock();
      --x_working;
    }
    if (x_working == 0 && x_shared == nullptr) {  // [queue.end]
      x_open = false;
      note_hunger();
      return nullptr;
    }
    const std::uint64_t now = not_before_ns == 0 ? 0 : os::now_ns();
    if (now >= not_before_ns || x_line || x_hurry.load(std::memory_order_relaxed)) {
      if (WorkPacket* const packet = pop_shared(); packet != nullptr) {
        ++x_working;
        return packet;
      }
      not_before_ns = 0;
    }
    wait_as_coordinator(not_before_ns == 0 ? 0 : not_before_ns - now);
  }
}

WorkPacket* PacketPool::next_as_helper(Stint& stint) {
  const Guard guard(x_lock);
  if (stint.has_begun) {
    --x_helping;
    if (stint.is_idle) --x_helping_idle;
    stop_working();
  }
  stint = {};
  while (!x_end_helpers) {
    if (helpers_may_come() && !x_pause.load(std::memory_order_relaxed)) {
      if (WorkPacket* const packet = pop_shared(); packet != nullptr) {
        stint.has_begun = true;
        stint.is_idle = x_helping - x_helping_idle >= x_dedicated_helpers;
        ++x_helping;
        if (stint.is_idle) ++x_helping_idle;
        ++x_working;
        return packet;
      }
    }
    wait_as_helper();
  }
  return nullptr;
}

bool PacketPool::leave_if_above(std::size_t helpers) {
  const Guard guard(x_lock);
  if (most_helpers() <= std::max(helpers, x_dedicated_helpers)) return false;
  x_most_helpers.fetch_sub(1, std::memory_order_relaxed);
  return true;
}

void PacketPool::stay_after_all() {
  const Guard guard(x_lock);
  x_most_helpers.fetch_add(1, std::memory_order_relaxed);
}

WorkPacket* PacketPool::take_to_assist() {
  if (!has_shared()) return nullptr;
  const Guard guard(x_lock);
  if (!x_open || !x_assisted || x_pause.load(std::memory_order_relaxed)) return nullptr;
  WorkPacket* const packet = pop_shared();
  if (packet != nullptr) ++x_working;
  return packet;
}

void PacketPool::end_assist() {
  const Guard guard(x_lock);
  stop_working();
}

// With the lock held, as all that follow.
void PacketPool::stop_working() {
  if (--x_working == 0) tell_coordinator();  // it may be the end
}

void PacketPool::tell_coordinator() {
  if (x_coordinator_waits == Waits::no) return;
  x_coordinator_news.fetch_add(1, std::memory_order_relaxed);
  os::futex_wake_one(x_coordinator_news);
}

void PacketPool::tell_helpers() {
  x_helper_news.fetch_add(1, std::memory_order_relaxed);
  os::futex_wake_all(x_helper_news);
}

void PacketPool::note_hunger() {
  x_hungry.store(x_open && (x_assisted || x_coordinator_waits == Waits::for_work ||
                            (x_waiting_helpers != 0 && helpers_may_come())),
                 std::memory_order_relaxed);
}

void PacketPool::set_hurry(bool hurry) {
  const Guard guard(x_lock);
  x_hurry.store(hurry, std::memory_order_relaxed);
  if (hurry) tell_coordinator();
}

void PacketPool::set_line(bool line) {
  const Guard guard(x_lock);
  x_line = line;
  if (line) tell_coordinator();
}

void PacketPool::end_helpers() {
  const Guard guard(x_lock);
  x_end_helpers = true;
  tell_helpers();
}

void PacketPool::let_helpers_come() {
  const Guard guard(x_lock);
  x_end_helpers = false;
}

void PacketPool::pause() {
  const Guard guard(x_lock);
  x_pause.store(true, std::memory_order_relaxed);
  tell_coordinator();  // so that it rests instead of waiting
}

void PacketPool::resume() {
  const Guard guard(x_lock);
  x_pause.store(false, std::memory_order_relaxed);
  x_resumed.fetch_add(1, std::memory_order_relaxed);
  os::futex_wake_all(x_resumed);
  tell_helpers();
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
    const std::uint32_t resumed = x_resumed.load(std::memory_order_relaxed);
    x_lock.unlock();
    os::futex_wait(x_resumed, resumed);
    x_lock.lock();
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
  x_open = false;
  x_line = false;
  x_helping = 0;
  x_helping_idle = 0;
  x_waiting_helpers = 0;
  x_coordinator_waits = Waits::no;
  x_pause.store(false, std::memory_order_relaxed);
  x_postponed.store(false, std::memory_order_relaxed);
  x_end_helpers = false;
  note_hunger();
}

namespace {

constexpr int kLooks = 200;  // a few microseconds: a packet is often about to come

void look_for_change(const std::atomic<std::uint32_t>& word, std::uint32_t now) {
  // Relaxed: the lock that is taken next orders.
  for (int i = 0; i < kLooks && word.load(std::memory_order_relaxed) == now; ++i) os::relax();
}

}  // namespace

// With the lock held, which it gives up meanwhile. What is waited for may be missed only by news that came before the lock
// was given up, and those have changed the word.
void PacketPool::wait_as_coordinator(std::uint64_t at_most_ns) {
  const std::uint32_t news = x_coordinator_news.load(std::memory_order_relaxed);
  x_coordinator_waits = at_most_ns == 0 ? Waits::for_work : Waits::for_its_time;
  note_hunger();
  x_lock.unlock();
  if (at_most_ns == 0) look_for_change(x_coordinator_news, news);
  os::futex_wait(x_coordinator_news, news, at_most_ns);
  x_lock.lock();
  x_coordinator_waits = Waits::no;
  note_hunger();
}

// The same.
void PacketPool::wait_as_helper() {
  const std::uint32_t news = x_helper_news.load(std::memory_order_relaxed);
  ++x_waiting_helpers;
  note_hunger();
  const bool spin = helpers_may_come();
  x_lock.unlock();
  if (spin) look_for_change(x_helper_news, news);
  os::futex_wait(x_helper_news, news);
  x_lock.lock();
  --x_waiting_helpers;
  note_hunger();
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

bool MarkQueue::give_all() {
  if (x_packet->count == 0) return true;
  WorkPacket* const packet = x_pool.take_empty();
  if (packet == nullptr) return false;
  x_pool.share(x_packet);
  x_packet = packet;
  return true;
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
