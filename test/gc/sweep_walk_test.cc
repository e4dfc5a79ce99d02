// The sweeper's walk over spans made by hand: threads that share it, and those that allocate beside
// it. What a heap does with it is in sweeper_test.cc.
#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "gc/sweeper.h"
#include "test/support/own_heap.h"

using namespace tricolor::impl;
using tricolor::test::all_bytes_are;
using tricolor::test::count_set;
using tricolor::test::OwnCache;
using tricolor::test::OwnHeap;
namespace detail = tricolor::detail;

namespace {

constexpr PageCount kEverything = {SIZE_MAX};

std::vector<Kind*> some_kinds(OwnHeap& heap) {
  std::vector<Kind*> kinds;
  for (const std::size_t c : {1, 3, 6, 30, 50, 67}) kinds.push_back(&heap.typed(c));
  return kinds;
}

// Objects of several kinds, a few of them large. What is in `kept` has been marked.
struct Population {
  std::set<char*> kept;
  std::set<char*> dead;
};

Population populate(OwnHeap& heap, std::mt19937_64& random, std::size_t count) {
  OwnCache cache(heap);
  const std::vector<Kind*> kinds = some_kinds(heap);
  Kind& large = heap.typed(detail::kLargeClass);
  std::vector<char*> objects;
  for (std::size_t i = 0; i < count; ++i) {
    objects.push_back(random() % 50 == 0 ? heap.allocate_large(large, 1 + random() % 70)
                                         : heap.allocate(cache, *kinds[random() % kinds.size()]));
    REQUIRE(objects.back() != nullptr);
  }
  return_all(heap.allocator, cache);
  Population population;
  bool keep = true;  // there are long rows of dead ones, so that whole spans die
  for (char* const object : objects) {
    if (random() % 200 == 0) keep = !keep;
    if (keep && random() % 2 == 0) {
      heap.mark(object);
      population.kept.insert(object);
    } else {
      population.dead.insert(object);
    }
  }
  return population;
}

std::size_t unswept(OwnHeap& heap) {
  std::size_t spans = 0;
  heap.for_each_span([&](PageRecord* span) { spans += !is_swept(heap.allocator, span); });
  return spans;
}

// The pages that a sweep must free: those of spans with no mark.
std::size_t dead_pages(OwnHeap& heap) {
  std::size_t pages = 0;
  heap.for_each_span([&](PageRecord* span) {
    if (count_set(mark_words(span), span->cells) == 0) pages += pages_of(span).value;
  });
  return pages;
}

}  // namespace

TEST_CASE("before the first cycle, and without an arena, there is nothing to sweep") {
  OwnHeap heap;
  Sweeper sweeper(heap.allocator);
  CHECK(sweeper.done());
  CHECK(sweeper.sweep_for(kEverything).value == 0);
  sweeper.finish();
  sweeper.arm();
  CHECK(sweeper.done());
  CHECK(sweeper.sweep_for(kEverything).value == 0);
  sweeper.finish();
}

TEST_CASE("a sweep ends as soon as it has freed what was asked for") {
  OwnHeap heap;
  Kind& kind = heap.typed(detail::kLargeClass);
  for (int i = 0; i < 10; ++i) REQUIRE(heap.allocate_large(kind, 3) != nullptr);
  heap.begin_sweep();
  Sweeper sweeper(heap.allocator);
  sweeper.arm();
  CHECK(!sweeper.done());
  CHECK(sweeper.sweep_for({0}).value == 0);
  CHECK(unswept(heap) == 10);
  CHECK(sweeper.sweep_for({1}).value == 3);
  CHECK(unswept(heap) == 9);
  CHECK(sweeper.sweep_for({3}).value == 3);
  CHECK(sweeper.sweep_for({4}).value == 6);
  CHECK(unswept(heap) == 6);
  CHECK(!sweeper.done());
  CHECK(sweeper.sweep_for(kEverything).value == 18);
  CHECK(sweeper.done());
  CHECK(heap.allocator.span_count.load() == 0);
}

TEST_CASE("finish sweeps whatever is left") {
  const std::uint64_t seed = tricolor::test::seed_of("sweeper alone");
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  OwnHeap heap;
  Sweeper sweeper(heap.allocator);
  for (int cycle = 0; cycle < 3; ++cycle) {
    const Population population = populate(heap, random, 2000);
    const std::uint64_t freed_before = heap.allocator.freed_bytes.load();
    const std::int64_t live_before = heap.allocated_less_freed();
    heap.begin_sweep();
    sweeper.arm();
    if (cycle == 1) sweeper.sweep_for({1});
    sweeper.finish();
    CHECK(sweeper.done());
    CHECK(unswept(heap) == 0);
    for (char* const object : population.kept) REQUIRE(heap.allocated(object));
    for (char* const object : population.dead) REQUIRE(!heap.allocated(object));
    // What earlier cycles kept was not marked again, and is dead too.
    CHECK(heap.allocated_less_freed() == heap.live());
    CHECK(static_cast<std::int64_t>(heap.allocator.freed_bytes.load() - freed_before) ==
          live_before - heap.live());
  }
}

