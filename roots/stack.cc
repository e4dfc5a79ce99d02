#include "roots/stack.h"

#include <pthread.h>

#include <algorithm>
#include <cstring>

#include "alloc/base/check.h"
#include "alloc/base/stop_code.h"
#include "alloc/base/units.h"
#include "alloc/metadata.h"

namespace tricolor::impl {

namespace {

using Word = std::uintptr_t;

constexpr std::size_t kLineWords = 64 / sizeof(Word);
// What lies so far ahead is fetched while a stack is read, and what lies less far before that begins: the processor by itself fetches
// nothing beyond the end of a page, and of a stack that has just run on another one nearly every line has to come from there.
// Of a stack that is in no cache, one word in 8 kept, 0.08 ms for each MiB, word by word 0.25 (bench/prototype, 4).
constexpr std::size_t kWordsAhead = 8192 / sizeof(Word);

// A block of metadata from which less can be left.
constexpr std::size_t kTrimmedWords = Metadata::kTrimmedBytes / sizeof(Word);

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

TRICOLOR_STOP_CODE void StackCapture::capture(const void* top, const void* base,
                                              AddressRange range) {
  x_top = top;
  x_base = base;
  x_count = 0;
  x_went_on = false;
  keep_from(reinterpret_cast<const volatile Word*>(
                round_up(reinterpret_cast<std::uintptr_t>(top), sizeof(Word))),
            range);
}

bool StackCapture::go_on(AddressRange range, Metadata& metadata) {
  const auto left = static_cast<std::size_t>(static_cast<const volatile Word*>(x_base) - x_rest);
  const std::size_t room = std::bit_ceil(std::max(x_count + left, kTrimmedWords));
  auto* const words = static_cast<Word*>(metadata.take(room * sizeof(Word)));
  if (words == nullptr) return false;
  if (x_count != 0) std::memcpy(words, x_words, x_count * sizeof(Word));
  metadata.give_back(x_words, x_capacity * sizeof(Word));
  x_words = words;
  x_capacity = room;
  x_went_on = true;
  keep_from(x_rest, range);
  x_capacity = std::min(room, std::max(capacity_wanted(), kTrimmedWords));
  metadata.trim(words, room * sizeof(Word), x_capacity * sizeof(Word));
  return true;
}

// Reads every word of somebody's frames: sanitizers would object to redzones, padding and races, none of which matter to a
// conservative scan of a stopped thread.
[[gnu::noinline]] TRICOLOR_STOP_CODE
    __attribute__((no_sanitize("address", "thread", "undefined"))) void
    StackCapture::keep_from(const volatile Word* word, AddressRange range) {
  const auto* const end = static_cast<const volatile Word*>(x_base);
  // (The compiler reads members again after each store.)
  Word* const words = x_words;
  const std::size_t capacity = x_capacity;
  std::size_t count = x_count;
  for (const volatile Word* at = word;
       at < end && at - word < static_cast<std::ptrdiff_t>(kWordsAhead); at += kLineWords)
    __builtin_prefetch(const_cast<const Word*>(at));
  for (; end - word >= static_cast<std::ptrdiff_t>(kLineWords) && count + kLineWords <= capacity;
       word += kLineWords) {
    if (end - word > static_cast<std::ptrdiff_t>(kWordsAhead))
      __builtin_prefetch(const_cast<const Word*>(word + kWordsAhead));
    count += keep_line(word, words + count, range);
  }
  for (; word < end; ++word) {  // the rest, or what there is still room for
    const Word value = *word;
    if (!range.contains(value)) continue;
    if (count == capacity) break;
    words[count] = value;
    ++count;
  }
  x_rest = word < end ? word : nullptr;
  x_kept = x_count = count;
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
