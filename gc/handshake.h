// Stopping the world and starting it again; the registry of mutators.
//
// The stopper holds the registry's lock from stop() to start(), so no thread joins or leaves meanwhile. The steps of a stop are
// told by the low bits of the stop word:
//
//   arm, end  every running mutator is asked to stop; in a stop that begins a cycle (arm) it returns its claims first. Then,
//             when none runs any more, the stopper captures the stacks of those that have stopped
//   capture   only when there are large stacks to capture: their owners do it, in parallel. (To wake the others, too, would take
//             longer than to do it for them.)
//   run       start()
//
// Invariant [handshake.one-instant]: no stack is captured before every mutator has stopped, none runs before every stack has
//   been captured: the captures are one instant. (A thread may write a reference into another one's frame, so captures
//   taken one after another, each as its thread stops, could miss it in both.)
//
// A mutator stops in one of four ways:
//
//   note      it finds the note that the stopper leaves for all, on its way out of a unit or a critical section, and stops by
//             itself. A thread that is busy with the heap does so within a microsecond
//   signal    who does not find it gets a real-time signal (not in builds where signals are delayed: ThreadSanitizer). The
//             handler finds the thread outside of units and critical sections; everything happens inside the handler
//   signal, note  the handler finds it inside: the note is there
//   waiting, blocked, idle  it is in a wait of the library or inside blocking_call, its frames frozen: nothing to do; it cannot
//             leave before the world runs
//
//   thread, leaving stopped or blocked         stopper
//     S1  state = running                        S2  stop word = arm or end
//     L1  load stop word: not run? go back       L2  load state: not running? it is stopped
//
// Invariant [handshake.dekker]: the four are sequentially consistent, so L1 sees S2 or L2 sees S1: a mutator that the
//   stopper took for stopped finds the stop word not at run before it returns to the program, and goes back without having
//   run. (The stopper remembers how it found each: one that goes back says `running` for a moment.)
// Invariant [handshake.capture-once]: a mutator's capture is written in an arming stop only, once all have stopped, by the
//   stopper; or by its owner, at the step `capture`, when it has stopped on a large stack. Between stop() and start() the
//   collector may read it. Otherwise it is read, emptied, or given another buffer under its turn, by the collector and by its owner,
//   if they find that this epoch's roots in it have been marked or that nobody marks; how large it was, who makes the next stop may
//   read under the registry's lock, as none writes captures then.
// Invariant [handshake.idle]: a mutator that says idle is inside blocking_call and has nothing that a stop has to look at: no
//   claims, no cell under construction, nothing in its log that has not been shaded. It says so itself when that is true as it
//   blocks; else it is blocked, and the stop that has looked at it makes it idle. So threads that stay inside blocking_call cost
//   a stop a look at their seats (seats.h). Their frames are visited after it.
//
// Invariant [handshake.epoch]: the mark epoch changes in a stop only, together with what it stands for in every mutator that
//   is not blocked. A blocked one is brought up to date under its turn, once: by the collector, who visits it (visit), or by
//   itself before it goes on (catch_up). Entering a marking epoch that is: its frames are shaded as they stand and its barrier
//   armed. (Its claims are returned in the arming stop.) So a thread that runs has the barrier on iff a cycle marks.
// Invariant [handshake.turn]: who reads a blocked mutator's frames, marks its roots, or shades from its log holds its turn, and
//   has found that its epoch (its `visited`) is not the present one. A mutator whose epoch is not the present one does not go
//   on before it has had its turn, so those frames are frozen.
// Invariant [handshake.visit]: every mutator's roots are marked once a cycle, after the arming stop, or by itself when it
//   detaches before.
// Invariant [handshake.no-host-lock]: between stop() and start() nothing here or in what runs there allocates from malloc, uses
//   stdio, or calls the loader.
//
// Invariant [handshake.wake]: who sleeps until the stop word changes is woken when it does. It counts itself before it looks at the word
//   once more (the kernel does, before it lets it sleep), and the stopper changes the word before it looks at the count, all of it
//   sequentially consistent: one sees the other. Where nobody sleeps the stopper wakes nobody, which is a system call.
//
// All of that but memory orders, and who sleeps, is modelled in test/model/handshake.pml.
//
// A stop is short as long as nobody sleeps or is interrupted: to wake a thread on an idle CPU, or to signal one that runs on
// another, costs 35 to 50 us each in a virtual machine. So everyone looks for the next step for a while, and yields: the thread
// that is waited for may be waiting for that very CPU.
//
// A thread that sleeps outside of blocking_call is interrupted, and sleeps on for what the kernel says was left: up to the timer slack
// (50 us by default) more than there was. So after a stop that has done this no cycle begins for kApartNs: where cycles followed each
// other at once (a loop of gc::collect()), no sleep ended.
//
// A mutator that does not stop is asked again after 1, 2, 4, ... milliseconds, and after `stopwarn` milliseconds named on
// stderr with the reason (blocked signal, critical section, foreign stack), as often as the time doubles. The stop goes on when
// it comes.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "alloc/base/lock.h"
#include "alloc/base/perturb.h"
#include "barrier/shader.h"
#include "gc/mutator.h"
#include "gc/seats.h"
#include "roots/registers.h"

