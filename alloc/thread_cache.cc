#include "alloc/thread_cache.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <new>

#include "alloc/base/stop_code.h"
#include "alloc/cell.h"

namespace tricolor::detail {
inline namespace abi1 {

constinit thread_local thread_cache* current_cache = nullptr;

}  // namespace abi1
}  // namespace tricolor::detail

namespace tricolor::impl {

namespace {

constexpr std::uint32_t kSmallestClaimBytes = 512;
constexpr std::uint32_t kLargestClaimBytes = kPageBytes;
constexpr std::uint32_t kClaimShare = 8;  // of what the thread has claimed lately
constexpr std::uint32_t kFirstTableEntries = 128;
static_assert(kFirstTableEntries > kFirstTypedKind, "the pointer-free kinds fit at once");

constexpr std::size_t kBytesAnEntry =
    sizeof(detail::run) + sizeof(Claim) + 2 * sizeof(std::uint32_t);

std::atomic<const HeapHooks*> heap_hooks{nullptr};

// Clears alloc bits of cells that were never used.
void return_bits(BitWord& word, std::uint64_t bits) {
  // Release: what we wrote to the cells (zeros, a constructor that threw). Pairs with Central::claim_from (acquire).
  if (bits != 0) word.fetch_and(~bits, std::memory_order_release);
}

// A multiple of 8 bytes. Short runs are common, and a call of memset costs more than they do.
void zero_cells(char* begin, std::size_t bytes) {
  constexpr std::size_t kShort = 128;
  if (bytes > kShort) {
    std::memset(begin, 0, bytes);
    return;
  }
  for (std::size_t i = 0; i < bytes; i += sizeof(std::uint64_t)) {
    ::new (static_cast<void*>(begin + i)) std::uint64_t(0);
    asm volatile("");  // or the compiler makes a call of memset out of it
  }
}

std::uint64_t bits_below(std::uint32_t n) {
  return n >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << n) - 1;
}

}  // namespace

bool grow_tables(Allocator& allocator, LocalCache& cache, std::uint32_t id) {
  if (id < cache.run_count) return true;
  const std::uint32_t entries = std::max(kFirstTableEntries, std::bit_ceil(id + 1));
  char* const block = static_cast<char*>(allocator.metadata.take(entries * kBytesAnEntry));
  if (block == nullptr) return false;
  auto* const claims = reinterpret_cast<Claim*>(block);
  auto* const runs = reinterpret_cast<detail::run*>(claims + entries);
  auto* const open = reinterpret_cast<std::uint32_t*>(runs + entries);
  auto* const taken_bytes = open + entries;
  const std::uint32_t old = cache.run_count;
  if (old != 0) {
    std::copy_n(cache.claims, old, claims);
    std::copy_n(cache.runs, old, runs);
    std::copy_n(cache.open, cache.open_count, open);
    std::copy_n(cache.taken_bytes, old, taken_bytes);
    allocator.metadata.give_back(cache.claims, old * kBytesAnEntry);
  }
  cache.claims = claims;
  cache.runs = runs;
  cache.open = open;
  cache.taken_bytes = taken_bytes;
  cache.run_count = entries;
  return true;
}

void free_tables(Allocator& allocator, LocalCache& cache) {
  if (cache.run_count == 0) return;
  allocator.metadata.give_back(cache.claims, cache.run_count * kBytesAnEntry);
  cache.runs = nullptr;
  cache.run_count = 0;
}

// Constructors of references read what they overwrite. The kernel would map its page of zeros for that, and once more, with a page of
// our own, for the store: 2.0 faults a page instead of 1.0, and 110 ms instead of 63 for 2,000,000 objects of 64 bytes.
static void write_each_page(char* begin, const char* end) {
  constexpr std::size_t kSmallestPage = 4096;
  while (begin < end) {
    // Relaxed: the cells are this thread's, and zero.
    __atomic_store_n(reinterpret_cast<std::uintptr_t*>(begin), 0, __ATOMIC_RELAXED);
    begin = reinterpret_cast<char*>(
        round_up(reinterpret_cast<std::uintptr_t>(begin) + 1, kSmallestPage));
  }
}

bool next_run(LocalCache& cache, std::uint32_t id, std::size_t cell_bytes, detail::ScanMode scan) {
  dcheck(cache.runs[id].cur == cache.runs[id].end, "cache.exact");
  Claim& claim = cache.claims[id];
  std::uint32_t w = 0;
  while (w < Claim::kWords && claim.mask[w] == 0) ++w;
  if (w == Claim::kWords) return false;
  // The lowest run of ones, followed into the next words while it reaches their ends.
  const auto low = static_cast<std::uint32_t>(std::countr_zero(claim.mask[w]));
  std::uint32_t length = 0;
  for (std::uint32_t from = low; w + (low + length) / 64 < Claim::kWords; from = 0) {
    std::uint64_t& mask = claim.mask[w + (low + length) / 64];
    const auto ones = static_cast<std::uint32_t>(std::countr_one(mask >> from));
    mask &= ~(bits_below(ones) << from);
    length += ones;
    if (from + ones != 64) break;
  }
  const std::uint32_t index = (claim.first_word + w) * 64 + low;
  char* const begin = page_of_record(claim.span).data() + std::size_t{index} * cell_bytes;
  const std::size_t bytes = std::size_t{length} * cell_bytes;
  if (scan != detail::ScanMode::none) {
    if (claim.needs_zero) {
      zero_cells(begin, bytes);
    } else {
      write_each_page(begin, begin + bytes);
    }
  }
  cache.runs[id] = {begin, begin + bytes};
  return true;
}

