#include "alloc/thread_cache.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "child.h"
#include "test/support/own_heap.h"

using namespace tricolor::impl;
using tricolor::test::all_bytes_are;
using tricolor::test::cells_of;
using tricolor::test::count_set;
using tricolor::test::in_child;
using tricolor::test::kEverySpan;
using tricolor::test::OwnCache;
using tricolor::test::OwnHeap;
namespace detail = tricolor::detail;

namespace {

std::size_t class_of(std::size_t bytes) { return detail::size_class_for(bytes, 8); }

using Indexes = std::vector<std::uint32_t>;

// The run of the kind as cells of the span, [first, second).
std::pair<std::uint32_t, std::uint32_t> run_in(const OwnCache& cache, const Kind& kind,
                                               PageRecord* span) {
  const char* const base = page_of_record(span).data();
  const detail::run& run = cache.runs[kind.id];
  return {static_cast<std::uint32_t>(run.cur - base) / kind.cell_bytes,
          static_cast<std::uint32_t>(run.end - base) / kind.cell_bytes};
}

// The next run, whatever is left of the one before.
bool take_run(OwnCache& cache, const Kind& kind) {
  cache.runs[kind.id] = {};
  return next_run(cache, kind.id, kind.cell_bytes, kind.scan);
}

void open_claim(OwnHeap& heap, OwnCache& cache, Kind& kind, const Claim& claim) {
  REQUIRE(claim.span != nullptr);
  REQUIRE(grow_tables(heap.allocator, cache, kind.id));
  accept_claim(heap.allocator, cache, kind, claim);
}

}  // namespace

