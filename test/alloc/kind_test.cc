#include "alloc/kind.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "test/support/own_heap.h"

using namespace tricolor::impl;
using tricolor::test::kPointerType;
namespace detail = tricolor::detail;

namespace {

struct Fixture {
  Metadata metadata;
  KindTable kinds{metadata};
  Fixture() {
    if (!kinds.create()) std::abort();
  }
  std::uint32_t add(const detail::type_info& type, std::size_t size_class) {
    std::atomic<std::uint32_t> slot{0};
    return kinds.id_of(slot, type, size_class);
  }
};

detail::type_info type_of(detail::ScanMode scan, detail::WordOffsets fixed,
                          std::uint32_t tail_offset = 0, std::uint32_t tail_stride = 0,
                          detail::WordOffsets tail = {}) {
  detail::type_info type = kPointerType;
  type.scan = scan;
  type.fixed = fixed;
  type.tail_offset = tail_offset;
  type.tail_stride = tail_stride;
  type.tail = tail;
  return type;
}

std::size_t class_of(std::size_t bytes) { return detail::size_class_for(bytes, 8); }

}  // namespace

TEST_CASE("the pointer-free kinds are there from the start, one a size class") {
  Fixture f;
  CHECK(f.kinds.count() == kFirstTypedKind);
  for (std::uint32_t id = 1; id < detail::kClassCount; ++id) {
    CAPTURE(id);
    const Kind& kind = f.kinds[id];
    const detail::size_class_row row = detail::kSizeClasses[id];
    CHECK(kind.id == id);
    CHECK(kind.type == nullptr);
    CHECK(kind.scan == detail::ScanMode::none);
    CHECK(kind.size_class == id);
    CHECK(kind.cell_bytes == row.cell_bytes);
    CHECK(kind.pages == row.span_pages);
    CHECK(kind.cells == row.span_pages * kPageBytes / row.cell_bytes);
    CHECK(std::uint64_t{kind.reciprocal} ==
          ((std::uint64_t{1} << 32) + row.cell_bytes - 1) / row.cell_bytes);
    CHECK(kind.word_map == 0);
  }
  const Kind& large = f.kinds[kLargePointerFreeKind];
  CHECK(large.id == kLargePointerFreeKind);
  CHECK(large.scan == detail::ScanMode::none);
  CHECK(large.cell_bytes == 0);
  CHECK(large.pages == 0);
  CHECK(large.cells == 1);
  CHECK(large.reciprocal == 0);
}

TEST_CASE("a kind gets the next id once, and its slot keeps it") {
  Fixture f;
  std::atomic<std::uint32_t> first{0};
  std::atomic<std::uint32_t> second{0};
  CHECK(f.kinds.id_of(first, kPointerType, class_of(64)) == kFirstTypedKind);
  CHECK(f.kinds.id_of(second, kPointerType, class_of(128)) == kFirstTypedKind + 1);
  CHECK(f.kinds.id_of(first, kPointerType, class_of(64)) == kFirstTypedKind);
  CHECK(first.load() == kFirstTypedKind);
  CHECK(f.kinds.count() == kFirstTypedKind + 2);
  const Kind& kind = f.kinds[second.load()];
  CHECK(kind.id == kFirstTypedKind + 1);
  CHECK(kind.type == &kPointerType);
  CHECK(kind.scan == detail::ScanMode::words);
  CHECK(kind.cell_bytes == 128);
}

