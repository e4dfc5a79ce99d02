#include "alloc/metadata.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "alloc/base/os.h"
#include "child.h"
#include "test/support/own_heap.h"

using namespace tricolor::impl;
using tricolor::test::all_bytes_are;
using tricolor::test::in_child;

namespace {

constexpr std::size_t kAlone = std::size_t{128} << 10;  // from here on a mapping of its own

bool is_mapped(const char* p) {
  unsigned char in_memory = 0;
  char* const page =
      const_cast<char*>(p - reinterpret_cast<std::uintptr_t>(p) % os::kernel_page_bytes());
  return mincore(page, 1, &in_memory) == 0;
}

std::size_t rounded(std::size_t bytes) { return std::max<std::size_t>(64, std::bit_ceil(bytes)); }

}  // namespace

TEST_CASE("blocks are zero, aligned and apart, also those used before") {
  const std::uint64_t seed = tricolor::test::seed_of("metadata blocks");
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  Metadata metadata;
  struct Block {
    char* begin;
    std::size_t bytes;
    char stamp;
  };
  std::vector<Block> blocks;
  for (int step = 0; step < 20000; ++step) {
    if (blocks.size() < 20 || random() % 100 < (step / 2000 % 2 == 0 ? 55 : 45)) {
      const std::size_t bytes = 1 + random() % (random() % 50 == 0  ? 3 * kAlone
                                                : random() % 5 == 0 ? 5000
                                                                    : 300);
      auto* const begin = static_cast<char*>(metadata.take(bytes));
      REQUIRE(begin != nullptr);
      REQUIRE(reinterpret_cast<std::uintptr_t>(begin) % 64 == 0);
      REQUIRE(all_bytes_are(begin, bytes, 0));
      const char stamp = static_cast<char>(1 + random() % 100);
      std::memset(begin, stamp, rounded(bytes));  // the whole block is ours
      blocks.push_back({begin, bytes, stamp});
    } else {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      const Block block = blocks.back();
      blocks.pop_back();
      REQUIRE(all_bytes_are(block.begin, rounded(block.bytes), block.stamp));
      metadata.give_back(block.begin, block.bytes);
    }
  }
  for (const Block& block : blocks) metadata.give_back(block.begin, block.bytes);
}

TEST_CASE("of a large block the end can be given back") {
  Metadata metadata;
  constexpr std::size_t kBytes = 8 * Metadata::kTrimmedBytes;
  const std::size_t fewer = GENERATE(1, 2, 8) * Metadata::kTrimmedBytes;
  auto* const block = static_cast<char*>(metadata.take(kBytes));
  REQUIRE(block != nullptr);
  CHECK(metadata.mapped_bytes() == kBytes);
  block[fewer - 1] = 'x';
  metadata.trim(block, kBytes, fewer);
  CHECK(metadata.mapped_bytes() == fewer);
  CHECK(block[fewer - 1] == 'x');
  CHECK(is_mapped(block + fewer - 1));
  CHECK(is_mapped(block + kBytes - 1) == (fewer == kBytes));
  metadata.give_back(block, fewer);
  CHECK(metadata.mapped_bytes() == 0);
  CHECK_FALSE(is_mapped(block));
}

TEST_CASE("a block given back serves the next request of its size, and no other") {
  Metadata metadata;
  for (const std::size_t bytes : {1, 64, 65, 128, 1000, 4096, 65536}) {
    CAPTURE(bytes);
    void* const block = metadata.take(bytes);
    void* const next = metadata.take(bytes);
    metadata.give_back(block, bytes);
    CHECK(metadata.take(2 * rounded(bytes) > kAlone / 2 ? 64 : 2 * rounded(bytes)) != block);
    CHECK(metadata.take(rounded(bytes)) == block);
    CHECK(metadata.take(rounded(bytes)) != next);
  }
}

TEST_CASE("small blocks come from chunks, large ones are mapped alone and unmapped") {
  Metadata metadata;
  CHECK(metadata.mapped_bytes() == 0);
  std::set<void*> blocks;
  for (int i = 0; i < 4096; ++i) blocks.insert(metadata.take(64));
  CHECK(blocks.size() == 4096);
  CHECK(metadata.mapped_bytes() == std::size_t{256} << 10);
  for (void* const block : blocks) metadata.give_back(block, 64);
  CHECK(metadata.mapped_bytes() == std::size_t{256} << 10);
  // All of them serve again.
  for (int i = 0; i < 4096; ++i) CHECK(blocks.erase(metadata.take(64)) == 1);
  CHECK(metadata.mapped_bytes() == std::size_t{256} << 10);

  void* const small = metadata.take(kAlone / 2);  // the largest that is not alone
  CHECK(metadata.mapped_bytes() == std::size_t{512} << 10);
  metadata.give_back(small, kAlone / 2);
  const std::size_t before = metadata.mapped_bytes();
  void* const large = metadata.take(kAlone / 2 + 1);
  CHECK(metadata.mapped_bytes() == before + kAlone);
  void* const larger = metadata.take(5 * kAlone);
  CHECK(metadata.mapped_bytes() == before + kAlone + 8 * kAlone);
  std::memset(larger, 1, 8 * kAlone);
  metadata.give_back(large, kAlone / 2 + 1);
  metadata.give_back(larger, 5 * kAlone);
  CHECK(metadata.mapped_bytes() == before);
}

TEST_CASE("nothing is given back as nothing") {
  Metadata metadata;
  metadata.give_back(nullptr, 64);
  metadata.give_back(nullptr, 2 * kAlone);
  CHECK(metadata.mapped_bytes() == 0);
}

TEST_CASE("when the kernel refuses, metadata is null, and comes again later", "[kernel]") {
  const auto end = in_child([] {
    Metadata metadata;
    rlimit limit = {};
    getrlimit(RLIMIT_AS, &limit);
    const rlimit none = {1 << 20, limit.rlim_max};
    if (setrlimit(RLIMIT_AS, &none) != 0) return 1;
    if (metadata.take(64) != nullptr) return 2;
    if (metadata.take(4 * kAlone) != nullptr) return 3;
    if (metadata.mapped_bytes() != 0) return 4;
    setrlimit(RLIMIT_AS, &limit);
    if (metadata.take(64) == nullptr) return 5;
    if (metadata.take(4 * kAlone) == nullptr) return 6;
    return 0;
  });
  CHECK(end.exit_code == 0);
}

TEST_CASE("threads that take and give back metadata at once never share a block") {
  Metadata metadata;
  std::atomic<int> wrong{0};
  const auto work = [&](unsigned id) {
    std::mt19937_64 random(id);
    std::vector<std::pair<std::uint64_t*, std::size_t>> blocks;
    for (int step = 0; step < 20000; ++step) {
      if (blocks.empty() || (blocks.size() < 100 && random() % 2 == 0)) {
        const std::size_t bytes = std::size_t{64} << (random() % 5);
        auto* const block = static_cast<std::uint64_t*>(metadata.take(bytes));
        if (block == nullptr || block[0] != 0 || block[bytes / 8 - 1] != 0) wrong.fetch_add(1);
        block[0] = block[bytes / 8 - 1] = id;
        blocks.push_back({block, bytes});
      } else {
        const auto [block, bytes] = blocks.back();
        blocks.pop_back();
        if (block[0] != id || block[bytes / 8 - 1] != id) wrong.fetch_add(1);
        metadata.give_back(block, bytes);
      }
    }
  };
  std::vector<std::thread> threads;
  for (unsigned id = 1; id <= 4; ++id) threads.emplace_back(work, id);
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong.load() == 0);
}
