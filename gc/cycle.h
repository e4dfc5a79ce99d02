// One collection, as a list of verbs (run()); and who asks for it (collector.cc).
//
// A cycle in this version:
//
//   finish_previous_sweep   allocation bits of this cycle are the mark bits of the last [phase.sweep-ends-first]
//   open                    numbers at the start
//   make_stop(arm)          first stop: the list of segments is up to date; every running mutator has returned its claims and
//                           its stack is captured (handshake.h); barriers and black allocation are on; the world runs again
//   mark_roots              captures and stacks of blocked threads, thread-local storage, segments, registered ranges, handles
//   mark_until_nothing_is_grey  ends in the second stop [cycle.end], make_stop(end), in which start_sweeping() puts barriers and black
//                           allocation off, moves the sweep epoch on, and sets the next goal; the world runs again
//   close                   a forced cycle sweeps to the end; numbers, trace line
//
// With gcstoptheworld=1 the first stop lasts until the second would end.
//
// Invariant [cycle.end]: the second stop ends marking only when nothing is grey: no marker works and no packet is shared
//   [queue.end], nothing is postponed, what is in all write logs has been shaded in that stop, and no handle that went has
//   left something grey. Otherwise the world runs again and marking goes on. When it ends, nothing can become grey any more:
//   every running thread is stopped with an empty log, blocked ones store nothing, and handles do not shade [handles.removal].
//   So that the stop is rarely in vain, logs are shaded beside the program first (the ragged flush) until that finds nothing.
//   Each round marks at least one object of the snapshot, of which there are finitely many.
//
// Requests have tickets. A thread that asks for a collection waits for the first cycle that starts after it asked. A thread that
// finds the heap at its trigger (pacing.h) asks for a cycle. It goes on at once if there is a CPU for the collector. Where as
// many run as there are CPUs it waits, for some milliseconds at most, until the collector has got the cycle ready, and makes its
// first stop, unless another one comes by before it has woken up; the second is made by whoever comes by (stop_offer.h). Who finds
// the heap at its goal and no cycle marks yet (the collector has not had a CPU) waits until one does: from then on it pays. Who
// waits does not run, so stops cost it nothing.
//
// A cycle asks the loader for nothing (roots/loader.h): who waits for the cycle may hold a lock of the loader's, in a library's
// constructor or a callback of dl_iterate_phdr. Libraries in which it has found roots are pinned after it (library_pins.h).
//
// Every cycle runs on the collector's own thread, but for the stops, as said. It starts with the first one. It also sweeps what is left when nothing
// is asked for, gives free pages back to the system when there is nothing to sweep (scavenger.h), and runs a cycle when there
// has been none for two minutes (Go's runtime/proc.go, forcegcperiod). When the system refuses it, the thread that asks runs
// the cycle, with the host kept out (library_thread.h). Threads that force cycles do not run them themselves: one that does so
// in a loop took the locks again before those who waited for them had woken up, and starved threads that attached or left
// blocking_call for seconds.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>

#include <tricolor/stats.h>

#include "alloc/base/lock.h"
#include "gc/handshake.h"
#include "gc/library_pins.h"
#include "gc/mark_crew.h"
#include "gc/mutator.h"
#include "gc/pacing.h"
#include "gc/phase.h"
#include "gc/scavenger.h"
#include "gc/stats.h"
#include "gc/stop_offer.h"
#include "gc/sweeper.h"
#include "roots/segments.h"

namespace tricolor::impl {

class Heap;

class Cycle {
 public:
  explicit Cycle(Heap& heap);

  // False when memory is refused.
  bool create();

  // A complete cycle that starts after the call; waits for its end.
  void collect(Mutator& mutator);

  // Asks for a cycle if the heap has reached its trigger, and waits until it marks if it has reached its goal. To be called
  // where the mutator has no cell chosen and not constructed.
  void collect_if_due(Mutator& mutator) {
    if (!x_pacing.at_trigger()) return;
    collect_when_due(mutator);
  }

  // Gives all free memory back to the system.
  void release_all(Mutator& mutator);

  // Ends the collector's thread once it is idle, and the markers' threads; the next cycle starts them again.
  void shut_down(Mutator& mutator);