TEST_CASE("every arena is walked to its last page") {
  OwnHeap heap;
  Kind& kind = heap.typed(detail::kLargeClass);
  for (int i = 0; i < 3; ++i) {
    REQUIRE(heap.allocate_large(kind, kArenaPages - 1) != nullptr);
    REQUIRE(heap.allocate_large(kind, 1) != nullptr);
  }
  heap.begin_sweep();
  Sweeper sweeper(heap.allocator);
  sweeper.arm();
  CHECK(sweeper.sweep_for(kEverything).value == 3 * kArenaPages);
  CHECK(heap.allocator.span_count.load() == 0);
  CHECK(sweeper.done());
}

TEST_CASE("threads that sweep at once sweep every span once") {
  const std::uint64_t seed = tricolor::test::seed_of("sweepers");
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  OwnHeap heap;
  Sweeper sweeper(heap.allocator);
  for (int cycle = 0; cycle < 10; ++cycle) {
    const Population population = populate(heap, random, 3000);
    const std::int64_t live_before = heap.allocated_less_freed();
    const std::uint64_t freed_before = heap.allocator.freed_bytes.load();
    const std::size_t in_use_before = heap.allocator.pages.in_use_bytes();
    const std::size_t pages = dead_pages(heap);
    heap.begin_sweep();
    sweeper.arm();
    std::atomic<std::size_t> freed{0};
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        while (!sweeper.done()) freed.fetch_add(sweeper.sweep_for({t + 1}).value);
      });
    }
    for (std::thread& thread : threads) thread.join();
    sweeper.finish();
    CHECK(freed.load() == pages);
    CHECK(heap.allocator.pages.in_use_bytes() == in_use_before - pages * kPageBytes);
    CHECK(unswept(heap) == 0);
    // A span swept twice would have lost what it kept.
    CHECK(static_cast<std::int64_t>(heap.allocator.freed_bytes.load() - freed_before) ==
          live_before - heap.live());
    for (char* const object : population.kept) REQUIRE(heap.allocated(object));
    for (char* const object : population.dead) REQUIRE(!heap.allocated(object));
    heap.allocator.pages.verify();
  }
}

TEST_CASE("finish waits for those that are still at a span") {
  OwnHeap heap;
  heap.allocator.clobber_free = true;  // so that the sweep of a large object takes long
  Sweeper sweeper(heap.allocator);
  Kind& kind = heap.typed(detail::kLargeClass);
  for (int round = 0; round < 20; ++round) {
    REQUIRE(heap.allocate_large(kind, 1) != nullptr);
    char* const object = heap.allocate_large(kind, 1000);
    REQUIRE(object != nullptr);
    heap.begin_sweep();
    sweeper.arm();
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; ++t) threads.emplace_back([&] { sweeper.sweep_for(kEverything); });
    // The walk is over when one of them finds no more; the other is at the large object then.
    while (!sweeper.done()) std::this_thread::yield();
    sweeper.finish();
    // What the other has done is done, and seen: for TSan.
    const bool clobbered = object[1000 * kPageBytes - 1] == static_cast<char>(0xde);
    const std::uint64_t spans = heap.allocator.span_count.load(std::memory_order_relaxed);
    const std::size_t in_use = heap.allocator.pages.in_use_bytes();
    for (std::thread& thread : threads) thread.join();
    REQUIRE(clobbered);
    REQUIRE(spans == 0);
    REQUIRE(in_use == 0);
    std::memset(object, 0, 1000 * kPageBytes);
  }
}

