// barrier off|on LIVE_MB BATCHES: what does a pointer store cost?
//
// One thread works on 512 objects, in batches of 4096 operations; BATCHES batches of every kind are timed, by turns, and the
// median batch counts, so what interrupts a batch does not. With `on` another thread asks for one full collection after the
// other of a heap in which LIVE_MB megabytes live: a collector that marks beside the program is marking most of the time then
// (beside= says what share of it), and its barrier is on. With `off` nothing is collected but what the batches allocate.
//
//   store_ns      a field of a live object is assigned
//   construct_ns  a field of a live object is constructed anew, over what it held
//   copy_ns       a field is copied to the stack
//   plain_ns      the same store to a plain pointer, in memory that no collector knows
//   make_ns       an object is made, with its fields null
//   make_with_ns  an object is made that holds a reference from its beginning
//
// The check is the number of objects that live. For collectors only.

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string_view>
#include <thread>
#include <vector>

#include "question.h"

namespace {

constexpr std::size_t kObjects = 512;
constexpr std::size_t kBatch = 4096;
constexpr int kMaxLiveMb = 100'000;
constexpr int kMaxBatches = 1'000'000;

struct Node {
  contestant::field<Node> left{}, right{};
  std::uint64_t numbers[2]{};
};
struct Plain {
  Plain* left = nullptr;
  Plain* right = nullptr;
  std::uint64_t numbers[2]{};
};
thread_local Node* given = nullptr;  // a name for an object that `Objects` keeps
struct Fresh {
  contestant::field<Node> left = given, right = nullptr;
  std::uint64_t numbers[2]{};
};
static_assert(sizeof(Node) == sizeof(Plain) && sizeof(Node) == sizeof(Fresh));

// Each operation happens, and in this order.
template <typename T>
void happens(T* where) {
  asm volatile("" : : "r"(where) : "memory");
}

template <typename T>
using Objects = std::array<T*, kObjects>;

enum Kind { kStore, kConstruct, kCopy, kPlain, kMake, kMakeWith, kKinds };
constexpr std::array<const char*, kKinds> kNames = {"store_ns", "construct_ns", "copy_ns",
                                                    "plain_ns", "make_ns",      "make_with_ns"};

void run_batch(Kind kind, const Objects<Node>& nodes, const Objects<Plain>& plain,
               std::size_t shift) {
  for (std::size_t i = 0; i < kBatch; ++i) {
    const std::size_t to = i % kObjects;
    const std::size_t from = (i + shift) % kObjects;
    switch (kind) {
      case kStore:
        nodes[to]->left = nodes[from];
        happens(nodes[to]);
        break;
      case kConstruct:
        std::construct_at(&nodes[to]->right, nodes[from]);
        happens(nodes[to]);
        break;
      case kCopy: {
        const contestant::field<Node> copy = nodes[from]->left;
        happens(&copy);
        break;
      }
      case kPlain:
        plain[to]->left = plain[from];
        happens(plain[to]);
        break;
      case kMake:
        happens(contestant::make<Node>());
        break;
      default:
        given = nodes[from];
        happens(contestant::make<Fresh>());
        break;
    }
  }
}

// As a batch of each kind is a loop of its own.
template <Kind kKind>
[[gnu::noinline]] double batch_ns(const Objects<Node>& nodes, const Objects<Plain>& plain,
                                  std::size_t shift) {
  const auto start = question::Clock::now();
  run_batch(kKind, nodes, plain, shift);
  return question::ms_since(start) * 1e6 / kBatch;
}

[[gnu::noinline]] Node* build(std::size_t count) {
  if (count == 0) return nullptr;
  Node* node = contestant::make<Node>();
  node->left = build(count / 2);
  node->right = build(count - 1 - count / 2);
  return node;
}
std::uint64_t count_tree(const Node* node) {
  return node == nullptr ? 0 : 1 + count_tree(node->left) + count_tree(node->right);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view marking = argc == 4 ? argv[1] : "";
  int live_mb = 0;
  int batches = 0;
  if ((marking != "off" && marking != "on") || !question::parse(argv[2], 0, kMaxLiveMb, live_mb) ||
      !question::parse(argv[3], 1, kMaxBatches, batches)) {
    std::fprintf(stderr, "usage: barrier off|on LIVE_MB BATCHES  (up to %d, %d)\n", kMaxLiveMb,
                 kMaxBatches);
    return 2;
  }
  contestant::Program program(2);
  Node* const tree = build((static_cast<std::size_t>(live_mb) << 20) / sizeof(Node));
  const auto table = contestant::make_table<Node>(kObjects);
  std::vector<Plain> plain_objects(kObjects);
  Objects<Node> nodes;
  Objects<Plain> plain;
  for (std::size_t i = 0; i < kObjects; ++i) {
    nodes[i] = contestant::make<Node>();
    table[i] = nodes[i];
    plain[i] = &plain_objects[i];
  }

  std::array<std::vector<double>, kKinds> times;
  std::atomic<bool> done = false;
  std::optional<contestant::Stops> stops;
  stops.emplace();
  question::on_threads(marking == "on" ? 2 : 1, [&](int t) {
    // Relaxed: it does not matter which collection is the last one.
    while (t == 1 && !done.load(std::memory_order_relaxed)) contestant::collect();
    if (t == 1) return std::uint64_t{0};
    for (int i = 0; i < batches; ++i) {
      const std::size_t shift = static_cast<std::size_t>(i) * 37 % kObjects;
      times[kStore].push_back(batch_ns<kStore>(nodes, plain, shift));
      times[kConstruct].push_back(batch_ns<kConstruct>(nodes, plain, shift));
      times[kCopy].push_back(batch_ns<kCopy>(nodes, plain, shift));
      times[kPlain].push_back(batch_ns<kPlain>(nodes, plain, shift));
      times[kMake].push_back(batch_ns<kMake>(nodes, plain, shift));
      times[kMakeWith].push_back(batch_ns<kMakeWith>(nodes, plain, shift));
    }
    done.store(true, std::memory_order_relaxed);
    return std::uint64_t{0};
  });
  const double beside = stops->marked_beside();

  std::printf("question=barrier contestant=%s marking=%s live_mb=%d batches=%d", contestant::kName,
              argv[1], live_mb, batches);
  for (std::size_t kind = 0; kind < kKinds; ++kind) {
    std::sort(times[kind].begin(), times[kind].end());
    std::printf(" %s=%.2f", kNames[kind], times[kind][times[kind].size() / 2]);
  }
  std::printf(" beside=%.2f", beside);
  question::print_rest(count_tree(tree) + std::uint64_t{table.size()});
}
