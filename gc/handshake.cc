#include "gc/handshake.h"

#include <cerrno>
#include <new>

#include "alloc/base/check.h"
#include "alloc/base/log.h"
#include "alloc/base/os.h"
#include "alloc/base/sanitizer.h"
#include "gc/heap.h"
#include "roots/registers.h"

namespace tricolor::impl {

namespace {

constexpr std::uint64_t kAskAgainNs = 1'000'000;

// Where glibc's own use of real-time signals ends; from there on the first that nobody handles is ours.
int choose_signal() {
  for (int signal = SIGRTMAX - 2; signal > SIGRTMIN; --signal) {
    struct sigaction now;
    if (sigaction(signal, nullptr, &now) == 0 && (now.sa_flags & SA_SIGINFO) == 0 && now.sa_handler == SIG_DFL) return signal;
  }
  return 0;
}

}  // namespace

bool Handshake::create(int signal, std::uint64_t warn_after_ns) {
  x_warn_after_ns = warn_after_ns;
  if (pthread_key_create(&x_exit_key, [](void* mutator) {
        auto& m = *static_cast<Mutator*>(mutator);
        m.heap.handshake().detach(m);
      }) != 0) {
    return false;
  }
  x_signal = signal != 0 ? signal : choose_signal();
  if (x_signal == 0) return false;
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  // Nothing of the host's runs on top of a stopped thread, so all signals wait. On the thread's own stack: the host's
  // alternate stack may be too small for vector state, and a thread that is on it is not captured anyway.
  sigfillset(&action.sa_mask);
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  return sigaction(x_signal, &action, nullptr) == 0;
}

Mutator* Handshake::attach() {
  Metadata& metadata = x_heap.allocator().metadata;
  void* const memory = metadata.take(sizeof(Mutator));
  void* const words = metadata.take(StackCapture::kBytes);
  Mutator* mutator = nullptr;
  if (memory != nullptr && words != nullptr) {
    mutator = ::new (memory) Mutator(x_heap, static_cast<std::uintptr_t*>(words));
    if (!grow_tables(x_heap.allocator(), *mutator, kFirstTypedKind) || !mutator->tls.list(metadata) ||
        pthread_setspecific(x_exit_key, mutator) != 0) {
      mutator->tls.free(metadata);
      free_tables(x_heap.allocator(), *mutator);
      mutator = nullptr;
    }
  }
  if (mutator == nullptr) {
    metadata.give_back(memory, sizeof(Mutator));
    metadata.give_back(words, StackCapture::kBytes);
    return nullptr;
  }
  mutator->thread = os::thread_id();
  mutator->stack = current_stack_bounds();
  mutator->park = park_hook;
  // A host that blocks every signal before it starts its threads would hide them from us.
  sigset_t ours;
  sigemptyset(&ours);
  sigaddset(&ours, x_signal);
  pthread_sigmask(SIG_UNBLOCK, &ours, nullptr);

  const Guard guard(x_registry);  // waits for the end of a stop, as everything that is not registered may
  mutator->next = x_first;
  if (x_first != nullptr) x_first->previous = mutator;
  x_first = mutator;
  x_count.fetch_add(1, std::memory_order_relaxed);
  detail::current_cache = mutator;
  return mutator;
}

void Handshake::detach(Mutator& mutator) {
  struct Detach {
    Handshake& handshake;
    Mutator& mutator;
  } detach{*this, mutator};
  {
    const CriticalSection critical(mutator);
    return_all(x_heap.allocator(), mutator);
  }
  // While it waits for the registry a stop may be going on; it counts as blocked. With the lock there is none.
  with_spilled_registers(
      [](void* top, void* argument) {
        auto& [self, m] = *static_cast<Detach*>(argument);
        self.enter_blocked(m, top);
        const Guard guard(self.x_registry);
        (m.previous != nullptr ? m.previous->next : self.x_first) = m.next;
        if (m.next != nullptr) m.next->previous = m.previous;
        self.x_count.fetch_sub(1, std::memory_order_relaxed);
        detail::current_cache = nullptr;  // a late signal finds no mutator
      },
      &detach);
  pthread_setspecific(x_exit_key, nullptr);
  Metadata& metadata = x_heap.allocator().metadata;
  mutator.tls.free(metadata);
  free_tables(x_heap.allocator(), mutator);
  metadata.give_back(const_cast<std::uintptr_t*>(mutator.capture.begin()), StackCapture::kBytes);
  metadata.give_back(&mutator, sizeof(Mutator));
}

std::uint64_t Handshake::stop() {
  x_registry.lock();
  const std::uint64_t begin_ns = os::now_ns();
  // S2 of [handshake.dekker].
  x_stop_word.fetch_add(1, std::memory_order_seq_cst);
  for_each_mutator([this](Mutator& m) {
    if (m.state.load(std::memory_order_seq_cst) == MutatorState::running) ask(m);
  });
  std::uint64_t asked_ns = os::now_ns();
  std::uint64_t warn_ns = x_warn_after_ns;
  Mutator* m = x_first;
  for (;;) {
    // Acquire: an arrival counted here is followed by a look at its state. Pairs with announce (release).
    const std::uint32_t arrivals = x_arrivals.load(std::memory_order_acquire);
    // L2. Those before m are stopped and stay so.
    while (m != nullptr && m->state.load(std::memory_order_seq_cst) != MutatorState::running) m = m->next;
    const std::uint64_t now = os::now_ns();
    if (m == nullptr) return now - begin_ns;
    if (now - asked_ns >= kAskAgainNs) {
      for (Mutator* late = m; late != nullptr; late = late->next) {
        if (late->state.load(std::memory_order_seq_cst) == MutatorState::running) ask(*late);
      }
      asked_ns = now;
      if (now - begin_ns >= warn_ns) {
        name_laggards(now - begin_ns);
        warn_ns *= 2;
      }
    }
    os::futex_wait(x_arrivals, arrivals, kAskAgainNs);
  }
}

void Handshake::start() {
  // Release (part of seq_cst): what the collector did is visible to those that it lets go. Pairs with wait_for_start.
  x_stop_word.fetch_add(1, std::memory_order_seq_cst);
  os::futex_wake_all(x_stop_word);
  x_registry.unlock();
}

void Handshake::ask(Mutator& mutator) {
  mutator.stop_note.store(1, std::memory_order_seq_cst);
  if constexpr (!kStopByPolls) os::send_signal(mutator.thread, x_signal);
}

void Handshake::name_laggards(std::uint64_t waited_ns) {
  for_each_mutator([&](Mutator& m) {
    if (m.state.load(std::memory_order_seq_cst) != MutatorState::running) return;
    char name[32];
    LineBuffer<400> line;
    line.text("tricolor: thread ").number(m.thread).text(" (").text(os::thread_name(m.thread, name, sizeof name));
    line.text(") has not stopped for ").count(waited_ns / 1'000'000).text(" ms: ");
    if (m.critical_depth.load(std::memory_order_relaxed) != 0 || m.in_unit.load(std::memory_order_relaxed) != 0) {
      line.text("it is inside gc::critical; keep such sections short");
    } else if (os::thread_blocks_signal(m.thread, x_signal)) {
      line.text("it blocks signal ").number(x_signal).text("; unblock it, or wait inside gc::blocking_call");
    } else if (kStopByPolls) {
      line.text("this build stops threads by polls; call gc::safepoint(), or wait inside gc::blocking_call");
    } else {
      line.text("it runs on a stack that the collector does not know (an alternate signal stack?), or something takes its "
                "signals (sigwait?); see the options signal=n and stopwarn=ms");
    }
    log_line(line.view());
  });
}

// ---- the mutator's side

void Handshake::park_hook(detail::thread_cache& cache) {
  auto& mutator = static_cast<Mutator&>(cache);
  mutator.heap.handshake().park(mutator);
}

void Handshake::park(Mutator& mutator) {
  if (mutator.critical_depth.load(std::memory_order_relaxed) != 0) return;  // the outermost section parks
  with_spilled_registers(
      [](void* top, void* argument) {
        auto& m = *static_cast<Mutator*>(argument);
        Handshake& self = m.heap.handshake();
        // Not by CriticalSection, whose end would park again: from here on our own handler keeps out.
        m.critical_depth.store(1, std::memory_order_relaxed);
        std::atomic_signal_fence(std::memory_order_seq_cst);
        // Sequentially consistent, with ask(): a note that this clears belongs to a stop that stopping() sees.
        m.stop_note.store(0, std::memory_order_seq_cst);
        if (self.stopping()) {
          if (!m.stack.contains(top)) {
            usage_error(
                "a thread uses managed memory on a stack that the collector does not know (a signal handler on an alternate "
                "stack, or a coroutine switched by hand): its pointers there would be lost. Do not use gc:: in signal "
                "handlers.");
          }
          self.prepare_to_stop(m, top);
          self.wait_until_started(m, MutatorState::parked);
        }
        std::atomic_signal_fence(std::memory_order_seq_cst);
        m.critical_depth.store(0, std::memory_order_relaxed);
      },
      &mutator);
}

void Handshake::prepare_to_stop(Mutator& mutator, void* top) {
  mutator.capture.capture(top, mutator.stack.base, x_heap.address_range());
  return_all(x_heap.allocator(), mutator);
}

void Handshake::wait_until_started(Mutator& mutator, MutatorState stopped) {
  do {
    mutator.state.store(stopped, std::memory_order_seq_cst);
    announce();
    wait_for_start();
    mutator.state.store(MutatorState::running, std::memory_order_seq_cst);  // S1
  } while (stopping());                                                     // L1
}

void Handshake::announce() {
  // Release: the state comes before the count. Pairs with stop (acquire).
  x_arrivals.fetch_add(1, std::memory_order_release);
  os::futex_wake_all(x_arrivals);
}

void Handshake::wait_for_start() {
  for (;;) {
    // Acquire: what the collector did while we were stopped. Pairs with start (release).
    const std::uint32_t word = x_stop_word.load(std::memory_order_acquire);
    if ((word & 1) == 0) return;
    os::futex_wait(x_stop_word, word);
  }
}

void Handshake::enter_blocked(Mutator& mutator, void* top) {
  mutator.blocked_top = top;
  // Release (part of seq_cst): the frames from top on. Pairs with stop's load.
  mutator.state.store(MutatorState::blocked, std::memory_order_seq_cst);
  if (stopping()) announce();  // the stopper may have seen `running` and be waiting
}

void Handshake::leave_blocked(Mutator& mutator) {
  // Our handler keeps out of the steps between blocked and running: it would capture what the collector may be reading.
  mutator.critical_depth.store(1, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  mutator.state.store(MutatorState::running, std::memory_order_seq_cst);        // S1
  if (stopping()) wait_until_started(mutator, MutatorState::blocked);  // L1
  std::atomic_signal_fence(std::memory_order_seq_cst);
  mutator.critical_depth.store(0, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (mutator.stop_note.load(std::memory_order_relaxed) != 0) park(mutator);
}

void Handshake::on_signal(int, siginfo_t*, void* context) {
  Mutator* const mutator = current_mutator();
  if (mutator == nullptr) return;
  const int saved_errno = errno;
  Mutator& m = *mutator;
  Handshake& self = m.heap.handshake();
  if (m.state.load(std::memory_order_relaxed) == MutatorState::running && self.stopping()) {
    // Everything that the interrupted frames hold lies between this signal frame (registers, vector state) and the base of
    // the stack; the red zone below the interrupted stack pointer is in between.
    if (m.in_unit.load(std::memory_order_relaxed) != 0 || m.critical_depth.load(std::memory_order_relaxed) != 0 ||
        !m.stack.contains(context)) {
      m.stop_note.store(1, std::memory_order_relaxed);
    } else {
      self.prepare_to_stop(m, context);
      m.stop_note.store(0, std::memory_order_relaxed);  // of this stop; of the next one there is no note before its signal
      self.wait_until_started(m, MutatorState::parked);
    }
  }
  errno = saved_errno;
}

}  // namespace tricolor::impl