std::uint32_t next_claim_cells(const Allocator& allocator, const LocalCache& cache,
                               const Kind& kind) {
  const std::uint32_t bytes =
      std::clamp(cache.taken_bytes[kind.id] / kClaimShare, kSmallestClaimBytes, kLargestClaimBytes);
  return std::min(std::max(1u, bytes / kind.cell_bytes), allocator.most_cells_a_claim);
}

void accept_claim(Allocator& allocator, LocalCache& cache, const Kind& kind, const Claim& claim) {
  Claim& mine = cache.claims[kind.id];
  if (mine.span == nullptr) cache.open[cache.open_count++] = kind.id;
  mine = claim;
  std::size_t cells = 0;
  for (const std::uint64_t mask : claim.mask)
    cells += static_cast<std::size_t>(std::popcount(mask));
  cache.claimed_cells += cells;
  cache.claimed_bytes += cells * kind.cell_bytes;
  std::uint32_t& taken = cache.taken_bytes[kind.id];
  taken = std::min<std::uint32_t>(taken + static_cast<std::uint32_t>(cells) * kind.cell_bytes,
                                  kClaimShare * kLargestClaimBytes);
  allocator.count_claimed(cells * kind.cell_bytes, kind.scan);
}

TRICOLOR_STOP_CODE void return_all(Allocator& allocator, LocalCache& cache, Runs runs) {
  for (std::uint32_t i = 0; i < cache.open_count; ++i) {
    const std::uint32_t id = cache.open[i];
    Claim& claim = cache.claims[id];
    detail::run& run = cache.runs[id];
    BitWord* const allocs = alloc_words(claim.span);
    const std::size_t cell_bytes = claim.span->kind->cell_bytes;
    std::size_t returned = 0;
    for (std::uint32_t w = 0; w < Claim::kWords; ++w) {
      return_bits(allocs[claim.first_word + w], claim.mask[w]);
      returned += static_cast<std::size_t>(std::popcount(claim.mask[w]));
    }
    if (runs == Runs::kToo && run.cur != run.end) {
      char* const base = page_of_record(claim.span).data();
      auto index =
          static_cast<std::uint32_t>(static_cast<std::size_t>(run.cur - base) / cell_bytes);
      const auto end =
          static_cast<std::uint32_t>(static_cast<std::size_t>(run.end - base) / cell_bytes);
      returned += end - index;
      while (index < end) {
        const std::uint32_t many = std::min(end - index, 64 - index % 64);
        return_bits(allocs[index / 64], bits_below(many) << (index % 64));
        index += many;
      }
    }
    allocator.count_returned(returned * cell_bytes);
    claim = {};
    run = {};
    cache.taken_bytes[id] /=
        2;  // a kind that stays busy is back at large claims soon, one that does not is forgotten
  }
  cache.open_count = 0;
  cache.tiny = {};
}

void return_all_for_reuse(Allocator& allocator, LocalCache& cache) {
  // Before they are returned: a span with claimed cells is not freed, and has been swept.
  for (std::uint32_t i = 0; i < cache.open_count; ++i) {
    PageRecord* const span = cache.claims[cache.open[i]].span;
    span->kind->central.revisit(allocator, span);
  }
  return_all(allocator, cache);
}

void return_cell(Allocator& allocator, LocalCache& cache, char* cell) {
  const Cell found = find_allocated_cell(allocator.map, reinterpret_cast<std::uintptr_t>(cell));
  check(static_cast<bool>(found), "cache.exact", {reinterpret_cast<std::uintptr_t>(cell)});
  PageRecord* const span = found.span;
  const std::size_t bytes = found.bytes();
  if (span->scan != detail::ScanMode::none) std::memset(cell, 0, bytes);
  const std::uint32_t id = span->kind->id;
  // The last one handed out: simply take it back. (Not into a run that begins in the next span.)
  if (span->kind->cell_bytes != 0 && cache.runs[id].cur == cell + bytes &&
      cache.claims[id].span == span) {
    cache.runs[id].cur = cell;
    return;
  }
  span->kind->central.give_back(allocator, span, found.index);
  allocator.count_returned(bytes);
}

void set_heap_hooks(const HeapHooks* hooks) {
  // Release: the heap that the hooks use is complete. Pairs with attach_slow and attach_to_overwrite (acquire).
  heap_hooks.store(hooks, std::memory_order_release);
}

}  // namespace tricolor::impl

namespace tricolor::detail {
inline namespace abi1 {

thread_cache* attach_slow() {
  const auto* const hooks = impl::heap_hooks.load(std::memory_order_acquire);
  return hooks == nullptr ? nullptr : hooks->attach();
}

thread_cache* attach_to_overwrite(std::uintptr_t word) {
  const auto* const hooks = impl::heap_hooks.load(std::memory_order_acquire);
  return hooks == nullptr || !hooks->is_in_heap(word) ? nullptr : hooks->attach();
}

}  // namespace abi1
}  // namespace tricolor::detail
