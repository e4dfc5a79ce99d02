#include "roots/stack.h"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <iterator>
#include <random>
#include <thread>
#include <vector>

#include "alloc/metadata.h"

using tricolor::impl::AddressRange;
using tricolor::impl::StackBounds;
using tricolor::impl::StackCapture;

namespace {

using Words = std::vector<std::uintptr_t>;

// The calling thread's.
StackBounds bounds_here() {
  StackBounds bounds;
  REQUIRE(tricolor::impl::current_stack_bounds(bounds));
  return bounds;
}

// A capture with its buffer, over a stack that is a vector.
struct Fixture {
  Words buffer = Words(StackCapture::kCapacity);
  StackCapture capture{buffer.data(), StackCapture::kCapacity};

  Words take(const Words& stack, AddressRange range, std::size_t unaligned = 0) {
    const char* const top = reinterpret_cast<const char*>(stack.data()) + unaligned;
    capture.capture(top, stack.data() + stack.size(), range);
    return {capture.begin(), capture.end()};
  }
};

constexpr AddressRange kRange{0x1000, 0x2000};

}  // namespace

TEST_CASE("a capture keeps the words inside the range, in order, and nothing else") {
  Fixture f;
  CHECK(f.take({0, 0x1000, 0xfff, 0x1fff, 0x2000, 7, 0x1801, UINTPTR_MAX, 0x1800}, kRange) ==
        Words{0x1000, 0x1fff, 0x1801, 0x1800});
  CHECK(f.capture.complete());
  CHECK(f.capture.stack_bytes() == 9 * sizeof(void*));
}

