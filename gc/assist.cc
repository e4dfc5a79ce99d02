#include "gc/assist.h"

#include <algorithm>

#include "alloc/base/check.h"
#include "alloc/base/fault.h"
#include "alloc/base/os.h"
#include "alloc/base/perturb.h"
#include "alloc/base/stop_code.h"
#include "gc/heap.h"
#include "gc/library_thread.h"
#include "gc/mark_crew.h"

namespace tricolor::impl {

// ---- who allocates

// In each cycle anew.
void Assists::begin_account(Mutator& mutator) {
  const std::uint32_t cycle = x_cycle.load(std::memory_order_relaxed);
  if (mutator.assist_cycle == cycle) return;
  mutator.assist_cycle = cycle;
  mutator.paid_bytes = mutator.claimed_when_armed;
}

std::int64_t Assists::owed_bytes(const Mutator& mutator) {
  return static_cast<std::int64_t>(mutator.claimed_bytes - mutator.paid_bytes);
}

void Assists::owe_while_marking(Mutator& mutator, std::int64_t bytes) {
  begin_account(mutator);
  // What is given back earns nothing.
  if (bytes < 0) bytes = std::max(bytes, -std::max<std::int64_t>(owed_bytes(mutator), 0));
  mutator.paid_bytes -= static_cast<std::uint64_t>(bytes);
}

void Assists::pay_while_marking(Mutator& mutator, std::uint64_t bytes) {
  begin_account(mutator);
  if (mutator.never_assist != 0 || forgives()) {
    mutator.paid_bytes = mutator.claimed_bytes + bytes;  // forgiven
    return;
  }
  if (mutator.critical_depth.load(std::memory_order_relaxed) != 0) return;
  x_heap.cycle().pacing().revise_assist_ratio(mutator);
  const std::int64_t owed_bytes = Assists::owed_bytes(mutator) + static_cast<std::int64_t>(bytes);
  if (owed_bytes <= 0 ||
      (work_for(ratio(), owed_bytes) < kLeastWork && !x_heap.cycle().pacing().at_goal()))
    return;
  x_heap.handshake().while_blocked(mutator, [&] { pay_waiting(mutator, owed_bytes); });
}

// A wait of the library's: the mutator counts as stopped.
void Assists::pay_waiting(Mutator& mutator, std::int64_t owed_bytes) {
  const OwnThread own;
  perturb();
  const std::uint64_t begin_ns = os::now_ns();
  const AssistRatio price = ratio();
  const std::int64_t owed = work_for(price, owed_bytes);
  // What is paid ahead is paid at this price: not for more than a part of what is left, or where work is cheap it would buy all.
  const std::int64_t most_ahead = Assists::most_ahead();
  const std::int64_t beyond =
      std::clamp<std::int64_t>(kLeastWork - owed, 0, work_for(price, most_ahead));
  std::int64_t work = owed + beyond;
  for (bool waited = false;; waited = true) {
    work -= take_credit(work);
    if (work > 0) work -= mark(work);
    if (work > 0 && forgives()) work = 0;
    if (work <= 0) break;
    work = wait_in_line(mutator.assist_cycle, work, waited);
    if (work <= 0) break;
  }
  // What has been done beyond is to its credit; so is what has been forgiven, which no longer matters.
  mutator.paid_bytes += static_cast<std::uint64_t>(owed_bytes);
  mutator.paid_bytes +=
      static_cast<std::uint64_t>(std::min(bytes_for(price, beyond - work), most_ahead));
  x_times.count(os::now_ns() - begin_ns);
}

std::int64_t Assists::most_ahead() const {
  constexpr std::int64_t kParts = 16;
  constexpr std::int64_t kLeastAhead = 64 << 10;  // bytes
  const std::uint64_t live = x_heap.allocator().heap_bytes();
  const std::uint64_t limit = limit_bytes();
  const std::uint64_t left = limit > live ? limit - live : 0;
  return std::max(kLeastAhead, static_cast<std::int64_t>(std::min(left, kNoGoal)) / kParts);
}

std::int64_t Assists::take_credit(std::int64_t work) {
  std::int64_t credit = x_credit.load(std::memory_order_relaxed);
  while (credit > 0) {
    const std::int64_t taken = std::min(credit, work);
    if (x_credit.compare_exchange_weak(credit, credit - taken, std::memory_order_relaxed))
      return taken;
  }
  return 0;
}

std::int64_t Assists::mark(std::int64_t work) {
  if (is_planted(Fault::assists_pay_nothing)) return work;
  MarkCrew& crew = x_heap.cycle().crew();
  if (!x_heap.packets().has_shared()) return 0;
  Marker* const marker = crew.borrow();
  if (marker == nullptr) return 0;
  const std::uint64_t done = marker->assist(static_cast<std::uint64_t>(work));
  crew.give_back(marker);
  // A marker is free. Not when the pool has refused us: it would refuse the next one, too.
  if (done != 0 && anybody_waits()) {
    const Guard guard(x_lock);
    let_first_go(InLine::kMayMark);
  }
  return static_cast<std::int64_t>(done);
}

// Returns what is still owed.
std::int64_t Assists::wait_in_line(std::uint32_t cycle, std::int64_t work, bool at_front) {
  InLine me;
  me.owed_work = work;
  perturb();
  {
    const Guard guard(x_lock);
    // [assist.end] It may have taken so long to come here that another cycle marks: that one it owes nothing yet.
    if (!x_marks.load(std::memory_order_relaxed) ||
        x_cycle.load(std::memory_order_relaxed) != cycle || forgives())
      return 0;
    // Credit may have come before it saw us.
    me.owed_work -= take_credit(work);
    if (me.owed_work <= 0) return 0;
    if (at_front) {
      me.next = x_first;
      x_first = &me;
      if (x_last == nullptr) x_last = &me;
    } else {
      (x_first == nullptr ? x_first : x_last->next) = &me;
      x_last = &me;
    }
    count_in_line(x_waiting.load(std::memory_order_relaxed) + 1);
  }
  // Acquire: we are out of the line. Pairs with let_first_go (release).
  while (me.state.load(std::memory_order_acquire) == InLine::kWaits)
    os::futex_wait(me.state, InLine::kWaits);
  return me.state.load(std::memory_order_relaxed) == InLine::kPaid ? 0 : me.owed_work;
}

// With the lock held.
void Assists::let_first_go(InLine::State state) {
  InLine* const first = x_first;
  if (first == nullptr) return;
  x_first = first->next;
  if (x_first == nullptr) x_last = nullptr;
  count_in_line(x_waiting.load(std::memory_order_relaxed) - 1);
  // Release: out of the line. Pairs with wait_in_line (acquire). It may be gone after this, with its stack: only the address is
  // used.
  const std::atomic<std::uint32_t>& word = first->state;
  first->state.store(state, std::memory_order_release);
  os::futex_wake_one(word);
}

// With the lock held.
void Assists::count_in_line(std::uint32_t now) {
  const std::uint32_t before = x_waiting.exchange(now, std::memory_order_relaxed);
  if ((before == 0) != (now == 0)) x_heap.packets().set_line(now != 0);
}

// ---- who marks

void Assists::count_work(std::uint64_t bytes, By by) {
  x_work_bytes.fetch_add(bytes, std::memory_order_relaxed);
  if (by == By::debtor) {
    x_assist_work_bytes.fetch_add(bytes, std::memory_order_relaxed);
    return;
  }
  const auto credit = static_cast<std::int64_t>(bytes);
  if (anybody_waits()) {
    pay_for_those_in_line(credit);
  } else {
    x_credit.fetch_add(credit, std::memory_order_relaxed);
  }
  x_heap.cycle().pacing().revise_assist_ratio();
}

std::size_t Assists::cpus_left() const {
  const std::size_t threads = x_heap.handshake().mutator_count();
  const std::size_t cpus = x_heap.cycle().cpus();
  return cpus - std::min(cpus, threads);
}

void Assists::pay_for_those_in_line(std::int64_t credit) {
  const Guard guard(x_lock);
  while (credit > 0 && x_first != nullptr) {
    if (x_first->owed_work <= credit) {
      credit -= x_first->owed_work;
      let_first_go(InLine::kPaid);
      continue;
    }
    x_first->owed_work -= credit;
    credit = 0;
    if (x_first != x_last) {
      InLine* const first = x_first;
      x_first = first->next;
      first->next = nullptr;
      x_last = x_last->next = first;
    }
  }
  if (credit > 0) x_credit.fetch_add(credit, std::memory_order_relaxed);
  if (x_heap.packets().has_shared()) let_first_go(InLine::kMayMark);
}

void Assists::count_marked(const Done& done) {
  x_heap.shaded().objects.fetch_add(done.objects, std::memory_order_relaxed);
  x_heap.shaded().bytes.fetch_add(done.bytes, std::memory_order_relaxed);
  x_conservative_cells.fetch_add(done.conservative_cells, std::memory_order_relaxed);
}

void Assists::count_scanned(const ScanCounts& scanned) {
  for (std::size_t c = 0; c < scanned.size(); ++c) {
    if (scanned[c] != 0) x_scanned[c].fetch_add(scanned[c], std::memory_order_relaxed);
  }
}

void Assists::add_scanned(ScanCounts& to) const {
  for (std::size_t c = 0; c < to.size(); ++c) to[c] += x_scanned[c].load(std::memory_order_relaxed);
}

void Assists::count_cpu(std::uint64_t ns) {
  x_cpu_ns.fetch_add(ns, std::memory_order_relaxed);
  x_heap.cycle().pacing().note_assist();
}

bool Assists::forgives() const { return x_heap.cycle().pacing().limits_cpu(); }

// ---- the cycle

// Of the heap as it is now: who should have brought the numbers up to date may have lost its CPU, and near the end of a mark, when
// hardly any work is left, a byte costs next to nothing until the heap is at its limit.
AssistRatio Assists::ratio() const {
  // Acquire: with this work comes at least its limit, which grows with it at the goal. Pairs with set_ratio (release).
  const double work_left = x_work_left.load(std::memory_order_acquire);
  return AssistRatio::of(work_left, limit_bytes(), x_heap.allocator().heap_bytes());
}

TRICOLOR_STOP_CODE void Assists::set_ratio(const AssistRatio& ratio) {
  // Release: the limit comes first. Pairs with ratio (acquire).
  x_limit_bytes.store(ratio.limit_bytes, std::memory_order_relaxed);
  x_work_left.store(ratio.work_left, std::memory_order_release);
}

TRICOLOR_STOP_CODE void Assists::begin_cycle() {
  x_cycle.fetch_add(1, std::memory_order_relaxed);
  x_credit.store(0, std::memory_order_relaxed);
  x_work_bytes.store(0, std::memory_order_relaxed);
  x_assist_work_bytes.store(0, std::memory_order_relaxed);
  x_conservative_cells.store(0, std::memory_order_relaxed);
  for (auto& count : x_scanned) count.store(0, std::memory_order_relaxed);
}

void Assists::forgive() {
  if (is_planted(Fault::assists_not_forgiven)) return;
  const Guard guard(x_lock);
  while (x_first != nullptr) let_first_go(InLine::kPaid);
}

void Assists::forget_threads() {
  x_first = nullptr;
  x_last = nullptr;
  x_waiting.store(0, std::memory_order_relaxed);
  x_marks.store(false, std::memory_order_relaxed);
}

}  // namespace tricolor::impl
