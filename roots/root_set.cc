#include "roots/root_set.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>

#include "alloc/base/fault.h"
#include "alloc/base/stop_code.h"

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

const char* RootRange::limit() const {
  if (top == nullptr) return end;
  // Relaxed: its owner does not run, or is the caller.
  const auto now = __atomic_load_n(static_cast<const std::uintptr_t*>(top), __ATOMIC_RELAXED);
  const auto* const at =
      reinterpret_cast<const char*>(now / sizeof(std::uintptr_t) * sizeof(std::uintptr_t));
  return at < begin || at > end ? begin : at;
}

RootSet::Words RootSet::take_words(std::size_t capacity) {
  void* const words = x_metadata.take(capacity * sizeof(std::uintptr_t));
  if (words == nullptr) return {};
  return {static_cast<std::uintptr_t*>(words), capacity};
}

RootSet::Registration RootSet::add_range(const RootRange& wanted, Words words) {
  const Guard guard(x_lock);
  RootRange* range = x_free_ranges;
  if (range == nullptr) {
    void* const memory = x_metadata.take(sizeof(RootRange));
    if (memory == nullptr) return {};
    range = ::new (memory) RootRange();
    range->next = x_ranges;
    x_ranges = range;
  } else {
    x_free_ranges = range->next_free;
  }
  range->begin = wanted.begin;
  range->end = wanted.end;
  range->top = wanted.top;
  range->owner = wanted.owner;
  range->known = nullptr;
  range->kind = wanted.kind;
  note_limit(*range);
  range->since_cycle = range->read_cycle = x_cycle;  // [ranges.one-instant]
  range->capture = StackCapture(words.begin, words.capacity);
  if (range->kind == RootRange::Kind::raw) {
    range->previous_raw = nullptr;
    range->next_raw = x_raw_ranges;
    if (x_raw_ranges != nullptr) x_raw_ranges->previous_raw = range;
    x_raw_ranges = range;
  }
  return {range, ++range->number};
}

// [handles.removal]
bool RootSet::remove_part(Registration& registration, Words& left) {
  RootRange& range = *registration.range;
  const Guard guard(x_lock);
  if (range.number != registration.number) return true;
  if (x_marking && range.read_cycle != x_cycle && !is_planted(Fault::no_range_shade)) {
    if (registration.shaded_cycle != x_cycle) registration.shaded_bytes = 0;
    registration.shaded_cycle = x_cycle;
    const bool more = for_part(
        range, registration.shaded_bytes,
        [this](const char* begin, const char* end) {
          x_shader.shade_range(begin, end, 0, UINTPTR_MAX);
        },
        [this](std::uintptr_t word) { x_shader.shade_word(word); });
    registration.shaded_bytes += kPartBytes;
    if (more) return false;
  }
  if (range.kind == RootRange::Kind::raw) {
    RootRange*& from = range.previous_raw == nullptr ? x_raw_ranges : range.previous_raw->next_raw;
    from = range.next_raw;
    if (range.next_raw != nullptr) range.next_raw->previous_raw = range.previous_raw;
  }
  left = {range.capture.buffer(), range.capture.capacity()};
  range.kind = RootRange::Kind::none;
  range.begin = range.end = range.known = nullptr;
  range.top = range.owner = nullptr;
  range.capture = StackCapture(nullptr, 0);
  ++range.number;
  range.next_free = x_free_ranges;
  x_free_ranges = &range;
  x_ranges_gone.fetch_add(1, std::memory_order_relaxed);
  return true;
}

// By its owner, or while that does not run.
void RootSet::note_limit(RootRange& range) {
  if (range.is_stack()) range.known = std::max(range.known, range.limit());
}

bool RootSet::is_in_range(const void* p, const void* caller) {
  const auto* const at = static_cast<const char*>(p);
  const Guard guard(x_lock);
  for (RootRange* range = x_ranges; range != nullptr; range = range->next) {
    if (range->kind == RootRange::Kind::none) continue;
    if (caller != nullptr && range->owner == caller) note_limit(*range);
    const bool has_end = reinterpret_cast<std::uintptr_t>(range->end) != RootRange::kUnknown;
    if (range->begin <= at && at < (has_end ? range->end : range->known)) return true;
  }
  return false;
}

TRICOLOR_STOP_CODE void RootSet::begin_marking() {
  const Guard guard(x_lock);
  x_marking = true;
}

TRICOLOR_STOP_CODE bool RootSet::end_marking() {
  const Guard guard(x_lock);
  x_shader.share();
  if (x_pool.has_shared() || x_pool.has_postponed()) return false;
  x_marking = false;
  return true;
}

TRICOLOR_STOP_CODE void RootSet::share() {
  const Guard guard(x_lock);
  x_shader.share();
}

}  // namespace tricolor::impl
