#include "roots/stack.h"

#include <pthread.h>

#include "alloc/base/check.h"
#include "alloc/base/units.h"

namespace tricolor::impl {

namespace {

using Word = std::uintptr_t;

constexpr std::size_t kLineWords = 64 / sizeof(Word);
// What lies so far ahead is fetched while a large stack is read: the processor by itself fetches nothing beyond the end of a page.
// Of a stack that is in no cache, one word in 8 kept, 0.08 ms for each MiB, word by word 0.25 (bench/prototype, 4).
constexpr std::size_t kWordsAhead = 8192 / sizeof(Word);

// How many words of a line lie in the range. They are at `kept` then, where there is room for a line. (Without a branch for each
// word: which ones refer to objects cannot be foretold.)
[[gnu::always_inline]] __attribute__((no_sanitize("address", "thread",
                                                  "undefined"))) inline std::size_t
keep_line(const volatile Word* line, Word* kept, AddressRange range) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < kLineWords; ++i) {
    const Word value = line[i];
    kept[count] = value;
    count += range.contains(value) ? 1 : 0;
  }
  return count;
}

}  // namespace

// Reads every word of somebody's frames: sanitizers would object to redzones, padding and races, none of which matter to a
// conservative scan of a stopped thread.
[[gnu::noinline]] __attribute__((no_sanitize("address", "thread", "undefined"))) void
StackCapture::capture(const void* top, const void* base, AddressRange range) {
  const auto* word = reinterpret_cast<const volatile Word*>(
      round_up(reinterpret_cast<std::uintptr_t>(top), sizeof(Word)));
  const auto* const end = static_cast<const volatile Word*>(base);
  Word* const words = x_words;
  const std::size_t capacity = x_capacity;
  x_top = top;
  x_base = base;
  std::size_t count = 0;
  for (; end - word >= static_cast<std::ptrdiff_t>(kLineWords) && count + kLineWords <= capacity;
       word += kLineWords) {
    if (end - word > static_cast<std::ptrdiff_t>(kWordsAhead))
      __builtin_prefetch(const_cast<const Word*>(word + kWordsAhead));
    count += keep_line(word, words + count, range);
  }
  for (; word < end; ++word) {  // the rest, or what there may be no room for
    const Word value = *word;
    if (!range.contains(value)) continue;
    if (count < capacity) words[count] = value;
    ++count;
  }
  x_wanted = count;
  x_complete = count <= capacity;
  x_count = x_complete ? count : capacity;
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