TEST_CASE("a capture of a stack of any size keeps what it has room for, and counts the rest") {
  std::mt19937_64 chance(7);
  const std::size_t words = GENERATE(0, 1, 7, 8, 9, 511, 512, 1023, 1024, 1025, 1032, 20'000);
  CAPTURE(words);
  Words stack(words);
  Words expected;
  for (std::size_t i = 0; i < words; ++i) {
    // Each is another one. The share inside differs from stack to stack; the first and the last are inside.
    const bool is_inside = i == 0 || i + 1 == words || chance() % 16 < words % 17;
    stack[i] = is_inside ? 0x100000 + i : i;
    if (is_inside) expected.push_back(stack[i]);
  }
  constexpr AddressRange kInside{0x100000, 0x200000};
  const std::size_t room = GENERATE_COPY(0, 1, 7, 8, 100, 4096, 20'000);
  CAPTURE(room);
  constexpr std::uintptr_t kUntouched = 0xabababab;
  Words buffer(room + 1, kUntouched);
  StackCapture capture(buffer.data(), room);
  capture.capture(stack.data(), stack.data() + stack.size(), kInside);
  CHECK(capture.complete() == (expected.size() <= room));
  CHECK(buffer[room] == kUntouched);
  expected.resize(std::min(expected.size(), room));
  CHECK(capture.kept() == expected.size());
  CHECK(Words(capture.begin(), capture.end()) == expected);
}

TEST_CASE("a capture that has no room for more goes on in a larger buffer") {
  tricolor::impl::Metadata metadata;
  constexpr AddressRange kInside{0x100000, 0x200000};
  const std::size_t room = GENERATE(1, 7, 8, 100, 4096);
  const std::size_t words = GENERATE(1, 9, 512, 1030, 5000, 100'000);
  CAPTURE(room, words);
  auto* const buffer = static_cast<std::uintptr_t*>(metadata.take(room * sizeof(std::uintptr_t)));
  REQUIRE(buffer != nullptr);
  StackCapture capture(buffer, room);
  Words stack(words);
  for (std::size_t i = 0; i < words; ++i) stack[i] = i % 3 == 0 ? i : 0x100000 + i;
  Words expected;
  std::copy_if(stack.begin(), stack.end(), std::back_inserter(expected),
               [&](std::uintptr_t word) { return kInside.contains(word); });
  for (int i = 0; i < 2; ++i) {
    capture.capture(stack.data(), stack.data() + words, kInside);
    CHECK((i == 1 || capture.complete() == (expected.size() <= room)));
    const bool fits = capture.complete();
    if (!fits) REQUIRE(capture.go_on(kInside, metadata));
    CHECK(capture.went_on() == !fits);
    CHECK(capture.complete());
    CHECK(Words(capture.begin(), capture.end()) == expected);
    CHECK(capture.kept() == expected.size());
    CHECK(capture.capacity() <=
          std::max(std::size_t{128} << 10, 3 * sizeof(void*) * expected.size()) / sizeof(void*));
  }
  CHECK(metadata.mapped_bytes() <= (std::size_t{512} << 10) + 3 * sizeof(void*) * expected.size());
  CHECK((expected.size() > room || capture.buffer() == buffer));
  metadata.give_back(capture.buffer(), capture.capacity() * sizeof(std::uintptr_t));
}

TEST_CASE("a capture starts at the first whole word at or above top") {
  Fixture f;
  const Words stack = {0x1001, 0x1002, 0x1003};
  CHECK(f.take(stack, kRange, 0) == Words{0x1001, 0x1002, 0x1003});
  CHECK(f.take(stack, kRange, 1) == Words{0x1002, 0x1003});
  CHECK(f.take(stack, kRange, 7) == Words{0x1002, 0x1003});
  CHECK(f.take(stack, kRange, 8) == Words{0x1002, 0x1003});
  CHECK(f.take(stack, kRange, 24).empty());
}

TEST_CASE("nothing falls into the range of a heap without memory") {
  Fixture f;
  CHECK(f.take({0, 1, 0x1000, UINTPTR_MAX}, AddressRange{}).empty());
  CHECK(f.take({0, 1, 0x1000, UINTPTR_MAX}, AddressRange{UINTPTR_MAX, UINTPTR_MAX}).empty());
  CHECK(f.capture.complete());
}

TEST_CASE(
    "a capture that fills its buffer is complete, one word more is not, and the next one starts "
    "afresh") {
  Fixture f;
  Words stack(StackCapture::kCapacity, 0x1000);
  CHECK(f.take(stack, kRange).size() == StackCapture::kCapacity);
  CHECK(f.capture.complete());

  stack.insert(stack.begin(), 100, 3);  // words outside of the range take no room
  CHECK(f.take(stack, kRange).size() == StackCapture::kCapacity);
  CHECK(f.capture.complete());

  stack.push_back(0x1000);
  f.take(stack, kRange);
  CHECK_FALSE(f.capture.complete());
  CHECK(f.capture.kept() == StackCapture::kCapacity);
  CHECK(f.capture.top() == stack.data());
  CHECK(f.capture.base() == stack.data() + stack.size());

  CHECK(f.take({0x1234}, kRange) == Words{0x1234});
  CHECK(f.capture.complete());

  Words larger(StackCapture::kCapacity + 1);
  f.capture.use_buffer(larger.data(), larger.size());
  CHECK(f.capture.begin() == f.capture.end());
  CHECK(f.take(stack, kRange).size() == larger.size());
  CHECK(f.capture.complete());
}

TEST_CASE(
    "the bounds of the main thread's stack contain its frames and not the heap or the globals") {
  const StackBounds bounds = bounds_here();
  static int global;
  const std::vector<char> heap(1);
  char local = 0;
  CHECK(bounds.lowest < bounds.base);
  CHECK(bounds.contains(&local));
  CHECK_FALSE(bounds.contains(&global));
  CHECK_FALSE(bounds.contains(heap.data()));
  CHECK(bounds.contains(bounds.lowest));
  CHECK_FALSE(bounds.contains(bounds.base));
  // What the kernel put above the first frame (environment, auxiliary vector) is part of the stack.
  CHECK(reinterpret_cast<char*>(environ[0]) > &local);
}

TEST_CASE("every thread has bounds of its own") {
  StackBounds theirs;
  bool contains_local = false;
  std::thread([&] {
    char local = 0;
    theirs = bounds_here();
    contains_local = theirs.contains(&local);
  }).join();
  CHECK(contains_local);
  char local = 0;
  CHECK_FALSE(theirs.contains(&local));
}

TEST_CASE("a stack that the program brought is bounded as it was given") {
  constexpr std::size_t kBytes = 1 << 20;
  void* const memory =
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  pthread_attr_t attributes;
  REQUIRE(pthread_attr_init(&attributes) == 0);
  REQUIRE(pthread_attr_setstack(&attributes, memory, kBytes) == 0);
  StackBounds bounds;
  pthread_t thread;
  REQUIRE(pthread_create(
              &thread, &attributes,
              [](void* out) -> void* {
                *static_cast<StackBounds*>(out) = bounds_here();
                return nullptr;
              },
              &bounds) == 0);
  REQUIRE(pthread_join(thread, nullptr) == 0);
  pthread_attr_destroy(&attributes);
  CHECK(bounds.lowest == memory);
  CHECK(bounds.base == static_cast<char*>(memory) + kBytes);
  munmap(memory, kBytes);
}
