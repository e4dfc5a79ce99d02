// The whole allocation layer against a naive model: the set of its objects. Random threads' caches
// allocate random kinds, give cells back, stop and go; random objects are marked and swept, on
// demand or by the walk. After each cycle the survivors are compared exactly.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "test/support/own_heap.h"

using namespace tricolor::impl;
using tricolor::test::all_bytes_are;
using tricolor::test::count_set;
using tricolor::test::OwnCache;
using tricolor::test::OwnHeap;
namespace detail = tricolor::detail;

namespace {

struct Object {
  Kind* kind;
  std::size_t bytes;
  std::uint64_t stamp;
  bool marked = false;
};

// Large objects are stamped at their ends only: the model is about bits.
void stamp(char* cell, const Object& object) {
  std::memcpy(cell, &object.stamp, 8);
  std::memcpy(cell + object.bytes - 8, &object.stamp, 8);
}

bool has_stamp(const char* cell, const Object& object) {
  return std::memcmp(cell, &object.stamp, 8) == 0 &&
         std::memcmp(cell + object.bytes - 8, &object.stamp, 8) == 0;
}

class ModelTest {
 public:
  explicit ModelTest(std::uint64_t seed) : x_random(seed) {
    for (std::size_t c = 1; c < detail::kClassCount; c += 1 + below(4)) {
      x_kinds.push_back(&x_heap.pointer_free(c));
      x_kinds.push_back(&x_heap.typed(c));
      if (below(3) == 0) x_kinds.push_back(&x_heap.typed(c));
    }
    x_large[0] = &x_heap.pointer_free(detail::kLargeClass);
    x_large[1] = &x_heap.typed(detail::kLargeClass);
    for (int i = 0; i < 3; ++i) x_caches.push_back(std::make_unique<OwnCache>(x_heap));
    x_heap.allocator.clobber_free = below(2) == 0;
    if (below(4) == 0)
      x_heap.allocator.most_cells_a_claim = static_cast<std::uint32_t>(1 + below(5));
  }

  void run(int cycles) {
    for (int cycle = 0; cycle < cycles; ++cycle) {
      const std::size_t steps = below(3000);
      const std::size_t hot = below(x_kinds.size());
      for (std::size_t i = 0; i < steps; ++i) step(hot);
      finish_sweep();
      for (const auto& cache : x_caches) return_all(x_heap.allocator, *cache);
      check_objects();
      mark_some();
      x_heap.begin_sweep();
      for (auto it = x_objects.begin(); it != x_objects.end();) {
        if (it->second.marked) {
          it->second.marked = false;
          ++it;
        } else {
          x_freed += static_cast<std::int64_t>(it->second.bytes);
          it = x_objects.erase(it);
        }
      }
      x_sweep_ends = below(2) == 0 ? 0 : steps_until_sweep();
    }
    finish_sweep();
    for (const auto& cache : x_caches) return_all(x_heap.allocator, *cache);
    check_objects();
    // When nothing is marked, nothing is left.
    x_heap.begin_sweep();
    x_heap.sweep_all();
    CHECK(x_heap.allocator.span_count.load() == 0);
    CHECK(x_heap.allocator.pages.in_use_bytes() == 0);
    CHECK(x_heap.allocated_less_freed() == 0);
    CHECK(x_heap.live() == 0);
    x_heap.allocator.pages.verify();
  }

 private:
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(x_random() % n); }
  std::size_t steps_until_sweep() { return 1 + below(2000); }

  void step(std::size_t hot) {
    if (x_sweep_ends != 0 && --x_sweep_ends == 0) finish_sweep();
    OwnCache& cache = *x_caches[below(x_caches.size())];
    const std::size_t dice = below(1000);
    if (dice < 960) {
      allocate_small(cache, *x_kinds[below(3) != 0 ? hot : below(x_kinds.size())]);
    } else if (dice < 970) {
      allocate_large();
    } else if (dice < 995) {
      give_back(cache);
    } else if (dice < 998) {
      return_all(x_heap.allocator, cache);  // a thread ends
    } else {
      sweep_one();
    }
  }

  void allocate_small(OwnCache& cache, Kind& kind) {
    char* const cell = x_heap.allocate(cache, kind);
    REQUIRE(cell != nullptr);
    enter(cell, {&kind, kind.cell_bytes, x_random()});
    if (below(30) == 0) {  // its constructor throws
      x_objects.erase(cell);
      return_cell(x_heap.allocator, cache, cell);
    }
  }

  void allocate_large() {
    const std::size_t pages = below(50) == 0 ? 1 + below(3 * kArenaPages) : 5 + below(100);
    Kind& kind = *x_large[below(2)];
    char* const cell = x_heap.allocate_large(kind, pages);
    REQUIRE(cell != nullptr);
    // The caller of take_large() zeroes: here only what is looked at.
    std::memset(cell, 0, 8);
    std::memset(cell + pages * kPageBytes - 8, 0, 8);
    enter(cell, {&kind, pages * kPageBytes, x_random()});
  }

