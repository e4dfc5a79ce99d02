// What does allocation cost when spans are typed, when objects have headers, and when spans have a
// pointer bitmap (schemes.h)? One thread fills a heap of 64 MiB; prints ns per object. Marking the
// same three is typed_spans_mark.cc; the memory they waste with many types and threads is
// typed_spans_waste.cc.
//
// Cells are handed out as
//   runs    threads share the span and claim windows of it (512 bytes at first, doubling up to a
//           page) under its lock; in the window, the next run of free cells is zeroed at once and
//           allocation bumps through it.
//   mixed   windows as above, but only long runs of free cells are zeroed at once; in fragmented
//           places the window's bits are scanned and cells zeroed one by one.
//   cells   the thread owns the span; a bit scan and a memset per object, as in Go.
//
// Usage: typed_spans [rounds = 11]

#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>

#include "schemes.h"

namespace prototype {
namespace {

enum class Handing { kRuns, kMixed, kCells };

constexpr std::size_t kAllocationHeapBytes = kArenaBytes;
constexpr std::size_t kAllocationPages = kAllocationHeapBytes / kPageBytes;
constexpr std::size_t kMaxTypes = 128;
using FreeBits = std::array<std::uint64_t, 8>;  // Up to 512 cells of 16 bytes.

// One thread's view of the heap. The lock of a span is real and never contended here.
template <Scheme kScheme, Handing kHanding, std::size_t kObjectBytes>
class Allocator {
 public:
  static constexpr std::size_t kCellBytes = cell_bytes_for(kScheme, kObjectBytes);
  static constexpr std::size_t kCells = usable_bytes(kScheme) / kCellBytes;

  enum class Memory { kZeroed, kDirty };
  Allocator(std::byte* heap, std::vector<FreeBits>& free, const Type* types, Memory memory)
      : heap_(heap), free_(free), types_(types), memory_(memory) {}

  // Null when the heap is full.
  [[gnu::always_inline]] inline std::byte* allocate(std::size_t type) {
    Cache& cache = caches_[kScheme == Scheme::kTyped ? type : 0];
    std::byte* cell;
    if constexpr (kHanding == Handing::kRuns) {
      if (cache.bump == cache.limit && !next_run(cache)) return nullptr;
      cell = cache.bump;
      cache.bump += kCellBytes;
    } else if (kHanding == Handing::kMixed &&
               (cache.bump != cache.limit || (cache.word == 0 && next_mixed(cache)))) {
      cell = cache.bump;
      cache.bump += kCellBytes;
    } else {
      if (cache.word == 0 && (kHanding == Handing::kMixed || !next_word(cache))) return nullptr;
      const auto bit = static_cast<std::size_t>(__builtin_ctzll(cache.word));
      cache.word &= cache.word - 1;
      cell = cache.word_base + bit * kCellBytes;
      if (memory_ == Memory::kDirty) std::memset(cell, 0, kCellBytes);
    }
    if constexpr (kScheme == Scheme::kHeader) {
      *reinterpret_cast<const Type**>(cell) = types_ + type;
      return cell + sizeof(Type*);
    }
    if constexpr (kScheme == Scheme::kBitmap)
      write_pointer_bits(cell, kObjectBytes / 8, types_[type].pointer_mask);
    return cell;
  }

 private:
  static constexpr std::size_t kFirstWindowBytes = 512;
  static constexpr std::size_t kLongRunBytes = 512;

  struct Cache {
    std::byte* bump = nullptr;
    std::byte* limit = nullptr;
    std::size_t page = 0;
    std::size_t next = 0;  // The window's cells from here to window_end are not handed out yet.
    std::size_t window_begin = 0;
    std::size_t window_end = 0;
    std::size_t window_bytes = kFirstWindowBytes;
    std::uint64_t word = 0;  // kCells only: free cells from word_base on, word_index + 1 is next.
    std::byte* word_base = nullptr;
    std::size_t word_index = kCells;
  };
  struct SharedSpan {
    std::atomic<bool> locked = false;
    std::size_t page = 0;
    std::size_t next_cell = kCells;
  };

  [[gnu::noinline]] bool next_run(Cache& cache) {
    for (;;) {
      const std::size_t first = find(cache, cache.next, 0);
      if (first < cache.window_end) {
        const std::size_t end = find(cache, first + 1, ~std::uint64_t{0});
        cache.bump = heap_ + cache.page * kPageBytes + first * kCellBytes;
        cache.limit = cache.bump + (end - first) * kCellBytes;
        cache.next = end;
        if (memory_ == Memory::kDirty) std::memset(cache.bump, 0, (end - first) * kCellBytes);
        return true;
      }
      if (!claim_window(cache)) return false;
    }
  }

