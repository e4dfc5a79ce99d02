// How fast can one thread read a large stack that is in no cache, and keep the words that may be pointers? One word in EVERY is;
// before each reading 64 MiB of other memory are walked through. Prints microseconds per MiB for each way of reading.
//
// Usage: capture [MiB = 4] [every = 8] [rounds = 21]

#include <cstring>

#include "measure.h"

namespace prototype {
namespace {

using Word = std::uintptr_t;

constexpr std::size_t kLine = 64 / sizeof(Word);
constexpr std::size_t kPage = 4096 / sizeof(Word);
constexpr Word kLowest = 0x7c0000000000;
constexpr Word kBytes = 1 << 28;

bool is_inside(Word word) { return word - kLowest < kBytes; }

using Way = std::size_t (*)(const Word* begin, const Word* end, Word* out);

std::size_t word_by_word(const volatile Word* word, const volatile Word* end, Word* out) {
  std::size_t count = 0;
  for (; word < end; ++word) {
    const Word value = *word;
    if (is_inside(value)) out[count++] = value;
  }
  return count;
}

std::size_t without_branch(const volatile Word* word, const volatile Word* end, Word* out) {
  std::size_t count = 0;
  for (; word < end; ++word) {
    const Word value = *word;
    out[count] = value;
    count += is_inside(value) ? 1 : 0;
  }
  return count;
}

template <std::size_t ahead_bytes>
std::size_t fetched_ahead(const Word* begin, const Word* end, Word* out) {
  std::size_t count = 0;
  for (; begin < end; begin += kLine) {
    __builtin_prefetch(reinterpret_cast<const char*>(begin) + ahead_bytes);
    count += without_branch(begin, begin + kLine, out + count);
  }
  return count;
}

template <std::size_t pages>
std::size_t pages_at_once(const Word* begin, const Word* end, Word* out) {
  std::size_t count = 0;
  for (; begin < end; begin += pages * kPage) {
    for (const Word* line = begin; line < begin + kPage; line += kLine) {
      for (std::size_t page = 0; page < pages; ++page)
        __builtin_prefetch(line + (pages + page) * kPage);
      for (std::size_t page = 0; page < pages; ++page)
        count += without_branch(line + page * kPage, line + page * kPage + kLine, out + count);
    }
  }
  return count;
}

// Nothing is kept: what the memory alone takes.
std::size_t one_word_a_line(const Word* begin, const Word* end, Word*) {
  Word sum = 0;
  for (const volatile Word* word = begin; word < end; word += kLine) sum += *word;
  return sum & 1;
}

struct Contestant {
  const char* name;
  Way way;
  Samples us_per_mib;
};

void run(std::size_t mib, unsigned every, int rounds) {
  const std::size_t words = (mib << 20) / sizeof(Word);
  const Mapping stack_memory(mib << 20, Pages::kSmall);
  const Mapping out_memory((mib << 20) + 4096, Pages::kSmall);
  const Mapping other_memory(std::size_t{64} << 20, Pages::kSmall);
  Word* const stack = stack_memory.as<Word>();
  Word* const out = out_memory.as<Word>();
  auto* const other = other_memory.as<unsigned char>();
  Random random(1);
  for (std::size_t i = 0; i < words; ++i)
    stack[i] = random.below(every) == 0 ? kLowest + random.below(kBytes) : i;
  std::memset(out, 1, (mib << 20) + 4096);
  std::array contestants = {
      Contestant{"word by word",
                 [](const Word* begin, const Word* end, Word* kept) {
                   return word_by_word(begin, end, kept);
                 },
                 {}},
      Contestant{"without a branch",
                 [](const Word* begin, const Word* end, Word* kept) {
                   return without_branch(begin, end, kept);
                 },
                 {}},
      Contestant{"1 KiB ahead", fetched_ahead<1024>, {}},
      Contestant{"4 KiB ahead", fetched_ahead<4096>, {}},
      Contestant{"8 KiB ahead", fetched_ahead<8192>, {}},
      Contestant{"2 pages at once", pages_at_once<2>, {}},
      Contestant{"4 pages at once", pages_at_once<4>, {}},
      Contestant{"8 pages at once", pages_at_once<8>, {}},
      Contestant{"only read", one_word_a_line, {}},
  };
  for (int round = 0; round < rounds; ++round) {
    for (Contestant& one : contestants) {
      for (std::size_t i = 0; i < (std::size_t{64} << 20); i += 64) ++other[i];
      const double begin = now_ns();
      volatile std::size_t count = one.way(stack, stack + words, out);
      one.us_per_mib.add((now_ns() - begin) / 1e3 / static_cast<double>(mib));
      static_cast<void>(count);
    }
  }
  for (const Contestant& one : contestants)
    std::printf("%-17s %s us per MiB\n", one.name, one.us_per_mib.text().c_str());
}

}  // namespace
}  // namespace prototype

int main(int argc, char** argv) {
  const std::size_t mib = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 4;
  const unsigned every = argc > 2 ? static_cast<unsigned>(std::atoi(argv[2])) : 8;
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 21;
  prototype::run(mib, every, rounds);
}
