// Debt and credit between allocation and marking (after Go's runtime/mgcmark.go, gcAssistAlloc).
//
// While a cycle marks, each byte that is allocated costs work: the assist ratio, which the pacer sets so that marking is done
// when the heap is at its goal (pacer.h). A thread that owes kLeastWork pays, before it chooses its next cell:
//
//   1. from the credit that workers have earned: they add what they scan
//   2. by marking itself: it borrows a marker (mark_crew.h), takes a packet, and scans what it owes
//   3. by waiting: there is neither credit nor a packet, or no marker is left. Workers pay for those who wait, first come
//      first served; who cannot be paid in full goes to the end of the line, so that one large debt does not hold up small
//      ones. When a packet is there again, the first in line marks itself.
//   4. when marking ends, whatever it still owes is forgiven
//   5. when it ends, so is that (as in Go): left to others it would count what the thread has claimed and gives back, too
//
// Nothing is owed inside gc::never_assist, nor while the collector has taken too much of the CPUs (cpu_limiter.h).
//
// Debts are kept in bytes and priced when they are paid: near the goal a byte costs more, and a thread pays after fewer of
// them. What a thread may owe without paying is little work, so a thread that allocates little never marks.
//
// A thread pays in a wait of the library's (MutatorState::waiting): its frames are frozen, so no stop waits for it, and it may
// take locks. Marking needs nothing of the mutator: while it marks it is to the rest of the library a thread of the library's
// own (library_thread.h), trace functions included.
//
// Why nobody waits for ever:
//   the cycle's end      waits for markers that work, whatever thread they are on [queue.end]. One that assists scans a bounded
//                        amount, with no lock held, and gives the rest back; one that waits in line has nothing in hand, and no
//                        stop and no end of marking waits for it.
//   who waits in line    is let go when marking ends, which needs none of those who wait: the coordinator works on its own
//                        share of the CPUs, and does not sleep while there is a line: PacketPool::set_line says so under the
//                        lock under which it goes to sleep, so neither misses the other.
//   fork                 asks markers to rest between two cells, assists too; who waits in line holds nothing, and in the child is
//                        gone with the line.
//   a thread that ends   is not in here: it pays before it goes on, with cancellation put off.
//   gc::critical         its owner does not pay inside (it could not be stopped); it owes until it is outside.
//   gc::blocking_call    nobody allocates there.
//
// Invariant [assist.end]: who is in line when marking ends is let go, and nobody gets into the line after that: x_marks is tested
//   under the lock, and cleared before the lock is taken to let them go. (Not under the lock: in the last stop nothing is to be
//   waited for that a thread without a CPU may hold.) The same holds while the limiter is on, of Pacing::limits_cpu(). Both are
//   modelled in test/model/assist.pml.
// Invariant [assist.exact]: in a cycle, what threads have paid (work done, credit taken, each priced in bytes) and what they owe
//   is what they have allocated, and what they hold more outside of the heap than when it began, as far as others see it
//   (gc::external_memory). Credit is only what workers have scanned, and is taken once.
//   (What is paid ahead counts up to a part of what is left to the limit; the rest is paid for nothing.)
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <tuple>

#include "alloc/base/lock.h"
#include "gc/pacer.h"
#include "gc/stats.h"

namespace tricolor::impl {

class Heap;
struct Mutator;

class Assists {
 public:
  explicit Assists(Heap& heap) : x_heap(heap) {}

  // Less work than this is not worth a thread's while. (Go's gcOverAssistWork.) It is asked for all the same when the heap has
  // reached its goal.
  static constexpr std::int64_t kLeastWork = 64 << 10;

  // A mutator that runs, and has no cell chosen and not constructed, is about to allocate `bytes`: pays what it owes. Returns
  // at once when no cycle marks.
  void pay(Mutator& mutator, std::uint64_t bytes) {
    // Relaxed: changes in stops only. One that ends marking may come in between: then nobody waits in line [assist.end].
    if (!x_marks.load(std::memory_order_relaxed)) return;
    pay_while_marking(mutator, bytes);
  }
  // It holds so much more outside of the heap (gc::external_memory), or below 0 less: that costs as if it had been allocated.
  // Pays later.
  void owe(Mutator& mutator, std::int64_t bytes) {
    if (x_marks.load(std::memory_order_relaxed)) owe_while_marking(mutator, bytes);
  }

  // ---- the cycle's side

  // Numbers begin at 0. World stopped.
  void begin_cycle();
  // From now on what is allocated is paid for. World stopped.
  void begin_marking() { x_marks.store(true, std::memory_order_relaxed); }
  // From now on not. World stopped; some may wait in line.
  void end_marking() { x_marks.store(false, std::memory_order_relaxed); }
  // Lets them go: after that, or because nothing is owed for now. The world may run.
  void forgive();

