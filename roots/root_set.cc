#include "roots/root_set.h"

#include <cstdint>
#include <new>

namespace tricolor::impl {

RootSlot* RootSet::take() {
  const Guard guard(x_lock);
  if (x_free == nullptr) {
    void* const memory = x_metadata.take(sizeof(Block));
    if (memory == nullptr) return nullptr;
    Block* const block = ::new (memory) Block{};
    for (RootSlot& slot : block->slots) {
      slot.store(reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(x_free) | kFreeLink),
                 std::memory_order_relaxed);
      x_free = &slot;
    }
    block->next = x_blocks;
    x_blocks = block;
  }
  RootSlot* const slot = x_free;
  const auto link = reinterpret_cast<std::uintptr_t>(slot->load(std::memory_order_relaxed));
  x_free = reinterpret_cast<RootSlot*>(link & ~kFreeLink);
  slot->store(nullptr, std::memory_order_relaxed);
  return slot;
}

void RootSet::give_back(RootSlot* slot) {
  const Guard guard(x_lock);
  slot->store(reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(x_free) | kFreeLink),
              std::memory_order_relaxed);
  x_free = slot;
}

}  // namespace tricolor::impl
