#include "alloc/central.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "alloc/base/os.h"
#include "child.h"
#include "test/support/own_heap.h"

using namespace tricolor::impl;
using tricolor::test::cells_of;
using tricolor::test::count_set;
using tricolor::test::in_child;
using tricolor::test::kEverySpan;
using tricolor::test::OwnCache;
using tricolor::test::OwnHeap;
namespace detail = tricolor::detail;

namespace {

// The class whose spans are one page and one cell: a span is claimed or not.
const std::size_t kOneCell = detail::size_class_for(8192, 8192);

void set_free(PageRecord* span, std::uint32_t index) {
  alloc_words(span)[index / 64].fetch_and(~(std::uint64_t{1} << (index % 64)),
                                          std::memory_order_relaxed);
}

// Spans of one cell, all claimed, in the order of the list.
std::vector<PageRecord*> full_spans(OwnHeap& heap, Kind& kind, std::size_t count) {
  std::vector<PageRecord*> spans;
  for (std::size_t i = 0; i < count; ++i) {
    spans.push_back(heap.claim_fresh(kind, 1).span);
    REQUIRE(spans.back() != nullptr);
    Claim none;
    REQUIRE(!kind.central.claim(heap.allocator, 1, 0, none));  // steps over it
  }
  return spans;
}

void start_next_epoch(OwnHeap& heap) {
  heap.allocator.sweep_epoch.fetch_add(1, std::memory_order_relaxed);
}

void mark_all(PageRecord* span) { mark_words(span)[0].store(1, std::memory_order_relaxed); }

// Invariant [central.list] seen from outside: the places are 0, 1, 2 ...
void check_places(const std::set<PageRecord*>& spans) {
  std::set<std::uint32_t> places;
  for (const PageRecord* span : spans) places.insert(span->slot_or_pages);
  CHECK(places.size() == spans.size());
  if (!places.empty()) CHECK(*places.rbegin() == spans.size() - 1);
}

}  // namespace

TEST_CASE("claims hand out every cell of a span once, the lowest first, and nothing else") {
  OwnHeap heap;
  for (const std::size_t c : {1, 2, 3, 4, 5, 6, 12, 26, 34, 36, 47, 56, 67}) {
    for (const std::uint32_t wanted : {1u, 3u, 64u, 100u, 1000u}) {
      Kind& kind = heap.typed(c);
      CAPTURE(kind.cell_bytes, kind.cells, wanted);
      Claim claim = heap.claim_fresh(kind, wanted);
      REQUIRE(claim.span != nullptr);
      PageRecord* const span = claim.span;
      std::vector<std::uint32_t> all;
      bool found = true;
      while (found) {
        const std::vector<std::uint32_t> cells = cells_of(claim);
        CHECK(claim.span == span);
        REQUIRE(!cells.empty());
        REQUIRE(cells.size() <= wanted);
        all.insert(all.end(), cells.begin(), cells.end());
        CHECK(count_set(alloc_words(span), span->cells) == all.size());
        // Less than was wanted only where four words of the bitmap have no more.
        if (cells.size() < wanted && all.size() < kind.cells) CHECK(cells.size() > 192);
        claim = {};
        found = kind.central.claim(heap.allocator, wanted, kEverySpan, claim);
      }
      REQUIRE(all.size() == kind.cells);
      for (std::uint32_t i = 0; i < kind.cells; ++i) REQUIRE(all[i] == i);
      CHECK(span->hint_word == bit_words(span));  // nothing below is free
      const std::uint32_t bits_behind =
          count_set(alloc_words(span), bit_words(span) * 64) - kind.cells;
      CHECK(bits_behind == 0);
      for (std::uint32_t w = 0; w < Claim::kWords; ++w) CHECK(claim.mask[w] == 0);
    }
  }
}