  // True if the next cells are a run; else the free cells are in the word, or there are none.
  [[gnu::noinline]] bool next_mixed(Cache& cache) {
    for (;;) {
      const std::size_t first = find(cache, cache.next, 0);
      if (first < cache.window_end) {
        const std::size_t end = find(cache, first + 1, ~std::uint64_t{0});
        if ((end - first) * kCellBytes >= kLongRunBytes) {
          cache.bump = heap_ + cache.page * kPageBytes + first * kCellBytes;
          cache.limit = cache.bump + (end - first) * kCellBytes;
          cache.next = end;
          if (memory_ == Memory::kDirty) std::memset(cache.bump, 0, (end - first) * kCellBytes);
          return true;
        }
        const std::size_t word_end = std::min((first / 64 + 1) * 64, cache.window_end);
        cache.word = free_[cache.page][first / 64] >> (first % 64);
        if (word_end - first < 64) cache.word &= (std::uint64_t{1} << (word_end - first)) - 1;
        cache.word_base = heap_ + cache.page * kPageBytes + first * kCellBytes;
        cache.next = word_end;
        return false;
      }
      if (!claim_window(cache)) return false;
    }
  }

  // The first cell from `from` on whose free bit differs from those of `than`; or the window's end.
  std::size_t find(const Cache& cache, std::size_t from, std::uint64_t than) const {
    const FreeBits& free = free_[cache.page];
    while (from < cache.window_end) {
      const std::uint64_t bits = (free[from / 64] ^ than) >> (from % 64);
      if (bits != 0)
        return std::min(from + static_cast<std::size_t>(__builtin_ctzll(bits)), cache.window_end);
      from = (from / 64 + 1) * 64;
    }
    return cache.window_end;
  }

  bool claim_window(Cache& cache) {
    // The window is used up, so its cells become allocated in one go.
    for (std::size_t i = cache.window_begin; i < cache.window_end;) {
      const std::size_t end = std::min((i / 64 + 1) * 64, cache.window_end);
      free_[cache.page][i / 64] &= ~((~std::uint64_t{0} >> (64 - (end - i))) << (i % 64));
      i = end;
    }
    SharedSpan& span = spans_[static_cast<std::size_t>(&cache - caches_.data())];
    // Acquire: what the last holder wrote to the span. Pairs with the release below.
    while (span.locked.exchange(true, std::memory_order_acquire)) {
    }
    bool found = true;
    if (span.next_cell == kCells) {
      found = next_page_ < kAllocationPages;
      if (found) {
        span.page = next_page_++;
        span.next_cell = 0;
      }
    }
    if (found) {
      cache.page = span.page;
      cache.window_begin = cache.next = span.next_cell;
      const std::size_t cells = std::max(std::size_t{1}, cache.window_bytes / kCellBytes);
      cache.window_end = span.next_cell = std::min(kCells, span.next_cell + cells);
      cache.window_bytes = std::min(cache.window_bytes * 2, kPageBytes);
    }
    // Release: makes the claim visible to the next holder. Pairs with the exchange above.
    span.locked.store(false, std::memory_order_release);
    return found;
  }

  [[gnu::noinline]] bool next_word(Cache& cache) {
    do {
      if ((cache.word_index + 1) * 64 >= kCells || cache.word_index == kCells) {
        if (next_page_ == kAllocationPages) return false;
        cache.page = next_page_++;
        cache.word_index = 0;
      } else {
        ++cache.word_index;
      }
      cache.word = std::exchange(free_[cache.page][cache.word_index], 0);
      cache.word_base = heap_ + cache.page * kPageBytes + cache.word_index * 64 * kCellBytes;
    } while (cache.word == 0);
    return true;
  }

  std::byte* heap_;
  std::vector<FreeBits>& free_;
  const Type* types_;
  Memory memory_;
  std::size_t next_page_ = 0;
  std::array<Cache, kMaxTypes> caches_{};
  std::array<SharedSpan, kMaxTypes> spans_{};
};

enum class State { kFirstTouch, kFirstTouchHuge, kEmpty, kHoles, kEmptyManyTypes, kHolesManyTypes };
constexpr std::array kStateNames = {"first touch, 4 KiB", "first touch, huge", "empty spans",
                                    "50 % holes",         "empty, 100 types",  "holes, 100 types"};

struct AllocationRace {
  Mapping small{kAllocationHeapBytes, Pages::kSmall};
  Mapping huge{kAllocationHeapBytes, Pages::kHuge};
  std::vector<FreeBits> free = std::vector<FreeBits>(kAllocationPages);
  std::array<Type, kMaxTypes> types{};
  std::vector<std::uint8_t> one_type = std::vector<std::uint8_t>(1 << 16, 0);
  std::vector<std::uint8_t> many_types = std::vector<std::uint8_t>(1 << 16, 0);