  void set_ratio(const AssistRatio& ratio);
  // Of the live heap, that the ratio is made for.
  std::uint64_t limit_bytes() const { return x_limit_bytes.load(std::memory_order_relaxed); }

  // ---- the markers' side

  enum class By : std::uint8_t { worker, debtor };
  // Bytes scanned, of cells and of roots, since the last call. What a worker has scanned is everybody's credit.
  void count_work(std::uint64_t bytes, By by);
  // What an assist has done, before it stops working.
  struct Done {
    std::uint64_t objects, bytes, conservative_cells;
  };
  void count_marked(const Done& done);
  // gctrace=2: likewise.
  void count_scanned(const ScanCounts& scanned);
  // CPU time of an assist, since the last call. The limiter hears of it.
  void count_cpu(std::uint64_t ns);
  // The same of a worker.
  void count_worker_cpu(std::uint64_t ns) {
    x_worker_cpu_ns.fetch_add(ns, std::memory_order_relaxed);
  }
  // The collector has taken too much of the CPUs: nothing is owed for now.
  bool forgives() const;
  // How many CPUs are left when each of the program's threads, as far as they are attached, has one of its own.
  std::size_t cpus_left() const;
  // In line. Relaxed: a hint.
  std::uint32_t waiting() const { return x_waiting.load(std::memory_order_relaxed); }
  bool anybody_waits() const { return waiting() != 0; }

  // ---- numbers of the cycle; relaxed

  std::uint64_t work_bytes() const { return x_work_bytes.load(std::memory_order_relaxed); }
  std::uint64_t assist_work_bytes() const {
    return x_assist_work_bytes.load(std::memory_order_relaxed);
  }
  // Since the start.
  std::uint64_t worker_cpu_ns() const { return x_worker_cpu_ns.load(std::memory_order_relaxed); }
  std::uint64_t cpu_ns() const { return x_cpu_ns.load(std::memory_order_relaxed); }
  std::uint64_t conservative_cells() const {
    return x_conservative_cells.load(std::memory_order_relaxed);
  }
  void add_scanned(ScanCounts& to) const;
  // How long threads were kept at a time, marking or in line; since the start.
  void read_times(histogram& out) const { x_times.read(out); }

  // fork.h: the line is empty in the child.
  void lock_for_fork() { x_lock.lock(); }
  void forget_threads();
  void unlock_after_fork() { x_lock.unlock(); }

 private:
  // On the stack of a thread that waits.
  struct InLine {
    enum State : std::uint32_t { kWaits, kPaid, kMayMark };
    InLine* next = nullptr;  // guarded by x_lock
    std::int64_t owed_work;  // guarded by x_lock until it is out of the line
    std::atomic<std::uint32_t> state{
        kWaits};  // written under x_lock by who takes it out of the line
  };

  void begin_account(Mutator& mutator);
  void owe_while_marking(Mutator& mutator, std::int64_t bytes);
  static std::int64_t owed_bytes(const Mutator& mutator);
  [[gnu::noinline]] void pay_while_marking(Mutator& mutator, std::uint64_t bytes);
  void pay_waiting(Mutator& mutator, std::int64_t owed_bytes);
  std::int64_t most_ahead() const;
  std::int64_t take_credit(std::int64_t work);
  std::int64_t mark(std::int64_t work);
  std::int64_t wait_in_line(std::uint32_t cycle, std::int64_t work, bool at_front);
  void let_first_go(InLine::State state);
  void count_in_line(std::uint32_t now);
  void pay_for_those_in_line(std::int64_t credit);
  AssistRatio ratio() const;

  Heap& x_heap;
  std::atomic<bool> x_marks{false};       // written in stops
  std::atomic<std::uint32_t> x_cycle{0};  // counts them; written in stops
  std::atomic<double> x_work_left{1};     // the limit is not older than the work (set_ratio)
  std::atomic<std::uint64_t> x_limit_bytes{0};
  std::atomic<std::int64_t> x_credit{0};  // >= 0; relaxed: a number

  Mutex x_lock{LockRank::kAssists};
  InLine* x_first = nullptr;                // guarded by x_lock
  InLine* x_last = nullptr;                 // guarded by x_lock
  std::atomic<std::uint32_t> x_waiting{0};  // in line; written under x_lock

  std::atomic<std::uint64_t> x_work_bytes{0}, x_assist_work_bytes{0}, x_cpu_ns{0},
      x_worker_cpu_ns{0}, x_conservative_cells{0};
  std::array<std::atomic<std::uint64_t>, std::tuple_size_v<ScanCounts>> x_scanned = {};
  Histogram x_times;
};

}  // namespace tricolor::impl