  // fork.h: no cycle runs, or all its markers rest; none is asked for. In the child, in between, the library's threads and
  // those that waited are gone, and a cycle that was marking is given up.
  void lock_for_fork();
  void forget_threads(Mutator* survivor);
  void unlock_after_fork();

  // After a change of the settings.
  void settings_changed();
  // The goal is made of the least memory that has been held outside since the last cycle (pacer.h).
  void less_held_outside();

  // That the process may use, in this cycle. The collector's side.
  std::uint32_t cpus() const { return x_record.processors_count; }

  // os::now_ns() at the last rehearsal of such a stop. The collector's own, and of tests.
  std::uint64_t rehearsed_ns(Handshake::Purpose purpose) const {
    return x_rehearsed_ns[static_cast<std::size_t>(purpose)];
  }

  // For tests.
  const StopOffer& stop_offer() const { return x_stop_offer; }

  Sweeper& sweeper() { return x_sweeper; }
  Scavenger& scavenger() { return x_scavenger; }
  MarkCrew& crew() { return x_crew; }
  Pacing& pacing() { return x_pacing; }
  // Is there something to sweep, or will there be in a moment? Any thread.
  SweepState sweep_state() const;
  // Ever, of the collector's own sweeping. Any thread.
  std::uint64_t sweep_cpu_ns() const {
    return x_numbers.sweep_cpu_ns.load(std::memory_order_relaxed);
  }
  void add_to(statistics& out) const;

 private:
  enum class Reason : std::uint8_t { kTrigger, kGoal, kForced };

  struct Request {
    std::uint32_t ticket;
    bool is_new;   // nobody had asked
    bool is_mine;  // the one that asked runs the cycle
  };

  bool is_running() const;
  void collect_when_due(Mutator& mutator);
  void request_and_wait(Mutator& mutator, Reason reason);
  Request ask_for(Reason reason);
  bool gives_its_cpu(const Mutator& mutator);
  bool start_thread();
  void serve();
  void wake_thread();
  std::uint64_t timer_due_in_ns() const;
  bool sweep_in_background();
  std::uint64_t scavenge_in_background(std::uint32_t wakes);
  void lock_run();
  void let_others_run();
  void abandon_marking(Mutator* survivor);
  enum class On : std::uint8_t { own_thread, thread_of_program };
  void run_until(std::uint32_t ticket, On on);
  std::size_t most_markers() const;
  CycleKind kind() const;

  struct Why {
    bool forced;  // somebody has asked for it, and waits
    bool timer;   // there has been none for long
  };

  void follow_change();
  void run(Why why);
  void finish_previous_sweep();
  void open(Why why);
  bool make_stop(Handshake::Purpose purpose);
  OfferedTo offers(Handshake::Purpose purpose);
  void make_stop_here(Handshake::Purpose purpose);
  enum class Leaves : std::uint8_t { no, where_another_lacks_cpu };
  bool take_stop(Mutator& mutator, Handshake::Purpose purpose, Leaves leaves);
  static bool may_make_stops(Mutator& mutator);
  void wait_to_arm(Mutator& mutator, std::uint32_t ticket, bool may_take);
  void begin_share();
  void end_share();
  static bool flushes_first();
  bool arm();
  bool end();
  void tell_armed();
  void give_up();
  void rehearse(Handshake::Purpose purpose);
  void fetch(Handshake::Purpose purpose);
  CycleStart start_of_cycle() const;
  void start_pacing();
  void report_root_work();
  std::optional<std::uint64_t> stop_with_all_segments();
  void keep_constructions();
  void mark_roots();
  void mark_ranges();
  void mark_mutator(Mutator& mutator);
  void mark_segment(Segment& segment);
  bool may_be_closed(const Segment& segment) const;
  void mark_through_kernel(const char* begin, const char* end);
  void mark_until_nothing_is_grey();
  bool shade_logs();
  bool end_marking();
  void start_sweeping();
  void end_pacing();
  CycleEnd end_of_cycle() const;
  std::uint64_t gc_cpu_ns() const;
  void plan_workers();
  void close();
  void count_stop(std::uint64_t stop_ns);
  void count_pause(Histogram& which, std::uint64_t pause_ns);
  void count_pause_in_vain(Histogram& which, std::uint64_t pause_ns);