TEST_CASE("the word map of a small cell has the fixed words and each repetition of the tail") {
  Fixture f;
  constexpr std::uint32_t kFixed[] = {0, 16};
  constexpr std::uint32_t kTail[] = {8, 16};
  const auto words = detail::ScanMode::words;
  const auto map_of = [&](const detail::type_info& type, std::size_t bytes) {
    return f.kinds[f.add(type, class_of(bytes))].word_map;
  };
  CHECK(map_of(type_of(words, {kFixed, 2}), 24) == 0b101);
  CHECK(map_of(type_of(words, {kFixed, 2}, 24, 24, {kTail, 2}), 96) == 0b110'110'110'101);
  // A last part that is no whole element is not scanned.
  CHECK(map_of(type_of(words, {kFixed, 2}, 24, 24, {kTail, 2}), 112) == 0b110'110'110'101);
  CHECK(map_of(type_of(words, {}, 0, 24, {kTail, 2}), 48) == 0b110'110);
  CHECK(map_of(type_of(words, {}, 0, 8, {kFixed, 1}), 512) == ~std::uint64_t{0});
  constexpr std::uint32_t kLast[] = {504};
  CHECK(map_of(type_of(words, {kLast, 1}), 512) == std::uint64_t{1} << 63);
  CHECK(map_of(type_of(words, {kFixed, 2}), 576) == 0);
  CHECK(map_of(type_of(detail::ScanMode::traced, {kFixed, 2}), 64) == 0);
  CHECK(map_of(type_of(detail::ScanMode::conservative, {kFixed, 2}), 64) == 0);
  CHECK(f.kinds[f.add(type_of(words, {kFixed, 2}), detail::kLargeClass)].word_map == 0);
}

TEST_CASE("threads that register the same slots get one id a slot") {
  Fixture f;
  constexpr std::size_t kSlots = 300;
  constexpr unsigned kThreads = 4;
  std::vector<std::atomic<std::uint32_t>> slots(kSlots);
  std::vector<std::vector<std::uint32_t>> seen(kThreads, std::vector<std::uint32_t>(kSlots));
  std::atomic<unsigned> ready{0};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      ready.fetch_add(1);
      while (ready.load() != kThreads) std::this_thread::yield();
      for (std::size_t i = 0; i < kSlots; ++i) {
        const std::size_t slot = t % 2 == 0 ? i : kSlots - 1 - i;
        const std::size_t size_class = 1 + slot % (detail::kClassCount - 1);
        const std::uint32_t id = f.kinds.id_of(slots[slot], kPointerType, size_class);
        seen[t][slot] = id;
        if (f.kinds[id].id != id || f.kinds[id].size_class != size_class) wrong.fetch_add(1);
        // Whatever is counted is complete.
        const std::uint32_t newest = f.kinds.count() - 1;
        if (f.kinds[newest].id != newest) wrong.fetch_add(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong.load() == 0);
  for (unsigned t = 1; t < kThreads; ++t) CHECK(seen[t] == seen[0]);
  std::sort(seen[0].begin(), seen[0].end());
  for (std::size_t i = 0; i < kSlots; ++i) CHECK(seen[0][i] == kFirstTypedKind + i);
  CHECK(f.kinds.count() == kFirstTypedKind + kSlots);
}

TEST_CASE("when the ids have run out a new kind is 0, and the others stay") {
  Fixture f;
  std::vector<std::atomic<std::uint32_t>> slots(kMaxKinds);
  const std::uint32_t room = kMaxKinds - kFirstTypedKind;
  std::uint32_t wrong = 0;
  for (std::uint32_t i = 0; i < room; ++i) {
    wrong += f.kinds.id_of(slots[i], kPointerType, 5) != kFirstTypedKind + i;
  }
  CHECK(wrong == 0);
  CHECK(f.kinds.count() == kMaxKinds);
  CHECK(f.kinds[kMaxKinds - 1].id == kMaxKinds - 1);
  CHECK(f.kinds.id_of(slots[room], kPointerType, 5) == kUnregisteredKind);
  CHECK(f.kinds.id_of(slots[room], kPointerType, 5) == kUnregisteredKind);
  CHECK(slots[room].load() == kUnregisteredKind);
  CHECK(f.kinds.id_of(slots[room - 1], kPointerType, 5) == kMaxKinds - 1);
  CHECK(f.kinds.count() == kMaxKinds);
}