TEST_CASE("a claim takes the free cells between the allocated ones, and no others") {
  const std::uint64_t seed = tricolor::test::seed_of("claims of random spans");
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  OwnHeap heap;
  for (int round = 0; round < 400; ++round) {
    const std::size_t c = std::vector<std::size_t>{1, 2, 3, 4, 5, 8, 20}[random() % 7];
    Kind& kind = heap.typed(c);
    CAPTURE(round, kind.cell_bytes);
    PageRecord* const span = heap.claim_fresh(kind, 1).span;
    // One word in three is full, one in three is nearly full.
    std::set<std::uint32_t> expected;
    for (std::uint32_t w = 0; w < bit_words(span); ++w) {
      const auto style = random() % 3;
      for (std::uint32_t i = w * 64; i < std::min<std::uint32_t>(span->cells, w * 64 + 64); ++i) {
        const bool free = style == 0 ? false : style == 1 ? random() % 20 == 0 : random() % 2 == 0;
        if (free) expected.insert(i);
        const std::uint64_t bit = std::uint64_t{1} << (i % 64);
        if (free) {
          alloc_words(span)[w].fetch_and(~bit, std::memory_order_relaxed);
        } else {
          alloc_words(span)[w].fetch_or(bit, std::memory_order_relaxed);
        }
      }
    }
    span->hint_word = 0;
    while (!expected.empty()) {
      const auto wanted = static_cast<std::uint32_t>(1 + random() % 150);
      Claim claim;
      REQUIRE(kind.central.claim(heap.allocator, wanted, kEverySpan, claim));
      const std::vector<std::uint32_t> cells = cells_of(claim);
      REQUIRE(!cells.empty());
      REQUIRE(cells.size() <= wanted);
      // The lowest free ones that four words can say.
      std::vector<std::uint32_t> lowest;
      for (const std::uint32_t i : expected) {
        if (lowest.size() == wanted || i / 64 - *expected.begin() / 64 >= Claim::kWords) break;
        lowest.push_back(i);
      }
      REQUIRE(cells == lowest);
      for (const std::uint32_t i : cells) expected.erase(i);
    }
    Claim claim;
    REQUIRE(!kind.central.claim(heap.allocator, 1, kEverySpan, claim));
    REQUIRE(count_set(alloc_words(span), bit_words(span) * 64) == span->cells);
  }
}

TEST_CASE("cells that come back into the word last claimed from are claimed again") {
  OwnHeap heap;
  Kind& kind = heap.typed(2);  // 512 cells
  PageRecord* const span = heap.claim_fresh(kind, 70).span;
  CHECK(span->hint_word == 1);  // [0, 64) are used up, the next word is not
  set_free(span, 65);
  Claim claim;
  REQUIRE(kind.central.claim(heap.allocator, 2, kEverySpan, claim));
  CHECK(cells_of(claim) == std::vector<std::uint32_t>{65, 70});
}

TEST_CASE("a claim says whether its cells may hold what others left") {
  OwnHeap heap;
  Kind& kind = heap.typed(6);
  Claim claim = heap.claim_fresh(kind, 1);
  CHECK(!claim.needs_zero);
  char* const cell = page_of_record(claim.span).data();
  std::memset(cell, 1, kPageBytes);
  heap.begin_sweep();
  CHECK(heap.sweep_all() == 1);
  claim = heap.claim_fresh(kind, 1);
  CHECK(page_of_record(claim.span).data() == cell);
  CHECK(claim.needs_zero);
}

TEST_CASE("no more spans are swept for a claim than it may try, and the next one goes on there") {
  OwnHeap heap;
  Kind& kind = heap.typed(kOneCell);
  const std::vector<PageRecord*> spans = full_spans(heap, kind, 10);
  for (PageRecord* span : spans) mark_all(span);
  mark_words(spans[8])[0].store(0, std::memory_order_relaxed);
  heap.begin_sweep();
  const auto swept = [&] {
    return std::count_if(spans.begin(), spans.end(),
                         [&](PageRecord* span) { return is_swept(heap.allocator, span); });
  };
  Claim claim;
  CHECK(!kind.central.claim(heap.allocator, 1, 0, claim));
  CHECK(swept() == 0);
  CHECK(!kind.central.claim(heap.allocator, 1, 3, claim));
  CHECK(swept() == 3);
  CHECK(!kind.central.claim(heap.allocator, 1, 5, claim));
  CHECK(swept() == 8);
  CHECK(kind.central.claim(heap.allocator, 1, 1, claim));
  CHECK(swept() == 9);
  CHECK(claim.span == spans[8]);
  CHECK(!kind.central.claim(heap.allocator, 1, kEverySpan, claim));
  CHECK(swept() == 10);
}

