// threads THREADS LISTS LENGTH: what do many threads on few processors cost?
//
// When all threads have begun, each builds LISTS linked lists of LENGTH nodes of 32 bytes, counts each
// and drops it when the next one stands. wall_ms is all of it; longest_ms is the longest that one list took any
// thread, which on few processors is mostly waiting for its turn. The check is the number of nodes
// counted.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <latch>

#include "question.h"

namespace {

constexpr int kMaxThreads = 1024;
constexpr int kMaxLists = 1'000'000;
constexpr int kMaxLength = 1'000'000;

struct Node {
  contestant::field<Node> next{}, before{};
  std::uint64_t numbers[2]{};
};
static_assert(sizeof(Node) == 32);

Node* build(int length) {
  Node* first = nullptr;
  for (int i = 0; i < length; ++i) {
    auto* node = contestant::make<Node>();
    node->next = first;
    if (first != nullptr) first->before = node;
    first = node;
  }
  return first;
}

std::uint64_t count(const Node* node) {
  std::uint64_t nodes = 0;
  for (; node != nullptr; node = node->next) ++nodes;
  return nodes;
}

void drop(Node* list) {
  if constexpr (!contestant::kCollects) {
    while (list != nullptr) {
      Node* next = list->next;
      contestant::free_by_hand(list);
      list = next;
    }
  }
}

// The nodes of all lists; the longest time in ms is left in `longest`.
std::uint64_t build_lists(int lists, int length, std::atomic<double>& longest) {
  std::uint64_t nodes = 0;
  double longest_here = 0;
  Node* list = nullptr;
  for (int i = 0; i < lists; ++i) {
    const auto start = question::Clock::now();
    Node* next = build(length);
    nodes += count(next);
    drop(list);
    list = next;
    longest_here = std::max(longest_here, question::ms_since(start));
  }
  drop(list);
  // Relaxed: a plain maximum, read when all threads are joined.
  double known = longest.load(std::memory_order_relaxed);
  while (known < longest_here &&
         !longest.compare_exchange_weak(known, longest_here, std::memory_order_relaxed)) {
  }
  return nodes;
}

}  // namespace

int main(int argc, char** argv) {
  const auto start = question::Clock::now();
  int threads = 0;
  int lists = 0;
  int length = 0;
  if (argc != 4 || !question::parse(argv[1], 1, kMaxThreads, threads) ||
      !question::parse(argv[2], 1, kMaxLists, lists) ||
      !question::parse(argv[3], 1, kMaxLength, length)) {
    std::fprintf(stderr, "usage: threads THREADS LISTS LENGTH  (up to %d, %d, %d)\n", kMaxThreads,
                 kMaxLists, kMaxLength);
    return 2;
  }
  contestant::Program program(threads);
  std::atomic<double> longest = 0;
  std::latch all_here(threads);
  const std::uint64_t check = question::on_threads(threads, [&](int) {
    contestant::wait([&] { all_here.arrive_and_wait(); });
    return build_lists(lists, length, longest);
  });
  std::printf(
      "question=threads contestant=%s threads=%d lists=%d length=%d wall_ms=%.1f longest_ms=%.1f",
      contestant::kName, threads, lists, length, question::ms_since(start), longest.load());
  question::print_rest(check);
}