  void enter(char* cell, const Object& object) {
    REQUIRE(x_heap.find(cell).span->kind == object.kind);
    REQUIRE(x_heap.find(cell).address() == reinterpret_cast<std::uintptr_t>(cell));
    REQUIRE(is_swept(x_heap.allocator, x_heap.find(cell).span));
    if (object.kind->scan != detail::ScanMode::none && object.kind->cell_bytes != 0) {
      REQUIRE(all_bytes_are(cell, object.bytes, 0));
    }
    // It overlaps no other object.
    const auto above = x_objects.lower_bound(cell);
    if (above != x_objects.end()) REQUIRE(cell + object.bytes <= above->first);
    if (above != x_objects.begin()) {
      const auto& [address, below_it] = *std::prev(above);
      REQUIRE(address + below_it.bytes <= cell);
    }
    if (object.kind->cell_bytes != 0) std::memset(cell, 0x77, object.bytes);
    stamp(cell, object);
    x_objects[cell] = object;
  }

  // A random object of before is given back, as if its constructor had taken long.
  void give_back(OwnCache& cache) {
    if (x_objects.empty()) return;
    const auto it =
        std::next(x_objects.begin(), static_cast<std::ptrdiff_t>(below(x_objects.size())));
    PageRecord* const span = x_heap.find(it->first).span;
    // Then its span is swept, and no other thread is at it; and its thread knows its kind.
    if (it->second.kind->cell_bytes == 0 || !is_swept(x_heap.allocator, span)) return;
    if (!grow_tables(x_heap.allocator, cache, it->second.kind->id)) return;
    return_cell(x_heap.allocator, cache, it->first);
    x_objects.erase(it);
  }

  void sweep_one() {
    std::vector<PageRecord*> spans;
    x_heap.for_each_span([&](PageRecord* span) { spans.push_back(span); });
    if (!spans.empty()) sweep_and_free(x_heap.allocator, spans[below(spans.size())]);
  }

  void finish_sweep() {
    x_sweep_ends = 0;
    x_heap.sweep_all();
    x_heap.for_each_span([&](PageRecord* span) { REQUIRE(is_swept(x_heap.allocator, span)); });
  }

  void mark_some() {
    const std::size_t style = below(5);  // mostly dead ... all alive
    for (auto& [cell, object] : x_objects) {
      object.marked = style == 4 || below(4) < style;
      if (object.marked) x_heap.mark(cell + below(object.bytes));
    }
    // A stale word may mark a free cell: nothing comes of it.
    for (int i = 0; i < 20 && !x_objects.empty(); ++i) {
      const auto it =
          std::next(x_objects.begin(), static_cast<std::ptrdiff_t>(below(x_objects.size())));
      const Cell cell = x_heap.find(it->first + below(2 * kPageBytes));
      if (cell && !test_bit(alloc_words(cell.span), cell.index)) {
        x_heap.mark(reinterpret_cast<char*>(cell.address()));
      }
    }
  }

  // The sweep is over and no claim is out: the bits say what the model says.
  void check_objects() {
    std::size_t allocated = 0;
    std::int64_t bytes = 0;
    std::size_t spans = 0;
    std::size_t pages = 0;
    x_heap.for_each_span([&](PageRecord* span) {
      allocated += count_set(alloc_words(span), bit_words(span) * 64);
      REQUIRE(count_set(mark_words(span), bit_words(span) * 64) == 0);
      ++spans;
      pages += pages_of(span).value;
    });
    REQUIRE(allocated == x_objects.size());
    for (const auto& [cell, object] : x_objects) {
      REQUIRE(x_heap.allocated(cell));
      REQUIRE(x_heap.find(cell + object.bytes - 1).address() ==
              reinterpret_cast<std::uintptr_t>(cell));
      REQUIRE(has_stamp(cell, object));
      bytes += static_cast<std::int64_t>(object.bytes);
    }
    REQUIRE(x_heap.live() == bytes);
    REQUIRE(x_heap.allocated_less_freed() == bytes);
    REQUIRE(static_cast<std::int64_t>(x_heap.allocator.freed_bytes.load()) == x_freed);
    REQUIRE(x_heap.allocator.span_count.load() == spans);
    REQUIRE(x_heap.allocator.pages.in_use_bytes() == pages * kPageBytes);
  }

  std::mt19937_64 x_random;
  OwnHeap x_heap;
  std::vector<Kind*> x_kinds;
  Kind* x_large[2] = {};
  std::vector<std::unique_ptr<OwnCache>> x_caches;
  std::map<char*, Object> x_objects;  // in address order
  std::int64_t x_freed = 0;
  std::size_t x_sweep_ends = 0;  // steps until the walk sweeps what is left; 0 = it has
};

}  // namespace

TEST_CASE("random allocations, marks and sweeps leave exactly the objects of a naive model") {
  const std::uint64_t seed = tricolor::test::seed_of("allocation layer against its model");
  CAPTURE(seed);
  for (std::uint64_t heap = 0; heap < 4; ++heap) {
    CAPTURE(heap);
    ModelTest(seed + heap).run(12);
  }
}