TEST_CASE("a claim passes by some full spans only, and the next one goes on there") {
  OwnHeap heap;
  Kind& kind = heap.typed(kOneCell);
  constexpr std::size_t kSpans = 3'000;
  const std::vector<PageRecord*> spans = full_spans(heap, kind, kSpans);
  for (PageRecord* span : spans) mark_all(span);
  start_next_epoch(heap);
  for (PageRecord* span : spans) CHECK(kind.central.sweep(heap.allocator, span) == PageCount{});
  set_free(spans.back(), 0);
  Claim claim;
  std::size_t in_vain = 0;
  while (!kind.central.claim(heap.allocator, 1, 0, claim)) ++in_vain;
  CHECK(claim.span == spans.back());
  CHECK(in_vain >= 2);
  CHECK(in_vain <= kSpans / 100);
  // Who wants all of them visited gets that.
  start_next_epoch(heap);
  for (PageRecord* span : spans) {
    mark_all(span);
    CHECK(kind.central.sweep(heap.allocator, span) == PageCount{});
  }
  set_free(spans.back(), 0);
  CHECK(kind.central.claim(heap.allocator, 1, kEverySpan, claim));
}

TEST_CASE("a fresh span is claimed from before those that are still to be visited") {
  OwnHeap heap;
  Kind& kind = heap.typed(kOneCell);
  const std::vector<PageRecord*> spans = full_spans(heap, kind, 3);
  heap.begin_sweep();
  PageRecord* const fresh = heap.claim_fresh(kind, 1).span;
  CHECK(is_swept(heap.allocator, fresh));
  CHECK(fresh->slot_or_pages == 0);
  std::set<PageRecord*> claimed;
  Claim claim;
  while (kind.central.claim(heap.allocator, 1, kEverySpan, claim)) claimed.insert(claim.span);
  CHECK(claimed == std::set<PageRecord*>(spans.begin(), spans.end()));
  check_places({fresh, spans[0], spans[1], spans[2]});
}

TEST_CASE("a swept span is swept again in the next cycle only") {
  OwnHeap heap;
  Kind& kind = heap.typed(kOneCell);
  PageRecord* const span = full_spans(heap, kind, 1)[0];
  CHECK(kind.central.sweep(heap.allocator, span).value == 0);  // born swept
  CHECK(heap.allocator.span_count.load() == 1);
  heap.begin_sweep();
  CHECK(kind.central.sweep(heap.allocator, span).value == 1);
  CHECK(heap.allocator.span_count.load() == 0);
  CHECK(heap.allocator.pages.in_use_bytes() == 0);
}

TEST_CASE("the list stays whole when spans are removed before, at and behind the cursor") {
  OwnHeap heap;
  constexpr std::size_t kSpans = 6;
  // Every place of the cursor, every set of removed spans.
  for (std::size_t cursor = 0; cursor <= kSpans; ++cursor) {
    for (unsigned removed = 0; removed < 1u << kSpans; ++removed) {
      CAPTURE(cursor, removed);
      // The first `cursor` spans have been visited: swept, full. Only the others can be removed.
      if ((removed & ((1u << cursor) - 1)) != 0) continue;
      Kind& kind = heap.typed(kOneCell);
      const std::vector<PageRecord*> spans = full_spans(heap, kind, kSpans);
      for (PageRecord* span : spans) mark_all(span);
      start_next_epoch(heap);
      Claim claim;
      CHECK(!kind.central.claim(heap.allocator, 1, static_cast<std::uint32_t>(cursor), claim));
      for (std::size_t i = cursor; i < kSpans; ++i)
        mark_words(spans[i])[0].store(0, std::memory_order_relaxed);

      std::set<PageRecord*> left;
      for (std::size_t i = 0; i < kSpans; ++i) {
        if ((removed >> i & 1) != 0) {
          REQUIRE(kind.central.sweep(heap.allocator, spans[i]).value == 1);
        } else {
          left.insert(spans[i]);
        }
      }
      check_places(left);
      // From the cursor on stand those behind it that are left; they are free when swept.
      std::multiset<PageRecord*> visited;
      while (kind.central.claim(heap.allocator, 1, kEverySpan, claim)) visited.insert(claim.span);
      std::multiset<PageRecord*> behind;
      for (std::size_t i = cursor; i < kSpans; ++i) {
        if ((removed >> i & 1) == 0) behind.insert(spans[i]);
      }
      REQUIRE(visited == behind);
      // In the next cycle all that are left are visited, each once.
      start_next_epoch(heap);
      visited.clear();
      while (kind.central.claim(heap.allocator, 1, kEverySpan, claim)) visited.insert(claim.span);
      REQUIRE(visited == std::multiset<PageRecord*>(left.begin(), left.end()));
      for (PageRecord* span : left) {
        start_next_epoch(heap);
        REQUIRE(kind.central.sweep(heap.allocator, span).value == 1);
      }
    }
  }
  CHECK(heap.allocator.span_count.load() == 0);
}