TEST_CASE("allocation beside the sweep takes no cell that is alive, the sweep none that is new") {
  const std::uint64_t seed = tricolor::test::seed_of("sweepers and mutators");
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  OwnHeap heap;
  Sweeper sweeper(heap.allocator);
  const std::vector<Kind*> kinds = some_kinds(heap);
  Kind& large = heap.typed(detail::kLargeClass);
  using Object = std::pair<char*, std::size_t>;  // and its bytes
  std::vector<Object> objects;
  for (int cycle = 0; cycle < 6; ++cycle) {
    // Half of what there is dies.
    std::shuffle(objects.begin(), objects.end(), random);
    objects.resize(objects.size() / 2);
    for (const auto& [object, bytes] : objects) heap.mark(object);
    heap.begin_sweep();
    sweeper.arm();
    std::vector<std::vector<Object>> fresh(2);
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < 2; ++t) {
      threads.emplace_back([&, t, own_seed = random()] {
        std::mt19937_64 dice(own_seed);
        OwnCache cache(heap);
        for (int i = 0; i < 2000; ++i) {
          const bool is_large = dice() % 100 == 0;
          const std::size_t pages = 1 + dice() % 20;
          Kind& kind = *kinds[dice() % kinds.size()];
          char* const cell =
              is_large ? heap.allocate_large(large, pages) : heap.allocate(cache, kind);
          const std::size_t bytes = is_large ? pages * kPageBytes : kind.cell_bytes;
          if (cell == nullptr || (!is_large && !all_bytes_are(cell, bytes, 0))) {
            wrong.fetch_add(1);
            return;
          }
          std::memset(cell, 0x33, bytes);
          fresh[t].push_back({cell, bytes});
        }
      });
    }
    for (int t = 0; t < 2; ++t) {
      threads.emplace_back([&] {
        while (!sweeper.done()) sweeper.sweep_for({2});
      });
    }
    for (std::thread& thread : threads) thread.join();
    sweeper.finish();
    REQUIRE(wrong.load() == 0);
    for (const auto& own : fresh) objects.insert(objects.end(), own.begin(), own.end());
    std::set<char*> cells;
    std::int64_t bytes_alive = 0;
    for (const auto& [object, bytes] : objects) {
      REQUIRE(cells.insert(object).second);
      REQUIRE(heap.allocated(object));
      REQUIRE(all_bytes_are(object, bytes, 0x33));
      bytes_alive += static_cast<std::int64_t>(bytes);
    }
    std::size_t allocated = 0;
    heap.for_each_span(
        [&](PageRecord* span) { allocated += count_set(alloc_words(span), span->cells); });
    REQUIRE(allocated == objects.size());
    REQUIRE(heap.live() == bytes_alive);
    REQUIRE(heap.allocated_less_freed() == bytes_alive);
  }
}

// ------------------------------------------------------------------------ reclaiming, in proportion

TEST_CASE("reclaiming frees spans without a mark and leaves all others to the walk") {
  OwnHeap heap;
  Kind& kind = heap.typed(detail::kLargeClass);
  std::vector<char*> objects;
  for (int i = 0; i < 200; ++i) objects.push_back(heap.allocate_large(kind, 3));
  for (std::size_t i = 0; i < objects.size(); ++i) {
    if (i % 10 != 0) heap.mark(objects[i]);
  }
  heap.begin_sweep();
  Sweeper sweeper(heap.allocator);
  sweeper.arm();
  // 600 pages, 20 of the spans are dead: 512 pages are looked at for each call at most.
  CHECK(sweeper.reclaim({3}).value == 0);
  CHECK(unswept(heap) < 200);
  PageCount left = {1000};
  int calls = 0;
  while ((left = sweeper.reclaim(left)).value != 0) ++calls;
  CHECK(calls <= 30);
  CHECK(unswept(heap) == 180);
  CHECK(heap.allocator.span_count.load() == 180);
  CHECK(!sweeper.done());
  CHECK(sweeper.reclaim({1}).value == 0);  // there is no more
  sweeper.finish();
  CHECK(unswept(heap) == 0);
  for (std::size_t i = 0; i < objects.size(); ++i) {
    REQUIRE(heap.allocated(objects[i]) == (i % 10 != 0));
  }
}

TEST_CASE("what has been reclaimed beyond need is credit, for once") {
  OwnHeap heap;
  Kind& kind = heap.typed(detail::kLargeClass);
  for (int i = 0; i < 10; ++i) REQUIRE(heap.allocate_large(kind, 5) != nullptr);
  heap.begin_sweep();
  Sweeper sweeper(heap.allocator);
  sweeper.arm();
  CHECK(sweeper.take_credit({7}).value == 7);
  CHECK(sweeper.reclaim({1}).value == 0);  // 50 pages in one word of heads
  CHECK(sweeper.take_credit({40}).value == 0);
  CHECK(sweeper.take_credit({40}).value == 31);
  CHECK(sweeper.take_credit({1}).value == 1);
  sweeper.finish();
  // The next sweep starts without.
  for (int i = 0; i < 10; ++i) REQUIRE(heap.allocate_large(kind, 5) != nullptr);
  heap.begin_sweep();
  sweeper.arm();
  CHECK(sweeper.reclaim({1}).value == 0);
  heap.begin_sweep();
  sweeper.arm();
  CHECK(sweeper.take_credit({1}).value == 1);
  sweeper.finish();
}