namespace tricolor::impl {

class Heap;

class Handshake {
 public:
  explicit Handshake(Heap& heap) : x_heap(heap) {}

  // Installs the handler of the stop signal and the thread-exit hook. `signal` 0 chooses a free real-time signal, and so does
  // one that cannot be used, with a line on stderr. False when there is none.
  bool create(int signal, std::uint64_t warn_after_ns);

  // The calling thread's mutator, made if need be; null when memory is refused. Keeps the host's signal mask but for the
  // stop signal, which it unblocks.
  Mutator* attach();
  // Ends it: returns its claims, forgets its stack. The calling thread must be attached.
  void detach(Mutator& mutator);

  // What a stop is for: to begin a cycle, with a capture of every stack, or to end it.
  enum class Purpose : std::uint8_t { arm, end };

  // By the owner, which waits in the library, before a stop that would do it. No other stop comes in between.
  void return_claims(Mutator& mutator);

  // Makes room for captures of stacks that stand deeper than their last one, as far as threads have said so that allocate. Takes some
  // milliseconds, and where one needs a larger buffer a page fault for each 512 words that its last capture kept. The caller is no
  // running mutator, and who makes cycles: the world runs, none marks.
  void make_room_for_captures();

  // Uses what such a stop will use of mutators and of the kernel (rehearsal.h). The caller is no running mutator; the world runs.
  void rehearse(Purpose purpose);

  // Returns when those whose waits the last stop has interrupted have had time to go on with them. By who runs cycles, between two.
  void let_waits_go_on() const;

  // Stops every mutator; the caller is no running mutator. Nobody is stopped before `asked_ns`: until then the caller may have waited
  // for the registry, or for a CPU. (os::now_ns)
  struct Stopped {
    std::uint64_t asked_ns;
    std::uint64_t all_ns;  // the last one has stopped
  };
  Stopped stop(Purpose purpose);
  // Lets all go on. Returns when they could (os::now_ns): who has been woken may take this CPU at once, and from then on what the
  // caller waits for is not the program's pause.
  std::uint64_t start();

  MarkEpoch epoch() const { return x_epoch.load(std::memory_order_acquire); }
  // Begins a marking epoch for all mutators that this stop has captured, or ends one for all. World stopped.
  void next_epoch();

  // While a cycle marks: brings a mutator up to date that has been blocked since before the arming stop: its frames are given to
  // scan(begin, end). The caller holds its turn.
  template <class Scan>
  void visit_frames(Mutator& mutator, Scan scan) {
    if (mutator.epoch.load(std::memory_order_relaxed) == epoch()) return;
    scan(mutator.frozen_top, static_cast<const void*>(mutator.stack.base));
    enter_marking_late(mutator);
  }

