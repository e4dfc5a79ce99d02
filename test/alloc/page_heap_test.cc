#include "alloc/page_heap.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "alloc/base/os.h"
#include "child.h"

using namespace tricolor::impl;
using tricolor::test::in_child;

// Catch takes a PageId, which has a begin(), for a range.
template <>
struct Catch::StringMaker<PageId> {
  static std::string convert(PageId page) { return StringMaker<void*>::convert(page.data()); }
};
template <>
struct Catch::StringMaker<PageCount> {
  static std::string convert(PageCount count) { return std::to_string(count.value) + " pages"; }
};

namespace {

// A page heap of its own. Its address space stays when it goes: arenas are for ever.
struct Fixture {
  ArenaMap map;
  PageHeap heap{map};
  Fixture() {
    if (!map.create()) std::abort();
  }
  PageId take(std::size_t pages) {
    const auto run = heap.take({pages});
    REQUIRE(run.has_value());
    return run->first;
  }
};

std::size_t arena_count(const PageHeap& heap) { return heap.reserved_bytes() / kArenaBytes; }

// Pages of a run with memory behind them, counted in kernel pages.
std::size_t resident_kernel_pages(void* begin, std::size_t bytes) {
  std::vector<unsigned char> pages(bytes / os::kernel_page_bytes());
  if (mincore(begin, bytes, pages.data()) != 0) return SIZE_MAX;
  return static_cast<std::size_t>(
      std::count_if(pages.begin(), pages.end(), [](unsigned char c) { return (c & 1) != 0; }));
}

void touch(PageId first, std::size_t pages) {
  for (std::size_t i = 0; i < pages; ++i) std::memset((first + PageCount{i}).data(), 1, kPageBytes);
}

bool huge_pages_always() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string words;
  std::getline(file, words);
  return words.find("[always]") != std::string::npos;
}

// A field of /proc/self/statm in bytes, read without allocating: 0 = address space, 5 = data.
std::size_t statm_bytes(std::size_t field) {
  std::FILE* const file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  unsigned long value = 0;
  for (std::size_t i = 0; i <= field; ++i) {
    if (std::fscanf(file, "%lu", &value) != 1) value = 0;
  }
  std::fclose(file);
  return value * os::kernel_page_bytes();
}

}  // namespace

TEST_CASE("a fresh run is zero, writable, and counted") {
  Fixture f;
  CHECK(f.heap.first_arena() == nullptr);
  CHECK(f.heap.lowest_address() >= f.heap.highest_address());
  CHECK(f.heap.reserved_bytes() == 0);
  for (const std::size_t pages : {std::size_t{1}, std::size_t{3}, std::size_t{600}}) {
    const auto run = f.heap.take({pages});
    REQUIRE(run.has_value());
    CHECK(run->zero);
    CHECK(f.map.record_of(run->first) != nullptr);
    const char* const begin = run->first.data();
    CHECK(std::all_of(begin, begin + pages * kPageBytes, [](char c) { return c == 0; }));
    touch(run->first, pages);
  }
  CHECK(f.heap.in_use_bytes() == 604 * kPageBytes);
  CHECK(f.heap.ready_bytes() == 604 * kPageBytes);
  CHECK(f.heap.reserved_bytes() == kArenaBytes);
  CHECK(f.heap.metadata_bytes() >= 604 * sizeof(PageRecord) + sizeof(Arena));
  CHECK(f.heap.metadata_bytes() < 700 * sizeof(PageRecord) + 2 * os::kernel_page_bytes());
  f.heap.verify();
}

TEST_CASE("the lowest run that is long enough is taken") {
  Fixture f;
  const PageId base = f.take(100);
  for (std::size_t i = 1; i < 10; ++i) CHECK(f.take(100) == base + PageCount{100 * i});
  f.heap.give_back(base + PageCount{700}, {100});
  f.heap.give_back(base + PageCount{300}, {100});
  f.heap.give_back(base + PageCount{500}, {100});
  CHECK(f.take(50) == base + PageCount{300});
  CHECK(f.take(60) == base + PageCount{500});
  CHECK(f.take(50) == base + PageCount{350});
  CHECK(f.take(100) == base + PageCount{700});
  CHECK(f.take(41) == base + PageCount{1000});
  CHECK(f.take(40) == base + PageCount{560});
  f.heap.verify();
}

