// Where grey work waits. Each marker has a MarkQueue of its own (last in, first out); full packets go to the shared
// PacketPool, from where any marker takes them. While a marker waits for work, the others share half of what they have.
//
// One marker coordinates, the others help. A helper waits for a shared packet from its start to its end, through cycles
// and between them, so it is woken only when there is work for it, and a cycle never waits for a helper that has not come.
// Threads of the program that pay for what they allocate (gc/assist.h) take packets when there are any, and do not wait.
//
//   marker        works while                                 stops working when
//   coordinator   from begin() on                             next_or_end() is called: it has nothing in hand
//   helper        from the packet that next_as_helper() gave  next_as_helper() is called again
//   idle helper   the same, on a CPU that nobody else wants   the same. One that has left for want of such a CPU has given all
//                                                             that it had to the pool; there is one less until the next begin()
//   assist        from the packet that take_to_assist() gave  end_assist() is called: it has nothing in hand
//
// Invariant [queue.end]: a grey cell that is queued is in the pool or with a marker that works, and who works and what the
//   pool has change under one lock. So "nobody works and nothing is shared" is seen at one instant, and is final: only who
//   works can share. No counters are read one after another, and nothing is waited out. Who works counts whether or not it
//   has a CPU.
//   While the program runs, others share work too (barrier/shader.h), also when nobody works any more. Helpers and assists do
//   not take that: they take nothing from the moment in which the coordinator was told of the end until it begins again, so
//   "nobody works" stays true, and what is shared is seen by the last stop (gc/cycle.h, [cycle.end]).
// Invariant [queue.exact]: a grey cell is marked and in exactly one packet, or its grey bit and `rescan` of its span are set.
// Invariant [queue.bounded]: there are never more than most_packets packets. When no packet can be had (the bound, or the
//   kernel refuses memory) push() says so; the cell is postponed: it gets its grey bit, and once the queues are empty the
//   marker scans the cells of such spans that have one (gc/marker.cc). Each such round follows the references of at least
//   one more cell, so marking ends whatever memory there is; it costs time, not correctness.
#pragma once

#include <atomic>
#include <cstddef>

