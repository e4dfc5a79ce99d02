#include <tricolor/bulk.h>

#include <algorithm>

#include "barrier/log_words.h"

namespace tricolor::detail {

namespace {

// In one unit: a stop waits for so many words at most, and they fit into the smallest log.
constexpr std::size_t kWordsAtOnce = 64;

// Opens units, in each of which part(begin, end, logs) stores the words [begin, end) of [0, count), in that order or from the end.
template <class Part>
void for_each_unit(std::size_t count, Part part) {
  thread_cache* cache = current_cache;
  if (cache == nullptr) cache = attach_slow();
  for (std::size_t begin = 0; begin < count;) {
    if (cache == nullptr)
      return part(begin, count, nullptr);  // no heap yet: nothing a barrier could protect
    cache->enter_unit();
    const bool armed = cache->armed.load(std::memory_order_relaxed) != 0;
    // A log may be smaller than that (tinybuffers=1).
    const std::size_t room =
        armed && make_log_room(*cache, 2)
            ? static_cast<std::size_t>(cache->log_end -
                                       cache->log_next.load(std::memory_order_relaxed)) /
                  2
            : kWordsAtOnce;
    const std::size_t end = std::min({count, begin + kWordsAtOnce, begin + room});
    // Asked again: making room may have led out of the cycle.
    part(begin, end, cache->armed.load(std::memory_order_relaxed) != 0 ? cache : nullptr);
    cache->leave_unit();
    begin = end;
  }
}

void store(thread_cache* logs, managed_word* slot, managed_word word) {
  if (logs != nullptr) {
    // Relaxed: as in store_slow.
    impl::log_old(*logs, __atomic_load_n(slot, __ATOMIC_RELAXED));
    impl::log_new(*logs, word);
  }
  // Release: as in barriered_store.
  __atomic_store_n(slot, word, __ATOMIC_RELEASE);
}

}  // namespace

void copy_words(managed_word* to, const managed_word* from, std::size_t count) {
  attach_to_read();
  if (to <= from) {
    for_each_unit(count, [&](std::size_t begin, std::size_t end, thread_cache* logs) {
      for (std::size_t i = begin; i < end; ++i)
        store(logs, to + i, __atomic_load_n(from + i, __ATOMIC_RELAXED));
    });
  } else {
    for_each_unit(count, [&](std::size_t begin, std::size_t end, thread_cache* logs) {
      for (std::size_t i = begin; i < end; ++i)
        store(logs, to + (count - 1 - i),
              __atomic_load_n(from + (count - 1 - i), __ATOMIC_RELAXED));
    });
  }
}

void fill_words(managed_word* to, std::size_t count, managed_word word) {
  for_each_unit(count, [&](std::size_t begin, std::size_t end, thread_cache* logs) {
    for (std::size_t i = begin; i < end; ++i) store(logs, to + i, word);
  });
}

}  // namespace tricolor::detail
