// What one thread's write barrier has to shade: a buffer of words, appended to inside a unit by its owner (the inline half is
// <tricolor/detail/write_barrier.h>), and shaded
//
//   by the owner, when it is full,
//   by the collector, at any time (the ragged flush of the end of marking), while the owner goes on appending,
//   by the collector, with the owner stopped.
//
// Invariant [log.turn]: who shades from it or empties it holds the owner's turn (gc/mutator.h); the owner appends without.
// Invariant [log.published]: an entry is written before log_next moves over it (release), in the same unit as the pointer store
//   that it is for: when all threads are stopped, every logged store's words are there to be shaded.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include <tricolor/detail/thread_cache.h>

#include "alloc/cell.h"

namespace tricolor::impl {

class WriteLog {
 public:
  static constexpr std::size_t kEntries = 512;  // as Go's (runtime/mwbbuf.go)
  static constexpr std::size_t kBytes = kEntries * sizeof(std::uintptr_t);

  // `words` has room for `entries`, at least 2.
  WriteLog(detail::thread_cache& cache, std::uintptr_t* words, std::size_t entries)
      : x_cache(cache), x_words(words), x_shaded(words) {
    cache.log_next.store(words, std::memory_order_relaxed);
    cache.log_end = words + entries;
  }

  std::uintptr_t* memory() { return x_words; }

  // Calls shade(word) for what has been logged since the last call, `most` words of it. True if that was all. The turn is held.
  // What the words lead to is anywhere in the heap, so some words ahead of it are fetched: in a large heap that is all the
  // difference to the last stop.
  template <class Shade>
  bool shade_new(const ArenaMap& map, Shade shade, std::size_t most = kEntries) {
    constexpr std::ptrdiff_t kAhead = 16;
    // Acquire: the words. Pairs with append_to_log (release).
    std::uintptr_t* const last = x_cache.log_next.load(std::memory_order_acquire);
    std::uintptr_t* const end =
        x_shaded + std::min(last - x_shaded, static_cast<std::ptrdiff_t>(most));
    for (std::uintptr_t* ahead = x_shaded; x_shaded != end; ++x_shaded) {
      for (; ahead != end && ahead - x_shaded < kAhead; ++ahead) fetch_record(map, *ahead);
      shade(*x_shaded);
    }
    return end == last;
  }

  // By the owner.
  bool is_empty() const { return x_cache.log_next.load(std::memory_order_relaxed) == x_words; }

  // Everything has been shaded, or need not be any more. By the owner, or while it cannot append.
  void empty() {
    x_shaded = x_words;
    x_cache.log_next.store(x_words, std::memory_order_relaxed);
  }

 private:
  detail::thread_cache& x_cache;
  std::uintptr_t* const x_words;
  std::uintptr_t* x_shaded;  // what is before it has been; guarded by the turn
};

}  // namespace tricolor::impl
