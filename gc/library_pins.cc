#include "gc/library_pins.h"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "gc/heap.h"
#include "gc/library_thread.h"

namespace tricolor::impl {

void LibraryPins::begin_cycle() {
  const Guard guard(x_lock);
  x_all_pinned = x_wanted.count == 0 && x_found.count == 0 && !x_failed;
  while (x_just_pinned.count != 0 && append(x_pinned, x_just_pinned.end()[-1]))
    --x_just_pinned.count;
}

bool LibraryPins::add(const void* in_library) {
  // To pin a library once more would cost as many system calls as there are libraries.
  return std::find(x_pinned.begin(), x_pinned.end(), in_library) != x_pinned.end() ||
         append(x_found, in_library);
}

bool LibraryPins::end_cycle() {
  const Guard guard(x_lock);
  const bool has_failed = std::exchange(x_failed, false);
  while (x_found.count != 0) {
    const void* const in_library = x_found.end()[-1];
    // It is there already when the segments have been listed anew meanwhile.
    const bool is_new = std::find(x_wanted.begin(), x_wanted.end(), in_library) == x_wanted.end();
    if (is_new && !append(x_wanted, in_library)) break;
    --x_found.count;
  }
  return !has_failed;
}

// Two threads may be at it. An address stays in the list until it is done, so that who finds none left knows that all are.
void LibraryPins::pin() {
  for (;;) {
    const void* in_library = nullptr;
    {
      const Guard guard(x_lock);
      if (x_wanted.count == 0) return;
      in_library = x_wanted.end()[-1];
    }
    const bool pinned = x_heap.handshake().pin_library_of(in_library);
    const Guard guard(x_lock);
    x_failed |= !pinned;
    if (const auto at = std::find(x_wanted.begin(), x_wanted.end(), in_library);
        at != x_wanted.end()) {
      *at = x_wanted.end()[-1];
      --x_wanted.count;
      if (pinned) append(x_just_pinned, in_library);  // or it is pinned again
    }
  }
}

void LibraryPins::pin_apart() {
  {
    const Guard guard(x_lock);
    if (x_wanted.count == 0 || x_has_thread) return;
    x_has_thread = true;
  }
  const auto thread = start_library_thread(
      "tricolor pin",
      [](void* pins) {
        auto& self = *static_cast<LibraryPins*>(pins);
        self.pin();
        const Guard guard(self.x_lock);
        self.x_has_thread = false;
      },
      this);
  if (thread) {
    pthread_detach(*thread);
  } else {
    const Guard guard(x_lock);
    x_has_thread = false;  // after the next cycle, then
  }
}

// False when memory is refused.
bool LibraryPins::append(Addresses& addresses, const void* in_library) {
  if (addresses.count == addresses.capacity) {
    Metadata& metadata = x_heap.allocator().metadata;
    const std::size_t more = std::max<std::size_t>(64, 2 * addresses.capacity);
    auto* const bigger = static_cast<const void**>(metadata.take(more * sizeof(void*)));
    if (bigger == nullptr) return false;
    std::copy(addresses.begin(), addresses.end(), bigger);
    if (addresses.capacity != 0)
      metadata.give_back(addresses.words, addresses.capacity * sizeof(void*));
    addresses.words = bigger;
    addresses.capacity = more;
  }
  addresses.words[addresses.count++] = in_library;
  return true;
}

}  // namespace tricolor::impl
