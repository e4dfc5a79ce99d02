// The inline half of a pointer store: hands off. See barrier/color.h for why the barrier is what it is.
#pragma once

#include <atomic>
#include <type_traits>

#include <tricolor/detail/thread_cache.h>

namespace tricolor::detail {

// The rest of barriered_store when the thread is not attached or a cycle marks. With `cache` null no unit is open.
template <class T>
[[gnu::noinline, gnu::cold]] void barriered_store_slow(thread_cache* cache, std::atomic<T*>& slot,
                                                       T* value) {
  if (cache == nullptr) {
    cache = attach_slow();
    if (cache == nullptr) {  // no heap yet, so there is nothing a barrier could protect
      slot.store(value, std::memory_order_release);
      return;
    }
    cache->enter_unit();
  }
  if (cache->armed.load(std::memory_order_relaxed) != 0) {
    // Relaxed: the old value is only shaded, never followed by this thread.
    cache->log(*cache, const_cast<std::remove_cv_t<T>*>(slot.load(std::memory_order_relaxed)),
               const_cast<std::remove_cv_t<T>*>(value));
  }
  slot.store(value, std::memory_order_release);
  cache->leave_unit();
}

// Stores a managed pointer into a slot that the collector scans while the program runs (a field, a global, a
// thread_local). The test of `armed`, the logging and the store are one unit [unit.no-stop].
template <class T>
inline void barriered_store(std::atomic<T*>& slot, T* value) {
  thread_cache* const cache = current_cache;
  if (cache == nullptr) [[unlikely]]
    return barriered_store_slow(cache, slot, value);
  cache->enter_unit();
  // Relaxed: written only while this thread is stopped, and a unit is not stopped in its middle.
  if (cache->armed.load(std::memory_order_relaxed) != 0) [[unlikely]]
    return barriered_store_slow(cache, slot, value);
  // Release: what was written into *value is visible to the marker that finds it here. Pairs with the marker's load of the
  // slot (acquire).
  slot.store(value, std::memory_order_release);
  cache->leave_unit();
}

}  // namespace tricolor::detail
