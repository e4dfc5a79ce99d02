#include "roots/stack.h"

#include <pthread.h>

#include <algorithm>
#include <cstring>

#include "alloc/base/check.h"
#include "alloc/base/units.h"
#include "alloc/metadata.h"

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
StackCapture::capture(const void* top, const void* base, AddressRange range, Metadata* more) {
  const auto* word = reinterpret_cast<const volatile Word*>(
      round_up(reinterpret_cast<std::uintptr_t>(top), sizeof(Word)));
  const auto* const end = static_cast<const volatile Word*>(base);
  x_top = top;
  x_base = base;
  std::size_t count = 0;
  std::size_t left = 0;
  do {
    for (;
         end - word >= static_cast<std::ptrdiff_t>(kLineWords) && count + kLineWords <= x_capacity;
         word += kLineWords) {
      if (end - word > static_cast<std::ptrdiff_t>(kWordsAhead))
        __builtin_prefetch(const_cast<const Word*>(word + kWordsAhead));
      count += keep_line(word, x_words + count, range);
    }
    left = word < end ? static_cast<std::size_t>(end - word) : 0;
  } while (count + left > x_capacity && grow(count, count + left, more));
  for (; word < end; ++word) {  // the rest, or what there may be no room for
    const Word value = *word;
    if (!range.contains(value)) continue;
    if (count < x_capacity) x_words[count] = value;
    ++count;
  }
  x_wanted = count;
  x_complete = count <= x_capacity;
  x_count = x_complete ? count : x_capacity;
}

// A buffer with room for so many words, the first `count` of them as they are. Where a thread has stopped nobody holds a lock of
// ours for long, and no thread that has stopped holds one.
[[gnu::noinline]] bool StackCapture::grow(std::size_t count, std::size_t room, Metadata* more) {
  if (more == nullptr || has_outgrown()) return false;
  const std::size_t capacity = std::max(kCapacity, std::bit_ceil(room));
  auto* const words = static_cast<Word*>(more->take(capacity * sizeof(Word)));
  if (words == nullptr) return false;
  if (count != 0) std::memcpy(words, x_words, count * sizeof(Word));
  x_outgrown = x_words;
  x_outgrown_capacity = x_capacity;
  x_words = words;
  x_capacity = capacity;
  return true;
}

void StackCapture::give_back_outgrown(Metadata& metadata) {
  if (!has_outgrown()) return;
  metadata.give_back(x_outgrown, x_outgrown_capacity * sizeof(Word));
  x_outgrown = nullptr;
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
