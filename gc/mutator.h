// A mutator: a thread that uses the heap, with everything the collector must know of it.
#pragma once

#include <atomic>
#include <cstdint>

#include "alloc/base/check.h"
#include "alloc/base/lock.h"
#include "alloc/thread_cache.h"
#include "barrier/write_log.h"
#include "roots/segments.h"
#include "roots/stack.h"

namespace tricolor::impl {

class Heap;

// What a mutator is doing, as far as a stop is concerned (handshake.h).
enum class MutatorState : std::uint32_t {
  idle,  // blocked, with nothing that a stop has to look at [handshake.idle]; also a seat that nobody has
  running,  // may touch managed memory at any instruction: must be stopped
  stopped,  // waits for the world to start: its frames are frozen from frozen_top on
  waiting,  // in a wait of the library's own: the same, but others may write into them
  blocked,  // inside blocking_call: the same, and nobody takes a reference out of them
};

// Counts the changes between marking and not: odd while a cycle marks.
using MarkEpoch = std::uint32_t;
constexpr bool is_marking(MarkEpoch epoch) { return epoch % 2 != 0; }

struct Mutator : LocalCache {
  Mutator(Heap& heap_, std::uintptr_t* capture_words, std::size_t capture_capacity,
          std::uintptr_t* log_words, std::size_t log_capacity)
      : heap(heap_),
        capture(capture_words, capture_capacity),
        log(*this, log_words, log_capacity) {}

  Heap& heap;
  // Its seat among the states of all (seats.h). Written by the owner (or its handler), read by the collector (handshake.h says
  // how they are ordered), which makes idle what is blocked.
  alignas(64) std::atomic<MutatorState>* state = nullptr;
  // What this thread knows: `armed` and its claims are as they must be in this epoch. Of a thread that runs (outside of
  // leave_blocked) it is the heap's [handshake.epoch]. Written under the turn or while the owner is stopped.
  std::atomic<MarkEpoch> epoch{0};
  // The stop (value of the stop word) in which the owner has captured its large stack. Read by the stopper.
  std::atomic<std::uint32_t> captured_stop{0};
  // The stopper's own, from stop() to start(): the list of those that this stop concerns, and what it has found this one at.
  Mutator* next_in_stop = nullptr;
  MutatorState found = MutatorState::idle;
  // Its roots (capture or frames, thread-local storage) have been marked in this epoch. Guarded by the turn.
  MarkEpoch visited = 0;
  std::int32_t thread = 0;  // the kernel's id
  std::uint64_t attached_at_ns =
      0;  // os::boot_clock_ns: a thread of that id which began later is another one
  const std::uint32_t* cpu_word = nullptr;  // os::cpu_word(): may be gone with its thread
  StackBounds stack;
  // Where it stood when it last claimed memory; on that stack. Null if that was before its last capture. Written by the owner and, when it
  // is stopped, the stopper; relaxed: a hint.
  std::atomic<const char*> top_at_claim{nullptr};
  bool is_on_main_stack = false;  // which may grow further; in a forked child maybe none is
  StackCapture capture;           // marked by who holds the turn
  WriteLog log;
  Mutex turn{LockRank::kTurn};
  // Frames from here on are frozen. Written by the owner before it says that it does not run.
  const void* frozen_top = nullptr;
  TlsBlocks tls;
  // Critical sections of the library itself that are open: 0 or 1. Written by the owner; read by the stopper, for its message,
  // and by a thread that forks.
  std::atomic<std::uint8_t> internal_depth{0};
  // Between running and not, with critical_depth at 1: no gc::critical of the program's. Owner only, and its signal handlers.
  std::atomic<bool> is_stopping{false};
  // 1 while another thread forks: no critical section of the library may be entered [fork.quiet]. Written by the thread that
  // forks; the owner waits for 0.
  std::atomic<std::uint32_t> fork_gate{0};
  std::uint64_t next_stress_at =
      0;                            // stress=n: the value of claimed_cells at which to collect next
  std::int64_t external_bytes = 0;  // not yet counted in the allocator's. Owner only
  std::uint32_t flushes = 0;        // of the log, by the owner
  bool has_value_stacks = false;    // or has had. Owner only
  std::uint64_t ranges_gone = 0;    // at the last of them (RootSet::ranges_gone). Owner only
  // What it has paid for (gc/assist.h), of claimed_bytes, in the cycle that this is the number of. Owner only.
  std::uint32_t assist_cycle = 0;
  std::uint64_t paid_bytes = 0;
  std::uint32_t never_assist = 0;  // gc::never_assist objects. Owner only
  std::uint32_t types_to_pin =
      0;                   // those from this kind on, when gc::critical ends; 0: none. Owner only
  bool asks_host = false;  // inside the host's out-of-memory callback. Owner only

  // The gate was found shut, with internal_depth at 1: waits until it is open and internal_depth is 1.
  [[gnu::cold]] void wait_for_fork();
};

// The calling thread's mutator, or null.
inline Mutator* current_mutator() { return static_cast<Mutator*>(detail::current_cache); }

// Opened and closed around what a fork waits for [fork.quiet], as it takes a lock that the child would find taken. Entered a second
// time it was interrupted by a signal handler that uses the library, which would wait for a lock that its own thread holds.
inline void enter_library(Mutator& mutator) {
  if (mutator.internal_depth.load(std::memory_order_relaxed) != 0 ||
      mutator.in_unit.load(std::memory_order_relaxed) != 0) [[unlikely]] {
    usage_error(
        "a signal handler uses gc:: while its thread is inside it. Signal handlers must not "
        "touch managed memory. (Nor must handlers of pthread_atfork that were registered before "
        "this library was loaded.)");
  }
  // Sequentially consistent, both: the thread that forks sees us inside, or we see the gate shut. Pairs with
  // Handshake::lock_for_fork.
  mutator.internal_depth.store(1, std::memory_order_seq_cst);
  if (mutator.fork_gate.load(std::memory_order_seq_cst) != 0) [[unlikely]]
    mutator.wait_for_fork();
}
inline void leave_library(Mutator& mutator) {
  // Release: what we did is whole. Pairs with Handshake::lock_for_fork.
  mutator.internal_depth.store(0, std::memory_order_release);
}

// The library's own: not stopped inside, may take locks of ours; parks on the way out when asked to.
class CriticalSection {
 public:
  explicit CriticalSection(Mutator& mutator) : x_mutator(mutator) {
    enter_library(mutator);
    // Relaxed, as for thread_cache::in_unit [unit.no-stop].
    const auto depth = x_mutator.critical_depth.load(std::memory_order_relaxed);
    x_mutator.critical_depth.store(static_cast<std::uint8_t>(depth + 1), std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  CriticalSection(const CriticalSection&) = delete;
  CriticalSection& operator=(const CriticalSection&) = delete;
  // In this order: a handler in between that forks finds the thread inside, and not in a gc::critical of the program's. (A stop
  // in between stops it; a fork waits for that stop before it waits for this section.)
  ~CriticalSection() {
    const auto depth =
        static_cast<std::uint8_t>(x_mutator.critical_depth.load(std::memory_order_relaxed) - 1);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    x_mutator.critical_depth.store(depth, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    leave_library(x_mutator);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (depth == 0 && x_mutator.stop_note.load(std::memory_order_relaxed) != 0) [[unlikely]]
      x_mutator.park(x_mutator);
  }

 private:
  Mutator& x_mutator;
};

}  // namespace tricolor::impl
