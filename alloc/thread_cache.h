// The slow half of a thread's cache: runs come out of claims, claims out of spans (central.h).
//
// A thread holds at most one claim a kind. Its cells are handed out as runs of neighbours: the inline half
// (<tricolor/detail/thread_cache.h>) bumps inside the run, and comes here when it is used up.
//
// Invariant [cache.exact]: a cell whose alloc bit is set is either an object or in exactly one claim or run. Arming a cycle
//   returns every claim and run, so that marking and sweeping meet objects only.
//
// Everything here is called by the owner inside a critical section, or by the collector (or the owner's signal handler)
// while the owner is stopped outside of one.
#pragma once

#include <cstddef>
#include <cstdint>

#include <tricolor/detail/thread_cache.h>

#include "alloc/allocator.h"
#include "alloc/central.h"

namespace tricolor::impl {

struct LocalCache : detail::thread_cache {
  Claim* claims = nullptr;  // by kind id, as `runs`
  std::uint32_t* taken_bytes =
      nullptr;  // by kind id: claimed lately, which sets the size of the next claim
  std::uint32_t* open =
      nullptr;  // kinds that have had a claim since the last return_all, each once
  std::uint32_t open_count = 0;
  std::uint64_t claimed_cells = 0;  // ever, for statistics and stress
  std::uint64_t claimed_bytes = 0;  // ever, with large objects
  std::uint64_t claimed_when_armed =
      0;  // of them, when the cycle began that marks, or the last one
};

// Makes room for the runs of kind `id`. False when memory is refused.
bool grow_tables(Allocator& allocator, LocalCache& cache, std::uint32_t id);

// Gives the tables back. The cache must hold no claims.
void free_tables(Allocator& allocator, LocalCache& cache);

// The next run of free cells from what the thread has claimed of kind `id`, zeroed when `scan` says that the cells have
// references. False when the claim is used up. In a fragmented span a run is two cells, so this is a warm path.
bool next_run(LocalCache& cache, std::uint32_t id, std::size_t cell_bytes, detail::ScanMode scan);

// How many cells the thread should claim next of a kind that it has used up: 512 bytes of them, or an eighth of what it has
// claimed lately, up to a page. Growth by an eighth keeps what 64 threads hold of 500 types below 10 % of a 256 MiB heap;
// doubling would hold 30 % (bench/prototype/README.md).
std::uint32_t next_claim_cells(const Allocator& allocator, const LocalCache& cache,
                               const Kind& kind);

// Takes over a claim made for this thread.
void accept_claim(Allocator& allocator, LocalCache& cache, const Kind& kind, const Claim& claim);

// Gives back all cells that are claimed and not used: also those of the runs that units take from, unless one of them may be in
// the middle. Async-signal-safe; no lock.
enum class Runs : std::uint8_t { kToo, kNot };
void return_all(Allocator& allocator, LocalCache& cache, Runs runs = Runs::kToo);

// The same, and lets other threads find the cells before the next cycle: for a thread that ends. (Threads that come and go
// with a few objects each would else leave nearly all of each claim behind.) Takes locks: not in a signal handler.
void return_all_for_reuse(Allocator& allocator, LocalCache& cache);

// Gives back one cell whose constructor has thrown; its content is wiped if its kind has references.
void return_cell(Allocator& allocator, LocalCache& cache, char* cell);

// What a thread that is not attached asks of the heap. Set by the heap when it is made.
struct HeapHooks {
  detail::thread_cache* (*attach)();        // the calling thread
  bool (*is_in_heap)(std::uintptr_t word);  // may the word be a reference? Async-signal-safe
};
void set_heap_hooks(const HeapHooks* hooks);

}  // namespace tricolor::impl
