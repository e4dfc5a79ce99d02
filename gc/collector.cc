// Who asks for cycles and what they wait for; the collector's thread, which runs them; what happens to both around fork.
#include <pthread.h>

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

#include "alloc/base/check.h"
#include "alloc/base/os.h"
#include "gc/cycle.h"
#include "gc/heap.h"
#include "gc/library_thread.h"

namespace tricolor::impl {

namespace {

// For how long a thread gives its CPU to a cycle that is to begin: then the collector has been held up.
constexpr std::uint64_t kGivesCpuNs = 3'000'000;

bool is_past(std::uint32_t counter, std::uint32_t ticket) {
  return static_cast<std::int32_t>(counter - ticket) >= 0;
}

}  // namespace

// ---- requests

bool Cycle::is_running() const {
  // Acquire: the cycle, if it has ended. Pairs with run_until (release).
  return x_completed.load(std::memory_order_acquire) != x_started.load(std::memory_order_relaxed);
}

void Cycle::collect(Mutator& mutator) { request_and_wait(mutator, Reason::kForced); }

[[gnu::noinline]] void Cycle::collect_when_due(Mutator& mutator) {
  // Inside gc::critical the world cannot be stopped; the next allocation outside sees to it.
  if (mutator.critical_depth.load(std::memory_order_relaxed) != 0) return;
  const auto next_stop =
      is_marking(x_heap.handshake().epoch()) ? Handshake::Purpose::end : Handshake::Purpose::arm;
  if (x_stop_offer.suits(next_stop) && may_make_stops(mutator)) {
    x_heap.handshake().while_blocked(
        mutator, [&] { take_stop(mutator, next_stop, Leaves::where_another_lacks_cpu); });
  }
  if (is_marking(x_heap.handshake().epoch())) return;  // it pays (assist.h)
  if (x_pacing.at_goal() && mutator.never_assist == 0) {
    request_and_wait(mutator, Reason::kGoal);
  } else if (!is_running() && !x_is_asked.load(std::memory_order_relaxed)) {
    request_and_wait(mutator, Reason::kTrigger);
  }
}

void Cycle::request_and_wait(Mutator& mutator, Reason reason) {
  x_heap.handshake().while_blocked(mutator, [&] {
    const bool gives_cpu = reason == Reason::kTrigger && gives_its_cpu(mutator);
    const bool waits_to_arm = gives_cpu && may_make_stops(mutator);
    // Relaxed: a hint.
    if (waits_to_arm) x_waits_to_arm.fetch_add(1, std::memory_order_relaxed);
    const Request request = ask_for(reason);
    if (gives_cpu && request.is_new && !request.is_mine)
      wait_to_arm(mutator, request.ticket, waits_to_arm);
    if (waits_to_arm) x_waits_to_arm.fetch_sub(1, std::memory_order_relaxed);
    if (request.is_mine) {
      const HostKeptOut host_kept_out;
      const OwnThread own;
      run_until(request.ticket, On::thread_of_program);
    }
    if (reason == Reason::kTrigger) return;
    const std::atomic<std::uint32_t>& counter = reason == Reason::kForced ? x_completed : x_armed;
    // Acquire: the cycle's work. Pairs with run_until, arm (release).
    for (std::uint32_t now;
         now = counter.load(std::memory_order_acquire), !is_past(now, request.ticket);)
      os::futex_wait(counter, now);
    if (reason == Reason::kForced) x_pins.pin();
  });
}

// Until that cycle marks, for a moment at most; makes its first stop if that is offered.
void Cycle::wait_to_arm(Mutator& mutator, std::uint32_t ticket, bool may_take) {
  const std::uint64_t until_ns = os::now_ns() + kGivesCpuNs;
  for (std::uint64_t now_ns; (now_ns = os::now_ns()) < until_ns;) {
    // Acquire: the cycle, if it is past that. Pairs with StopOffer::end (release).
    const std::uint32_t word = x_stop_offer.word().load(std::memory_order_acquire);
    if (is_past(x_armed.load(std::memory_order_relaxed), ticket)) return;
    if (may_take && take_stop(mutator, Handshake::Purpose::arm, Leaves::no)) return;
    os::futex_wait(x_stop_offer.word(), word, until_ns - now_ns);
  }
}

// A stop takes room on the stack. A thread that may be late for something does not make stops for others.
bool Cycle::may_make_stops(Mutator& mutator) {
  constexpr std::ptrdiff_t kRoomBytes = 128 << 10;
  const auto* const here = static_cast<const char*>(__builtin_frame_address(0));
  return mutator.never_assist == 0 && Handshake::is_on_stack(mutator, here) &&
         here - mutator.stack.lowest >= kRoomBytes;
}

// It waits already, so it is not among those that run. A sweep that is not done comes before the cycle, and may take long. A large
// stack it captures itself in the stop, beside others.
bool Cycle::gives_its_cpu(const Mutator& mutator) {
  return mutator.never_assist == 0 && !Handshake::has_large_stack(mutator) && x_sweeper.done() &&
         x_cpus.load(std::memory_order_relaxed) != 0 &&
         x_heap.handshake().count_running() + 1 >= x_cpus.load(std::memory_order_relaxed);
}

// Asks for a cycle, unless one that runs will do.
Cycle::Request Cycle::ask_for(Reason reason) {
  const Guard guard(x_lock);
  const std::uint32_t started = x_started.load(std::memory_order_relaxed);
  const bool will_mark =
      is_running() && (!is_past(x_armed.load(std::memory_order_relaxed), started) ||
                       is_marking(x_heap.handshake().epoch()));
  if (reason != Reason::kForced && (will_mark || !x_pacing.at_trigger())) {
    return {started, false, false};  // somebody else's cycle sees to it, or has done so
  }
  const std::uint32_t ticket = started + 1;
  const bool is_new = !x_is_asked.load(std::memory_order_relaxed);
  if (reason == Reason::kForced) {
    x_force_next = true;
    x_heap.packets().set_hurry(true);  // a cycle that marks now is waited for
  }
  if (!start_thread()) return {ticket, is_new, true};
  x_requested = ticket;
  x_is_asked.store(true, std::memory_order_relaxed);
  wake_thread();
  return {ticket, is_new, false};
}

// Starts the collector's thread if there is none. False when the system refuses. x_lock is held.
bool Cycle::start_thread() {
  if (x_has_thread) return true;
  const auto thread = start_library_thread(
      "tricolor gc", [](void* self) { static_cast<Cycle*>(self)->serve(); }, this);
  if (!thread) return false;
  pthread_detach(*thread);
  x_has_thread = true;
  return true;
}

// The collector's thread.
void Cycle::serve() {
  for (;;) {
    let_others_run();
    // Acquire: what was asked for. Pairs with wake_thread (release). Read first, so that no wake is missed.
    const std::uint32_t wakes = x_wakes.load(std::memory_order_acquire);
    std::uint32_t requested = 0;
    {
      const Guard guard(x_lock);
      if (x_end_thread && is_past(x_started.load(std::memory_order_relaxed), x_requested)) {
        x_end_thread = false;
        x_has_thread = false;
        return;
      }
      if (timer_due_in_ns() == 0 && is_past(x_completed.load(std::memory_order_relaxed),
                                            x_started.load(std::memory_order_relaxed))) {
        x_requested = x_started.load(std::memory_order_relaxed) + 1;
        x_timer_next = true;
      }
      requested = x_requested;
    }
    if (!is_past(x_completed.load(std::memory_order_relaxed), requested)) {
      run_until(requested,
                On::own_thread);  // and look again: the end may have been asked for meanwhile
    } else if (!sweep_in_background()) {
      x_pins.pin_apart();
      const std::uint64_t due_ns = std::min(timer_due_in_ns(), scavenge_in_background(wakes));
      // At least a moment: somebody else's cycle may be running, after which the timer starts again.
      os::futex_wait(x_wakes, wakes, std::max<std::uint64_t>(due_ns, 1'000'000));
    }
  }
}

// Nanoseconds until a cycle is due because there has been none for so long; UINT64_MAX when GOGC is off.
std::uint64_t Cycle::timer_due_in_ns() const {
  const Settings& settings = x_heap.settings();
  if (settings.percent.load(std::memory_order_relaxed) < 0) return UINT64_MAX;
  const std::uint64_t at = x_last_end_ns.load(std::memory_order_relaxed) + settings.period_ns;
  const std::uint64_t now = os::now_ns();
  return at > now ? at - now : 0;
}

// Some of what is left to sweep. False when there is nothing.
bool Cycle::sweep_in_background() {
  constexpr std::size_t kSpansAtOnce = 64;
  if (x_phase.now() != Phase::kSweep) return false;
  // So that neither a cycle nor a fork comes in between [fork.quiet]; both wait for a few spans at most.
  const Guard no_cycle(x_run);
  if (!x_sweeper.done()) {
    const CountCpu count(x_numbers.sweep_cpu_ns);
    x_sweeper.sweep_for(PageCount{SIZE_MAX}, kSpansAtOnce);
    return true;
  }
  finish_previous_sweep();
  return false;
}

// A stretch of giving free pages back, if one is due; ends as soon as something else is to do. Returns when the next one is
// due, in nanoseconds from now; UINT64_MAX: when a cycle or the settings have changed what there is to give.
std::uint64_t Cycle::scavenge_in_background(std::uint32_t wakes) {
  const std::uint64_t begin_ns = os::now_ns();
  if (const std::uint64_t due_ns = x_scavenger.due_in_ns(begin_ns); due_ns != 0) return due_ns;
  const std::uint64_t begin_cpu_ns = os::thread_cpu_ns();
  std::uint64_t cpu_ns = 0;
  bool more = true;
  while (more && cpu_ns < ScavengePace::kWorkNs &&
         x_wakes.load(std::memory_order_relaxed) == wakes &&
         x_run_waiters.load(std::memory_order_relaxed) == 0) {
    const Guard no_cycle(x_run);  // as above
    more = x_scavenger.work();
    cpu_ns = os::thread_cpu_ns() - begin_cpu_ns;
  }
  x_scavenger.worked(begin_ns, cpu_ns);
  return x_scavenger.due_in_ns(os::now_ns());
}

void Cycle::release_all(Mutator& mutator) {
  x_heap.handshake().while_blocked(mutator, [this] {
    const HostKeptOut host_kept_out;
    lock_run();
    x_scavenger.release_all(x_heap.settings().scavtrace != 0 ? Scavenger::Trace::kOn
                                                             : Scavenger::Trace::kOff);
    x_run.unlock();
  });
}

void Cycle::wake_thread() {
  x_wakes.fetch_add(1, std::memory_order_release);
  os::futex_wake_all(x_wakes);
}

// Runs cycles until the one with this ticket is complete.
void Cycle::run_until(std::uint32_t ticket, On on) {
  const Guard one_at_a_time(x_run);
  x_on = on;
  while (!is_past(x_completed.load(std::memory_order_relaxed), ticket)) {
    x_heap.handshake().let_waits_go_on();  // who asks meanwhile is served by this cycle, too
    Why why = {};
    {
      const Guard guard(x_lock);
      why.forced = std::exchange(x_force_next, false);
      why.timer = std::exchange(x_timer_next, false);
      x_heap.packets().set_hurry(false);
      x_started.fetch_add(1, std::memory_order_relaxed);
      x_is_asked.store(false, std::memory_order_relaxed);
    }
    run(why);
    if (!x_pins.end_cycle()) {
      for (Segment& segment : x_segments) segment.held_roots = false;
    }
    // Release: the cycle. Pairs with request_and_wait (acquire).
    x_completed.fetch_add(1, std::memory_order_release);
    os::futex_wake_all(x_completed);
  }
}

void Cycle::shut_down(Mutator& mutator) {
  x_heap.handshake().while_blocked(mutator, [this] {
    const HostKeptOut host_kept_out;
    lock_run();
    x_crew.end_helpers();
    {
      const Guard guard(x_lock);
      x_end_thread = x_has_thread;
      if (x_has_thread) wake_thread();
    }
    x_run.unlock();
  });
}

// Takes x_run as soon as the cycle or the few spans that it is held for are done: whoever asks for it again and again
// (serve) lets those pass that wait here, since a lock goes to who is awake.
void Cycle::lock_run() {
  x_heap.packets().set_hurry(true);
  x_run_waiters.fetch_add(1, std::memory_order_relaxed);
  x_run.lock();
  // Release: nothing but the number. Wakes serve.
  if (x_run_waiters.fetch_sub(1, std::memory_order_release) == 1) os::futex_wake_all(x_run_waiters);
}

void Cycle::let_others_run() {
  // Acquire: nothing but the number. Pairs with lock_run, lock_for_fork (release).
  for (std::uint32_t n; (n = x_run_waiters.load(std::memory_order_acquire)) != 0;)
    os::futex_wait(x_run_waiters, n);
}

// A mark may take long, and a fork does not wait for it. (With gcstoptheworld it does: then the stopper holds the registry.)
void Cycle::lock_for_fork() {
  constexpr std::uint64_t kNapNs = 100'000;  // nobody says that x_run is free
  PacketPool& packets = x_heap.packets();
  x_run_waiters.fetch_add(1, std::memory_order_relaxed);
  const bool may_suspend = x_heap.settings().gcstoptheworld == 0;
  if (may_suspend) packets.pause();
  for (;;) {
    const std::uint32_t rests = packets.rests().load(std::memory_order_relaxed);
    x_suspended = false;
    if (x_run.try_lock()) break;
    x_suspended = may_suspend && packets.all_rest();
    if (x_suspended) break;
    os::futex_wait(packets.rests(), rests, kNapNs);
  }
  if (may_suspend && !x_suspended) packets.resume();
  if (x_run_waiters.fetch_sub(1, std::memory_order_release) == 1) os::futex_wake_all(x_run_waiters);
  x_lock.lock();
  x_pins.lock_for_fork();
}

void Cycle::forget_threads(Mutator* survivor) {
  WorkPacket* const work = x_heap.roots().abandon_marking();
  x_pacing.forget_clocks();
  if (x_suspended) abandon_marking(survivor);
  check(x_started.load(std::memory_order_relaxed) == x_completed.load(std::memory_order_relaxed),
        "fork.quiet");
  x_has_thread = false;
  x_end_thread = false;
  x_force_next = false;
  x_timer_next = false;
  x_pins.forget_thread();
  x_is_asked.store(false, std::memory_order_relaxed);
  x_run_waiters.store(0, std::memory_order_relaxed);
  x_waits_to_arm.store(0, std::memory_order_relaxed);
  x_stop_offer.forget();
  for (Segment& segment : x_segments) segment.held_roots = false;  // it may have been about to pin
  x_requested = x_completed.load(std::memory_order_relaxed);
  x_crew.forget_helpers(work);
}

// The coordinator, which is gone, rested in the middle of a mark. What is marked is forgotten; the next cycle begins anew.
void Cycle::abandon_marking(Mutator* survivor) {
  Allocator& allocator = x_heap.allocator();
  allocator.allocate_black.store(false, std::memory_order_relaxed);
  for (Arena* arena = allocator.pages.first_arena(); arena != nullptr;
       arena = arena->next.load(std::memory_order_acquire)) {
    for (std::size_t w = 0; w < arena->heads.size(); ++w) {
      for (std::uint64_t bits = arena->heads[w].load(std::memory_order_acquire); bits != 0;
           bits &= bits - 1)
        clear_marks(arena->records() + w * 64 + static_cast<std::size_t>(std::countr_zero(bits)));
    }
  }
  x_heap.handshake().abandon_marking(survivor);
  x_phase.abandon();
  x_pacing.abandon_cycle();
  x_armed.store(x_completed.load(std::memory_order_relaxed), std::memory_order_relaxed);
  x_started.store(x_completed.load(std::memory_order_relaxed), std::memory_order_relaxed);
  ::new (&x_run) Mutex(LockRank::kRun);  // whoever held it is gone
}

void Cycle::unlock_after_fork() {
  x_pins.unlock_after_fork();
  x_lock.unlock();
  if (x_suspended) {
    x_heap.packets().resume();
  } else {
    x_run.unlock();
  }
}

}  // namespace tricolor::impl
