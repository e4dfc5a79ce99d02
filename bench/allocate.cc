// allocate BYTES plain|linked THREADS COUNT: what does one allocation cost?
//
// Every thread makes COUNT objects of BYTES bytes (32 or 1024) and keeps the last 1000 of them.
// Plain objects hold no references and need not be zeroed; linked ones have a field for one
// reference, which stays null, and begin as zeros. ns_each is wall time divided by COUNT: with more
// threads it stays the same where they do not disturb each other. The check is the sum of what the
// last objects hold.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string_view>

#include "question.h"

namespace {

constexpr std::size_t kKept = 1000;
constexpr int kMaxThreads = 1024;
constexpr int kMaxCount = 1'000'000'000;

template <std::size_t kBytes>
struct Rest {
  std::byte bytes[kBytes];
};

template <std::size_t kBytes>
struct Plain {
  static constexpr bool kNoReferences = true;
  Plain() {}  // Leaves them as they are.
  std::uint64_t number;
  Rest<kBytes - 8> rest;
};

template <std::size_t kBytes>
struct Linked {
  // Large ones are allocated under Boehm's lock in any case.
  static constexpr std::size_t kReferences = kBytes > 512 ? 1 : 0;
  contestant::field<Linked> next{};
  std::uint64_t number = 0;
  Rest<kBytes - 16> rest{};
};

template <typename Object>
std::uint64_t allocate(int count) {
  static_assert(sizeof(Object) == 32 || sizeof(Object) == 1024);
  const auto kept = contestant::make_table<Object>(kKept);
  std::size_t slot = 0;
  for (int i = 0; i < count; ++i) {
    Object* object = contestant::make<Object>();
    object->number = static_cast<std::uint64_t>(i);
    contestant::free_by_hand<Object>(kept[slot]);
    kept[slot] = object;
    if (++slot == kKept) slot = 0;
  }
  std::uint64_t sum = 0;
  for (Object* object : kept) {
    if (object == nullptr) continue;
    sum += object->number;
    contestant::free_by_hand(object);
  }
  contestant::free_by_hand(kept.data());
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  int bytes = 0;
  int threads = 0;
  int count = 0;
  const std::string_view kind = argc == 5 ? argv[2] : "";
  if ((kind != "plain" && kind != "linked") || !question::parse(argv[1], 32, 1024, bytes) ||
      (bytes != 32 && bytes != 1024) || !question::parse(argv[3], 1, kMaxThreads, threads) ||
      !question::parse(argv[4], 1, kMaxCount, count)) {
    std::fprintf(stderr,
                 "usage: allocate 32|1024 plain|linked THREADS COUNT  (THREADS 1 to %d, COUNT 1 to "
                 "%d)\n",
                 kMaxThreads, kMaxCount);
    return 2;
  }
  contestant::Program program(threads);
  const bool small = bytes == 32;
  const auto one = kind == "plain" ? (small ? allocate<Plain<32>> : allocate<Plain<1024>>)
                                   : (small ? allocate<Linked<32>> : allocate<Linked<1024>>);
  const auto start = question::Clock::now();
  const std::uint64_t check = question::on_threads(threads, [=](int) { return one(count); });
  const double ns_each = question::ms_since(start) * 1e6 / count;
  std::printf("question=allocate contestant=%s bytes=%d kind=%s threads=%d count=%d ns_each=%.2f",
              contestant::kName, bytes, argv[2], threads, count, ns_each);
  question::print_rest(check);
}
