#include "gc/cycle.h"

#include <pthread.h>

#include <algorithm>
#include <new>
#include <utility>

#include "alloc/base/check.h"
#include "alloc/base/os.h"
#include "gc/heap.h"
#include "gc/library_thread.h"
#include "gc/pacer.h"

namespace tricolor::impl {

namespace {

bool reached(std::uint32_t counter, std::uint32_t ticket) {
  return static_cast<std::int32_t>(counter - ticket) >= 0;
}

}  // namespace

Cycle::Cycle(Heap& heap)
    : x_heap(heap),
      x_segments(heap.allocator().metadata),
      x_sweeper(heap.allocator()),
      x_crew(heap.allocator()),
      x_goal_bytes(kNoGoal) {}

bool Cycle::create() {
  Metadata& metadata = x_heap.allocator().metadata;
  x_copy = static_cast<char*>(metadata.take(kCopyBytes));
  if (x_copy == nullptr ||
      !x_crew.create(x_heap.settings().tinybuffers != 0 ? 4 : WorkPacket::kEntries)) {
    return false;
  }
  x_last_end_ns.store(os::now_ns(), std::memory_order_relaxed);
  reset_goal();
  return true;
}

// ---- the cycle

void Cycle::run(bool forced) {
  finish_previous_sweep();
  open(forced);
  if (!stop_the_world()) return;
  mark_roots();
  mark_until_nothing_is_grey();
  start_sweeping();
  close();
}

void Cycle::finish_previous_sweep() {
  x_sweeper.finish();
  if (x_phase.now() == Phase::kSweep) x_phase.advance(Phase::kSweep, Phase::kOff);
}

void Cycle::open(bool forced) {
  x_crew.begin(markers_wanted(), {[](void* self, const void* cell) {
                                    return static_cast<Cycle*>(self)->is_under_construction(cell);
                                  },
                                  this});
  x_stack_bytes = 0;
  x_globals_bytes = 0;
  x_record = {};
  x_record.number = x_numbers.cycles.load(std::memory_order_relaxed) + 1;
  x_record.forced = forced;
  x_record.goal_bytes = goal_bytes();
  x_record.processors_count = os::cpu_count();
}

std::size_t Cycle::markers_wanted() const {
  // Less than this is marked in the time that a thread takes to wake up.
  constexpr std::int64_t kBytesAMarker = 2 << 20;
  const std::int64_t live = x_heap.allocator().live_bytes.load(std::memory_order_relaxed);
  const int most = x_heap.settings().workers;
  return std::min<std::size_t>(
      most != 0 ? static_cast<std::size_t>(most) : os::cpu_count(),
      static_cast<std::size_t>(1 + std::max<std::int64_t>(0, live) / kBytesAMarker));
}

// With a complete list of segments: false when memory for it is refused, and nothing is stopped.
bool Cycle::stop_the_world() {
  x_phase.advance(Phase::kOff, Phase::kStopping);
  std::uint64_t stop_ns = 0;
  for (;;) {
    if (!x_segments.update()) {
      x_crew.finish();
      x_crew.close();
      x_last_end_ns.store(os::now_ns(), std::memory_order_relaxed);  // the timer tries again, later
      x_phase.advance(Phase::kStopping, Phase::kOff);
      return false;
    }
    x_begin_ns = os::now_ns();
    stop_ns = x_heap.handshake().stop();
    // A library opened since the list was made may hold roots. It stays open or another one comes: each time round a
    // thread has opened one, so this ends when the program stops doing that.
    if (!x_segments.may_be_outdated()) break;
    x_heap.handshake().start();
  }
  x_numbers.stop_ns_last.store(stop_ns, std::memory_order_relaxed);
  x_phase.advance(Phase::kStopping, Phase::kMark);
  x_stopped_ns = os::now_ns();
  x_record.heap_start_bytes = static_cast<std::uint64_t>(
      std::max<std::int64_t>(0, x_heap.allocator().live_bytes.load(std::memory_order_relaxed)));
  return true;
}

void Cycle::mark_roots() {
  Handshake& handshake = x_heap.handshake();
  // Invariant [cell.construction]: a cell whose constructor has not returned is marked before anything else can find it, so
  // that it is never queued and its trace function never called.
  const auto for_each_construction = [&](void (Marker::*visit)(const void*)) {
    handshake.for_each_mutator([&](Mutator& m) {
      for (const detail::construction* c = m.constructing; c != nullptr; c = c->outer) {
        if (c->cell != nullptr) (x_crew.coordinator().*visit)(c->cell);
      }
    });
  };
  for_each_construction(&Marker::keep_construction);
  for_each_construction(&Marker::scan_construction);
  handshake.for_each_mutator([this](Mutator& m) { mark_mutator(m); });
  for (Segment& segment : x_segments) {
    const std::uint64_t before = x_crew.coordinator().words_found();
    mark_through_kernel(segment.begin, segment.end);
    if (segment.may_go && !segment.held_roots && x_crew.coordinator().words_found() != before &&
        x_to_pin_count < x_to_pin.size()) {
      x_to_pin[x_to_pin_count++] = segment.begin;
      segment.held_roots = true;
    }
  }
  x_heap.roots().for_each([this](void* word) {
    x_globals_bytes += sizeof word;
    x_crew.coordinator().mark_word(reinterpret_cast<std::uintptr_t>(word));
  });
}

bool Cycle::is_under_construction(const void* cell) {
  bool found = false;
  x_heap.handshake().for_each_mutator([&](Mutator& m) {
    for (const detail::construction* c = m.constructing; c != nullptr; c = c->outer)
      found |= c->cell == cell;
  });
  return found;
}

void Cycle::mark_mutator(Mutator& mutator) {
  const StackCapture& capture = mutator.capture;
  x_stack_bytes += capture.stack_bytes();
  if (capture.complete()) {
    for (const std::uintptr_t word : capture) x_crew.coordinator().mark_word(word);
  } else {
    x_crew.coordinator().mark_range(
        reinterpret_cast<const void*>(
            round_up(reinterpret_cast<std::uintptr_t>(capture.top()), sizeof(void*))),
        capture.base());
  }
  for (const TlsBlocks::Block& block : mutator.tls) {
    if (block.may_vanish) {
      mark_through_kernel(block.begin, block.end);
    } else {
      x_globals_bytes += static_cast<std::size_t>(block.end - block.begin);
      x_crew.coordinator().mark_range(block.begin, block.end);
    }
  }
}

// Memory that may be gone, or of which pages may be inaccessible: the kernel reads it for us, a piece at a time.
void Cycle::mark_through_kernel(const char* begin, const char* end) {
  x_globals_bytes += static_cast<std::size_t>(end - begin);
  const std::size_t page = os::kernel_page_bytes();
  while (begin < end) {
    const std::size_t wanted = std::min(kCopyBytes, static_cast<std::size_t>(end - begin));
    const std::size_t got =
        os::read_maybe_unmapped(x_copy, begin, wanted) / sizeof(void*) * sizeof(void*);
    x_crew.coordinator().mark_range(x_copy, x_copy + got);
    begin += got;
    if (got + sizeof(void*) <= wanted) {  // the page after it cannot be read: go on behind it
      begin = reinterpret_cast<const char*>(
          round_up(reinterpret_cast<std::uintptr_t>(begin) + 1, page));
    } else if (got < wanted) {
      return;  // less than a word is left
    }
  }
}

void Cycle::mark_until_nothing_is_grey() {
  x_crew.finish();
  x_marked_ns = os::now_ns();
}

void Cycle::start_sweeping() {
  Allocator& allocator = x_heap.allocator();
  x_record.heap_end_bytes = x_record.heap_start_bytes;  // nobody allocated meanwhile
  x_record.heap_marked_bytes = x_crew.marked_bytes();
  x_record.stacks_bytes = x_stack_bytes;
  x_record.globals_bytes = x_globals_bytes;
  x_numbers.marked_bytes.store(x_crew.marked_bytes(), std::memory_order_relaxed);
  x_numbers.marked_objects.store(x_crew.marked_objects(), std::memory_order_relaxed);
  x_numbers.conservative_cells.store(x_crew.conservative_cells(), std::memory_order_relaxed);
  x_numbers.stack_bytes.store(x_stack_bytes, std::memory_order_relaxed);
  x_numbers.globals_bytes.store(x_globals_bytes, std::memory_order_relaxed);

  allocator.live_bytes.store(static_cast<std::int64_t>(x_crew.marked_bytes()),
                             std::memory_order_relaxed);
  // Relaxed: start() publishes it to the mutators.
  allocator.sweep_epoch.fetch_add(1, std::memory_order_relaxed);
  for (std::uint32_t id = 1; id < allocator.kinds.count(); ++id)
    allocator.kinds[id].central.reset();
  x_sweeper.arm();
  reset_goal();
  x_phase.advance(Phase::kMark, Phase::kSweep);
  if (x_heap.settings().gcstoptheworld == 2) x_sweeper.finish();
  x_heap.handshake().start();
}

void Cycle::close() {
  const std::uint64_t end_ns = os::now_ns();
  const std::uint64_t pause_ns = end_ns - x_begin_ns;
  if (x_record.forced) finish_previous_sweep();
  release_surplus();
  x_crew.close();

  const auto add = [](std::atomic<std::uint64_t>& to, std::uint64_t n) {
    to.fetch_add(n, std::memory_order_relaxed);
  };
  const auto raise = [](std::atomic<std::uint64_t>& to, std::uint64_t n) {
    if (n > to.load(std::memory_order_relaxed)) to.store(n, std::memory_order_relaxed);
  };
  add(x_numbers.cycles, 1);
  if (x_record.forced) add(x_numbers.forced, 1);
  x_last_end_ns.store(end_ns, std::memory_order_relaxed);
  x_numbers.pauses.count(pause_ns);
  x_numbers.stops.count(x_numbers.stop_ns_last.load(std::memory_order_relaxed));
  x_numbers.pause_ns_last.store(pause_ns, std::memory_order_relaxed);
  add(x_numbers.pause_ns_total, pause_ns);
  raise(x_numbers.pause_ns_max, pause_ns);
  raise(x_numbers.stop_ns_max, x_numbers.stop_ns_last.load(std::memory_order_relaxed));
  x_numbers.mark_ns_last.store(x_marked_ns - x_stopped_ns, std::memory_order_relaxed);
  add(x_numbers.mark_ns_total, x_marked_ns - x_stopped_ns);
  add(x_numbers.cpu_ns_total, pause_ns * x_record.processors_count);
  if (x_heap.settings().gctrace == 0) return;

  const std::uint64_t since_init_ns = end_ns - x_heap.begin_ns();
  x_record.start_ns = x_begin_ns - x_heap.begin_ns();
  x_record.gc_cpu_percent = static_cast<std::uint32_t>(
      100 * x_numbers.cpu_ns_total.load(std::memory_order_relaxed) /
      std::max<std::uint64_t>(1, since_init_ns * x_record.processors_count));
  x_record.first_stop_clock_ns = x_stopped_ns - x_begin_ns;
  x_record.mark_clock_ns = x_marked_ns - x_stopped_ns;
  x_record.last_stop_clock_ns = end_ns - x_marked_ns;
  x_record.first_stop_cpu_ns = x_record.first_stop_clock_ns * x_record.processors_count;
  x_record.worker_cpu_ns = x_record.mark_clock_ns * x_crew.markers();
  x_record.last_stop_cpu_ns = x_record.last_stop_clock_ns * x_record.processors_count;
  print_trace(x_record);
}

// Free pages beyond what the heap may grow to, and a tenth, go back to the system (Go's scavenger has the same target).
void Cycle::release_surplus() {
  PageHeap& pages = x_heap.allocator().pages;
  const std::uint64_t goal = goal_bytes();
  const std::uint64_t kept = std::max<std::uint64_t>(pages.in_use_bytes(), goal + goal / 10);
  const std::uint64_t ready = pages.ready_bytes();
  if (ready > kept) pages.release(pages_for(ready - kept));
}

// ---- when

bool Cycle::due() const {
  return x_heap.allocator().live_bytes.load(std::memory_order_relaxed) >=
         static_cast<std::int64_t>(goal_bytes());
}

void Cycle::reset_goal() {
  const Allocator& allocator = x_heap.allocator();
  const Settings& settings = x_heap.settings();
  PacerInput in;
  in.marked_bytes = x_numbers.marked_bytes.load(std::memory_order_relaxed);
  in.stack_bytes = x_numbers.stack_bytes.load(std::memory_order_relaxed);
  in.globals_bytes = x_numbers.globals_bytes.load(std::memory_order_relaxed);
  in.percent = settings.percent.load(std::memory_order_relaxed);
  in.min_heap_bytes = settings.min_heap_bytes.load(std::memory_order_relaxed);
  in.memory_limit_bytes = settings.memory_limit_bytes.load(std::memory_order_relaxed);
  const std::uint64_t cells = allocator.allocated_bytes.load(std::memory_order_relaxed) -
                              allocator.freed_bytes.load(std::memory_order_relaxed);
  const std::uint64_t in_use = allocator.pages.in_use_bytes();
  in.non_heap_bytes = allocator.metadata.mapped_bytes() + allocator.pages.metadata_bytes() +
                      (in_use > cells ? in_use - cells : 0);
  // Relaxed: a number that others act on a little later.
  x_goal_bytes.store(heap_goal_bytes(in), std::memory_order_relaxed);
}

void Cycle::settings_changed() {
  reset_goal();
  wake_thread();  // the timer may be due
}

// ---- requests

void Cycle::collect(Mutator& mutator) { request_and_wait(mutator, Reason::kForced); }

[[gnu::noinline]] void Cycle::collect_when_due(Mutator& mutator) {
  // Inside gc::critical the world cannot be stopped; the next allocation outside sees to it.
  if (mutator.critical_depth.load(std::memory_order_relaxed) != 0) return;
  request_and_wait(mutator, Reason::kGoal);
}

void Cycle::request_and_wait(Mutator& mutator, Reason reason) {
  x_heap.handshake().while_blocked(mutator, [&] {
    const Request request = ask_for(reason);
    if (request.is_mine) {
      const HostKeptOut host_kept_out;
      run_until(request.ticket);
    }
    for (;;) {
      // Acquire: the cycle's work. Pairs with run_until (release).
      const std::uint32_t completed = x_completed.load(std::memory_order_acquire);
      if (reached(completed, request.ticket)) break;
      os::futex_wait(x_completed, completed);
    }
    if (reason == Reason::kForced) pin_libraries();
  });
}

// Asks for a cycle, unless one that runs will do.
Cycle::Request Cycle::ask_for(Reason reason) {
  const Guard guard(x_lock);
  const std::uint32_t started = x_started.load(std::memory_order_relaxed);
  const bool runs = x_completed.load(std::memory_order_acquire) != started;
  if (reason == Reason::kGoal && (runs || !due())) {
    return {started, false};  // somebody else's cycle sees to it, or has done so
  }
  const std::uint32_t ticket = started + 1;
  if (reason == Reason::kForced) x_force_next = true;
  if (!start_thread()) return {ticket, true};
  x_requested = ticket;
  wake_thread();
  return {ticket, false};
}

// x_run is held: what the cycle has found becomes everybody's.
void Cycle::give_out_pins() {
  const Guard guard(x_lock);
  while (x_to_pin_count != 0 && x_pins_count < x_pins.size())
    x_pins[x_pins_count++] = x_to_pin[--x_to_pin_count];
}

// Two threads may be at it. An address stays in the list until it is done, so that who finds none left knows that all are.
void Cycle::pin_libraries() {
  for (;;) {
    const void* in_library = nullptr;
    {
      const Guard guard(x_lock);
      if (x_pins_count == 0) return;
      in_library = x_pins[x_pins_count - 1];
    }
    x_heap.handshake().pin_library_of(in_library);
    const Guard guard(x_lock);
    const auto end = x_pins.begin() + static_cast<std::ptrdiff_t>(x_pins_count);
    if (const auto at = std::find(x_pins.begin(), end, in_library); at != end) {
      *at = x_pins[--x_pins_count];
    }
  }
}

void Cycle::pin_libraries_apart() {
  {
    const Guard guard(x_lock);
    if (x_pins_count == 0 || x_has_pin_thread) return;
    x_has_pin_thread = true;
  }
  const auto thread = start_library_thread(
      "tricolor pin",
      [](void* cycle) {
        Cycle& self = *static_cast<Cycle*>(cycle);
        self.pin_libraries();
        const Guard guard(self.x_lock);
        self.x_has_pin_thread = false;
      },
      this);
  if (thread) {
    pthread_detach(*thread);
  } else {
    const Guard guard(x_lock);
    x_has_pin_thread = false;  // after the next cycle, then
  }
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
      if (x_end_thread && reached(x_started.load(std::memory_order_relaxed), x_requested)) {
        x_end_thread = false;
        x_has_thread = false;
        return;
      }
      if (timer_due_in_ns() == 0 && reached(x_completed.load(std::memory_order_relaxed),
                                            x_started.load(std::memory_order_relaxed))) {
        x_requested = x_started.load(std::memory_order_relaxed) + 1;
      }
      requested = x_requested;
    }
    if (!reached(x_completed.load(std::memory_order_relaxed), requested)) {
      run_until(requested);  // and look again: the end may have been asked for meanwhile
    } else if (!sweep_in_background()) {
      pin_libraries_apart();
      // At least a moment: somebody else's cycle may be running, after which the timer starts again.
      os::futex_wait(x_wakes, wakes, std::max<std::uint64_t>(timer_due_in_ns(), 1'000'000));
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

// Some of what is left to sweep. False when there is nothing; what it has freed beyond the goal has then gone back to the
// system.
bool Cycle::sweep_in_background() {
  constexpr std::size_t kSpansAtOnce = 64;
  if (x_phase.now() != Phase::kSweep) return false;
  // So that neither a cycle nor a fork comes in between [fork.quiet]; both wait for a few spans at most.
  const Guard no_cycle(x_run);
  if (!x_sweeper.done()) {
    x_sweeper.sweep_for(PageCount{SIZE_MAX}, kSpansAtOnce);
    return true;
  }
  finish_previous_sweep();
  release_surplus();
  return false;
}

void Cycle::release_all(Mutator& mutator) {
  x_heap.handshake().while_blocked(mutator, [this] {
    const HostKeptOut host_kept_out;
    lock_run();
    x_heap.allocator().pages.release(PageCount{SIZE_MAX});
    x_run.unlock();
  });
}

void Cycle::wake_thread() {
  x_wakes.fetch_add(1, std::memory_order_release);
  os::futex_wake_all(x_wakes);
}

// Runs cycles until the one with this ticket is complete.
void Cycle::run_until(std::uint32_t ticket) {
  const Guard one_at_a_time(x_run);
  while (!reached(x_completed.load(std::memory_order_relaxed), ticket)) {
    bool forced = false;
    {
      const Guard guard(x_lock);
      forced = std::exchange(x_force_next, false);
      x_started.fetch_add(1, std::memory_order_relaxed);
    }
    run(forced);
    give_out_pins();
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
  x_run_waiters.fetch_add(1, std::memory_order_relaxed);
  x_run.lock();
  // Release: nothing but the number. Wakes serve.
  if (x_run_waiters.fetch_sub(1, std::memory_order_release) == 1) os::futex_wake_all(x_run_waiters);
}

void Cycle::let_others_run() {
  for (std::uint32_t n; (n = x_run_waiters.load(std::memory_order_acquire)) != 0;)
    os::futex_wait(x_run_waiters, n);
}

void Cycle::lock_for_fork() {
  lock_run();
  x_lock.lock();
}

void Cycle::forget_threads() {
  check(x_started.load(std::memory_order_relaxed) == x_completed.load(std::memory_order_relaxed),
        "fork.quiet");
  x_has_thread = false;
  x_end_thread = false;
  x_force_next = false;
  x_has_pin_thread = false;
  x_run_waiters.store(0, std::memory_order_relaxed);
  for (Segment& segment : x_segments) segment.held_roots = false;  // it may have been about to pin
  x_requested = x_completed.load(std::memory_order_relaxed);
  x_crew.forget_helpers();
}

void Cycle::unlock_after_fork() {
  x_lock.unlock();
  x_run.unlock();
}

void Cycle::add_to(statistics& out) const {
  const auto read = [](const std::atomic<std::uint64_t>& n) {
    return n.load(std::memory_order_relaxed);
  };
  out.cycles_total = read(x_numbers.cycles);
  out.cycles_forced = read(x_numbers.forced);
  out.heap_marked_bytes = read(x_numbers.marked_bytes);
  out.heap_goal_bytes = goal_bytes();
  out.marked_objects_count = read(x_numbers.marked_objects);
  out.conservative_cells_count = read(x_numbers.conservative_cells);
  out.stacks_scanned_bytes = read(x_numbers.stack_bytes);
  out.globals_scanned_bytes = read(x_numbers.globals_bytes);
  out.pause_ns_last = read(x_numbers.pause_ns_last);
  out.pause_ns_max = read(x_numbers.pause_ns_max);
  out.pause_ns_total = read(x_numbers.pause_ns_total);
  out.stop_ns_last = read(x_numbers.stop_ns_last);
  out.stop_ns_max = read(x_numbers.stop_ns_max);
  out.mark_ns_last = read(x_numbers.mark_ns_last);
  out.mark_ns_total = read(x_numbers.mark_ns_total);
  out.gc_cpu_ns_total = read(x_numbers.cpu_ns_total);
  x_numbers.pauses.read(out.pauses);
  x_numbers.stops.read(out.stops);
}

}  // namespace tricolor::impl
