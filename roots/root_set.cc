#include "roots/root_set.h"

#include <cstdint>
#include <new>

#include "alloc/base/fault.h"

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
  if (x_marking && !is_planted(Fault::no_handle_shade)) [[unlikely]]
    x_shader.shade_word(reinterpret_cast<std::uintptr_t>(slot->load(std::memory_order_relaxed)));
  slot->store(reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(x_free) | kFreeLink),
              std::memory_order_relaxed);
  x_free = slot;
}

void RootSet::begin_marking() {
  const Guard guard(x_lock);
  x_marking = true;
}

bool RootSet::end_marking() {
  const Guard guard(x_lock);
  x_shader.share();
  if (x_pool.has_shared() || x_pool.has_postponed()) return false;
  x_marking = false;
  return true;
}

void RootSet::share() {
  const Guard guard(x_lock);
  x_shader.share();
}

}  // namespace tricolor::impl