TEST_CASE("freed neighbours become one run, across words and chunks") {
  Fixture f;
  const PageId base = f.take(kArenaPages);
  f.heap.give_back(base, {kArenaPages});
  std::vector<PageId> runs;
  for (std::size_t i = 0; i < kArenaPages / 32; ++i) runs.push_back(f.take(32));
  // Every second one first, from the top: no two neighbours.
  for (std::size_t i = runs.size(); i-- != 0;) {
    if (i % 2 == 0) f.heap.give_back(runs[i], {32});
  }
  f.heap.verify();
  f.heap.give_back(runs[15], {32});  // pages 480..511, next to a chunk's end
  CHECK(f.take(96) == base + PageCount{448});
  f.heap.give_back(base + PageCount{448}, {96});
  for (std::size_t i = 1; i < runs.size(); i += 2) {
    if (i != 15) f.heap.give_back(runs[i], {32});
  }
  f.heap.verify();
  CHECK(f.take(kArenaPages) == base);
}

TEST_CASE("a run of up to an arena lies inside one arena") {
  Fixture f;
  const PageId first = f.take(5000);
  const PageId second = f.take(5000);
  CHECK(arena_count(f.heap) == 2);
  CHECK(second.address() % kArenaBytes == 0);
  // The end of one and the start of the other may touch, but only larger runs may lie across.
  f.heap.give_back(second, {5000});
  CHECK(f.take(kArenaPages) == second);
  f.heap.give_back(first, {5000});
  CHECK(f.take(1) == std::min(first, second));
  f.heap.verify();
}

TEST_CASE(
    "a run above an arena takes a row, leaves the tail to others and comes back as free pages") {
  Fixture f;
  const std::size_t pages = 2 * kArenaPages + 100;
  const PageId row = f.take(pages);
  CHECK(row.address() % kArenaBytes == 0);
  CHECK(arena_count(f.heap) == 3);
  *row.data() = 1;
  *((row + PageCount{pages}).data() - 1) = 1;
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(page_of_record(f.map.record_of(row + PageCount{i * kArenaPages})) ==
          row + PageCount{i * kArenaPages});
  }
  CHECK(f.take(10) == row + PageCount{pages});
  f.heap.verify();

  f.heap.give_back(row, {pages});
  CHECK(f.heap.in_use_bytes() == 10 * kPageBytes);
  CHECK(f.take(1) == row);
  CHECK(f.take(kArenaPages) == row + PageCount{kArenaPages});
  f.heap.verify();
}

TEST_CASE("a row is found again, and may begin inside an arena") {
  Fixture f;
  const PageId row = f.take(3 * kArenaPages);
  f.heap.give_back(row, {3 * kArenaPages});
  CHECK(f.take(100) == row);
  const auto again = f.heap.take({2 * kArenaPages});
  REQUIRE(again.has_value());
  CHECK(again->first == row + PageCount{100});
  CHECK_FALSE(again->zero);
  CHECK(arena_count(f.heap) == 3);
  f.heap.give_back(again->first, {2 * kArenaPages});
  f.heap.verify();
}

TEST_CASE("a search that found nothing in one arena does not hide its shorter runs") {
  Fixture f;
  const PageId row = f.take(2 * kArenaPages);
  f.heap.give_back(row, {2 * kArenaPages});
  for (std::size_t i = 0; i < kArenaPages / 2; ++i) f.take(2);
  CHECK(f.take(kArenaPages) == row + PageCount{kArenaPages});
  f.heap.give_back(row + PageCount{6}, {2});
  CHECK(f.take(3).address() % kArenaBytes == 0);  // in a third arena
  f.heap.verify();
  CHECK(f.take(2) == row + PageCount{6});
}

TEST_CASE("a row does not reach across a gap between arenas") {
  Fixture f;
  const PageId low = f.take(kArenaPages);
  void* const gap = os::reserve(kArenaBytes, kArenaBytes, "test");
  const PageId high = f.take(kArenaPages);
  REQUIRE(gap != nullptr);
  f.heap.give_back(low, {kArenaPages});
  f.heap.give_back(high, {kArenaPages});
  const PageId row = f.take(2 * kArenaPages);
  CHECK(row != low);
  f.heap.verify();
  os::unreserve(gap, kArenaBytes);
}

