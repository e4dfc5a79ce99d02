#include "gc/handshake.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "alloc/base/check.h"
#include "alloc/base/fault.h"
#include "alloc/base/log.h"
#include "alloc/base/os.h"
#include "alloc/base/perturb.h"
#include "alloc/base/sanitizer.h"
#include "alloc/base/stop_code.h"
#include "gc/fork.h"
#include "gc/heap.h"
#include "gc/library_thread.h"
#include "roots/libraries.h"
#include "roots/registers.h"

namespace tricolor::impl {

namespace {

constexpr std::uint64_t kAskAgainNs = 1'000'000;
// A thread that is busy with the heap finds the note of a stop within a microsecond. A signal to a thread on another CPU is an
// interrupt there, which costs the sender up to 50 us in a virtual machine: so those that need one get it after this time.
// (Nobody is to get this CPU before all have been asked: where threads compute and do not use the heap, one has it for 3 ms then.)
constexpr std::uint64_t kNotedNs = 5'000;
constexpr int kLooks = 100;  // a few microseconds
// From a stop that has interrupted a wait to the next cycle. Each of a cycle's two stops costs who sleeps the kernel's timer slack and
// what it takes to fall asleep again, some 100 us.
constexpr std::uint64_t kApartNs = 500'000;
// 0.1 ms or more: what it costs to put a thread to sleep and to wake it on a CPU that has gone to sleep, in a virtual machine.
constexpr int kTurnsBeforeSleep = 200;
constexpr int kLooksATurn = 32;

// Words that a capture has room for with tinybuffers=1, and no more ever.
constexpr std::size_t kTinyCapture = 4;

// pthread_cancel's signal, which the C library leaves out of every set that it fills. At a cancellation point it cancels at once,
// also when our handler is on top: a stopped thread would run its destructors. Now it comes when the handler returns. (The other
// one of the kind, by which setuid() reaches every thread, unwinds nothing.)
void block_cancellation(sigset_t& mask) {
  constexpr int kCancel = 32;
  unsigned long word = 0;
  std::memcpy(&word, &mask, sizeof word);
  word |= 1UL << (kCancel - 1);
  std::memcpy(&mask, &word, sizeof word);
}

// Where glibc's own use of real-time signals ends; from there on the first that nobody handles is ours.
bool is_free(int signal) {
  struct sigaction now;
  return sigaction(signal, nullptr, &now) == 0 && (now.sa_flags & SA_SIGINFO) == 0 &&
         now.sa_handler == SIG_DFL;
}

int choose_signal() {
  for (int signal = SIGRTMAX - 2; signal > SIGRTMIN; --signal) {
    if (is_free(signal)) return signal;
  }
  return 0;
}

}  // namespace

std::size_t Handshake::buffer_bytes(const StackCapture& capture) {
  return std::max(capture.capacity(), StackCapture::kCapacity) * sizeof(std::uintptr_t);
}

TRICOLOR_STOP_CODE bool Handshake::has_large_stack(const Mutator& mutator) {
  return static_cast<std::size_t>(mutator.stack.base -
                                  static_cast<const char*>(mutator.frozen_top)) > kLargeStackBytes;
}

bool Handshake::create(int signal, std::uint64_t warn_after_ns) {
  x_warn_after_ns = warn_after_ns;
  x_cpus = os::cpu_count();
  if (pthread_key_create(&x_exit_key, [](void* mutator) {
        auto& m = *static_cast<Mutator*>(mutator);
        m.heap.handshake().detach(m);
      }) != 0) {
    return false;
  }
  x_signal = signal;
  if (signal == 0 || signal == SIGKILL || signal == SIGSTOP || !is_free(signal)) {
    x_signal = choose_signal();
    if (x_signal == 0) return false;
    if (signal != 0) {
      LineBuffer<160> line;
      line.text("tricolor: signal=")
          .number(signal)
          .text(" is taken or cannot be caught; signal ")
          .number(x_signal);
      log_line(line.text(" stops threads instead").view());
    }
  }
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  // Nothing of the host's runs on top of a stopped thread, so all signals wait. On the thread's own stack: the host's
  // alternate stack may be too small for vector state, and a thread that is on it is not captured anyway.
  sigfillset(&action.sa_mask);
  block_cancellation(action.sa_mask);
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  return sigaction(x_signal, &action, nullptr) == 0;
}

// The C library does not free the loader's lock in a forked child, so no fork may come while we hold it: we can do without it
// there, but the program may want to open a library. Threads do not keep each other out: one that is inside a callback of the
// loader's may attach while another waits for that callback.
bool Handshake::list_tls(Mutator& mutator) {
  std::uint32_t listing = x_listing.load(std::memory_order_relaxed);
  for (;;) {
    if ((listing & kForks) != 0) {
      os::futex_wait(x_listing, listing);
      listing = x_listing.load(std::memory_order_relaxed);
    } else if (x_listing.compare_exchange_weak(listing, listing + 1, std::memory_order_acquire,
                                               std::memory_order_relaxed)) {
      // Acquire: after the fork. Pairs with unlock_after_fork (release).
      break;
    }
  }
  const bool complete = mutator.tls.list(
      x_heap.allocator().metadata, is_forked_child() ? LoaderLock::may_be_lost : LoaderLock::whole);
  // Release: done with the loader. Pairs with lock_for_fork (acquire).
  x_listing.fetch_sub(1, std::memory_order_release);
  return complete;
}

bool Handshake::pin_library_of(const void* address) {
  LibraryName name;
  find_library_of(address, name);
  if (!pin_library(name)) return false;
  // It may have been closed meanwhile, and opened again elsewhere.
  LibraryName pinned;
  find_library_of(address, pinned);
  return std::strcmp(name.data(), pinned.data()) == 0;
}

Mutator* Handshake::attach() {
  Metadata& metadata = x_heap.allocator().metadata;
  void* const memory = metadata.take(sizeof(Mutator));
  void* const words = metadata.take(StackCapture::kBytes);
  void* const log = metadata.take(WriteLog::kBytes);
  Mutator* mutator = nullptr;
  if (memory != nullptr && words != nullptr && log != nullptr) {
    const bool tiny = x_heap.settings().tinybuffers != 0;
    mutator = ::new (memory) Mutator(
        x_heap, static_cast<std::uintptr_t*>(words), tiny ? kTinyCapture : StackCapture::kCapacity,
        static_cast<std::uintptr_t*>(log), tiny ? 2 : WriteLog::kEntries);
    if (!grow_tables(x_heap.allocator(), *mutator, kFirstTypedKind) || !list_tls(*mutator) ||
        !current_stack_bounds(mutator->stack) || pthread_setspecific(x_exit_key, mutator) != 0) {
      mutator->tls.free(metadata);
      free_tables(x_heap.allocator(), *mutator);
      mutator = nullptr;
    }
  }
  if (mutator == nullptr) {
    metadata.give_back(memory, sizeof(Mutator));
    metadata.give_back(words, StackCapture::kBytes);
    metadata.give_back(log, WriteLog::kBytes);
    return nullptr;
  }
  mutator->thread = os::thread_id();
  mutator->attached_at_ns = os::boot_clock_ns();
  mutator->cpu_word = os::cpu_word();
  mutator->is_on_main_stack = mutator->stack.contains(os::main_stack_address());
  mutator->park = park_hook;
  mutator->flush_log = flush_log_hook;
  // A host that blocks every signal before it starts its threads would hide them from us.
  sigset_t ours;
  sigemptyset(&ours);
  sigaddset(&ours, x_signal);
  pthread_sigmask(SIG_UNBLOCK, &ours, nullptr);

  x_registry.lock();  // waits for the end of a stop, as everything that is not registered may
  if (!x_seats.take(metadata, *mutator)) {
    x_registry.unlock();
    pthread_setspecific(x_exit_key, nullptr);
    free(*mutator);
    return nullptr;
  }
  // Its stack held nothing when the cycle began: it was not attached. Its thread-local storage may hold what it was left with
  // when the thread was attached before, as far as that is still there.
  if (is_marking(epoch())) {
    Shader shader = x_heap.shader();
    shade_thread_local(*mutator, shader);
  }
  mutator->visited = epoch();
  mutator->epoch.store(mutator->visited, std::memory_order_relaxed);
  mutator->armed.store(is_marking(mutator->visited) ? 1 : 0, std::memory_order_relaxed);
  mutator->state->store(MutatorState::running, std::memory_order_relaxed);  // the lock orders
  x_count.fetch_add(1, std::memory_order_relaxed);
  detail::current_cache = mutator;
  x_registry.unlock();
  return mutator;
}

void Handshake::detach(Mutator& mutator) {
  struct Detach {
    Handshake& handshake;
    Mutator& mutator;
  } detach{*this, mutator};
  remove_value_stacks(mutator);
  {
    const CriticalSection critical(mutator);
    return_all_for_reuse(x_heap.allocator(), mutator);
  }
  const HostRefused refused;  // locks are taken without a mutator, at the end
  // While it waits for the registry a stop may be going on; it counts as blocked. With the lock there is none.
  with_spilled_registers(
      [](void* top, void* argument) {
        auto& [self, m] = *static_cast<Detach*>(argument);
        self.enter_blocked(m, top, MutatorState::waiting);
        const Guard guard(self.x_registry);
        const Guard turn(m.turn);
        self.shade_what_goes(m);
        self.x_heap.slot_check().forget(m);
        self.x_seats.give_back(m);
        self.x_count.fetch_sub(1, std::memory_order_relaxed);
        detail::current_cache = nullptr;  // a late signal finds no mutator
      },
      &detach);
  pthread_setspecific(x_exit_key, nullptr);
  free(mutator);
}

// By the owner.
void Handshake::remove_value_stacks(Mutator& mutator) {
  while (mutator.has_value_stacks) {
    RootSet::Registration stack;
    {
      const CriticalSection critical(mutator);
      stack = x_heap.roots().find_stack([&](const void* owner) { return owner == &mutator; });
    }
    if (stack.range == nullptr) return;
    remove_range(mutator, stack);
  }
}

// [color.roots-go]: the snapshot's roots in a thread that detaches, as far as they have not been marked, and its log. Its turn and
// the registry are held: no stop comes in between.
void Handshake::shade_what_goes(Mutator& mutator) {
  if (!is_marking(epoch())) return;
  Shader shader = x_heap.shader();
  if (mutator.visited != epoch()) {
    if (!is_planted(Fault::no_detach_stack)) {
      for (const std::uintptr_t word : mutator.capture) shader.shade_word(word);
    }
    if (!is_planted(Fault::no_detach_locals)) shade_thread_local(mutator, shader);
    mutator.visited = epoch();
  }
  if (is_planted(Fault::no_detach_log)) return;
  mutator.log.shade_new(x_heap.allocator().map,
                        [&](std::uintptr_t word) { shader.shade_word(word); });
}

// By the owner.
void Handshake::shade_thread_local(const Mutator& mutator, Shader& shader) const {
  const AddressRange range = x_heap.address_range();
  for (const TlsBlocks::Block& block : mutator.tls) {
    for (const char* at = block.begin; at < block.end;) {
      std::uintptr_t words[64];
      const auto wanted = std::min(sizeof words, static_cast<std::size_t>(block.end - at));
      const std::size_t got = os::read_maybe_unmapped(words, at, wanted);
      if (got < sizeof words[0]) break;
      shader.shade_range(words,
                         reinterpret_cast<char*>(words) + got / sizeof words[0] * sizeof words[0],
                         range.lowest, range.end);
      at += got;
    }
  }
}

void Handshake::free(Mutator& mutator) {
  Metadata& metadata = x_heap.allocator().metadata;
  x_heap.allocator().external_bytes.fetch_add(mutator.external_bytes, std::memory_order_relaxed);
  mutator.tls.free(metadata);
  free_tables(x_heap.allocator(), mutator);
  metadata.give_back(mutator.capture.buffer(), buffer_bytes(mutator.capture));
  metadata.give_back(mutator.log.memory(), WriteLog::kBytes);
  metadata.give_back(&mutator, sizeof(Mutator));
}

// L2 of [handshake.dekker]. Once found to have stopped it has, until the world runs.
TRICOLOR_STOP_CODE bool Handshake::has_stopped(Mutator& mutator) {
  if (mutator.found == MutatorState::running)
    mutator.found = mutator.state->load(std::memory_order_seq_cst);
  return mutator.found != MutatorState::running;
}

// Until all that can be running have stopped, or none does any more. The stopper has a CPU, so others have none and cannot find
// the note before it lets go of that; a signal to one of those interrupts nothing.
TRICOLOR_STOP_CODE void Handshake::wait_for_noted(std::size_t running) {
  const std::size_t without_cpu = running + 1 > x_cpus ? running + 1 - x_cpus : 0;
  for (std::uint64_t until_ns = 0; running > without_cpu;) {
    std::size_t left = 0;
    for_each_in_stop([&](Mutator& m) { left += has_stopped(m) ? 0 : 1; });
    const std::uint64_t now = os::now_ns();
    if (until_ns == 0 || left != running) {
      until_ns = now + kNotedNs;
    } else if (now >= until_ns) {
      return;
    }
    running = left;
  }
}

void Handshake::let_waits_go_on() const {
  const std::uint64_t now_ns = os::now_ns();
  if (now_ns < x_next_cycle_ns) os::nap(std::min(x_next_cycle_ns - now_ns, kApartNs));
}

TRICOLOR_STOP_CODE Handshake::Stopped Handshake::stop(Purpose purpose) {
  x_registry.lock();
  fetch_ahead(purpose);
  const std::uint64_t asked_ns = os::now_ns();
  // S2 of [handshake.dekker].
  x_stop_word.fetch_add(purpose == Purpose::arm ? kArm : kEnd, std::memory_order_seq_cst);
  Mutator** link = &x_in_stop;
  std::size_t running = 0;
  std::size_t waiting = 0;
  x_seats.for_each_not_idle([&](Mutator& m, MutatorState state) {
    m.found = state;
    *link = &m;
    link = &m.next_in_stop;
    running += state == MutatorState::running ? 1 : 0;
    waiting += state == MutatorState::waiting ? 1 : 0;
  });
  *link = nullptr;
  x_awake.store(running + waiting, std::memory_order_relaxed);
  for_each_in_stop([](Mutator& m) {
    if (m.found == MutatorState::running) m.stop_note.store(1, std::memory_order_seq_cst);
  });
  // While the stopper waits for them.
  if (purpose == Purpose::arm) {
    int fetched = 0;
    for_each_in_stop([&](const Mutator& m) {
      if (m.found == MutatorState::running && fetched++ < kMostFetched) fetch_capture(m);
    });
  }
  const bool at_once = is_planted(Fault::barrier_split);  // which only a signal can do
  if (!at_once) wait_for_noted(running);
  for_each_in_stop([&](Mutator& m) {
    // One that is inside the library finds the note on its way out. Relaxed: a hint; who is missed is asked again.
    const bool is_inside = m.in_unit.load(std::memory_order_relaxed) != 0 ||
                           m.internal_depth.load(std::memory_order_relaxed) != 0;
    if (m.found == MutatorState::running && (!is_inside || at_once)) ask(m);
  });
  wait_for_mutators(has_stopped);
  const std::uint64_t all_ns = os::now_ns();
  x_stopped = true;
  if (purpose == Purpose::arm) capture_all();
  return {asked_ns, all_ns};
}

// [handshake.capture-once]
TRICOLOR_STOP_CODE void Handshake::capture_all() {
  bool any_large = false;
  for_each_in_stop([&](const Mutator& m) {
    any_large |= m.found == MutatorState::stopped && has_large_stack(m);
  });
  std::uint32_t word = 0;
  if (any_large) {
    // Release (part of seq_cst): what everyone did before it stopped is visible to everyone who captures. Pairs with
    // stay_stopped.
    word = x_stop_word.fetch_add(kCapture - kArm, std::memory_order_seq_cst) + (kCapture - kArm);
    os::futex_wake_all(x_stop_word);
  }
  const bool returns = !is_planted(Fault::run_tail_not_closed);
  for_each_in_stop([&](Mutator& m) {
    // Most of those that have stopped have returned their claims. The rest goes now: a cell that is not constructed must not look
    // allocated to whoever marks. (The owner does not touch them before the world runs.)
    if (m.open_count != 0 && returns) return_all(x_heap.allocator(), m);
    m.claimed_when_armed = m.claimed_bytes;
    if (m.found != MutatorState::blocked)
      m.top_at_claim.store(nullptr, std::memory_order_relaxed);  // its stack is known now
    if (m.found == MutatorState::waiting ||
        (m.found == MutatorState::stopped && !has_large_stack(m)))
      m.capture.capture(m.frozen_top, m.stack.base, x_heap.address_range());
    settle(m);
  });
  if (!any_large) return;
  wait_for_mutators([&](const Mutator& m) {
    // Acquire: the capture. Pairs with stay_stopped (release).
    return m.found != MutatorState::stopped || !has_large_stack(m) ||
           m.captured_stop.load(std::memory_order_acquire) == word;
  });
}

void Handshake::return_claims(Mutator& mutator) {
  if (!is_planted(Fault::run_tail_not_closed)) return_all(x_heap.allocator(), mutator);
}

// World stopped, and what a blocked mutator has logged has been shaded: is there anything left that the next stop would have to
// look at? [handshake.idle]
TRICOLOR_STOP_CODE void Handshake::settle(Mutator& mutator) {
  if (mutator.open_count != 0 || mutator.constructing != nullptr) return;
  // Relaxed: it says nothing new of the owner, who may be trying to leave: then it stays as it is.
  MutatorState blocked = MutatorState::blocked;
  mutator.state->compare_exchange_strong(blocked, MutatorState::idle, std::memory_order_relaxed);
}

TRICOLOR_STOP_CODE void Handshake::next_epoch() {
  const MarkEpoch next = x_epoch.load(std::memory_order_relaxed) + 1;
  // Release: pairs with epoch() (acquire). Mutators that are stopped are ordered by start().
  x_epoch.store(next, std::memory_order_release);
  for_each_in_stop([&](Mutator& m) {
    if (m.found != MutatorState::stopped && m.found != MutatorState::waiting) return;
    m.epoch.store(next, std::memory_order_relaxed);
    m.armed.store(is_marking(next) ? 1 : 0, std::memory_order_relaxed);
    m.log.empty();
  });
}

// A stop's own walks find the registry locked, by the collector itself.
TRICOLOR_STOP_CODE void Handshake::lock_registry_for_walk() {
  if (!x_stopped) x_registry.lock();
}
TRICOLOR_STOP_CODE void Handshake::unlock_registry_for_walk() {
  if (!x_stopped) x_registry.unlock();
}

// Waits until is_done(mutator) has been true for each.
template <class Done>
void Handshake::wait_for_mutators(Done is_done) {
  const std::uint64_t begin_ns = os::now_ns();
  std::uint64_t ask_again_ns =
      kAskAgainNs;  // doubles: real-time signals queue up, and the queue is the host's too
  std::uint64_t warn_ns = x_warn_after_ns;
  Mutator* m = x_in_stop;
  for (;;) {
    // Acquire: what is said after this count is waited for below. Pairs with announce (release).
    const std::uint32_t arrivals = x_arrivals.load(std::memory_order_acquire);
    while (m != nullptr && is_done(*m)) m = m->next_in_stop;
    if (m == nullptr) return;
    const std::uint64_t now = os::now_ns();
    if (now - begin_ns >= ask_again_ns) {
      for (Mutator* late = m; late != nullptr; late = late->next_in_stop) {
        if (late->state->load(std::memory_order_seq_cst) != MutatorState::running) continue;
        // Its id may have gone to another thread; that one cannot answer for it.
        if (os::thread_started_after(late->thread, late->attached_at_ns)) {
          stop_ended(*late);
        } else {
          ask(*late);
        }
      }
      ask_again_ns *= 2;
    }
    if (now - begin_ns >= warn_ns) {
      name_laggards(now - begin_ns);
      warn_ns *= 2;
    }
    if (!look_for_change(x_arrivals, arrivals)) os::futex_wait(x_arrivals, arrivals, kAskAgainNs);
  }
}

TRICOLOR_STOP_CODE std::uint64_t Handshake::start() {
  x_stopped = false;
  // Release (part of seq_cst): what the collector did is visible to those that it lets go. Pairs with world_runs. Adding
  // carries into the count of stops.
  const std::uint32_t step = x_stop_word.load(std::memory_order_relaxed) & kStepMask;
  x_stop_word.fetch_add(kStepMask + 1 - step, std::memory_order_seq_cst);
  std::uint64_t now_ns = os::now_ns();
  if (x_asleep.load(std::memory_order_seq_cst) != 0) {
    const std::uint64_t cpu_ns = os::thread_cpu_ns();
    os::futex_wake_all(x_stop_word);
    now_ns += os::thread_cpu_ns() - cpu_ns;
  }
  if (x_interrupts_waits.load(std::memory_order_relaxed)) {
    x_interrupts_waits.store(false, std::memory_order_relaxed);
    x_next_cycle_ns = now_ns + kApartNs;
  }
  x_registry.unlock();
  return now_ns;
}

TRICOLOR_STOP_CODE void Handshake::ask(Mutator& mutator) {
  mutator.stop_note.store(1, std::memory_order_seq_cst);
  if constexpr (kStopByPolls) {
    if (os::thread_exists(mutator.thread)) return;
  } else {
    if (os::send_signal(mutator.thread, x_signal) || os::thread_exists(mutator.thread)) return;
  }
  stop_ended(mutator);
}

// It has ended without detaching: in the last round of its pthread key destructors it attached once more. Its stack and
// thread-local storage are gone; its claims are returned with those of the blocked.
void Handshake::stop_ended(Mutator& mutator) {
  mutator.tls.forget();
  // Their tops may have stood on its stack, and are not read any more.
  mutator.heap.roots().remove_stacks([&](const void* owner) { return owner == &mutator; });
  mutator.frozen_top = mutator.stack.base;
  mutator.state->store(MutatorState::waiting, std::memory_order_seq_cst);
}

void Handshake::name_laggards(std::uint64_t waited_ns) {
  for_each_mutator([&](Mutator& m) {
    if (m.state->load(std::memory_order_seq_cst) != MutatorState::running) return;
    char name[32];
    LineBuffer<400> line;
    line.text("tricolor: thread ")
        .number(m.thread)
        .text(" (")
        .text(os::thread_name(m.thread, name, sizeof name));
    line.text(") has not stopped for ").count(waited_ns / 1'000'000).text(" ms: ");
    if (m.internal_depth.load(std::memory_order_relaxed) != 0 ||
        m.in_unit.load(std::memory_order_relaxed) != 0) {
      line.text(
          "it is inside the collector's own code, where it waits for a page of memory or for a "
          "CPU; if that lasts, "
          "please report it");
    } else if (m.critical_depth.load(std::memory_order_relaxed) != 0) {
      line.text("it is inside gc::critical; keep such sections short");
    } else if (os::thread_blocks_signal(m.thread, x_signal)) {
      line.text("it blocks signal ")
          .number(x_signal)
          .text("; unblock it, or wait inside gc::blocking_call");
    } else if (kStopByPolls) {
      line.text(
          "this build stops threads by polls; call gc::safepoint(), or wait inside "
          "gc::blocking_call");
    } else {
      line.text(
          "it has not got a CPU, or runs on a stack that the collector does not know (an alternate "
          "signal stack?), or something takes its signals (sigwait?); see the options signal=n and "
          "stopwarn=ms");
    }
    log_line(line.view());
  });
}

// ---- fork

void Handshake::lock_for_fork(const Mutator* forking) {
  constexpr std::uint64_t kNapNs = 50'000;
  constexpr int kNaps = 400;
  // Who lists blocks is done in a moment, unless it waits for the loader's lock: for a thread inside a callback, this one
  // perhaps. Then it does not hold that lock, and there is nothing to wait for.
  // Acquire: they are done with the loader. Pairs with list_tls (release).
  std::uint32_t listing = x_listing.fetch_or(kForks, std::memory_order_acquire) | kForks;
  for (int i = 0; i < kNaps && listing != kForks; ++i) {
    os::futex_wait(x_listing, listing, kNapNs);
    listing = x_listing.load(std::memory_order_acquire);
  }
  x_registry.lock();
  for_each_mutator([&](Mutator& m) {
    if (&m != forking) m.fork_gate.store(1, std::memory_order_seq_cst);
  });
  // They leave their sections soon: none can be waiting for a lock that we have so far.
  for_each_mutator([&](Mutator& m) {
    if (&m == forking) return;
    // Acquire (part of seq_cst): what was done in the section. Pairs with ~CriticalSection (release).
    for (int i = 0; m.internal_depth.load(std::memory_order_seq_cst) != 0; ++i) {
      if (i < kLooks) {
        os::relax();
      } else {
        os::futex_wait(m.fork_gate, 1, kNapNs);  // nobody wakes us: sections are not slowed down
      }
    }
  });
}

void Handshake::forget_others(Mutator* survivor) {
  x_listing.store(kForks, std::memory_order_relaxed);  // who was at it is gone
  x_asleep.store(0, std::memory_order_relaxed);        // as are these
  for_each_mutator([&](Mutator& m) {
    if (&m == survivor) return;
    x_seats.give_back(m);
    // In the middle of a unit the run may be half changed; then the next sweep finds it.
    return_all(x_heap.allocator(), m,
               m.in_unit.load(std::memory_order_relaxed) == 0 ? Runs::kToo : Runs::kNot);
    free(m);
  });
  x_count.store(survivor != nullptr ? 1 : 0, std::memory_order_relaxed);
  if (survivor == nullptr) return;
  survivor->thread = os::thread_id();
  survivor->attached_at_ns = os::boot_clock_ns();
}

void Handshake::abandon_marking(Mutator* survivor) {
  // The coordinator also rests where it gives up before it has begun to mark.
  if (!is_marking(x_epoch.load(std::memory_order_relaxed))) return;
  const MarkEpoch next = x_epoch.load(std::memory_order_relaxed) + 1;
  x_epoch.store(next, std::memory_order_release);
  if (survivor == nullptr) return;
  survivor->armed.store(0, std::memory_order_relaxed);
  survivor->log.empty();
  survivor->epoch.store(next, std::memory_order_relaxed);
}

void Handshake::unlock_after_fork() {
  for_each_mutator([](Mutator& m) {
    // Release: what the thread that forked did is visible to those that it lets in. Pairs with CriticalSection.
    if (m.fork_gate.exchange(0, std::memory_order_seq_cst) != 0) os::futex_wake_all(m.fork_gate);
  });
  x_registry.unlock();
  // Release: the fork. Pairs with list_tls (acquire).
  x_listing.fetch_and(~kForks, std::memory_order_release);
  os::futex_wake_all(x_listing);
}

// ---- the mutator's side

// The main thread's stack may grow further than when it attached: the limit can be raised. Async-signal-safe.
TRICOLOR_STOP_CODE bool Handshake::is_on_stack(Mutator& mutator, const void* p) {
  if (mutator.stack.contains(p)) return true;
  if (!mutator.is_on_main_stack) return false;
  mutator.stack.lowest =
      std::min(mutator.stack.lowest, mutator.stack.base - os::main_stack_limit_bytes());
  return mutator.stack.contains(p);
}

TRICOLOR_STOP_CODE void Handshake::park_hook(detail::thread_cache& cache) {
  auto& mutator = static_cast<Mutator&>(cache);
  mutator.heap.handshake().park(mutator);
}

TRICOLOR_STOP_CODE void Handshake::park(Mutator& mutator) {
  if (mutator.critical_depth.load(std::memory_order_relaxed) != 0)
    return;  // the outermost section parks
  // Inside blocking_call a handle may be given back while the note of a stop is still there: that thread counts as stopped.
  if (mutator.state->load(std::memory_order_relaxed) != MutatorState::running) return;
  with_spilled_registers(
      [](void* top, void* argument) {
        auto& m = *static_cast<Mutator*>(argument);
        Handshake& self = m.heap.handshake();
        // Not by CriticalSection, whose end would park again: from here on our own handler keeps out.
        m.is_stopping.store(true, std::memory_order_relaxed);
        do {
          m.critical_depth.store(1, std::memory_order_relaxed);
          std::atomic_signal_fence(std::memory_order_seq_cst);
          // Sequentially consistent, with ask(): a note that this clears belongs to a stop that world_runs() sees.
          m.stop_note.store(0, std::memory_order_seq_cst);
          if (!self.world_runs()) {
            if (!self.is_on_stack(m, top)) {
              usage_error(
                  "a thread uses managed memory on a stack that the collector does not know (a "
                  "signal handler on an alternate "
                  "stack, or a coroutine switched by hand): its pointers there would be lost. Do "
                  "not use gc:: in signal "
                  "handlers.");
            }
            self.stay_stopped(m, top);
          }
          std::atomic_signal_fence(std::memory_order_seq_cst);
          m.critical_depth.store(0, std::memory_order_relaxed);
          std::atomic_signal_fence(std::memory_order_seq_cst);
        } while (m.stop_note.load(std::memory_order_relaxed) != 0);  // a stop that found us in here
        m.is_stopping.store(false, std::memory_order_relaxed);
      },
      &mutator);
}

// Stopped from here to the return: does what each step asks of it once, goes on when the world runs.
TRICOLOR_STOP_CODE void Handshake::stay_stopped(Mutator& mutator, const void* top) {
  perturb();
  mutator.frozen_top = top;
  bool has_stopped = false;
  for (;;) {
    // Acquire (part of seq_cst): see capture_all(), start().
    const std::uint32_t word = x_stop_word.load(std::memory_order_seq_cst);
    const std::uint32_t step = word & kStepMask;
    if (step == kRun) {
      mutator.state->store(MutatorState::running, std::memory_order_seq_cst);  // S1
      if (world_runs()) return;                                                // L1
      if (has_stopped) {
        // The next stop may have taken it for stopped before S1: what it has claimed is the stopper's already.
        mutator.state->store(MutatorState::stopped, std::memory_order_seq_cst);
        announce();
      }
      continue;
    }
    if (!has_stopped) {
      has_stopped = true;
      // Side by side with others, and from its own cache. Who has slept from one stop into the next stays as it is: what it has
      // claimed is the stopper's to return, who finds it stopped.
      if (step == kArm && !is_planted(Fault::run_tail_not_closed))
        return_all(x_heap.allocator(), mutator);
      // Release (part of seq_cst): the frames from top on, and the returned claims. Pairs with has_stopped().
      mutator.state->store(MutatorState::stopped, std::memory_order_seq_cst);
      announce();
    }
    if (step == kCapture && has_large_stack(mutator) &&
        mutator.captured_stop.load(std::memory_order_relaxed) != word) {
      perturb();
      mutator.capture.capture(top, mutator.stack.base, x_heap.address_range());
      // Release: the capture. Pairs with capture_all (acquire).
      mutator.captured_stop.store(word, std::memory_order_release);
      announce();
    }
    wait_for_change(word);
  }
}

TRICOLOR_STOP_CODE void Handshake::announce() {
  // Release: the state comes before the count. Pairs with wait_for_mutators (acquire).
  x_arrivals.fetch_add(1, std::memory_order_release);
  os::futex_wake_all(x_arrivals);
}

// The next step of a stop is a few microseconds away: looking for it is quicker than sleeping. Whoever looks offers its CPU
// again and again to those that wait for one, of whom one may be who is looked for: with two threads to stop and the stopper on
// two CPUs one of the three always waits, so it is offered first. Where there are more threads than that they sleep at once.
// True when it has changed. Relaxed: who looks asks again.
TRICOLOR_STOP_CODE bool Handshake::look_for_change(const std::atomic<std::uint32_t>& word,
                                                   std::uint32_t from) const {
  const std::size_t awake = x_awake.load(std::memory_order_relaxed);
  if (awake > x_cpus) return false;
  if (awake == x_cpus) os::yield();
  for (int turn = 0; turn < kTurnsBeforeSleep; ++turn) {
    for (int look = 0; look < kLooksATurn; ++look) {
      if (word.load(std::memory_order_relaxed) != from) return true;
      os::relax();
    }
    os::yield();
  }
  return false;
}

TRICOLOR_STOP_CODE void Handshake::wait_for_change(std::uint32_t word) {
  if (!look_for_change(x_stop_word, word)) sleep_until_change(word);
}

// [handshake.wake]
void Handshake::sleep_until_change(std::uint32_t word) {
  x_asleep.fetch_add(1, std::memory_order_seq_cst);
  os::futex_wait(x_stop_word, word);
  x_asleep.fetch_sub(1, std::memory_order_relaxed);
}

void Handshake::enter_blocked(Mutator& mutator, void* top, MutatorState state) {
  if (!is_on_stack(mutator, top)) {
    usage_error(
        "a thread waits for the collector on a stack that the collector does not know: its "
        "pointers there would be "
        "lost.");
  }
  // Our handler keeps out: it would set another top. What it leaves a note of is over when this thread does not run.
  mutator.is_stopping.store(true, std::memory_order_relaxed);
  mutator.critical_depth.store(1, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  mutator.frozen_top = top;
  // [handshake.idle]
  const bool is_idle = state == MutatorState::blocked && mutator.open_count == 0 &&
                       mutator.constructing == nullptr &&
                       (mutator.log.is_empty() || is_planted(Fault::idle_with_log));
  // Release (part of seq_cst): the frames from top on. Pairs with stop's L2.
  mutator.state->store(is_idle ? MutatorState::idle : state, std::memory_order_seq_cst);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  mutator.critical_depth.store(0, std::memory_order_relaxed);
  mutator.is_stopping.store(false, std::memory_order_relaxed);
  if (!world_runs()) announce();  // the stopper may have seen `running` and be waiting
}

void Handshake::leave_blocked(Mutator& mutator) {
  const MutatorState away = mutator.state->load(std::memory_order_relaxed);
  // Our handler keeps out of the steps between blocked and running: it would capture what the stopper has captured.
  mutator.is_stopping.store(true, std::memory_order_relaxed);
  mutator.critical_depth.store(1, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  for (;;) {
    mutator.state->store(MutatorState::running, std::memory_order_seq_cst);  // S1
    if (world_runs()) break;                                                 // L1
    mutator.state->store(away, std::memory_order_seq_cst);
    announce();
    for (std::uint32_t word;
         word = x_stop_word.load(std::memory_order_seq_cst), (word & kStepMask) != kRun;) {
      if (away == MutatorState::waiting) {
        wait_for_change(word);
      } else {
        sleep_until_change(word);  // there may be many
      }
    }
  }
  perturb();
  // Acquire: if the collector has been here, what it changed (claims, capture, log). Pairs with enter_marking_late and next_epoch
  // (release; the latter by the stop word).
  if (mutator.epoch.load(std::memory_order_acquire) != epoch()) [[unlikely]]
    catch_up(mutator);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  mutator.critical_depth.store(0, std::memory_order_relaxed);
  mutator.is_stopping.store(false, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (mutator.stop_note.load(std::memory_order_relaxed) != 0) park(mutator);
}

// Blocked since before an epoch that is on: nobody has been here yet, or is just leaving.
void Handshake::catch_up(Mutator& mutator) {
  const CriticalSection critical(mutator);
  const Guard turn(mutator.turn);
  if (!is_marking(epoch())) {
    mutator.armed.store(0, std::memory_order_relaxed);
    mutator.log.empty();
    mutator.epoch.store(epoch(), std::memory_order_relaxed);
    return;
  }
  perturb();
  visit_frames(mutator, [this](const void* begin, const void* end) {
    if (is_planted(Fault::no_late_stack_roots)) return;
    const AddressRange range = x_heap.address_range();
    x_heap.shader().shade_range(begin, end, range.lowest, range.end);
  });
}

void Handshake::enter_marking_late(Mutator& mutator) {
  mutator.capture.clear();  // of an older stop
  mutator.log.empty();
  mutator.claimed_when_armed = mutator.claimed_bytes;
  mutator.armed.store(1, std::memory_order_relaxed);
  // Release: all of the above. Pairs with leave_blocked (acquire).
  mutator.epoch.store(epoch(), std::memory_order_release);
}

void Handshake::flush_log_hook(detail::thread_cache& cache) {
  auto& mutator = static_cast<Mutator&>(cache);
  mutator.heap.handshake().flush_log(mutator);
}

// By the owner, outside of units. A stop may come before or after, or in between: it does not wait for all of the log. The cycle
// may be another one then.
void Handshake::flush_log(Mutator& mutator) {
  constexpr std::size_t kWordsAtOnce = 64;
  for (bool flushed = false; !flushed;) {
    const CriticalSection critical(mutator);
    const Guard turn(mutator.turn);
    perturb();
    flushed = true;
    if (is_marking(epoch())) {
      Shader shader = x_heap.shader();
      flushed = mutator.log.shade_new(
          x_heap.allocator().map, [&](std::uintptr_t word) { shader.shade_word(word); },
          kWordsAtOnce);
    }
    if (!flushed) continue;
    mutator.log.empty();
    if (x_heap.settings().checkslot != 0) x_heap.slot_check().sample(mutator);
  }
}

TRICOLOR_STOP_CODE void Handshake::on_signal(int, siginfo_t*, void* context) {
  Mutator* const mutator = current_mutator();
  if (mutator == nullptr) return;
  const int saved_errno = errno;
  Mutator& m = *mutator;
  Handshake& self = m.heap.handshake();
  if (os::is_interrupted_call(context))
    self.x_interrupts_waits.store(true, std::memory_order_relaxed);
  if (m.state->load(std::memory_order_relaxed) == MutatorState::running && !self.world_runs()) {
    // Everything that the interrupted frames hold lies between this signal frame (registers, vector state) and the base of
    // the stack; the red zone below the interrupted stack pointer is in between.
    const bool in_unit =
        m.in_unit.load(std::memory_order_relaxed) != 0 && !is_planted(Fault::barrier_split);
    // A part of the thread's own stack may be its alternate one: then what was interrupted is elsewhere, too.
    const stack_t& alternate = static_cast<const ucontext_t*>(context)->uc_stack;
    const bool on_alternate = reinterpret_cast<std::uintptr_t>(context) -
                                  reinterpret_cast<std::uintptr_t>(alternate.ss_sp) <
                              alternate.ss_size;
    if (in_unit || m.critical_depth.load(std::memory_order_relaxed) != 0 || on_alternate ||
        !is_on_stack(m, context)) {
      m.stop_note.store(1, std::memory_order_relaxed);
    } else {
      // Of this stop: the next one cannot begin before this thread has stopped.
      m.stop_note.store(0, std::memory_order_relaxed);
      self.stay_stopped(m, context);
    }
  }
  errno = saved_errno;
}

}  // namespace tricolor::impl