  Heap& x_heap;
  SegmentList x_segments;
  Sweeper x_sweeper;
  Scavenger x_scavenger;
  PhaseMachine x_phase;
  MarkCrew x_crew;
  LibraryPins x_pins;
  std::array<std::uint64_t, 2> x_rehearsed_ns = {};  // when, for each purpose
  static constexpr std::size_t kCopyBytes = 64 << 10;
  char* x_copy = nullptr;  // what the kernel has read for mark_through_kernel

  Mutex x_run{LockRank::kRun};  // held for the whole of a cycle
  bool x_suspended = false;     // by a thread that forks, which does not hold x_run then

  std::atomic<std::uint32_t> x_run_waiters{0};  // that the collector's thread lets pass

  // Requests. Tickets are compared by difference, so they may wrap.
  Mutex x_lock{LockRank::kCycle};
  bool x_force_next = false;      // guarded by x_lock
  bool x_timer_next = false;      // guarded by x_lock
  bool x_has_thread = false;      // guarded by x_lock
  bool x_end_thread = false;      // guarded by x_lock
  std::uint32_t x_requested = 0;  // guarded by x_lock
  std::atomic<bool> x_is_asked{
      false};  // and no cycle has started since; a hint, written under x_lock
  std::atomic<std::uint32_t> x_wakes{0};    // the collector's thread waits for it to change
  std::atomic<std::uint32_t> x_started{0};  // written under x_lock
  std::atomic<std::uint32_t> x_armed{
      0};  // has begun to mark, or will not; written by who makes the first stop, waited for at the goal and at the trigger
  std::atomic<std::uint32_t> x_completed{
      0};  // written by the collector; waited for by those who asked

  // os::now_ns() at the end of the last cycle: for the timer. Written by who runs a cycle.
  std::atomic<std::uint64_t> x_last_end_ns{0};

  // That the process may use, as of the last cycle; 0 before the first. A hint; written by who runs a cycle.
  std::atomic<std::uint32_t> x_cpus{0};

  Pacing x_pacing;
  double x_quota_cpus =
      -1;  // CPU time for each time on the clock; 0: no quota; below: not read yet. The collector's own

  // Who makes stops.
  StopOffer x_stop_offer;
  OfferPatience x_offer_patience;  // the collector's own
  // Threads that give their CPU and make the first. A hint.
  std::atomic<std::uint32_t> x_waits_to_arm{0};
  bool x_stop_result = false;  // of whose it has been [stop.one-maker]

  // The cycle that runs; of the collector's thread and who makes a stop for it.
  CycleRecord x_record;
  On x_on = On::own_thread;
  bool x_beside_the_program = false;
  Why x_why = {};
  double x_share = 1;                      // of a CPU, for the coordinator
  bool x_may_use_spare = false;            // and more when a CPU is spare
  std::uint64_t x_share_begin_cpu_ns = 0;  // of its thread
  std::uint64_t x_coordinator_cpu_ns = 0;  // for marking, in this cycle
  std::uint64_t x_assist_cpu_ns_before = 0;
  std::uint64_t x_reported_root_bytes = 0;
  std::uint64_t x_longest_pause_ns = 0;
  std::uint64_t x_begin_ns = 0;       // the request of the first stop
  std::uint64_t x_armed_ns = 0;       // the world runs again, or would
  std::uint64_t x_marked_ns = 0;      // the request of the last stop
  std::uint64_t x_stopped_bytes = 0;  // marked while the world was stopped
  std::uint64_t x_stack_bytes = 0;
  std::uint64_t x_globals_bytes = 0;

  // Published numbers: written by the collector at the end of a cycle, read by stats().
  struct Published {
    std::atomic<std::uint64_t> cycles{0}, forced{0}, marked_bytes{0}, marked_objects{0},
        heap_work_bytes{0}, conservative_cells{0}, stack_bytes{0}, globals_bytes{0},
        pause_ns_last{0}, pause_ns_max{0}, pause_ns_total{0}, stop_ns_last{0}, stop_ns_max{0},
        mark_ns_last{0}, mark_ns_total{0}, marked_bytes_total{0}, stopped_bytes_total{0},
        dedicated_cpu_ns{0}, fractional_cpu_ns{0}, idle_cpu_ns{0}, pause_cpu_ns{0}, sweep_cpu_ns{0};
    Histogram pauses, stops, first_pauses, last_pauses;
  } x_numbers;
};

}  // namespace tricolor::impl