TEST_CASE("random cycles leave every span in the list once") {
  const std::uint64_t seed = tricolor::test::seed_of("list of spans");
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  OwnHeap heap;
  Kind& kind = heap.typed(kOneCell);
  std::set<PageRecord*> full;  // their cell is allocated; the others, unswept, are free once swept
  std::set<PageRecord*> empty;
  for (int step = 0; step < 20000; ++step) {
    switch (random() % 8) {
      case 0:
      case 1:
      case 2: {
        const Claim claim = heap.claim(kind, 1, static_cast<std::uint32_t>(random() % 4));
        REQUIRE(claim.span != nullptr);
        REQUIRE(full.count(claim.span) == 0);
        full.insert(claim.span);
        empty.erase(claim.span);
        break;
      }
      case 3:
      case 4: {
        std::vector<PageRecord*> all(full.begin(), full.end());
        all.insert(all.end(), empty.begin(), empty.end());
        if (all.empty()) break;
        PageRecord* const span = all[random() % all.size()];
        const bool unswept = !is_swept(heap.allocator, span);
        const PageCount freed = kind.central.sweep(heap.allocator, span);
        REQUIRE(freed.value == (unswept && empty.count(span) != 0 ? 1 : 0));
        if (freed.value != 0) empty.erase(span);
        break;
      }
      default:
        if (step % 64 != 0) break;
        // All is swept before the next cycle begins.
        for (PageRecord* span : std::set<PageRecord*>(empty)) {
          if (kind.central.sweep(heap.allocator, span).value != 0) empty.erase(span);
        }
        for (PageRecord* span : full) kind.central.sweep(heap.allocator, span);
        for (PageRecord* span : std::set<PageRecord*>(full)) {
          if (random() % 3 == 0) {
            full.erase(span);
            empty.insert(span);
          } else {
            mark_all(span);
          }
        }
        heap.begin_sweep();
    }
    if (step % 100 == 0) {
      std::set<PageRecord*> all(full);
      all.insert(empty.begin(), empty.end());
      check_places(all);
      REQUIRE(heap.allocator.span_count.load() == all.size());
      REQUIRE(heap.allocator.pages.in_use_bytes() == all.size() * kPageBytes);
    }
  }
}

TEST_CASE("a list that cannot grow gives the pages back", "[kernel]") {
  const auto end = in_child([] {
    OwnHeap heap;
    Kind& kind = heap.pointer_free(kOneCell);
    Claim claim;
    for (int i = 0; i < 8; ++i) {  // the first list is full
      if (heap.claim_fresh(kind, 1).span == nullptr) return 1;
    }
    const auto run = heap.allocator.pages.take({1});
    if (!run) return 2;
    rlimit limit = {};
    getrlimit(RLIMIT_AS, &limit);
    const rlimit none = {1 << 20, limit.rlim_max};
    if (setrlimit(RLIMIT_AS, &none) != 0) return 3;
    for (std::size_t bytes = 65536; bytes >= 64; bytes /= 2) {
      while (heap.allocator.metadata.take(bytes) != nullptr) {
      }
    }
    const bool added = kind.central.add_span(heap.allocator, kind, run->first, run->zero, 1, claim);
    setrlimit(RLIMIT_AS, &limit);
    if (added) return 4;
    if (claim.span != nullptr) return 5;
    if (heap.allocator.span_count.load() != 8) return 6;
    if (heap.allocator.pages.in_use_bytes() != 8 * kPageBytes) return 7;
    if (heap.find(run->first.data())) return 8;
    // Later there is memory again.
    if (heap.claim_fresh(kind, 1).span == nullptr) return 9;
    if (heap.allocator.span_count.load() != 9) return 10;
    return 0;
  });
  CHECK(end.errors == "");
  CHECK(end.exit_code == 0);
}