  // World running or stopped. Calls fn(mutator) for every mutator in the registry, in its turn; those that come meanwhile may
  // be left out.
  template <class Fn>
  void for_each_in_turn(Fn fn) {
    lock_registry_for_walk();
    x_seats.for_each([&](Mutator& m) { in_turn(m, fn); });
    unlock_registry_for_walk();
  }
  // The same, of those that are not idle.
  template <class Fn>
  void for_each_not_idle_in_turn(Fn fn) {
    lock_registry_for_walk();
    x_seats.for_each_not_idle([&](Mutator& m, MutatorState) { in_turn(m, fn); });
    unlock_registry_for_walk();
  }

  // World stopped.
  template <class Fn>
  void for_each_mutator(Fn fn) {
    x_seats.for_each(fn);
  }
  // Those that this stop concerns, which are all but the idle ones.
  template <class Fn>
  void for_each_in_stop(Fn fn) {
    for (Mutator* m = x_in_stop; m != nullptr; m = m->next_in_stop) fn(*m);
  }
  void settle(Mutator& mutator);

  // A buffer that is far too large for as many words as the last capture kept is replaced. Its turn is held, the world runs, and the
  // capture has been marked: it may be empty afterwards. Without memory it stays as it is.
  void fit_capture(Mutator& mutator);

  // How many neither are blocked nor wait in the library. (They may wait elsewhere, outside of blocking_call.) The caller holds
  // no lock of the registry's rank or above.
  std::size_t count_running();

  // Does one that counts as running wait for the calling thread's CPU, or sleep, having run there last? A hint; false where that is not
  // known. Some microseconds, as a rule. The caller is no running mutator and holds no lock of the registry's rank or above.
  bool keeps_another_from_cpu();

  std::size_t mutator_count() const { return x_count.load(std::memory_order_relaxed); }
  static bool is_on_stack(Mutator& mutator, const void* p);
  // Of one that does not run: so large that its owner captures it, if that is stopped.
  static bool has_large_stack(const Mutator& mutator);
  int signal() const { return x_signal; }

  // fork.h: nobody attaches, detaches, or is inside a critical section of the library but `forking` (null: a thread that is
  // not attached). In the child, in between, only `survivor` is left.
  void lock_for_fork(const Mutator* forking);
  void forget_others(Mutator* survivor);
  // In the child: no cycle marks any more.
  void abandon_marking(Mutator* survivor);
  void unlock_after_fork();

  // Pins the library that `address` lies in [library.pinned]; false when it lies in none (any more). The caller is no running
  // mutator and holds no lock of ours.
  bool pin_library_of(const void* address);

  // The mutator's side. park: at a poll or on the way out of a unit or critical section.
  void park(Mutator& mutator);
  void enter_blocked(Mutator& mutator, void* top, MutatorState state);
  void leave_blocked(Mutator& mutator);

  // Runs fn(), which touches no managed memory and does not throw, while this thread need not be stopped: for the library's
  // own waits. A thread that is blocked already (inside blocking_call) stays so.
  template <class Fn>
  void while_blocked(Mutator& mutator, Fn fn) {
    struct Call {
      Handshake& handshake;
      Mutator& mutator;
      Fn& fn;
    } call{*this, mutator, fn};
    with_spilled_registers(
        [](void* top, void* argument) {
          auto& [self, m, run] = *static_cast<Call*>(argument);
          const bool was_running =
              m.state->load(std::memory_order_relaxed) == MutatorState::running;
          if (was_running) self.enter_blocked(m, top, MutatorState::waiting);
          run();
          if (was_running) self.leave_blocked(m);
        },
        &call);
  }

 private:
  static void on_signal(int signal, siginfo_t* info, void* context);
  static void park_hook(detail::thread_cache& cache);

  // The two low bits of the stop word; the others count stops.
  static constexpr std::uint32_t kRun = 0;
  static constexpr std::uint32_t kEnd = 1;
  static constexpr std::uint32_t kArm = 2;
  static constexpr std::uint32_t kCapture = 3;
  static constexpr std::uint32_t kStepMask = 3;

