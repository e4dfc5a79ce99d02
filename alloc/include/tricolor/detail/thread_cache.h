// The part of a thread's state that inline code touches: hands off. Its layout is part of the ABI.
//
// A thread allocates by bumping inside a run: consecutive free cells of one kind that it has taken from a span
// (alloc/central.h). The hit path takes no lock and executes no atomic read-modify-write.
//
// Units. Choosing a cell, and testing the barrier flag, logging and storing, must not be split by a stop of the world.
// Between enter and leave the thread has `in_unit` set; a stop signal that finds it set only leaves a note, and the thread
// parks itself on the way out.
//
// Invariant [unit.no-stop]: a thread is never captured while in_unit or critical_depth is not zero. Both are written by
// the owner only and read by its own signal handler, so a compiler barrier orders them; the note is tested after in_unit
// has been cleared, so either the handler saw zero and parked the thread or the thread sees the note.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace tricolor::detail {
inline namespace abi1 {

// [cur, end): cells that nobody has used. Zeroed when the kind can hold pointers. Null when there is none.
struct run {
  char* cur = nullptr;
  char* end = nullptr;
};

// A cell whose constructor has not returned, for types with a trace function: until it returns the collector reads the
// cell word by word. Lives on the stack of the constructing thread, last one first.
struct construction {
  const char* cell = nullptr;
  construction* outer = nullptr;
};

struct thread_cache {
  run* runs = nullptr;          // by kind id
  std::uint32_t run_count = 0;  // entries in runs
  std::atomic<std::uint8_t> in_unit{0};
  std::atomic<std::uint8_t> critical_depth{0};
  // Set by the owner's handler, or by the collector: park as soon as neither of the above is set.
  std::atomic<std::uint8_t> stop_note{0};
  // A cycle marks: pointer stores must be logged. Written while the owner is stopped, or by itself before it goes on.
  std::atomic<std::uint8_t> armed{0};
  run tiny;  // 16-byte block shared by pointer-free objects below 16 bytes
  construction* constructing =
      nullptr;  // owner only; read by the collector while the owner is stopped
  // The write log (barrier/write_log.h): words that the barrier shades, up to log_next. Written by the owner inside a unit,
  // release: the words before it; read by the collector, acquire.
  std::atomic<std::uintptr_t*> log_next{nullptr};
  std::uintptr_t* log_end = nullptr;
  // Where the last logged store went, and the code that did it; null for slots that are the library's own.
  const void* stored_slot = nullptr;
  const void* stored_at = nullptr;
  void (*park)(thread_cache&) = nullptr;       // stop_note was seen
  void (*flush_log)(thread_cache&) = nullptr;  // the log has no room; outside of units

  // One uninterrupted unit of the owner [unit.no-stop].
  void enter_unit() {
    // Relaxed: only the owner's handler reads it; the signal fence keeps the compiler from sinking the store.
    in_unit.store(1, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  void leave_unit() {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    in_unit.store(0, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (stop_note.load(std::memory_order_relaxed) != 0) [[unlikely]]
      park(*this);
  }
};

// The calling thread's cache; null before its first call into the library. Initial-exec: one load from a shared library
// too, at a small cost in static TLS.
extern constinit thread_local thread_cache* current_cache [[gnu::tls_model("initial-exec")]];

// Attaches the calling thread, if a heap exists. Null otherwise: then nothing is managed yet.
thread_cache* attach_slow();

// The same, if `word`, which it is about to overwrite, may be a reference. Null also when it cannot be one: then nobody loses
// anything.
thread_cache* attach_to_overwrite(std::uintptr_t word);

// Takes one cell of `bytes` (the kind's cell size) or null when the run is used up. The caller holds a unit.
inline char* try_take(thread_cache& cache, std::uint32_t kind, std::size_t bytes) {
  if (kind >= cache.run_count) [[unlikely]]
    return nullptr;
  run& r = cache.runs[kind];
  char* const cell = r.cur;
  if (static_cast<std::size_t>(r.end - cell) < bytes) [[unlikely]]
    return nullptr;
  r.cur = cell + bytes;
  return cell;
}

}  // namespace abi1
}  // namespace tricolor::detail
