#include "roots/stack.h"

#include <pthread.h>

#include "alloc/base/check.h"
#include "alloc/base/units.h"

namespace tricolor::impl {

// Reads every word of somebody's frames: sanitizers would object to redzones, padding and races, none of which matter to a
// conservative scan of a stopped thread.
[[gnu::noinline]] __attribute__((no_sanitize("address", "thread", "undefined"))) void
StackCapture::capture(const void* top, const void* base, AddressRange range) {
  const auto* word = reinterpret_cast<const volatile std::uintptr_t*>(
      round_up(reinterpret_cast<std::uintptr_t>(top), sizeof(std::uintptr_t)));
  const auto* const end = static_cast<const volatile std::uintptr_t*>(base);
  x_top = top;
  x_base = base;
  std::size_t count = 0;
  for (; word < end; ++word) {
    const std::uintptr_t value = *word;
    if (!range.contains(value)) continue;
    if (count < x_capacity) x_words[count] = value;
    ++count;
  }
  x_wanted = count;
  x_complete = count <= x_capacity;
  x_count = x_complete ? count : x_capacity;
}

bool current_stack_bounds(StackBounds& bounds) {
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return false;
  void* lowest = nullptr;
  std::size_t bytes = 0;
  const bool known = pthread_attr_getstack(&attributes, &lowest, &bytes) == 0;
  pthread_attr_destroy(&attributes);
  bounds = {static_cast<char*>(lowest), static_cast<char*>(lowest) + bytes};
  return known;
}

}  // namespace tricolor::impl