TEST_CASE("an arena that comes to lie below older ones is used first") {
  const auto end = in_child([] {
    // Where the next arena would go, one page is taken: the kernel then places arenas downwards.
    void* const place = os::reserve(kArenaBytes, kArenaBytes, "test");
    os::unreserve(place, kArenaBytes);
    if (mmap(place, kPageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != place) return 1;
    Fixture f;
    std::vector<PageId> arenas;
    for (int i = 0; i < 5; ++i) {
      const auto run = f.heap.take({kArenaPages});
      if (!run) return 2;
      arenas.push_back(run->first);
    }
    f.heap.verify();
    if (std::is_sorted(arenas.begin(), arenas.end())) return 3;
    if (f.heap.take({1})->first.address() % kArenaBytes != 0) return 4;
    for (const PageId first : arenas) f.heap.give_back(first, {kArenaPages});
    f.heap.verify();
    std::sort(arenas.begin(), arenas.end());
    for (const PageId first : arenas) {
      const auto run = f.heap.take({kArenaPages});
      if (!run || run->first != first) return 5;
    }
    if (f.heap.first_arena()->first > arenas[0]) return 6;
    return 0;
  });
  CHECK(end.exit_code == 0);
  CHECK(end.errors == "");
}

TEST_CASE("a run is zero only when no page of it was used since the kernel gave it") {
  Fixture f;
  const PageId base = f.take(10);
  f.take(1);  // keeps the run's end
  f.heap.give_back(base, {10});
  const auto dirty = f.heap.take({5});
  REQUIRE(dirty.has_value());
  CHECK(dirty->first == base);
  CHECK_FALSE(dirty->zero);
  touch(base, 5);
  f.heap.give_back(base, {5});
  CHECK(f.heap.release({10}) == PageCount{10});
  const auto clean = f.heap.take({10});
  REQUIRE(clean.has_value());
  CHECK(clean->first == base);
  CHECK(clean->zero);
  CHECK(std::all_of(base.data(), base.data() + 10 * kPageBytes, [](char c) { return c == 0; }));
  f.heap.give_back(base, {10});
  f.heap.release({1});
  const auto mixed = f.heap.take({10});
  REQUIRE(mixed.has_value());
  CHECK_FALSE(mixed->zero);
}

TEST_CASE("release gives the highest pages back to the system, and no more than asked") {
  if (os::kernel_page_bytes() > kPageBytes) return;  // then it rounds up
  Fixture f;
  const PageId base = f.take(2000);
  touch(base, 2000);
  const PageId low = base + PageCount{100};
  f.heap.give_back(base, {2000});
  REQUIRE(f.take(100) == base);
  CHECK(f.heap.ready_bytes() == 2000 * kPageBytes);
  CHECK(f.heap.release({300}) == PageCount{300});
  CHECK(f.heap.ready_bytes() == 1700 * kPageBytes);
  const std::size_t per_page = kPageBytes / os::kernel_page_bytes();
  CHECK(resident_kernel_pages(low.data(), PageCount{1600}.bytes()) == 1600 * per_page);
  CHECK(resident_kernel_pages((base + PageCount{1700}).data(), PageCount{300}.bytes()) == 0);
  CHECK(f.heap.release({1}) == PageCount{1});
  CHECK(f.heap.release({100000}) == PageCount{1599});
  CHECK(f.heap.release({1}) == PageCount{0});
  CHECK(f.heap.release({0}) == PageCount{0});
  CHECK(f.heap.ready_bytes() == f.heap.in_use_bytes());
  CHECK(resident_kernel_pages(base.data(), PageCount{2000}.bytes()) == 100 * per_page);
  CHECK(f.take(1900) == low);
  f.heap.verify();
}

TEST_CASE("release finds pages between those in use, in several arenas") {
  Fixture f;
  const PageId row = f.take(2 * kArenaPages);
  f.heap.give_back(row, {2 * kArenaPages});
  std::vector<PageId> runs;
  for (std::size_t i = 0; i < 2 * kArenaPages / 8; ++i) runs.push_back(f.take(8));
  std::size_t free = 0;
  for (std::size_t i = 0; i < runs.size(); i += 3, free += 8) f.heap.give_back(runs[i], {8});
  CHECK(f.heap.release({SIZE_MAX}) == PageCount{free});
  CHECK(f.heap.ready_bytes() == f.heap.in_use_bytes());
  f.heap.verify();
}

TEST_CASE("what the kernel will not take back stays Ready and dirty") {
  Fixture f;
  const PageId base = f.take(10);
  f.heap.give_back(base, {10});
  // Locked memory cannot be discarded. Without the right to lock any there is nothing to test. The
  // raw calls: under sanitizers, the others do nothing.
  if (syscall(SYS_mlock, base.data(), kPageBytes) != 0) return;
  CHECK(f.heap.release({10}) == PageCount{0});
  CHECK(f.heap.ready_bytes() == 10 * kPageBytes);
  f.heap.verify();
  syscall(SYS_munlock, base.data(), kPageBytes);
  CHECK(f.heap.release({10}) == PageCount{10});
}

TEST_CASE("with large kernel pages, only whole ones are given back") {
  std::mt19937_64 random(1);
  for (std::size_t group = 1; group <= 32; group *= 2) {
    for (int i = 0; i < 1000; ++i) {
      const std::uint64_t free = random() | random() | random() | random();
      const std::uint64_t dirty = random() & random();
      std::uint64_t expected = 0;
      for (std::size_t begin = 0; begin < 64; begin += group) {
        const std::uint64_t all = ((std::uint64_t{1} << group) - 1) << begin;
        if ((free & all) == all && (dirty & all) != 0) expected |= all;
      }
      REQUIRE(releasable_pages(free, dirty, group) == expected);
    }
  }
}

TEST_CASE("take fails at the hard limit and changes nothing") {
  Fixture f;
  f.heap.set_hard_limit_bytes(1000 * kPageBytes + 1);
  CHECK_FALSE(f.heap.take({1001}).has_value());
  CHECK(f.heap.reserved_bytes() == 0);
  const PageId base = f.take(900);
  CHECK_FALSE(f.heap.take({101}).has_value());
  CHECK(f.heap.ready_bytes() == 900 * kPageBytes);
  CHECK(f.take(100) == base + PageCount{900});
  CHECK_FALSE(f.heap.take({1}).has_value());
  CHECK_FALSE(f.heap.take({20000}).has_value());
  f.heap.verify();
  f.heap.set_hard_limit_bytes(1);  // below what is in use
  CHECK_FALSE(f.heap.take({1}).has_value());
  f.heap.set_hard_limit_bytes(0);
  CHECK(f.take(1) == base + PageCount{1000});
}

TEST_CASE("at the hard limit, free memory is released to make room") {
  Fixture f;
  f.heap.set_hard_limit_bytes(1000 * kPageBytes);
  const PageId base = f.take(400);
  const PageId other = f.take(400);
  f.take(100);
  f.heap.give_back(base, {400});
  // What cannot succeed in any case releases nothing.
  CHECK_FALSE(f.heap.take({501}).has_value());
  CHECK(f.heap.ready_bytes() == 900 * kPageBytes);
  // 900 ready, 500 of them in use. 500 more fit only if most of what is free goes.
  const auto run = f.heap.take({500});
  REQUIRE(run.has_value());
  CHECK(run->first == other + PageCount{500});
  CHECK(f.heap.ready_bytes() <= 1000 * kPageBytes);
  CHECK(f.heap.in_use_bytes() == 1000 * kPageBytes);
  CHECK_FALSE(f.heap.take({1}).has_value());
  f.heap.give_back(other, {400});
  // 800 pages in two free runs: taking one of them needs no more memory, or the other's.
  CHECK(f.take(400) == base);
  f.heap.verify();
}

TEST_CASE("a run says how many of its pages have no memory behind them") {
  Fixture f;
  const auto first = f.heap.take({10});
  REQUIRE(first.has_value());
  CHECK(first->fresh == PageCount{10});
  f.heap.give_back(first->first, {10});
  const auto longer = f.heap.take({15});
  REQUIRE(longer.has_value());
  CHECK(longer->first == first->first);
  CHECK(longer->fresh == PageCount{5});
  CHECK_FALSE(longer->zero);
  f.heap.give_back(longer->first, {15});
  CHECK(f.heap.take({15})->fresh == PageCount{0});
  f.heap.give_back(longer->first, {15});
  f.heap.release({SIZE_MAX});
  CHECK(f.heap.take({15})->fresh == PageCount{15});
}

TEST_CASE("records of pages go back to the system after the pages, and say that those are free") {
  Fixture f;
  const PageId low = f.take(100);
  const PageId one = f.take(1);
  const PageId high = f.take(155);
  CHECK(f.heap.take({256})->fresh == PageCount{256});  // more of the arena
  const std::size_t metadata = f.heap.metadata_bytes();
  // As in the life of a span.
  const auto record_of = [&](std::size_t page) { return f.map.record_of(low + PageCount{page}); };
  for (std::size_t i = 0; i < 512; ++i) {
    record_of(i)->head_delta = 7;
    record_of(i)->state.store(i == 100 ? PageState::in_use : PageState::free);
    small_cell_bits(record_of(i))->alloc[3].store(7);
  }
  f.heap.give_back(low, {100});
  f.heap.give_back(high, {155});
  f.heap.verify();
  CHECK(f.heap.metadata_bytes() == metadata);
  // Highest first: of pages 246 to 255 only the records of 224 to 255 fill a page, and they are not all clean.
  f.heap.release({10});
  if (os::kernel_page_bytes() != 4096) return;
  CHECK(f.heap.metadata_bytes() == metadata);
  f.heap.release({60});
  CHECK(f.heap.metadata_bytes() == metadata - 2 * 4096);
  f.heap.release({SIZE_MAX});
  f.heap.verify();
  // All but pages 96 to 127, one of which is in use.
  CHECK(f.heap.metadata_bytes() == metadata - 7 * 4096);
  for (std::size_t i = 0; i < 512; ++i) {
    const std::uint32_t left = i / 32 == 3 || i >= 256 ? 7 : 0;
    if (record_of(i)->head_delta != left) FAIL(i);
    if (small_cell_bits(record_of(i))->alloc[3].load() != left) FAIL(i);
    if (record_of(i)->state.load() != (i == 100 ? PageState::in_use : PageState::free)) FAIL(i);
  }
  // They are counted again where they are used again.
  CHECK(f.take(1) == low);
  CHECK(f.heap.metadata_bytes() == metadata - 6 * 4096);
  f.heap.give_back(one, {1});
  f.heap.release({SIZE_MAX});
  CHECK(f.heap.metadata_bytes() == metadata - 7 * 4096);
  f.heap.verify();
}

TEST_CASE("absurd sizes are refused") {
  Fixture f;
  CHECK_FALSE(f.heap.take({SIZE_MAX}).has_value());
  CHECK_FALSE(f.heap.take({SIZE_MAX >> kPageShift}).has_value());
  CHECK_FALSE(f.heap.take({std::size_t{1} << (kAddressBits - kPageShift)}).has_value());
  CHECK(f.heap.reserved_bytes() == 0);
  CHECK(f.heap.in_use_bytes() == 0);
}

TEST_CASE("arenas are listed in address order, inside the bounds") {
  Fixture f;
  for (int i = 0; i < 300; ++i) f.take(kArenaPages);  // the table of arenas grows on the way
  std::size_t arenas = 0;
  std::uintptr_t last = 0;
  for (const Arena* a = f.heap.first_arena(); a != nullptr;
       a = a->next.load(std::memory_order_acquire)) {  // Acquire: pairs with PageHeap::enter().
    CHECK(a->first.address() > last);
    CHECK(f.map.record_of(a->first) != nullptr);
    last = a->first.address();
    ++arenas;
  }
  CHECK(arenas == 300);
  CHECK(arena_count(f.heap) == 300);
  CHECK(f.heap.lowest_address() == f.heap.first_arena()->first.address());
  CHECK(f.heap.highest_address() == last + kArenaBytes);
  f.heap.verify();
}

TEST_CASE("metadata costs only what is touched") {
  if (huge_pages_always()) return;
  Fixture f;
  const PageId row = f.take(kArenaPages);
  Arena* const arena = arena_of(f.map.record_of(row));
  CHECK(resident_kernel_pages(arena, kArenaMetadataBytes) * os::kernel_page_bytes() <=
        round_up(sizeof(Arena), os::kernel_page_bytes()));
  CHECK(resident_kernel_pages(row.data(), kArenaBytes) == 0);
}

TEST_CASE("a run that is given back twice, or was never taken, is reported") {
  const auto twice = in_child([] {
    Fixture f;
    const auto run = f.heap.take({4});
    f.heap.give_back(run->first, {4});
    f.heap.give_back(run->first, {4});
    return 0;
  });
  CHECK(twice.signal == SIGABRT);
  CHECK_THAT(twice.errors, Catch::Contains("pageheap.run"));
  const auto never = in_child([] {
    Fixture f;
    f.heap.give_back(page_of(kArenaBytes), {1});
    return 0;
  });
  CHECK(never.signal == SIGABRT);
  CHECK_THAT(never.errors, Catch::Contains("pageheap.run"));
}

// --- The kernel refuses
// ---------------------------------------------------------------------------

TEST_CASE("no address space left: take fails, changes nothing, and free pages still serve",
          "[kernel]") {
  const auto end = in_child([] {
    Fixture f;
    const auto first = f.heap.take({kArenaPages});
    if (!first) return 1;
    const std::size_t room = 3 * (kArenaBytes + kArenaMetadataBytes) + (std::size_t{2} << 20);
    const rlim_t bytes = statm_bytes(0) + room;
    const rlimit limit = {bytes, bytes};
    if (setrlimit(RLIMIT_AS, &limit) != 0) return 2;
    std::size_t arenas = 1;
    while (arenas < 10 && f.heap.take({kArenaPages})) ++arenas;
    if (arenas < 2 || arenas > 4) return 3;
    const auto is_unchanged = [&] {
      return f.heap.reserved_bytes() == arenas * kArenaBytes &&
             f.heap.in_use_bytes() == arenas * kArenaBytes &&
             f.heap.ready_bytes() == arenas * kArenaBytes;
    };
    if (!is_unchanged()) return 4;
    if (f.heap.take({1}) || f.heap.take({3 * kArenaPages}) || !is_unchanged()) return 5;
    f.heap.verify();
    f.heap.give_back(first->first, {kArenaPages});
    for (std::size_t i = 0; i < kArenaPages; ++i) {
      if (!f.heap.take({1})) return 6;
    }
    if (f.heap.take({1}) || !is_unchanged()) return 7;
    f.heap.verify();
    return 0;
  });
  CHECK(end.exit_code == 0);
  CHECK(end.errors == "");
}

TEST_CASE("no memory to prepare: take fails, or finds pages that are accessible", "[kernel]") {
  const auto end = in_child([] {
    Fixture f;
    const auto low = f.heap.take({100});
    const auto high = f.heap.take({kArenaPages});
    if (!low || !high) return 1;
    const rlim_t bytes = statm_bytes(5);
    const rlimit limit = {bytes, bytes};
    if (setrlimit(RLIMIT_DATA, &limit) != 0) return 2;
    const std::size_t ready = f.heap.ready_bytes();
    // The lower arena has the address space, but no memory.
    if (f.heap.take({1000}) || f.heap.take({kArenaPages}) || f.heap.take({20000})) return 3;
    if (f.heap.ready_bytes() != ready || f.heap.in_use_bytes() != ready) return 4;
    if (f.heap.reserved_bytes() != 2 * kArenaBytes) return 5;
    f.heap.verify();
    if (!f.heap.take({400})) return 6;  // prepared with the first run
    f.heap.give_back(high->first, {kArenaPages});
    const auto run = f.heap.take({1000});
    if (!run || run->first != high->first || run->zero) return 7;
    *run->first.data() = 1;
    f.heap.verify();
    return 0;
  });
  CHECK(end.exit_code == 0);
  CHECK(end.errors == "");
}

// --- Against a naive model
// ------------------------------------------------------------------------

namespace {

// What the page heap must do, in the simplest way: a byte a page.
class Model {
 public:
  enum : std::uint8_t { kInUse = 1, kDirty = 2 };

  // Enters arenas that it does not know yet. Returns how many.
  std::size_t look_for_arenas(const PageHeap& heap) {
    std::size_t more = 0;
    for (const Arena* a = heap.first_arena(); a != nullptr;
         a = a->next.load(std::memory_order_acquire)) {  // Acquire: pairs with PageHeap::enter().
      more += x_arenas.try_emplace(a->first, kArenaPages).second;
    }
    return more;
  }

  // The lowest fit in the arenas that are known.
  std::optional<PageId> lowest(std::size_t count) const {
    std::size_t run = 0;
    PageId end = {};
    for (const auto& [first, pages] : x_arenas) {
      if (first != end || count <= kArenaPages) run = 0;
      end = first + PageCount{kArenaPages};
      for (std::size_t i = 0; i < kArenaPages; ++i) {
        run = (pages[i] & kInUse) == 0 ? run + 1 : 0;
        if (run == count) return PageId{first.value + i + 1 - count};
      }
    }
    return std::nullopt;
  }

  std::uint8_t& page(PageId id) {
    auto arena = std::prev(x_arenas.upper_bound(id));
    return arena->second[(id - arena->first).value];
  }

  // Takes a run that must be free. Returns whether it is zero.
  bool take(PageId first, std::size_t count) {
    bool zero = true;
    for (std::size_t i = 0; i < count; ++i) {
      std::uint8_t& p = page(first + PageCount{i});
      REQUIRE((p & kInUse) == 0);
      zero = zero && (p & kDirty) == 0;
      p = kInUse | kDirty;
    }
    return zero;
  }

  void give_back(PageId first, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) page(first + PageCount{i}) = kDirty;
  }

  std::size_t release(std::size_t count) {
    std::size_t released = 0;
    for (auto arena = x_arenas.rbegin(); arena != x_arenas.rend(); ++arena) {
      for (std::size_t i = kArenaPages; i-- != 0 && released < count;) {
        if (arena->second[i] == kDirty) {
          arena->second[i] = 0;
          ++released;
        }
      }
    }
    return released;
  }

  // Follows what the heap released on its own, which must have been free.
  void follow_release(const PageHeap& heap) {
    for (const Arena* a = heap.first_arena(); a != nullptr;
         a = a->next.load(std::memory_order_acquire)) {  // Acquire: pairs with PageHeap::enter().
      for (std::size_t i = 0; i < kArenaPages; ++i) {
        std::uint8_t& p = x_arenas.at(a->first)[i];
        const bool dirty = (a->dirty[i / 64] >> i % 64 & 1) != 0;
        if (dirty == ((p & kDirty) != 0)) continue;
        REQUIRE(p == kDirty);
        p = 0;
      }
    }
  }

  std::size_t count(std::uint8_t bit) const {
    std::size_t n = 0;
    for (const auto& [first, pages] : x_arenas) {
      n += static_cast<std::size_t>(
          std::count_if(pages.begin(), pages.end(), [bit](auto p) { return (p & bit) != 0; }));
    }
    return n;
  }

 private:
  std::map<PageId, std::vector<std::uint8_t>> x_arenas;
};

std::uint64_t seed_of_run() {
  const char* const given = std::getenv("TRICOLOR_TEST_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
}

}  // namespace

TEST_CASE("random takes, returns and releases do what a naive model does") {
  if (os::kernel_page_bytes() > kPageBytes) return;  // the model releases single pages
  const std::uint64_t seed = seed_of_run();
  std::printf("page heap against its model: TRICOLOR_TEST_SEED=%llu\n",
              static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };

  Fixture f;
  Model model;
  struct Live {
    PageId first;
    std::size_t pages;
    std::uint64_t stamp;
  };
  std::vector<Live> live;
  std::size_t live_pages = 0;
  std::size_t limit_pages = 0;
  std::size_t aim = 3000;  // live pages: moves, so that the heap fills and empties

  const auto stamp_at = [](PageId page) { return reinterpret_cast<std::uint64_t*>(page.data()); };
  const auto some_size = [&]() -> std::size_t {
    switch (below(40)) {
      case 0:
        return 1 + below(3000);
      case 1:
        return 400 + below(300);
      case 2:
        return std::size_t{64} << below(6);
      case 3:
        return below(8) == 0 ? 8000 + below(400) : 1 + below(70);
      case 4:
        return below(20) == 0 ? 8193 + below(12000) : 63 + below(3);
      default:
        return 1 + below(below(4) == 0 ? 40 : 4);
    }
  };

  for (int step = 0; step < 6000; ++step) {
    CAPTURE(step);
    if (below(500) == 0) aim = below(4) == 0 ? 0 : below(30000);
    if (below(300) == 0) {
      limit_pages = below(2) == 0 ? 0 : model.count(Model::kInUse) + below(2000);
      f.heap.set_hard_limit_bytes(limit_pages * kPageBytes);
      if (limit_pages == 0) f.heap.set_hard_limit_bytes(0);
    }
    const std::size_t action = below(100);
    if (action < 2) {
      const std::size_t count = below(3) == 0 ? SIZE_MAX : below(700);
      const std::size_t expected = model.release(count);
      REQUIRE(f.heap.release({count}) == PageCount{expected});
    } else if ((live_pages < aim) == (action < 80)) {
      const std::size_t pages = some_size();
      const auto expected = model.lowest(pages);
      const bool fits = limit_pages == 0 || live_pages + pages <= limit_pages;
      const std::size_t reserved = f.heap.reserved_bytes();
      const auto run = f.heap.take({pages});
      CAPTURE(pages);
      REQUIRE(run.has_value() == fits);
      if (limit_pages != 0) {
        const std::size_t more = model.look_for_arenas(f.heap);
        REQUIRE((more == 0) == (f.heap.reserved_bytes() == reserved));
        if (run) model.take(run->first, pages);
        model.follow_release(f.heap);
        if (fits) REQUIRE(f.heap.ready_bytes() <= limit_pages * kPageBytes);
      } else {
        const std::size_t more = model.look_for_arenas(f.heap);
        REQUIRE(more == (expected ? 0 : (pages + kArenaPages - 1) / kArenaPages));
        REQUIRE(run->zero == model.take(run->first, pages));
      }
      if (!run) continue;
      if (expected) REQUIRE(run->first == *expected);
      if (!expected) REQUIRE(run->first.address() % kArenaBytes == 0);
      const std::uint64_t stamp = random() | 1;
      for (const std::size_t i : {std::size_t{0}, pages / 2, pages - 1}) {
        std::uint64_t* const word = stamp_at(run->first + PageCount{i});
        if (run->zero && *word != stamp) REQUIRE(*word == 0);
        *word = stamp;
      }
      live.push_back({run->first, pages, stamp});
      live_pages += pages;
    } else if (!live.empty()) {
      std::swap(live[below(live.size())], live.back());
      const Live dead = live.back();
      live.pop_back();
      for (const std::size_t i : {std::size_t{0}, dead.pages / 2, dead.pages - 1}) {
        REQUIRE(*stamp_at(dead.first + PageCount{i}) == dead.stamp);
      }
      f.heap.give_back(dead.first, {dead.pages});
      model.give_back(dead.first, dead.pages);
      live_pages -= dead.pages;
    }
    REQUIRE(f.heap.in_use_bytes() == live_pages * kPageBytes);
    if (step % 50 == 0) {
      REQUIRE(f.heap.ready_bytes() == model.count(Model::kDirty) * kPageBytes);
      f.heap.verify();
    }
  }
}

// --- Threads
// --------------------------------------------------------------------------------------

TEST_CASE("threads share the heap, and nobody gets another's pages") {
  Fixture f;
  f.heap.set_hard_limit_bytes(std::size_t{512} << 20);
  std::atomic<std::size_t> wrong{0};
  std::atomic<std::size_t> busy{4};
  const auto work = [&](std::uint64_t id) {
    std::mt19937_64 random(id);
    struct Live {
      PageId first;
      std::size_t pages;
    };
    std::vector<Live> live;
    const auto drop = [&](std::size_t i) {
      std::swap(live[i], live.back());
      const Live dead = live.back();
      live.pop_back();
      for (std::size_t p = 0; p < dead.pages; ++p) {
        auto* const word = reinterpret_cast<std::uint64_t*>((dead.first + PageCount{p}).data());
        if (*word != id) wrong.fetch_add(1, std::memory_order_relaxed);
      }
      f.heap.give_back(dead.first, {dead.pages});
    };
    for (int i = 0; i < 4000; ++i) {
      if (live.size() > 60 || (!live.empty() && random() % 3 == 0)) {
        drop(random() % live.size());
        continue;
      }
      const std::size_t pages = 1 + random() % (random() % 50 == 0 ? 900 : 12);
      const auto run = f.heap.take({pages});
      if (!run) {
        wrong.fetch_add(1, std::memory_order_relaxed);
        continue;
      }
      for (std::size_t p = 0; p < pages; ++p) {
        auto* const word = reinterpret_cast<std::uint64_t*>((run->first + PageCount{p}).data());
        if (run->zero && *word != 0) wrong.fetch_add(1, std::memory_order_relaxed);
        *word = id;
      }
      live.push_back({run->first, pages});
    }
    while (!live.empty()) drop(0);
    busy.fetch_sub(1, std::memory_order_relaxed);
  };
  std::vector<std::thread> threads;
  for (std::uint64_t id = 1; id <= 4; ++id) threads.emplace_back(work, id);
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (busy.load(std::memory_order_relaxed) != 0) {
        f.heap.release({200});
        std::this_thread::yield();
      }
    });
  }
  for (std::thread& t : threads) t.join();
  CHECK(wrong.load(std::memory_order_relaxed) == 0);
  CHECK(f.heap.in_use_bytes() == 0);
  f.heap.verify();
  f.heap.release({SIZE_MAX});
  CHECK(f.heap.ready_bytes() == 0);
  f.heap.verify();
}
