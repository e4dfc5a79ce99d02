// Memory for the library's own structures: mutators, packets, lists of spans, slots of roots. Never in data pages, never
// from the host's malloc (whose lock a stopped thread may hold).
//
// Blocks are powers of two from 64 bytes, 64-byte aligned, zeroed; freed blocks are kept by size for the next request.
// Invariant [metadata.size]: a block has at least one byte, and is given back with the size it was taken with.
//
// Thread-safe. Bound: what the structures need, rounded up to a power of two each.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>

#include "alloc/base/lock.h"

namespace tricolor::impl {

class Metadata {
 public:
  // Zeroed memory, or null when the kernel refuses.
  void* take(std::size_t bytes);
  // `bytes` as it was taken.
  void give_back(void* block, std::size_t bytes);
  // Leaves `fewer` of them, powers of two both and at least kTrimmedBytes. Costs next to nothing where the rest has no memory behind it yet.
  void trim(void* block, std::size_t bytes, std::size_t fewer);
  static constexpr std::size_t kTrimmedBytes = std::size_t{1} << 17;

  // Held by a thread that forks.
  Mutex& mutex() { return x_lock; }

  std::size_t mapped_bytes() const { return x_mapped_bytes.load(std::memory_order_relaxed); }

 private:
  static constexpr std::size_t kSmallestLog2 = 6;
  // From here on a block is a mapping of its own.
  static constexpr std::size_t kMappedAloneLog2 = std::bit_width(kTrimmedBytes) - 1;
  static constexpr std::size_t kChunkBytes = std::size_t{1} << 18;

  struct FreeBlock {
    FreeBlock* next;
  };

  Mutex x_lock{LockRank::kMetadata};
  char* x_chunk = nullptr;  // guarded by x_lock, as are the next two
  std::size_t x_chunk_left = 0;
  std::array<FreeBlock*, kMappedAloneLog2> x_free = {};
  std::atomic<std::size_t> x_mapped_bytes{0};  // statistics
};

}  // namespace tricolor::impl
