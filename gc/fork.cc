#include "gc/fork.h"

#include <pthread.h>

#include <atomic>

#include "alloc/base/check.h"
#include "alloc/base/os.h"
#include "gc/heap.h"
#include "gc/library_thread.h"
#include "roots/registers.h"

namespace tricolor::impl {

namespace {

// Of the calling thread.
struct Forking {
  bool begun = false;     // it is between prepare() and the end
  bool prepared = false;  // which has something to undo
  int nested = 0;         // forks by handlers that have interrupted that one: bare
};
[[gnu::tls_model("initial-exec")]] constinit thread_local Forking forking;

// Written in the child while it has one thread.
bool in_child = false;

// In the order of their ranks. What they are for stands at [fork.quiet].
void take_locks(Heap& heap, const Mutator* forking) {
  heap.cycle().lock_for_fork();
  heap.handshake().lock_for_fork(forking);
  heap.roots().mutex().lock();
  heap.assists().lock_for_fork();
  heap.cycle().pacing().mutex().lock();
  heap.packets().mutex().lock();
  heap.allocator().metadata.mutex().lock();
  check(heap.cycle().sweeper().nobody_sweeps(), "fork.quiet");
}

// Those of them that guard what the child mends.
void leave_inner_locks(Heap& heap) {
  heap.allocator().metadata.mutex().unlock();
  heap.packets().mutex().unlock();
  heap.cycle().pacing().mutex().unlock();
  heap.assists().unlock_after_fork();
  heap.roots().mutex().unlock();
}

void leave_outer_locks(Heap& heap) {
  heap.handshake().unlock_after_fork();
  heap.cycle().unlock_after_fork();
}

// The forking mutator holds locks of ours up to the end: it is in a critical section, as whoever does [lock.critical].
void begin_section(Mutator& mutator) {
  mutator.internal_depth.store(1, std::memory_order_relaxed);
  if (mutator.state->load(std::memory_order_relaxed) == MutatorState::running)
    mutator.critical_depth.store(1, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

// In the order of ~CriticalSection.
void end_section(Mutator& mutator) {
  const bool is_running = mutator.state->load(std::memory_order_relaxed) == MutatorState::running;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (is_running) mutator.critical_depth.store(0, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  mutator.internal_depth.store(0, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (is_running && mutator.stop_note.load(std::memory_order_relaxed) != 0) mutator.park(mutator);
}

struct Preparation {
  Heap* heap;
  Mutator* mutator;
};

void prepare_as_blocked(void* top, void* argument) {
  auto& [heap, mutator] = *static_cast<Preparation*>(argument);
  Handshake& handshake = mutator->heap.handshake();
  handshake.enter_blocked(*mutator, top, MutatorState::waiting);
  Heap::creation_mutex().lock();
  heap = Heap::existing();
  take_locks(*heap, mutator);
  handshake.leave_blocked(*mutator);  // the registry is ours: there is no stop, and none begins
}

// False where it can not wait: such a child is bare (fork.h).
bool take_all() {
  // A handler of the host's for a crash inside a cycle: this thread, or one that waits for it, holds what would be waited for.
  if (host_is_kept_out()) return false;
  Preparation preparation{nullptr, current_mutator()};
  Mutator* const mutator = preparation.mutator;
  if (mutator != nullptr) {
    // A signal handler that has interrupted the library on its own thread cannot wait for what that thread holds. (In a wait of
    // the library's own it may hold a lock, too.)
    if (mutator->internal_depth.load(std::memory_order_relaxed) != 0 ||
        mutator->in_unit.load(std::memory_order_relaxed) != 0 ||
        mutator->is_stopping.load(std::memory_order_relaxed)) {
      return false;
    }
    const MutatorState state = mutator->state->load(std::memory_order_relaxed);
    if (state == MutatorState::waiting || state == MutatorState::stopped) return false;
    // It has interrupted the program, whose frames are elsewhere: also where the alternate stack is a part of the thread's own.
    if (state == MutatorState::running && os::on_alternate_stack()) return false;
    if (mutator->critical_depth.load(std::memory_order_relaxed) != 0) {
      usage_error(
          "fork() inside gc::critical: it may have to wait for a stop, which waits for this "
          "thread. Leave the critical section first.");
    }
  }
  if (mutator != nullptr &&
      mutator->state->load(std::memory_order_relaxed) == MutatorState::running) {
    with_spilled_registers(prepare_as_blocked, &preparation);
  } else {
    Heap::creation_mutex().lock();
    // Acquire: the heap is complete. Pairs with Heap::make (release).
    if (Heap* const heap = Heap::existing(); heap != nullptr) take_locks(*heap, mutator);
  }
  if (mutator != nullptr) begin_section(*mutator);
  return true;
}

void prepare() {
  if (forking.begun) {
    ++forking.nested;
    return;
  }
  forking.begun = true;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  forking.prepared = take_all();
}

// Is there anything to undo?
bool begin_to_finish() {
  if (forking.nested != 0) {
    --forking.nested;
    return false;
  }
  if (forking.prepared) return true;
  forking.begun = false;
  return false;
}

void end_forking() {
  std::atomic_signal_fence(std::memory_order_seq_cst);
  forking = {};
}

void finish_in_parent() {
  if (!begin_to_finish()) return;
  if (Heap* const heap = Heap::existing(); heap != nullptr) {
    leave_inner_locks(*heap);
    leave_outer_locks(*heap);
  }
  Heap::creation_mutex().unlock();
  if (Mutator* const mutator = current_mutator(); mutator != nullptr) end_section(*mutator);
  end_forking();
}

void finish_in_child() {
  if (!begin_to_finish()) return;
  in_child = true;
  forget_cpus_at_load();
  Mutator* const survivor = current_mutator();
  if (Heap* const heap = Heap::existing(); heap != nullptr) {
    check(heap->cycle().sweeper().nobody_sweeps(), "fork.quiet");
    heap->cycle().forget_threads(survivor);
    heap->assists().forget_threads();
    leave_inner_locks(*heap);
    heap->roots().remove_stacks([&](const void* owner) { return owner != survivor; });
    heap->handshake().forget_others(survivor);
    leave_outer_locks(*heap);
  }
  Heap::creation_mutex().unlock();
  if (survivor != nullptr) end_section(*survivor);
  end_forking();
}

[[gnu::constructor(101)]] void install_at_load() { install_fork_handlers(); }

}  // namespace

bool install_fork_handlers() {
  static std::atomic<bool> installed{false};
  // Relaxed: at load there is one thread; if memory was refused then, the heap is made under a lock.
  if (installed.load(std::memory_order_relaxed)) return true;
  if (pthread_atfork(prepare, finish_in_parent, finish_in_child) != 0) return false;
  installed.store(true, std::memory_order_relaxed);
  return true;
}

bool is_forked_child() { return in_child; }

void Mutator::wait_for_fork() {
  do {
    // Release: the thread that forks goes on. Pairs with Handshake::lock_for_fork.
    internal_depth.store(0, std::memory_order_release);
    while (fork_gate.load(std::memory_order_relaxed) != 0) os::futex_wait(fork_gate, 1);
    internal_depth.store(1, std::memory_order_seq_cst);
  } while (fork_gate.load(std::memory_order_seq_cst) != 0);
}

}  // namespace tricolor::impl