TEST_CASE("runs are the longest rows of neighbours in a claim, over the words' boundaries too") {
  const std::uint64_t seed = tricolor::test::seed_of("runs of random claims");
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  OwnHeap heap;
  Kind& kind = heap.pointer_free(1);  // 1024 cells: claims of four words, anywhere
  PageRecord* const span = heap.claim_fresh(kind, 1).span;
  OwnCache cache(heap);
  REQUIRE(grow_tables(heap.allocator, cache, kind.id));
  const std::uint64_t patterns[] = {0,
                                    ~std::uint64_t{0},
                                    1,
                                    std::uint64_t{1} << 63,
                                    ~std::uint64_t{1},
                                    ~(std::uint64_t{1} << 63),
                                    0xffff'0000'ffff'0000,
                                    0x5555'5555'5555'5555};
  for (int round = 0; round < 5000; ++round) {
    Claim claim = {.span = span, .first_word = static_cast<std::uint32_t>(random() % 13)};
    for (std::uint64_t& word : claim.mask) {
      word = random() % 4 == 0 ? random() & random() : patterns[random() % std::size(patterns)];
    }
    cache.claims[kind.id] = claim;
    Indexes expected = cells_of(claim);
    Indexes got;
    std::uint32_t last_end = UINT32_MAX;
    while (take_run(cache, kind)) {
      const auto [begin, end] = run_in(cache, kind, span);
      REQUIRE(begin < end);
      REQUIRE(begin != last_end);  // or it would have been one run
      for (std::uint32_t i = begin; i < end; ++i) got.push_back(i);
      last_end = end;
    }
    REQUIRE(got == expected);
    REQUIRE(cells_of(cache.claims[kind.id]).empty());
  }
}

TEST_CASE("a run is handed out cell by cell, and then it is used up") {
  OwnHeap heap;
  OwnCache cache(heap);
  Kind& kind = heap.typed(class_of(48));
  CHECK(detail::try_take(cache, kind.id, 48) == nullptr);  // no tables yet
  open_claim(heap, cache, kind, heap.claim_fresh(kind, 3));
  CHECK(detail::try_take(cache, kind.id, 48) == nullptr);  // no run yet
  REQUIRE(take_run(cache, kind));
  char* const first = page_of_record(cache.claims[kind.id].span).data();
  for (std::size_t i = 0; i < 3; ++i) CHECK(detail::try_take(cache, kind.id, 48) == first + i * 48);
  CHECK(detail::try_take(cache, kind.id, 48) == nullptr);
  CHECK(!take_run(cache, kind));
  CHECK(detail::try_take(cache, 1u << 15, 48) == nullptr);
}

TEST_CASE("cells that can hold references are zero when they are handed out again") {
  const std::uint64_t seed = tricolor::test::seed_of("zeroing");
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  OwnHeap heap;
  OwnCache cache(heap);
  for (const std::size_t bytes : {8, 24, 48, 1024, 5376, 32768}) {
    CAPTURE(bytes);
    Kind& kind = heap.typed(class_of(bytes));
    std::vector<char*> live;
    for (int cycle = 0; cycle < 4; ++cycle) {
      std::set<char*> old(live.begin(), live.end());
      for (std::uint32_t i = 0; i < 2 * kind.cells; ++i) {
        char* const cell = heap.allocate(cache, kind);
        REQUIRE(cell != nullptr);
        REQUIRE(all_bytes_are(cell, bytes, 0));
        REQUIRE(old.insert(cell).second);
        std::memset(cell, 0x5a, bytes);
        live.push_back(cell);
      }
      return_all(heap.allocator, cache);
      std::shuffle(live.begin(), live.end(), random);
      live.resize(live.size() / 2);
      for (char* const cell : live) heap.mark(cell);
      heap.begin_sweep();
      for (char* const cell : live) REQUIRE(all_bytes_are(cell, bytes, 0x5a));
      if (cycle % 2 == 0) heap.sweep_all();  // else on demand
    }
    heap.sweep_all();
  }
}

TEST_CASE("neither fresh cells nor those without references are zeroed") {
  OwnHeap heap;
  OwnCache cache(heap);
  // A byte that nobody may have written shows who has written it.
  Kind& typed = heap.typed(class_of(64));
  open_claim(heap, cache, typed, heap.claim_fresh(typed, 10));
  char* const fresh = page_of_record(cache.claims[typed.id].span).data();
  fresh[100] = 7;
  REQUIRE(take_run(cache, typed));
  CHECK(fresh[100] == 7);

  Kind& plain = heap.pointer_free(class_of(64));
  Claim claim = heap.claim_fresh(plain, 10);
  claim.needs_zero = true;
  open_claim(heap, cache, plain, claim);
  char* const used = page_of_record(claim.span).data();
  used[100] = 7;
  REQUIRE(take_run(cache, plain));
  CHECK(used[100] == 7);
}

TEST_CASE("what is zeroed is the run and no byte beside it") {
  OwnHeap heap;
  OwnCache cache(heap);
  Kind& kind = heap.typed(class_of(48));
  Claim claim = heap.claim_fresh(kind, kind.cells);
  claim.needs_zero = true;
  claim.mask[0] = 0b0110'0010;
  claim.mask[1] = claim.mask[2] = 0;
  char* const first = page_of_record(claim.span).data();
  std::memset(first, 1, kPageBytes);
  open_claim(heap, cache, kind, claim);
  REQUIRE(take_run(cache, kind));
  CHECK(all_bytes_are(first, 48, 1));
  CHECK(all_bytes_are(first + 48, 48, 0));
  CHECK(all_bytes_are(first + 96, kPageBytes - 96, 1));
  REQUIRE(take_run(cache, kind));
  CHECK(all_bytes_are(first + 96, 3 * 48, 1));
  CHECK(all_bytes_are(first + 5 * 48, 2 * 48, 0));
  CHECK(all_bytes_are(first + 7 * 48, kPageBytes - 7 * 48, 1));
}

TEST_CASE("claims are 512 bytes at first, and an eighth of what was claimed lately up to a page") {
  OwnHeap heap;
  OwnCache cache(heap);
  for (const std::size_t bytes : {8, 48, 512, 1024, 8192, 32768}) {
    CAPTURE(bytes);
    Kind& kind = heap.typed(class_of(bytes));
    REQUIRE(grow_tables(heap.allocator, cache, kind.id));
    std::size_t taken = 0;
    for (int i = 0; i < 100; ++i) {
      const std::size_t claim_bytes = std::clamp<std::size_t>(taken / 8, 512, 8192);
      const std::uint32_t cells = next_claim_cells(heap.allocator, cache, kind);
      REQUIRE(cells == std::max<std::size_t>(1, claim_bytes / bytes));
      const Claim claim = heap.claim(kind, cells);
      REQUIRE(claim.span != nullptr);
      const std::size_t got = cells_of(claim).size();
      accept_claim(heap.allocator, cache, kind, claim);
      cache.claims[kind.id] = {.span = claim.span};  // all of it is used
      taken = std::min<std::size_t>(65536, taken + got * bytes);
    }
    REQUIRE(next_claim_cells(heap.allocator, cache, kind) ==
            std::max<std::size_t>(1, 8192 / bytes));
    // A cycle halves the memory of it.
    return_all(heap.allocator, cache);
    CHECK(next_claim_cells(heap.allocator, cache, kind) == std::max<std::size_t>(1, 4096 / bytes));
  }
}

TEST_CASE(
    "the growth of one kind's claims does not make another's grow, and idle kinds are forgotten") {
  OwnHeap heap;
  OwnCache cache(heap);
  Kind& busy = heap.typed(class_of(64));
  Kind& idle = heap.typed(class_of(64));
  for (int i = 0; i < 5000; ++i) REQUIRE(heap.allocate(cache, busy) != nullptr);
  REQUIRE(heap.allocate(cache, idle) != nullptr);
  CHECK(next_claim_cells(heap.allocator, cache, busy) == 128);
  CHECK(next_claim_cells(heap.allocator, cache, idle) == 8);
  const std::uint32_t sizes[] = {64, 32, 16, 8, 8};
  for (const std::uint32_t cells : sizes) {
    return_all(heap.allocator, cache);
    CHECK(next_claim_cells(heap.allocator, cache, busy) == cells);
    open_claim(heap, cache, busy, {.span = heap.claim(busy, 1).span});  // opened, for nothing
  }
}

TEST_CASE("claims are as small as the stress setting says") {
  OwnHeap heap;
  OwnCache cache(heap);
  Kind& kind = heap.typed(class_of(64));
  heap.allocator.most_cells_a_claim = 3;
  std::uint64_t before = 0;
  for (int i = 1; i <= 100; ++i) {
    REQUIRE(heap.allocate(cache, kind) != nullptr);
    CHECK(cache.claimed_cells >= before);
    CHECK(cache.claimed_cells < static_cast<std::uint64_t>(i) + 3);
    before = cache.claimed_cells;
  }
}

TEST_CASE(
    "after return_all the allocated cells are the objects, and only their bytes are counted") {
  const std::uint64_t seed = tricolor::test::seed_of("return_all");
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  OwnHeap heap;
  OwnCache cache(heap);
  std::vector<Kind*> kinds;
  for (const std::size_t bytes : {8, 16, 24, 32, 48, 208, 1024, 9472, 32768}) {
    kinds.push_back(&heap.typed(class_of(bytes)));
    kinds.push_back(&heap.pointer_free(class_of(bytes)));
  }
  std::set<char*> objects;
  std::int64_t bytes = 0;
  for (int round = 0; round < 200; ++round) {
    const auto many = random() % 100;
    for (std::uint64_t i = 0; i < many; ++i) {
      Kind& kind = *kinds[random() % kinds.size()];
      char* const cell = heap.allocate(cache, kind);
      REQUIRE(cell != nullptr);
      REQUIRE(objects.insert(cell).second);
      bytes += kind.cell_bytes;
    }
    CHECK(heap.live() >= bytes);
    return_all(heap.allocator, cache);
    REQUIRE(heap.live() == bytes);
    REQUIRE(heap.allocated_less_freed() == bytes);
    CHECK(cache.open_count == 0);
    std::size_t allocated = 0;
    heap.for_each_span(
        [&](PageRecord* span) { allocated += count_set(alloc_words(span), span->cells); });
    REQUIRE(allocated == objects.size());
    for (char* const cell : objects) REQUIRE(heap.allocated(cell));
    // There is nothing left to hand out, and nothing to return.
    for (const Kind* kind : kinds) {
      REQUIRE(detail::try_take(cache, kind->id, kind->cell_bytes) == nullptr);
      if (kind->id < cache.run_count) REQUIRE(!take_run(cache, *kind));
    }
    return_all(heap.allocator, cache);
    REQUIRE(heap.live() == bytes);
  }
}

TEST_CASE("a long run is returned whole, over the words' boundaries") {
  OwnHeap heap;
  for (std::uint32_t used = 0; used <= 256; used += 5) {
    CAPTURE(used);
    OwnCache cache(heap);
    Kind& kind = heap.typed(2);  // 512 cells
    PageRecord* const span = heap.claim_fresh(kind, 10).span;
    Claim claim;
    REQUIRE(kind.central.claim(heap.allocator, 230, kEverySpan, claim));
    open_claim(heap, cache, kind, claim);
    REQUIRE(take_run(cache, kind));
    for (std::uint32_t i = 0; i < std::min(used, 230u); ++i) {
      REQUIRE(detail::try_take(cache, kind.id, 16) != nullptr);
    }
    return_all(heap.allocator, cache);
    CHECK(count_set(alloc_words(span), 10 + std::min(used, 230u)) == 10 + std::min(used, 230u));
    CHECK(count_set(alloc_words(span), bit_words(span) * 64) == 10 + std::min(used, 230u));
  }
}

TEST_CASE("return_all gives back the tiny block") {
  OwnHeap heap;
  OwnCache cache(heap);
  char* const block = heap.allocate(cache, heap.pointer_free(2));
  cache.tiny = {block, block + 16};
  return_all(heap.allocator, cache);
  CHECK(cache.tiny.cur == nullptr);
  CHECK(cache.tiny.end == nullptr);
  CHECK(heap.allocated(block));  // it may hold objects
}

TEST_CASE("the last cell handed out goes back to its run") {
  OwnHeap heap;
  OwnCache cache(heap);
  Kind& kind = heap.typed(class_of(64));
  heap.allocate(cache, kind);
  char* const cell = heap.allocate(cache, kind);
  std::memset(cell, 1, 64);
  return_cell(heap.allocator, cache, cell);
  CHECK(all_bytes_are(cell, 64, 0));
  CHECK(heap.allocate(cache, kind) == cell);
  return_cell(heap.allocator, cache, cell);
  return_all(heap.allocator, cache);
  CHECK(heap.live() == 64);
  CHECK(!heap.allocated(cell));
}

TEST_CASE("a cell from before goes back to its span, wiped where it can hold references") {
  OwnHeap heap;
  OwnCache cache(heap);
  for (const bool typed : {true, false}) {
    for (const std::size_t bytes : {8, 24, 64, 1024}) {
      CAPTURE(typed, bytes);
      Kind& kind = typed ? heap.typed(class_of(bytes)) : heap.pointer_free(class_of(bytes));
      char* const cell = heap.allocate(cache, kind);
      char* const next = heap.allocate(cache, kind);
      std::memset(cell, 1, bytes);
      std::memset(next, 1, bytes);
      const std::int64_t before = heap.live();
      return_cell(heap.allocator, cache, cell);
      CHECK(heap.live() == before - static_cast<std::int64_t>(bytes));
      CHECK(!heap.allocated(cell));
      CHECK(heap.allocated(next));
      CHECK(all_bytes_are(cell, bytes, typed ? 0 : 1));
      CHECK(all_bytes_are(next, bytes, 1));
    }
  }
  return_all(heap.allocator, cache);
  CHECK(heap.live() == 2 * (8 + 24 + 64 + 1024));
  CHECK(heap.allocated_less_freed() == heap.live());
}

TEST_CASE("a large cell that is given back is wiped, and its pages wait for the sweep") {
  OwnHeap heap;
  OwnCache cache(heap);
  char* const object = heap.allocate_large(heap.typed(detail::kLargeClass), 3);
  std::memset(object, 1, 3 * kPageBytes);
  return_cell(heap.allocator, cache, object);
  CHECK(all_bytes_are(object, 3 * kPageBytes, 0));
  CHECK(!heap.allocated(object));  // no stale word finds it
  CHECK(heap.live() == 0);
  heap.begin_sweep();
  CHECK(heap.sweep_all() == 3);
  CHECK(heap.allocated_less_freed() == 0);
}

TEST_CASE("a cell that is not allocated is not given back") {
  const auto end = in_child([] {
    OwnHeap heap;
    LocalCache cache;
    Kind& kind = heap.typed(class_of(64));
    PageRecord* const span = heap.claim_fresh(kind, 1).span;
    return_cell(heap.allocator, cache, page_of_record(span).data() + 64);
    return 0;
  });
  CHECK(end.signal == SIGABRT);
  CHECK_THAT(end.errors, Catch::Contains("cache.exact"));
}

// A constructor that allocates one of its kind, which throws: both cells come back, the inner first.
TEST_CASE("a run does not grow into the span below when cells of both are given back") {
  OwnHeap heap;
  for (const std::size_t bytes : {8, 64, 1024, 8192, 10240, 32768}) {
    CAPTURE(bytes);
    OwnCache cache(heap);
    Kind& kind = heap.typed(class_of(bytes));
    char* outer = nullptr;
    for (std::uint32_t i = 0; i < kind.cells; ++i) outer = heap.allocate(cache, kind);
    REQUIRE(heap.find(outer).index == kind.cells - 1);
    char* const inner = heap.allocate(cache, kind);
    REQUIRE(inner == outer + bytes);  // a span of its own, just above
    REQUIRE(heap.find(inner).span != heap.find(outer).span);
    const std::int64_t others = std::int64_t{kind.cells - 1} * static_cast<std::int64_t>(bytes);
    return_cell(heap.allocator, cache, inner);
    return_cell(heap.allocator, cache, outer);
    return_all(heap.allocator, cache);
    CHECK(!heap.allocated(outer));
    CHECK(!heap.allocated(inner));
    CHECK(heap.live() == others);
    for (std::uint32_t i = 1; i < kind.cells; ++i) CHECK(heap.allocated(outer - i * bytes));
    heap.begin_sweep();
    heap.sweep_all();
  }
}

// A constructor during which a cycle ran: its cell is marked, its span unswept.
TEST_CASE(
    "a marked cell in an unswept span that is given back is free at once, its neighbour is not") {
  OwnHeap heap;
  OwnCache cache(heap);
  Kind& kind = heap.typed(class_of(64));
  char* const cell = heap.allocate(cache, kind);
  char* const next = heap.allocate(cache, kind);
  return_all(heap.allocator, cache);
  heap.mark(cell);
  heap.mark(next);
  heap.begin_sweep();
  return_cell(heap.allocator, cache, cell);
  CHECK(!heap.allocated(cell));  // or a stale word could have the next cycle trace it
  CHECK(heap.allocated(next));
  CHECK(heap.sweep_all() == 0);
  CHECK(heap.live() == 64);
  CHECK(heap.allocated_less_freed() == 64);
  heap.mark(next);
  heap.begin_sweep();
  heap.sweep_all();
  CHECK(!heap.allocated(cell));
  CHECK(heap.allocated(next));
  CHECK(heap.live() == 64);
  CHECK(heap.allocated_less_freed() == 64);
}

TEST_CASE("tables grow with the kinds and keep what they hold") {
  OwnHeap heap;
  OwnCache cache(heap);
  std::vector<Kind*> kinds;
  std::set<char*> objects;
  for (int i = 0; i < 600; ++i) {
    kinds.push_back(&heap.typed(class_of(64)));
    char* const cell = heap.allocate(cache, *kinds.back());
    REQUIRE(cell != nullptr);
    REQUIRE(objects.insert(cell).second);
    REQUIRE(cache.run_count > kinds.back()->id);
    REQUIRE(cache.run_count < 2 * kinds.back()->id + 130);
    REQUIRE(cache.open_count == kinds.size());
  }
  // The runs go on where they were, and the first claims are remembered.
  for (Kind* kind : kinds) {
    char* const cell = heap.allocate(cache, *kind);
    REQUIRE(objects.count(cell - 64) == 1);
    REQUIRE(objects.insert(cell).second);
    REQUIRE(cache.taken_bytes[kind->id] == 512);
  }
  CHECK(grow_tables(heap.allocator, cache, 0));
  return_all(heap.allocator, cache);
  CHECK(heap.live() == 1200 * 64);
  for (char* const cell : objects) REQUIRE(heap.allocated(cell));
}

TEST_CASE("the tables' last entries lie inside their block") {
  OwnHeap heap;
  for (const std::uint32_t id : {0u, 127u, 128u, 255u, 256u, 4095u, kMaxKinds - 1}) {
    CAPTURE(id);
    LocalCache cache;
    const auto before = static_cast<char*>(heap.allocator.metadata.take(64));
    REQUIRE(grow_tables(heap.allocator, cache, id));
    REQUIRE(id < cache.run_count);
    const std::uint32_t last = cache.run_count - 1;
    cache.claims[last].mask[3] = 1;
    cache.runs[last].end = before;
    cache.open[last] = 2;
    cache.taken_bytes[last] = 3;
    CHECK(cache.claims[last].mask[3] == 1);
    CHECK(cache.runs[last].end == before);
    CHECK(cache.open[last] == 2);
    CHECK(cache.taken_bytes[last] == 3);
    CHECK(cache.runs[0].cur == nullptr);
    CHECK(cache.open[0] == 0);
    CHECK(cache.taken_bytes[0] == 0);
    CHECK(cache.claims[0].span == nullptr);
    const auto* const end = reinterpret_cast<const char*>(cache.taken_bytes + cache.run_count);
    CHECK(end - reinterpret_cast<const char*>(cache.claims) <=
          72 * std::ptrdiff_t{cache.run_count});
    free_tables(heap.allocator, cache);
    CHECK(cache.run_count == 0);
    CHECK(detail::try_take(cache, 0, 8) == nullptr);
    free_tables(heap.allocator, cache);  // nothing is freed twice
    REQUIRE(grow_tables(heap.allocator, cache, id));
    CHECK(cache.claims[last].span == nullptr);
    free_tables(heap.allocator, cache);
  }
}

TEST_CASE("when memory for larger tables is refused, the old ones stay", "[kernel]") {
  const auto end = in_child([] {
    OwnHeap heap;
    LocalCache cache;
    Kind& kind = heap.pointer_free(6);
    char* const cell = heap.allocate(cache, kind);
    if (cell == nullptr) return 1;
    rlimit limit = {};
    getrlimit(RLIMIT_AS, &limit);
    const rlimit none = {1 << 20, limit.rlim_max};
    if (setrlimit(RLIMIT_AS, &none) != 0) return 2;
    const bool grown = grow_tables(heap.allocator, cache, kMaxKinds - 1);
    setrlimit(RLIMIT_AS, &limit);
    if (grown) return 3;
    if (heap.allocate(cache, kind) != cell + kind.cell_bytes) return 4;
    if (!grow_tables(heap.allocator, cache, kMaxKinds - 1)) return 5;
    if (heap.allocate(cache, kind) != cell + 2 * kind.cell_bytes) return 6;
    return 0;
  });
  CHECK(end.exit_code == 0);
}

TEST_CASE("a thread without a cache gets one from the heap's hook") {
  CHECK(detail::current_cache == nullptr);
  CHECK(detail::attach_slow() == nullptr);
  CHECK(detail::attach_to_overwrite(8) == nullptr);
  static detail::thread_cache cache;
  static constexpr HeapHooks hooks = {[] { return &cache; },
                                      [](std::uintptr_t word) { return word == 8; }};
  set_heap_hooks(&hooks);
  CHECK(detail::attach_slow() == &cache);
  CHECK(detail::attach_to_overwrite(8) == &cache);
  CHECK(detail::attach_to_overwrite(16) == nullptr);
  set_heap_hooks(nullptr);
  CHECK(detail::attach_slow() == nullptr);
}

TEST_CASE("a thread that has a note parks when it leaves its unit, and not before") {
  static int parked = 0;
  detail::thread_cache cache;
  cache.park = [](detail::thread_cache& c) {
    parked += c.in_unit.load() == 0 ? 1 : 100;
    c.stop_note.store(0);
  };
  cache.enter_unit();
  CHECK(cache.in_unit.load() == 1);
  cache.leave_unit();
  CHECK(cache.in_unit.load() == 0);
  CHECK(parked == 0);
  cache.enter_unit();
  cache.stop_note.store(1);
  CHECK(parked == 0);
  cache.leave_unit();
  CHECK(parked == 1);
}

// The cells that a thread which ends gives back are another's at once, without a stop in between:
// what the first wrote there must have happened before what the second writes. For TSan.
TEST_CASE("a cell that another thread has given back is wholly the next one's") {
  OwnHeap heap;
  Kind& kind = heap.typed(class_of(1024));
  std::atomic<int> wrong{0};
  // Dirty pages, so that runs are zeroed by whoever takes them.
  {
    OwnCache cache(heap);
    for (int i = 0; i < 64; ++i) std::memset(heap.allocate(cache, kind), 1, 1024);
    return_all(heap.allocator, cache);
    heap.begin_sweep();
    heap.sweep_all();
  }
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int round = 0; round < 300; ++round) {
        OwnCache cache(heap);  // ends here, and gives back what it has claimed
        std::vector<char*> cells;
        for (int i = 0; i < 5; ++i) {
          char* const cell = heap.allocate(cache, kind);
          if (cell == nullptr || !all_bytes_are(cell, 1024, 0))
            wrong.fetch_add(1, std::memory_order_relaxed);
          std::memset(cell, 1, 1024);
          cells.push_back(cell);
        }
        for (char* const cell : cells) return_cell(heap.allocator, cache, cell);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong.load() == 0);
  CHECK(heap.live() == 0);
}
