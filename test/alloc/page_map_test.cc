#include "alloc/page_map.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <cstdint>
#include <new>
#include <string>
#include <thread>

#include "alloc/base/os.h"
#include "child.h"

using namespace tricolor::impl;
using tricolor::test::in_child;

// Catch takes a PageId, which has a begin(), for a range.
template <>
struct Catch::StringMaker<PageId> {
  static std::string convert(PageId page) { return StringMaker<void*>::convert(page.data()); }
};

namespace {

// An arena's metadata for an address nobody owns: the map never looks at the data.
Arena* make_arena(std::uintptr_t first_address) {
  void* const block = os::map(kArenaMetadataBytes, kArenaMetadataBytes, "test records");
  REQUIRE(block != nullptr);
  auto* const arena = new (block) Arena;
  arena->first = page_of(first_address);
  return arena;
}

constexpr std::uintptr_t kLow = kArenaBytes;                                         // number 1
constexpr std::uintptr_t kHigh = (std::uintptr_t{1} << kAddressBits) - kArenaBytes;  // the last one

}  // namespace

TEST_CASE("an address in no arena has no record") {
  ArenaMap map;
  REQUIRE(map.create());
  map.add(make_arena(kLow));
  for (const std::uintptr_t address :
       {std::uintptr_t{0}, kLow - 1, kLow + kArenaBytes, kHigh, std::uintptr_t{1} << kAddressBits,
        std::uintptr_t{0xffff'8000'0000'0000}, UINTPTR_MAX}) {
    CAPTURE(address);
    CHECK(map.record_of(address) == nullptr);
  }
}

TEST_CASE("every address of a page leads to the page's record, and the record back to the page") {
  ArenaMap map;
  REQUIRE(map.create());
  for (const std::uintptr_t first : {kLow, std::uintptr_t{0x7f12'3400'0000}, kHigh}) {
    Arena* const arena = make_arena(first);
    map.add(arena);
    for (const std::size_t page :
         {std::size_t{0}, std::size_t{1}, std::size_t{4711}, kArenaPages - 1}) {
      const std::uintptr_t address = first + page * kPageBytes;
      CAPTURE(first, page);
      PageRecord* const record = map.record_of(address);
      CHECK(record == arena->records() + page);
      CHECK(map.record_of(address + kPageBytes - 1) == record);
      CHECK(map.record_of(page_of(address)) == record);
      CHECK(arena_of(record) == arena);
      CHECK(page_of_record(record) == page_of(address));
      CHECK(record->state.load(std::memory_order_relaxed) == PageState::free);
    }
    CHECK(map.record_of(first + kArenaBytes) == nullptr);
  }
}

TEST_CASE("records and bits of small cells of all pages lie apart and inside their block") {
  Arena* const arena = make_arena(kLow);
  const auto begin = reinterpret_cast<std::uintptr_t>(arena);
  const auto at = [begin](const void* p) { return reinterpret_cast<std::uintptr_t>(p) - begin; };
  PageRecord* const last = arena->records() + kArenaPages - 1;
  CHECK(at(arena + 1) <= at(arena->records()));
  CHECK(at(last + 1) <= at(small_cell_bits(arena->records())));
  CHECK(at(small_cell_bits(last) + 1) == kArenaMetadataBytes);
}

TEST_CASE("an arena is entered once") {
  const auto end = in_child([] {
    ArenaMap map;
    if (!map.create()) return 1;
    void* const block = os::map(kArenaMetadataBytes, kArenaMetadataBytes, "test records");
    auto* const arena = new (block) Arena;
    arena->first = page_of(kLow);
    map.add(arena);
    map.add(arena);
    return 0;
  });
  CHECK(end.signal == SIGABRT);
  CHECK_THAT(end.errors, Catch::Contains("pagemap.monotonic"));
}

TEST_CASE("a reader finds nothing or a ready arena while arenas are added") {
  ArenaMap map;
  REQUIRE(map.create());
  constexpr std::size_t kArenas = 64;
  std::atomic<bool> started{false};
  std::atomic<std::size_t> wrong{0};
  std::thread reader([&] {
    // Ends when the last arena has come.
    for (bool last = false; !last;) {
      started.store(true, std::memory_order_relaxed);
      for (std::size_t i = 0; i < kArenas; ++i) {
        const std::uintptr_t address = kLow + i * kArenaBytes + 5 * kPageBytes;
        const PageRecord* const record = map.record_of(address);
        last = record != nullptr;
        if (record != nullptr && page_of_record(record) != page_of(address)) {
          wrong.fetch_add(1, std::memory_order_relaxed);
        }
      }
    }
  });
  while (!started.load(std::memory_order_relaxed)) std::this_thread::yield();
  for (std::size_t i = 0; i < kArenas; ++i) map.add(make_arena(kLow + i * kArenaBytes));
  reader.join();
  CHECK(wrong.load(std::memory_order_relaxed) == 0);
}