#include "alloc/base/lock.h"
#include "alloc/metadata.h"
#include "alloc/span.h"
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

  // May threads of the program take work, too?
  enum class Assisted : std::uint8_t { no, yes };

  // The coordinator works from now on, until the end with at most so many helpers at a time, and so many idle ones more.
  void begin(std::size_t most_helpers, std::size_t idle_helpers, Assisted assisted);
  // How many helpers may work at a time, with idle ones. Relaxed: a hint.
  std::size_t most_helpers() const { return x_most_helpers.load(std::memory_order_relaxed); }
  // The coordinator has no work: waits for a packet, or for the end of marking, which is null. It takes no packet before
  // `not_before_ns` (os::now_ns), unless somebody waits for what it does; it is told of the end at once.
  WorkPacket* next_or_end(std::uint64_t not_before_ns = 0);
  // What a helper does from one packet that it waited for to the next.
  struct Stint {
    bool is_idle = false;  // it is an idle helper
    bool has_begun = false;
  };
  // A helper has no work (any more, after a stint): waits for a packet, and begins another stint with it. Null when end_helpers()
  // has been called.
  WorkPacket* next_as_helper(Stint& stint);
  // An idle helper finds CPUs for only so many helpers: there is one less from now on. False when there are no more than that any
  // more. It may take it back.
  bool leave_if_above(std::size_t helpers);
  void stay_after_all();
  // A thread of the program that does not work: a packet, or null when there is none for it now.
  WorkPacket* take_to_assist();
  void end_assist();
  // From now on the coordinator does not put off its work: somebody waits for the end. Until the next call.
  void set_hurry(bool hurry);
  // The same, by and for threads of the program that wait in line for credit (gc/assist.h).
  void set_line(bool line);
  // Relaxed: a hint.
  bool in_hurry() const { return x_hurry.load(std::memory_order_relaxed); }
  // Sends all helpers home, or lets new ones come. Between cycles.
  void end_helpers();
  void let_helpers_come();

  // For a thread that forks while markers work: asks them all to rest between two cells, with no lock held. None takes work, and
  // marking does not end, before resume().
  void pause();
  void resume();
  // Do all that work rest? Not when nobody works: then the coordinator is elsewhere in the cycle, or has just been woken to
  // rest. One that waits in next_or_end() may as well be waiting: it takes nothing and ends nothing before resume().
  bool all_rest();
  // Changes when a marker goes to rest.
  const std::atomic<std::uint32_t>& rests() const { return x_rests; }
  // Relaxed: a hint; who rests asks again under the lock.
  bool is_paused() const { return x_pause.load(std::memory_order_relaxed); }
  // A marker that works: rests as long as that is wanted.
  void rest();

  // Held by a thread that forks. In the child, with it held, the helpers are gone, and so is all that was shared, with `more`
  // (may be null).
  Mutex& mutex() { return x_lock; }
  void forget_helpers(WorkPacket* more);

  // Does a marker wait in vain, or may an assist come at any time? Relaxed: a hint; who follows it in vain has shared a packet
  // too early.
  bool is_wanted() const { return x_hungry.load(std::memory_order_relaxed) && !has_shared(); }

  // A grey cell found no room. Any thread.
  void postpone(PageRecord* span, std::uint32_t index);
  bool has_postponed() const { return x_postponed.load(std::memory_order_acquire); }
  // Has there been one since the last call? By the coordinator.
  bool take_postponed() { return x_postponed.exchange(false, std::memory_order_acq_rel); }

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
  std::size_t x_working = 0;  // markers
  bool x_open = false;        // from begin() until the coordinator was told of the end
  bool x_assisted = false;
  bool x_line = false;
  std::size_t x_dedicated_helpers = 0;
  std::atomic<std::size_t> x_most_helpers{0};  // with idle ones; written under x_lock
  std::size_t x_helping = 0;                   // of those that work
  std::size_t x_helping_idle = 0;              // of these
  std::size_t x_waiting_helpers = 0;           // whether or not they may take anything
  enum class Waits : std::uint8_t { no, for_its_time, for_work };
  Waits x_coordinator_waits = Waits::no;  // for_its_time: or for the end
  bool x_end_helpers = false;
  std::size_t x_resting = 0;              // of those that work
  std::atomic<bool> x_hurry{false};       // written under x_lock
  std::atomic<bool> x_pause{false};       // written under x_lock
  std::atomic<std::uint32_t> x_rests{0};  // written under x_lock
  std::atomic<bool> x_postponed{false};   // by anybody
  std::atomic<bool> x_hungry{false};  // whoever comes takes what is shared; written under x_lock
  // Each changes under x_lock with everything that those who wait for it wait for.
  std::atomic<std::uint32_t> x_coordinator_news{0};
  std::atomic<std::uint32_t> x_helper_news{0};
  std::atomic<std::uint32_t> x_resumed{0};

  bool helpers_may_come() const { return x_open && x_helping < most_helpers(); }
  void note_hunger();
  void stop_working();
  void tell_coordinator();
  void tell_helpers();
  void wait_as_coordinator(std::uint64_t at_most_ns);
  void wait_as_helper();
  void rest_with_lock();
  WorkPacket* pop_shared();
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
    // Others' packets may be fuller than ours.
    if (x_packet->count >= x_entries && !next_packet()) [[unlikely]]
      return false;
    x_packet->entries[x_packet->count++] = work;
    return true;
  }
  // False when neither this queue nor the pool has work. Then it is time for finish() or help().
  bool pop(GreyWork& work) {
    if (x_packet->count == 0 && (!x_pool.has_shared() || !previous_packet())) [[unlikely]]
      return false;
    work = x_packet->entries[--x_packet->count];
    return true;
  }

  // If another marker waits in vain: shares the older half of what is in the packet, from where the most is to be reached.
  void share_if_wanted() {
    if (x_pool.is_wanted() && x_packet->count >= kFewestShared) [[unlikely]]
      share_half();
  }
  // Between two cells: rests while a thread forks.
  void rest_if_paused() {
    if (x_pool.is_paused()) [[unlikely]]
      x_pool.rest();
  }
  // Forgets all work. In a forked child.
  void clear() { x_packet->count = 0; }
  // The coordinator's queue is empty: waits for work. False when marking has ended.
  bool refill_or_end(std::uint64_t not_before_ns = 0) {
    return accept(x_pool.next_or_end(not_before_ns));
  }
  // The same for a helper. False when it is to end.
  bool refill_as_helper(PacketPool::Stint& stint) { return accept(x_pool.next_as_helper(stint)); }
  // The same for an assist. False when there is nothing for it.
  bool refill_to_assist() { return accept(x_pool.take_to_assist()); }
  // Hands all that it has to the pool. False, and it still has it, when there is no packet to go on with.
  bool give_all();

 private:
  // Less than this is scanned sooner than somebody is woken for it.
  static constexpr std::size_t kFewestShared = 16;

  bool next_packet();
  bool previous_packet();
  void share_half();
  bool accept(WorkPacket* packet);

  PacketPool& x_pool;
  WorkPacket* x_packet;
  const std::size_t x_entries;
};

}  // namespace tricolor::impl