  AllocationRace() {
    Random random(5);
    for (Type& type : types) type.pointer_mask = 1 + random.below(2);  // Fits two words.
    for (std::uint8_t& type : many_types)  // Popularity falls like 1 / rank.
      type = static_cast<std::uint8_t>(std::exp(random.unit() * std::log(100.0)) - 1.0);
  }
};

template <Scheme kScheme, Handing kHanding, std::size_t kObjectBytes>
double allocate_all(AllocationRace& race, State state) {
  using Contestant = Allocator<kScheme, kHanding, kObjectBytes>;
  const bool first_touch = state == State::kFirstTouch || state == State::kFirstTouchHuge;
  const bool holes = state == State::kHoles || state == State::kHolesManyTypes;
  const bool many = state == State::kEmptyManyTypes || state == State::kHolesManyTypes;
  const Mapping& memory = state == State::kFirstTouchHuge ? race.huge : race.small;
  if (first_touch) madvise(memory.as<void>(), kAllocationHeapBytes, MADV_DONTNEED);
  Random random(11);
  for (FreeBits& bits : race.free)
    for (std::size_t i = 0; i < bits.size(); ++i) {
      constexpr std::size_t kCells = Contestant::kCells;
      bits[i] = holes ? random.next() : ~std::uint64_t{0};
      if (i * 64 >= kCells)
        bits[i] = 0;
      else if (kCells - i * 64 < 64)
        bits[i] &= ~std::uint64_t{0} >> (64 - (kCells - i * 64));
    }
  const std::vector<std::uint8_t>& types = many ? race.many_types : race.one_type;
  std::uint64_t cells = 0;
  for (const FreeBits& bits : race.free)
    for (const std::uint64_t word : bits)
      cells += static_cast<unsigned>(__builtin_popcountll(word));
  auto allocator = std::make_unique<Contestant>(
      memory.as<std::byte>(), race.free, race.types.data(),
      first_touch ? Contestant::Memory::kZeroed : Contestant::Memory::kDirty);
  cool_caches();

  std::uint64_t count = 0;
  const double start = now_ns();
  while (std::byte* object = allocator->allocate(types[count % (1 << 16)])) {
    *reinterpret_cast<std::uint64_t*>(object) = count;  // Stands for the constructor.
    ++count;
  }
  const double elapsed = now_ns() - start;
  if (!many && count != cells) std::abort();  // A free cell was missed or handed out twice.
  return elapsed / static_cast<double>(count);
}

template <std::size_t kObjectBytes>
void race_allocation(AllocationRace& race, int rounds) {
  struct Contestant {
    const char* scheme;
    const char* handing;
    double (*run)(AllocationRace&, State);
  };
  constexpr std::array kContestants = {
      Contestant{"typed", "runs", allocate_all<Scheme::kTyped, Handing::kRuns, kObjectBytes>},
      Contestant{"header", "runs", allocate_all<Scheme::kHeader, Handing::kRuns, kObjectBytes>},
      Contestant{"bitmap", "runs", allocate_all<Scheme::kBitmap, Handing::kRuns, kObjectBytes>},
      Contestant{"typed", "mixed", allocate_all<Scheme::kTyped, Handing::kMixed, kObjectBytes>},
      Contestant{"typed", "cells", allocate_all<Scheme::kTyped, Handing::kCells, kObjectBytes>},
      Contestant{"header", "cells", allocate_all<Scheme::kHeader, Handing::kCells, kObjectBytes>},
      Contestant{"bitmap", "cells", allocate_all<Scheme::kBitmap, Handing::kCells, kObjectBytes>},
  };
  std::array<std::array<Samples, kStateNames.size()>, kContestants.size()> ns;
  for (int round = 0; round < rounds; ++round)
    for (std::size_t state = 0; state < kStateNames.size(); ++state)
      for (std::size_t i = 0; i < kContestants.size(); ++i)
        ns[i][state].add(kContestants[i].run(race, static_cast<State>(state)));

  std::printf(
      "\nallocate %zu bytes, ns per object, median (min–max) of %d\n\n| scheme | hands out |",
      kObjectBytes, rounds);
  for (const char* name : kStateNames) std::printf(" %s |", name);
  std::printf("\n|---|---|--:|--:|--:|--:|--:|--:|\n");
  for (std::size_t i = 0; i < kContestants.size(); ++i) {
    std::printf("| %s | %s |", kContestants[i].scheme, kContestants[i].handing);
    for (const Samples& samples : ns[i]) std::printf(" %s |", samples.text().c_str());
    std::printf("\n");
  }
  std::fflush(stdout);
}

}  // namespace
}  // namespace prototype

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 11;
  const auto race = std::make_unique<prototype::AllocationRace>();
  prototype::race_allocation<16>(*race, rounds);
  prototype::race_allocation<32>(*race, rounds);
  prototype::race_allocation<48>(*race, rounds);
  prototype::race_allocation<128>(*race, rounds);
}
