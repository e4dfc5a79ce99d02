// An allocator for one test, with the few steps that gc/ would take: a cell, a mark, a sweep. Marks
// are set by hand, one thread, since nothing of the collector is linked here.
#pragma once

#include <tricolor/detail/type_info.h>

#include <array>
#include <atomic>
#include <bit>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <optional>
#include <random>
#include <vector>

#include "alloc/allocator.h"
#include "alloc/cell.h"
#include "alloc/span_life.h"
#include "alloc/sweep_span.h"
#include "alloc/thread_cache.h"

namespace tricolor::test {

// Prints the seed of a random test, so that a failure can be run again: TRICOLOR_TEST_SEED=<n>.
inline std::uint64_t seed_of(const char* test) {
  const char* const given = std::getenv("TRICOLOR_TEST_SEED");
  const std::uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  std::printf("%s: TRICOLOR_TEST_SEED=%llu\n", test, static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  return seed;
}

inline constexpr std::uint32_t kFirstWord[] = {0};

// A type whose cells hold one reference, at their start.
inline constexpr detail::type_info kPointerType = {
    .name = "Pointer",
    .name_size = 7,
    .align = 8,
    .scan = detail::ScanMode::words,
    .fixed = {kFirstWord, 1},
    .tail = {},
};

inline constexpr std::uint32_t kEverySpan = impl::Central::kEverySpan;

// Its address space stays when it goes: arenas are for ever.
struct OwnHeap {
  impl::Allocator allocator;
  // The process's heap may be there too, and ask its threads to lock in critical sections only. This one stops nobody.
  const impl::LockCheck lock_check = impl::set_lock_check(nullptr);

  OwnHeap() {
    if (!allocator.create()) std::abort();
  }
  OwnHeap(const OwnHeap&) = delete;
  OwnHeap& operator=(const OwnHeap&) = delete;
  ~OwnHeap() { impl::set_lock_check(lock_check); }

  // A new kind whose cells hold references, and the kind of pointer-free cells.
  impl::Kind& typed(std::size_t size_class) {
    std::atomic<std::uint32_t> slot{0};
    return allocator.kinds[allocator.kinds.id_of(slot, kPointerType, size_class)];
  }
  impl::Kind& pointer_free(std::size_t size_class) {
    return allocator
        .kinds[size_class == detail::kLargeClass ? impl::kLargePointerFreeKind
                                                 : static_cast<std::uint32_t>(size_class)];
  }

  // Claims from the spans of the kind, or from a fresh one. No claim when memory was refused.
  impl::Claim claim(impl::Kind& kind, std::uint32_t wanted, std::uint32_t tries = kEverySpan) {
    impl::Claim claim;
    if (kind.central.claim(allocator, wanted, tries, claim)) return claim;
    return claim_fresh(kind, wanted);
  }
  impl::Claim claim_fresh(impl::Kind& kind, std::uint32_t wanted) {
    impl::Claim claim;
    const auto run = allocator.pages.take({kind.pages});
    if (run) kind.central.add_span(allocator, kind, run->first, run->zero, wanted, claim);
    return claim;
  }

  // One cell, as gc/allocate.cc does it. Null when memory was refused.
  char* allocate(impl::LocalCache& cache, impl::Kind& kind) {
    if (!impl::grow_tables(allocator, cache, kind.id)) return nullptr;
    for (;;) {
      if (char* const cell = detail::try_take(cache, kind.id, kind.cell_bytes)) return cell;
      if (impl::next_run(cache, kind.id, kind.cell_bytes, kind.scan)) continue;
      const impl::Claim got = claim(kind, impl::next_claim_cells(allocator, cache, kind));
      if (got.span == nullptr) return nullptr;
      impl::accept_claim(allocator, cache, kind, got);
    }
  }
  char* allocate_large(impl::Kind& kind, std::size_t pages,
                       impl::PageState state = impl::PageState::in_use) {
    const auto run = allocator.pages.take({pages});
    if (!run) return nullptr;
    impl::PageRecord* const span =
        impl::publish_span(allocator, kind, run->first, {pages}, run->zero, state);
    impl::alloc_words(span)[0].store(1, std::memory_order_relaxed);
    allocator.count_claimed(impl::PageCount{pages}.bytes(), kind.scan);
    return run->first.data();
  }

  impl::Cell find(const void* address) const {
    return impl::find_cell(allocator.map, reinterpret_cast<std::uintptr_t>(address));
  }
  bool allocated(const void* address) const {
    return static_cast<bool>(
        impl::find_allocated_cell(allocator.map, reinterpret_cast<std::uintptr_t>(address)));
  }
  void mark(const void* address) {
    const impl::Cell cell = find(address);
    impl::mark_words(cell.span)[cell.index / 64].fetch_or(std::uint64_t{1} << (cell.index % 64),
                                                          std::memory_order_relaxed);
  }

  // What a cycle does between its marks and its sweep. No claim may be out.
  void begin_sweep() {
    std::int64_t marked = 0;
    for_each_span([&](impl::PageRecord* span) {
      std::int64_t cells = 0;
      for (std::uint32_t i = 0; i < span->cells; ++i) {
        cells +=
            impl::test_bit(impl::mark_words(span), i) && impl::test_bit(impl::alloc_words(span), i);
      }
      marked += cells * static_cast<std::int64_t>(impl::Cell{span, 0}.bytes());
    });
    allocator.live_bytes.store(marked, std::memory_order_relaxed);
    allocator.sweep_epoch.fetch_add(1, std::memory_order_relaxed);
  }
  // Returns the pages freed.
  std::size_t sweep_all() {
    std::size_t freed = 0;
    for_each_span(
        [&](impl::PageRecord* span) { freed += impl::sweep_and_free(allocator, span).value; });
    return freed;
  }

  // `visit` may free the span it is given.
  template <typename Visit>
  void for_each_span(Visit visit) {
    for (impl::Arena* arena = allocator.pages.first_arena(); arena != nullptr;
         arena = arena->next.load(std::memory_order_acquire)) {
      for (std::size_t w = 0; w < arena->heads.size(); ++w) {
        for (std::uint64_t bits = arena->heads[w].load(std::memory_order_acquire); bits != 0;
             bits &= bits - 1) {
          visit(arena->records() + w * 64 + static_cast<std::size_t>(std::countr_zero(bits)));
        }
      }
    }
  }

  // Allocated minus freed must be what is live; live_bytes says the same once a sweep has ended.
  std::int64_t allocated_less_freed() const {
    return static_cast<std::int64_t>(allocator.allocated_bytes.load(std::memory_order_relaxed) -
                                     allocator.freed_bytes.load(std::memory_order_relaxed));
  }
  std::int64_t live() const { return allocator.live_bytes.load(std::memory_order_relaxed); }
};

// A thread's cache; what it has claimed goes back at its end.
struct OwnCache : impl::LocalCache {
  explicit OwnCache(OwnHeap& heap_) : heap(heap_) {}
  OwnCache(const OwnCache&) = delete;
  OwnCache& operator=(const OwnCache&) = delete;
  ~OwnCache() {
    impl::return_all(heap.allocator, *this);
    impl::free_tables(heap.allocator, *this);
  }
  OwnHeap& heap;
};

// The cells of a claim, ascending.
inline std::vector<std::uint32_t> cells_of(const impl::Claim& claim) {
  std::vector<std::uint32_t> cells;
  for (std::uint32_t w = 0; w < impl::Claim::kWords; ++w) {
    for (std::uint64_t mask = claim.mask[w]; mask != 0; mask &= mask - 1) {
      cells.push_back((claim.first_word + w) * 64 +
                      static_cast<std::uint32_t>(std::countr_zero(mask)));
    }
  }
  return cells;
}

inline std::uint32_t count_set(const impl::BitWord* words, std::uint32_t bits) {
  std::uint32_t set = 0;
  for (std::uint32_t i = 0; i < bits; ++i) set += impl::test_bit(words, i);
  return set;
}

inline bool all_bytes_are(const char* begin, std::size_t bytes, char value) {
  for (std::size_t i = 0; i < bytes; ++i) {
    if (begin[i] != value) return false;
  }
  return true;
}

}  // namespace tricolor::test