  bool world_runs() const {
    return (x_stop_word.load(std::memory_order_seq_cst) & kStepMask) == kRun;
  }
  bool look_for_change(const std::atomic<std::uint32_t>& word, std::uint32_t from) const;
  void wait_for_change(std::uint32_t word);
  void sleep_until_change(std::uint32_t word);
  void announce();
  // A stack of which more is used is captured by its owner: to wake it costs less than what two can do side by side gains.
  static constexpr std::size_t kLargeStackBytes = 64 << 10;
  static constexpr int kMostFetched = 4;  // of more, the first would have to be fetched again
  void fetch_capture(const Mutator& mutator);
  void fetch_ahead(Purpose purpose);
  void capture_all();
  static std::size_t buffer_bytes(const StackCapture& capture);
  void map_buffer(const Mutator* mutator, std::size_t begin, std::size_t end);
  void take_larger_buffer(const Mutator* mutator, std::size_t words);
  template <class Fn>
  void in_turn_of(const Mutator* mutator, Fn fn);
  void stay_stopped(Mutator& mutator, const void* top);
  void catch_up(Mutator& mutator);
  void enter_marking_late(Mutator& mutator);
  void flush_log(Mutator& mutator);
  static void flush_log_hook(detail::thread_cache& cache);
  void remove_value_stacks(Mutator& mutator);
  void shade_what_goes(Mutator& mutator);
  void shade_thread_local(const Mutator& mutator, Shader& shader) const;
  template <class Fn>
  void in_turn(Mutator& mutator, Fn& fn) {
    {
      const Guard turn(mutator.turn);
      unlock_registry_for_walk();
      fn(mutator);
    }
    perturb();
    lock_registry_for_walk();  // not with the turn, which detach() takes second
  }
  void lock_registry_for_walk();
  void unlock_registry_for_walk();
  template <class Done>
  void wait_for_mutators(Done is_done);
  static bool has_stopped(Mutator& mutator);
  void rehearse_signal() const;
  void wait_for_noted(std::size_t running);
  void ask(Mutator& mutator);
  static void stop_ended(Mutator& mutator);
  void name_laggards(std::uint64_t waited_ns);
  bool list_tls(Mutator& mutator);
  void free(Mutator& mutator);

  Heap& x_heap;
  int x_signal = 0;
  std::uint64_t x_warn_after_ns = 0;
  pthread_key_t x_exit_key = 0;

  // How many threads ask the loader for their blocks; with kForks none may begin to. Written by them and by who forks.
  std::atomic<std::uint32_t> x_listing{0};
  static constexpr std::uint32_t kForks = 1U << 31;
  Mutex x_registry{LockRank::kRegistry};
  Seats x_seats;                 // guarded by x_registry
  Mutator* x_in_stop = nullptr;  // those that the stop concerns. The stopper's own
  // Mutators that ran or waited inside the library when the stop began. Written by the stopper; relaxed: it only says how long
  // to wait before sleeping.
  std::atomic<std::size_t> x_awake{0};
  std::size_t x_cpus = 1;
  bool x_stopped =
      false;  // between stop() and start(): the stopper holds the registry. The stopper's own
  std::atomic<MarkEpoch> x_epoch{0};  // written in a stop
  std::atomic<std::size_t> x_count{0};

  // A wait has been interrupted that the kernel does not go on with. Written by the handlers; start() looks and clears it. (A handler
  // that comes late is taken for the next stop's.) Relaxed: a hint.
  std::atomic<bool> x_interrupts_waits{false};
  // No cycle is to begin before that (os::now_ns). Written by the stopper, read by who runs cycles; ordered as the stops are.
  std::uint64_t x_next_cycle_ns = 0;

  // Written by the stopper, waited for by those that it has stopped.
  std::atomic<std::uint32_t> x_stop_word{0};
  // Threads that sleep until the stop word changes.
  std::atomic<std::uint32_t> x_asleep{0};
  // Counts what mutators say; the stopper waits for it to change.
  std::atomic<std::uint32_t> x_arrivals{0};
};

}  // namespace tricolor::impl
