// Sizes that take gigabytes: a run of their own, in release builds. TRICOLOR_HEAVY_PERCENT scales them (default 100).
#include <tricolor/gc.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>

#include "test/gc/support.h"

using namespace tricolor::test;

namespace {

std::uint64_t scaled(std::uint64_t size) {
  const char* const percent = std::getenv("TRICOLOR_HEAVY_PERCENT");
  return size * (percent == nullptr ? 100 : std::strtoull(percent, nullptr, 10)) / 100;
}

struct Link {
  gc::ptr<Link> next;
  std::uint64_t value = 0;
  std::uint64_t check = 0;
};

void print_last_cycle(const char* what) {
  const auto stats = gc::stats();
  std::printf("%s: %.0f MB marked in %.0f ms, %llu objects, metadata %.0f MB\n", what,
              static_cast<double>(stats.heap_marked_bytes) / 1e6,
              static_cast<double>(stats.mark_ns_last) / 1e6,
              static_cast<unsigned long long>(stats.marked_objects_count),
              static_cast<double>(stats.metadata_bytes) / 1e6);
}

}  // namespace

TEST_CASE("a list of fifty million marks in bounded memory, and goes") {
  const std::uint64_t length = scaled(50'000'000);
  gc::root<Link> list;
  on_thread([&] {
    Link* first = nullptr;
    for (std::uint64_t i = 0; i < length; ++i) {
      Link* const link = gc::make<Link>();
      link->value = i;
      link->check = checksum(i);
      link->next = first;
      first = link;
    }
    list = first;
  });
  const std::uint64_t metadata = gc::stats().metadata_bytes;
  collect();
  print_last_cycle("list");
  CHECK(gc::stats().marked_objects_count >= length);
  CHECK(gc::stats().marked_objects_count < length + 10);
  CHECK(gc::stats().metadata_bytes <= metadata + (8 << 20));
  apart([&] {
    std::uint64_t expected = length;
    for (const Link* link = list; link != nullptr; link = link->next) {
      --expected;
      if (link->value != expected || link->check != checksum(expected)) FAIL(expected);
    }
    CHECK(expected == 0);
  });
  list = nullptr;
  collect();
  CHECK(gc::stats().marked_objects_count < 10);
  CHECK(gc::stats().heap_live_bytes < 1 << 20);
}

TEST_CASE("an array of a gibibyte of references marks, whether its objects are few or many") {
  const std::uint64_t slots = scaled(std::uint64_t{1} << 27);
  const std::uint64_t objects = scaled(20'000'000);
  gc::root<gc::ptr<Link>> array;
  on_thread([&] {
    const auto all = gc::make_array<gc::ptr<Link>>(slots);
    for (std::uint64_t i = 0; i < objects; ++i) {
      Link* const link = gc::make<Link>();
      link->value = i;
      link->check = checksum(i);
      all[i] = link;
    }
    for (std::uint64_t i = objects; i < slots; ++i) all[i] = all[i % objects];
    array = all.data();
  });
  collect();
  print_last_cycle("array");
  CHECK(gc::stats().marked_objects_count >= objects + 1);
  CHECK(gc::stats().marked_objects_count < objects + 10);
  apart([&] {
    for (std::uint64_t i = 0; i < slots; ++i) {
      const Link* const link = array.get()[i];
      if (link->value != i % objects || link->check != checksum(link->value)) FAIL(i);
    }
  });
  // A thousand of them, spread.
  on_thread([&] {
    for (std::uint64_t i = 0; i < slots; ++i) {
      if (i % (slots / 1'000) != 0) array.get()[i] = nullptr;
    }
  });
  collect();
  print_last_cycle("sparse array");
  CHECK(gc::stats().marked_objects_count <= 1'020);
  CHECK(gc::stats().marked_objects_count >= 100);
  array = nullptr;
  collect();
  CHECK(gc::stats().marked_objects_count < 10);
}

TEST_CASE("a large object of two gibibytes without references costs a mark nothing") {
  gc::root<char> large;
  on_thread(
      [&] { large = gc::make_array_for_overwrite<char>(scaled(std::uint64_t{2} << 30)).data(); });
  collect();
  print_last_cycle("large");
  CHECK(gc::stats().heap_marked_bytes >= scaled(std::uint64_t{2} << 30));
  CHECK(gc::stats().mark_ns_last < 200'000'000);
  large = nullptr;
  collect();
  CHECK(gc::stats().heap_live_bytes < 1 << 20);
}