TEST_CASE("threads that reclaim beside those that walk hand out every span once") {
  const std::uint64_t seed = tricolor::test::seed_of("reclaimers");
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  OwnHeap heap;
  Sweeper sweeper(heap.allocator);
  for (int cycle = 0; cycle < 20; ++cycle) {
    const Population population = populate(heap, random, 3000);
    const std::size_t in_use_before = heap.allocator.pages.in_use_bytes();
    const std::size_t pages = dead_pages(heap);
    const std::uint64_t freed_before = heap.allocator.freed_bytes.load();
    const std::int64_t live_before = heap.allocated_less_freed();
    heap.begin_sweep();
    sweeper.arm();
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        if (t % 2 == 0) {
          PageCount left = {1 + t};
          while (!sweeper.done() && (left = sweeper.reclaim(left)).value != 0) {
          }
        }
        while (!sweeper.done()) sweeper.sweep_for(kEverything, 3);
      });
    }
    for (std::thread& thread : threads) thread.join();
    sweeper.finish();
    // Freed twice, or not at all, would show in each of these.
    CHECK(heap.allocator.pages.in_use_bytes() == in_use_before - pages * kPageBytes);
    CHECK(unswept(heap) == 0);
    CHECK(heap.allocator.swept_pages.load() == in_use_before / kPageBytes);
    CHECK(static_cast<std::int64_t>(heap.allocator.freed_bytes.load() - freed_before) ==
          live_before - heap.live());
    for (char* const object : population.kept) REQUIRE(heap.allocated(object));
    for (char* const object : population.dead) REQUIRE(!heap.allocated(object));
    heap.allocator.pages.verify();
  }
}

TEST_CASE("who allocates sweeps in proportion, so that the sweep ends before the trigger") {
  OwnHeap heap;
  Kind& kind = heap.typed(detail::kLargeClass);
  for (int i = 0; i < 1000; ++i) heap.mark(heap.allocate_large(kind, 2));
  heap.begin_sweep();
  Sweeper sweeper(heap.allocator);
  sweeper.arm();
  constexpr std::int64_t kLive = 100 << 20;
  constexpr std::int64_t kTrigger = 111 << 20;
  std::atomic<std::int64_t>& live = heap.allocator.live_bytes;
  live = kLive;
  sweeper.pace(kLive, kTrigger);
  CHECK_FALSE(sweeper.owes(0));
  CHECK(sweeper.owes(kPageBytes));  // 2000 pages in 10 MiB: more than one a page
  CHECK(sweeper.owes(1));
  int swept_at_half = 0;
  for (; live < kTrigger - (1 << 20); live += kPageBytes) {
    while (sweeper.owes(kPageBytes)) sweeper.sweep_for(kEverything, 1);
    if (live < kLive + (5 << 20)) swept_at_half = static_cast<int>(heap.allocator.swept_pages);
  }
  CHECK(swept_at_half >= 1000);
  CHECK(swept_at_half <= 1010);
  CHECK(unswept(heap) == 0);
  sweeper.sweep_for(kEverything, 1);  // finds that there is no more
  CHECK_FALSE(sweeper.owes(100 << 20));
  sweeper.finish();
}

TEST_CASE("what others have swept counts, and a new trigger spreads what is left anew") {
  OwnHeap heap;
  Kind& kind = heap.typed(detail::kLargeClass);
  for (int i = 0; i < 1000; ++i) heap.mark(heap.allocate_large(kind, 1));
  heap.begin_sweep();
  Sweeper sweeper(heap.allocator);
  sweeper.arm();
  std::atomic<std::int64_t>& live = heap.allocator.live_bytes;
  live = 0;
  sweeper.pace(0, 9 << 20);  // 1000 pages in 8 MiB
  sweeper.sweep_for(kEverything, 600);
  CHECK_FALSE(sweeper.owes(4 << 20));
  CHECK(sweeper.owes(6 << 20));
  live = 4 << 20;
  sweeper.pace(4 << 20, 1 << 20);  // it is due already: all at once
  CHECK(sweeper.owes(kPageBytes));
  int spans = 0;
  while (sweeper.owes(kPageBytes)) spans += sweeper.sweep_for(kEverything, 1).value == 0;
  CHECK(spans >= 400);
  sweeper.pace(4 << 20, INT64_MAX);  // never
  CHECK_FALSE(sweeper.owes(100 << 20));
  sweeper.finish();
}
