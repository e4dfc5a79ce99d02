// Slots of gc::root handles: words that may be anywhere in the program's hands, kept in blocks of ours so that the marker
// finds them all.
//
// Invariant [handles.removal]: while a cycle marks, a handle that goes shades what it held. Whether one marks is known and
//   changed under the lock of the table, for a handle may go on a thread that no stop concerns (one that is not attached, or
//   inside blocking_call): it went before the cycle's snapshot, or it shades; and it has shaded before the cycle ends, or it
//   goes after it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>

#include "alloc/base/lock.h"
#include "alloc/metadata.h"
#include "barrier/shader.h"

namespace tricolor::impl {

// One handle's word: null, a managed address, or while the slot is free a link to the next free one.
using RootSlot = std::atomic<void*>;

class RootSet {
 public:
  RootSet(Metadata& metadata, const ArenaMap& map, PacketPool& pool, ShadedCounts& counts)
      : x_metadata(metadata), x_pool(pool), x_shader(map, pool, counts) {}

  // A slot that holds null. Null when memory is refused.
  RootSlot* take();
  void give_back(RootSlot* slot);

  // Held by a thread that forks.
  Mutex& mutex() { return x_lock; }

  // Handles that go shade from now on. World stopped.
  void begin_marking();
  // False when something has become grey that is not marked yet: the markers have it now. World stopped.
  bool end_marking();
  // Hands what has become grey to the markers.
  void share();
  // In a forked child, with the lock held: no cycle marks any more. The work that is left, or null.
  WorkPacket* abandon_marking() {
    x_marking = false;
    return x_shader.take_packet();
  }

  // Calls fn(const void* place, void* word) for every slot in use that is not null, a block at a time under the lock. Handles
  // that are made meanwhile may be missed: their first store is barriered.
  template <class Fn>
  void for_each(Fn fn) {
    x_lock.lock();
    const Block* block = x_blocks;  // newer ones come before it
    x_lock.unlock();
    for (; block != nullptr; block = block->next) {
      const Guard guard(x_lock);
      for (const RootSlot& slot : block->slots) {
        // Relaxed: what is stored there is shaded, before or by us.
        void* const word = slot.load(std::memory_order_relaxed);
        if (word != nullptr && !is_free_link(word)) fn(&slot, word);
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
  PacketPool& x_pool;
  Mutex x_lock{LockRank::kRootTable};
  Block* x_blocks =
      nullptr;  // guarded by x_lock; blocks are never given back, and keep their `next`
  RootSlot* x_free = nullptr;  // guarded by x_lock
  bool x_marking = false;      // guarded by x_lock
  Shader x_shader;             // guarded by x_lock
};

}  // namespace tricolor::impl