// What threads do between two cycles, on few kinds: they take cells, write them, and give some back
// as constructors that throw do, or all that they have not used, as threads that end do.
TEST_CASE("threads that claim and return at once never hold the same cell") {
  OwnHeap heap;
  constexpr std::size_t kClasses[] = {1, 3, 5, 20, 34};
  std::vector<Kind*> kinds;
  for (const std::size_t c : kClasses) {
    kinds.push_back(c == 1 ? &heap.pointer_free(c) : &heap.typed(c));
  }
  const std::uint64_t seed = tricolor::test::seed_of("threads that claim");
  CAPTURE(seed);
  std::atomic<int> wrong{0};
  struct Held {
    char* cell;
    Kind* kind;
  };
  constexpr unsigned kThreads = 4;
  std::vector<std::vector<Held>> held(kThreads);
  std::vector<std::unique_ptr<OwnCache>> caches;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) caches.push_back(std::make_unique<OwnCache>(heap));
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(seed + t);
      OwnCache& cache = *caches[t];
      const std::uint64_t stamp = 0x1111111111111111 * (t + 1);
      const auto is_whole = [&](const Held& cell) {
        for (std::size_t i = 0; i < cell.kind->cell_bytes; i += 8) {
          if (*reinterpret_cast<std::uint64_t*>(cell.cell + i) != stamp) return false;
        }
        return true;
      };
      for (int step = 0; step < 20000; ++step) {
        const auto dice = random() % 100;
        if (dice < 90) {
          Kind& kind = *kinds[random() % kinds.size()];
          char* const cell = heap.allocate(cache, kind);
          if (cell == nullptr) {
            wrong.fetch_add(1, std::memory_order_relaxed);
            return;
          }
          for (std::size_t i = 0; i < kind.cell_bytes; i += 8) {
            auto* const word = reinterpret_cast<std::uint64_t*>(cell + i);
            if (kind.scan != detail::ScanMode::none && *word != 0)
              wrong.fetch_add(1, std::memory_order_relaxed);
            *word = stamp;
          }
          held[t].push_back({cell, &kind});
        } else if (dice < 99) {
          if (held[t].empty()) continue;
          std::swap(held[t][random() % held[t].size()], held[t].back());
          if (!is_whole(held[t].back())) wrong.fetch_add(1, std::memory_order_relaxed);
          return_cell(heap.allocator, cache, held[t].back().cell);
          held[t].pop_back();
        } else {
          return_all(heap.allocator, cache);
        }
      }
      return_all(heap.allocator, cache);
      for (const Held& cell : held[t]) {
        if (!is_whole(cell)) wrong.fetch_add(1, std::memory_order_relaxed);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong.load() == 0);
  // What is held is what is allocated, each cell once, and counted.
  std::set<char*> cells;
  std::int64_t bytes = 0;
  std::size_t count = 0;
  for (const std::vector<Held>& own : held) {
    for (const Held& cell : own) {
      cells.insert(cell.cell);
      bytes += cell.kind->cell_bytes;
      ++count;
      if (!heap.allocated(cell.cell)) wrong.fetch_add(1);
    }
  }
  CHECK(cells.size() == count);
  CHECK(wrong.load() == 0);
  std::size_t allocated = 0;
  heap.for_each_span(
      [&](PageRecord* span) { allocated += count_set(alloc_words(span), span->cells); });
  CHECK(allocated == count);
  CHECK(heap.live() == bytes);
  CHECK(heap.allocated_less_freed() == bytes);
}
