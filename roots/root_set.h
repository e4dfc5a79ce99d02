// Slots of gc::root handles: words that may be anywhere in the program's hands, kept in blocks of ours so that the marker
// finds them all.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>

#include "alloc/base/lock.h"
#include "alloc/metadata.h"

namespace tricolor::impl {

// One handle's word: null, a managed address, or while the slot is free a link to the next free one.
using RootSlot = std::atomic<void*>;

class RootSet {
 public:
  explicit RootSet(Metadata& metadata) : x_metadata(metadata) {}

  // A slot that holds null. Null when memory is refused.
  RootSlot* take();
  void give_back(RootSlot* slot);

  // Held by a thread that forks.
  Mutex& mutex() { return x_lock; }

  // Calls fn(void* word) for every slot in use that is not null. Takes the lock, also with the world stopped: a thread that
  // is not attached, or inside blocking_call, may be giving a handle back.
  template <class Fn>
  void for_each(Fn fn) {
    const Guard guard(x_lock);
    for (const Block* block = x_blocks; block != nullptr; block = block->next) {
      for (const RootSlot& slot : block->slots) {
        // Relaxed: ordered by the stop.
        void* const word = slot.load(std::memory_order_relaxed);
        if (word != nullptr && !is_free_link(word)) fn(word);
      }
    }
  }

 private:
  struct Block {
    Block* next;
    std::array<RootSlot, 511> slots;
  };
  static_assert(sizeof(Block) == 4096, "a metadata block");

  // Links of the free list carry bit 63, which no address of a user process has (bit 0 may be set in a handle on a byte).
  static constexpr std::uintptr_t kFreeLink = std::uintptr_t{1} << 63;
  static bool is_free_link(const void* word) {
    return (reinterpret_cast<std::uintptr_t>(word) & kFreeLink) != 0;
  }

  Metadata& x_metadata;
  Mutex x_lock{LockRank::kRootTable};
  Block* x_blocks = nullptr;   // guarded by x_lock; blocks are never given back
  RootSlot* x_free = nullptr;  // guarded by x_lock
};

}  // namespace tricolor::impl
