#include "gc/pacing.h"

#include <algorithm>
#include <utility>

#include "alloc/base/os.h"
#include "alloc/base/stop_code.h"
#include "gc/heap.h"
#include "gc/mutator.h"

namespace tricolor::impl {

bool Pacing::reached(const std::atomic<std::uint64_t>& bytes) const {
  return x_heap.allocator().heap_bytes() >= bytes.load(std::memory_order_relaxed);
}

TRICOLOR_STOP_CODE void Pacing::commit() {
  const Allocator& allocator = x_heap.allocator();
  const Settings& settings = x_heap.settings();
  // Read with the lock held: who has changed something commits after that, so the last one to come sees all changes.
  const Guard guard(x_lock);
  PacerSettings chosen;
  chosen.percent = settings.percent.load(std::memory_order_relaxed);
  chosen.min_heap_bytes = settings.min_heap_bytes.load(std::memory_order_relaxed);
  chosen.memory_limit_bytes = settings.memory_limit_bytes.load(std::memory_order_relaxed);
  PacerMemory memory;
  memory.live_bytes = allocator.heap_bytes();
  // Read one after another while others sweep and allocate: neither difference need be there.
  const std::uint64_t freed = allocator.freed_bytes.load(std::memory_order_relaxed);
  const std::uint64_t allocated = allocator.allocated_bytes.load(std::memory_order_relaxed);
  const std::uint64_t cells = allocated > freed ? allocated - freed : 0;
  const std::uint64_t in_use = allocator.pages.in_use_bytes();
  memory.non_heap_bytes = allocator.metadata.mapped_bytes() + allocator.pages.metadata_bytes() +
                          (in_use > cells ? in_use - cells : 0);
  memory.ready_bytes = allocator.mapped_bytes();
  memory.external_bytes = allocator.held_outside_bytes();
  memory.sweep = x_heap.cycle().sweep_state();
  x_pacer.commit(chosen, memory);
  publish();
}

// The lock is held.
TRICOLOR_STOP_CODE void Pacing::publish() {
  const Settings& settings = x_heap.settings();
  const std::uint64_t goal = x_pacer.goal_bytes();
  // With the world stopped nothing is allocated between trigger and end.
  const std::uint64_t trigger = settings.gcstoptheworld != 0 ? goal : x_pacer.trigger_bytes();
  x_goal_bytes.store(goal, std::memory_order_relaxed);
  x_trigger_bytes.store(trigger, std::memory_order_relaxed);
  x_heap.cycle().scavenger().set_goals(goal,
                                       settings.memory_limit_bytes.load(std::memory_order_relaxed));
  x_heap.cycle().sweeper().pace(x_heap.allocator().heap_bytes(), trigger);
}

// ---- while a cycle marks

void Pacing::rehearse(const CycleStart& start) {
  const Guard guard(x_lock);
  Pacer trial = x_pacer;
  trial.start_cycle(start);
  (void)trial.assist_ratio(start.live_bytes, 0);
  publish();  // what it was
}

void Pacing::rehearse(const CycleEnd& end) {
  commit();  // as anybody may at any time
  const Guard guard(x_lock);
  Pacer trial = x_pacer;
  trial.end_cycle(end);
}

TRICOLOR_STOP_CODE Pacing::Begun Pacing::start_cycle(const CycleStart& start) {
  const Guard guard(x_lock);
  const double cons_mark_before = x_pacer.cons_mark();
  x_pacer.start_cycle(start);
  const AssistRatio ratio = x_pacer.assist_ratio(start.live_bytes, 0);
  x_heap.assists().set_ratio(ratio);
  publish();
  x_revised_live_bytes.store(start.live_bytes, std::memory_order_relaxed);
  return {cons_mark_before, ratio, x_pacer.goal_bytes()};
}

TRICOLOR_STOP_CODE CycleOutcome Pacing::end_cycle(const CycleEnd& end) {
  const Guard guard(x_lock);
  return x_pacer.end_cycle(end);
}

void Pacing::revise_assist_ratio() { revise_assist_ratio(Clock::kMayRead); }

void Pacing::revise_assist_ratio(Clock clock) {
  if (!x_lock.try_lock()) return;
  const std::uint64_t live = x_heap.allocator().heap_bytes();
  Assists& assists = x_heap.assists();
  assists.set_ratio(x_pacer.assist_ratio(live, assists.work_bytes()));
  x_revised_live_bytes.store(live, std::memory_order_relaxed);
  const bool limits = update_limiter(CpuLimiter::kUpdatePeriodNs, clock);
  x_lock.unlock();
  if (limits) assists.forgive();
}

void Pacing::revise_assist_ratio(Mutator& mutator) {
  constexpr std::uint64_t kWorthIt = 32 << 10;  // bytes
  // Past the limit a byte costs all that is left, and there is another limit then.
  const std::uint64_t live = x_heap.allocator().heap_bytes();
  if (live < x_revised_live_bytes.load(std::memory_order_relaxed) + kWorthIt &&
      live < x_heap.assists().limit_bytes())
    return;
  const CriticalSection critical(mutator);
  revise_assist_ratio(Clock::kLeave);  // a stop would wait
}

void Pacing::note_assist() {
  if (!x_lock.try_lock()) return;
  const bool limits = update_limiter(CpuLimiter::kAssistPeriodNs, Clock::kMayRead);
  x_lock.unlock();
  if (limits) x_heap.assists().forgive();
}

// In the child of a fork: the lock is held.
void Pacing::forget_clocks() {
  const std::uint64_t now = os::now_ns();
  x_limiter = CpuLimiter(os::cpu_count(), now);
  x_limiter_stopped = false;
  x_told = clocks(now);
  x_had = {.at_ns = now, .cpu_ns = os::process_cpu_ns()};
  x_mutator_ns = 0;
  note_limit();
}

// ---- the limiter; its lock is held

Pacing::Told Pacing::clocks(std::uint64_t now_ns) const {
  const Assists& assists = x_heap.assists();
  return {.at_ns = now_ns,
          .assist_ns = assists.cpu_ns() + x_heap.cycle().scavenger().assist_ns() +
                       x_heap.cycle().sweep_cpu_ns(),
          .worker_ns = assists.worker_cpu_ns()};
}

// CPU time that the limiter has not been told yet; at `now_ns` it is told.
//
// The process's clock costs the kernel a walk of all threads, and of those that run it is brought up to date at ticks only, 4 ms
// apart. So it is read now and then, by who keeps nobody waiting; in between the process is taken to have what it had before, and
// at the next reading that is put right. Where the program then has had less than nothing, it has less the next time.
CpuLimiter::Spent Pacing::spent(std::uint64_t now_ns, Clock clock) {
  constexpr std::uint64_t kClockPeriodNs = 20'000'000;
  constexpr std::int64_t kMostKeptNs = 40'000'000;  // for each CPU
  const Told before = std::exchange(x_told, clocks(now_ns));
  std::int64_t process_ns = 0;
  if (clock == Clock::kMayRead && now_ns - x_had.at_ns >= kClockPeriodNs) {
    const std::uint64_t cpu_ns = os::process_cpu_ns();
    const std::uint64_t had_ns = cpu_ns - x_had.cpu_ns;
    process_ns = static_cast<std::int64_t>(had_ns) - x_had.told_ns;
    x_had = {.at_ns = now_ns,
             .cpu_ns = cpu_ns,
             .told_ns = 0,
             .cpus = static_cast<double>(had_ns) / static_cast<double>(now_ns - x_had.at_ns)};
  } else {
    process_ns = static_cast<std::int64_t>(x_had.cpus * static_cast<double>(now_ns - before.at_ns));
    x_had.told_ns += process_ns;
  }
  CpuLimiter::Spent spent;
  spent.assist_ns = x_told.assist_ns - before.assist_ns;
  spent.worker_ns = x_told.worker_ns - before.worker_ns;
  x_mutator_ns += process_ns - static_cast<std::int64_t>(spent.assist_ns + spent.worker_ns);
  spent.mutator_ns = static_cast<std::uint64_t>(std::max<std::int64_t>(x_mutator_ns, 0));
  x_mutator_ns = std::clamp<std::int64_t>(x_mutator_ns, -kMostKeptNs * x_cpus, 0);
  return spent;
}

void Pacing::update_limiter(Mutator& mutator) {
  if (!limits_cpu()) return;
  const CriticalSection critical(mutator);
  if (!x_lock.try_lock()) return;
  const bool limits = update_limiter(CpuLimiter::kUpdatePeriodNs, Clock::kLeave);
  x_lock.unlock();
  if (limits) x_heap.assists().forgive();
}

// True when it has begun to limit.
bool Pacing::update_limiter(std::uint64_t period_ns, Clock clock) {
  const std::uint64_t now = os::now_ns();
  if (x_limiter_stopped || !x_limiter.update_due(now, period_ns)) return false;
  x_limiter.update(now, spent(now, clock));
  return note_limit();
}

// True when it has begun to limit.
bool Pacing::note_limit() {
  const bool limits = x_limiter.limiting();
  if (limits) x_limited_cycle.store(x_cycle, std::memory_order_relaxed);
  x_heap.cycle().scavenger().allow_for_limit(!limits);
  return !x_limits_cpu.exchange(limits, std::memory_order_relaxed) && limits;
}

void Pacing::begin_stop(std::uint32_t cpus, std::uint64_t cycle) {
  const Guard guard(x_lock);
  if (x_limiter_stopped) return;
  const std::uint64_t now = os::now_ns();
  x_limiter.set_cpus(cpus, now, spent(now, Clock::kMayRead));
  x_cpus = cpus;
  x_cycle = cycle;
  x_limiter.begin_stop(now, {});
  x_limiter_stopped = true;
}

void Pacing::end_stop(CpuLimiter::Marking from_now_on) {
  bool limits = false;
  {
    const Guard guard(x_lock);
    const std::uint64_t now = os::now_ns();
    spent(now, Clock::kLeave);  // the stop counts as every CPU's, whatever they did
    x_limiter.end_stop(now, from_now_on);
    x_limiter_stopped = false;
    limits = note_limit();
  }
  if (limits) x_heap.assists().forgive();
}

}  // namespace tricolor::impl
