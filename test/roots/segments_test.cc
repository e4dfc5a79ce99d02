#include "roots/segments.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

using tricolor::impl::Metadata;
using tricolor::impl::Segment;
using tricolor::impl::SegmentList;
using tricolor::impl::TlsBlocks;

namespace {

int target;
int* in_data = &target;
std::array<int*, 1000> in_bss;
int* const relocated_constant = &target;
thread_local int* in_tls;
thread_local int* in_tls_data = &target;

const Segment* segment_of(const SegmentList& list, const void* p) {
  for (const Segment& segment : list) {
    if (segment.begin <= p && p < segment.end) return &segment;
  }
  return nullptr;
}

template <class Blocks>
bool contains(const Blocks& blocks, const void* p) {
  return std::any_of(blocks.begin(), blocks.end(),
                     [p](const auto& b) { return b.begin <= p && p < b.end; });
}

// The library that meson builds beside this program.
std::string module_path() {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
  const std::string program(path, length > 0 ? static_cast<std::size_t>(length) : 0);
  return program.substr(0, program.rfind('/')) + "/libroots_module.so";
}

}  // namespace

TEST_CASE("the program's writable globals are in its segments") {
  Metadata metadata;
  SegmentList list(metadata);
  REQUIRE(list.update());
  for (const void* global :
       {static_cast<const void*>(&in_data), static_cast<const void*>(&in_bss[0]),
        static_cast<const void*>(&in_bss[999])}) {
    REQUIRE(segment_of(list, global) != nullptr);
  }
}

TEST_CASE("constants, code, the stack and the heap are in no segment") {
  Metadata metadata;
  SegmentList list(metadata);
  REQUIRE(list.update());
  const std::vector<int> heap(100);
  const int local = 0;
  static const int constant = 3;
  CHECK(segment_of(list, &constant) == nullptr);
  CHECK(segment_of(list, reinterpret_cast<const void*>(&module_path)) == nullptr);
  CHECK(segment_of(list, &local) == nullptr);
  CHECK(segment_of(list, heap.data()) == nullptr);
}

TEST_CASE("what the loader made read-only after relocation is left out") {
  Metadata metadata;
  SegmentList list(metadata);
  REQUIRE(list.update());
  CHECK(*const_cast<int* const volatile*>(&relocated_constant) == &target);
  CHECK(segment_of(list, &relocated_constant) == nullptr);
}

TEST_CASE("segments are whole words, not empty, and do not overlap") {
  Metadata metadata;
  SegmentList list(metadata);
  REQUIRE(list.update());
  std::vector<Segment> all(list.begin(), list.end());
  std::sort(all.begin(), all.end(),
            [](const Segment& a, const Segment& b) { return a.begin < b.begin; });
  REQUIRE(all.size() > 1);
  for (std::size_t i = 0; i < all.size(); ++i) {
    CHECK(reinterpret_cast<std::uintptr_t>(all[i].begin) % sizeof(void*) == 0);
    CHECK(all[i].begin < all[i].end);
    if (i > 0) CHECK(all[i - 1].end <= all[i].begin);
  }
}

TEST_CASE("the globals of libraries are in segments") {
  Metadata metadata;
  SegmentList list(metadata);
  REQUIRE(list.update());
  REQUIRE(segment_of(list, stdout) != nullptr);  // a FILE inside libc's data
}

TEST_CASE("a library that is opened after the first listing comes, and goes when it is closed") {
  Metadata metadata;
  SegmentList list(metadata);
  REQUIRE(list.update());
  const auto before = list.end() - list.begin();

  void* const library = dlopen(module_path().c_str(), RTLD_NOW | RTLD_LOCAL);
  INFO(module_path());
  REQUIRE(library != nullptr);
  const auto address = [library](const char* name) -> const void* {
    return reinterpret_cast<void* (*)()>(dlsym(library, name))();
  };
  const void* const data = address("module_data");
  const void* const bss = address("module_bss");
  const void* const constant = address("module_constant");
  CHECK(segment_of(list, data) == nullptr);
  CHECK(list.may_be_outdated());
  REQUIRE(list.update());
  CHECK_FALSE(list.may_be_outdated());
  REQUIRE(segment_of(list, data) != nullptr);
  CHECK(segment_of(list, bss) != nullptr);
  CHECK(segment_of(list, constant) == nullptr);
  CHECK(list.end() - list.begin() > before);

  REQUIRE(list.update());  // nothing has changed
  CHECK(segment_of(list, data) != nullptr);

  REQUIRE(dlclose(library) == 0);
  REQUIRE(list.update());
  CHECK(segment_of(list, data) == nullptr);
  CHECK(list.end() - list.begin() == before);
  CHECK(segment_of(list, &in_data) != nullptr);
}

TEST_CASE("a library that goes while another one comes leaves no stale segment") {
  Metadata metadata;
  SegmentList list(metadata);
  for (int i = 0; i < 20; ++i) {
    void* const library = dlopen(module_path().c_str(), RTLD_NOW | RTLD_LOCAL);
    REQUIRE(library != nullptr);
    const void* const bss = reinterpret_cast<void* (*)()>(dlsym(library, "module_bss"))();
    REQUIRE(list.update());
    CHECK(segment_of(list, bss) != nullptr);
    REQUIRE(dlclose(library) == 0);
  }
  REQUIRE(list.update());
  void* const library = dlopen(module_path().c_str(), RTLD_NOW | RTLD_LOCAL);
  REQUIRE(library != nullptr);
  const void* const bss = reinterpret_cast<void* (*)()>(dlsym(library, "module_bss"))();
  CHECK(segment_of(list, bss) == nullptr);
  REQUIRE(dlclose(library) == 0);
}

TEST_CASE("a thread's blocks hold its thread_locals and nobody else's") {
  Metadata metadata;
  TlsBlocks mine;
  REQUIRE(mine.list(metadata));
  CHECK(contains(mine, &in_tls));
  CHECK(contains(mine, &in_tls_data));
  CHECK_FALSE(contains(mine, &in_data));

  std::thread([&] {
    TlsBlocks theirs;
    REQUIRE(theirs.list(metadata));
    CHECK(contains(theirs, &in_tls));
    CHECK(contains(theirs, &in_tls_data));
    CHECK_FALSE(contains(mine, &in_tls));
    theirs.free(metadata);
  }).join();
  mine.free(metadata);
  CHECK(mine.begin() == mine.end());
}

TEST_CASE("listing a thread's blocks again finds the same, and freeing twice does no harm") {
  Metadata metadata;
  TlsBlocks blocks;
  REQUIRE(blocks.list(metadata));
  const auto count = blocks.end() - blocks.begin();
  REQUIRE(blocks.list(metadata));
  CHECK(blocks.end() - blocks.begin() == count);
  CHECK(contains(blocks, &in_tls));
  blocks.free(metadata);
  blocks.free(metadata);
  REQUIRE(blocks.list(metadata));
  CHECK(contains(blocks, &in_tls));
  blocks.free(metadata);
}
