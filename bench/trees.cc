// trees DEPTH [THREADS]: how fast are small objects allocated, linked, traversed and given back?
//
// The workload of examples/binary_trees.cc, once per contestant (contestant.h). It prints one line
// of key=value pairs:
//
//   question=trees contestant=boehm depth=18 threads=1 wall_ms=1738.2 peak_rss_mb=59.1 check=… …
//
// wall_ms runs from the beginning of main() to the last check; peak_rss_mb is the largest resident
// set of the whole process; check is the number of nodes counted and must be equal for every
// contestant. Pairs after it are the contestant's own.

#include <sys/resource.h>

#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

#include "contestant.h"

namespace {

constexpr int kMinDepth = 4;
constexpr int kMaxDepth = 32;
constexpr int kMaxThreads = 1024;

struct Node {
  contestant::field<Node> left{}, right{};
};

Node* build(int depth) {
  if (depth == 0) return contestant::make<Node>();
  Node* left = build(depth - 1);
  Node* right = build(depth - 1);
  Node* node = contestant::make<Node>();
  node->left = left;
  node->right = right;
  return node;
}

std::uint64_t count(const Node* node) {
  if (node->left == nullptr) return 1;
  return 1 + count(node->left) + count(node->right);
}

// By hand a tree must be walked to be freed; a collector needs no more than to be left alone.
void drop(Node* node) {
  if constexpr (contestant::kFreesByHand) {
    if (node->left != nullptr) {
      drop(node->left);
      drop(node->right);
    }
    contestant::free_by_hand(node);
  }
}

std::uint64_t count_and_drop(Node* tree) {
  const std::uint64_t nodes = count(tree);
  drop(tree);
  return nodes;
}

// This thread's share of the trees of every depth, so that threads meet only at the very end.
std::uint64_t short_lived(int max_depth, std::uint64_t thread, std::uint64_t threads) {
  std::uint64_t nodes = 0;
  for (int depth = kMinDepth; depth <= max_depth; depth += 2) {
    const std::uint64_t trees = std::uint64_t{1} << (max_depth - depth + kMinDepth);
    const std::uint64_t end = trees * (thread + 1) / threads;
    for (std::uint64_t i = trees * thread / threads; i < end; ++i) {
      nodes += count_and_drop(build(depth));
    }
  }
  return nodes;
}

std::uint64_t play(int max_depth, int threads) {
  std::uint64_t nodes = count_and_drop(build(max_depth + 1));
  Node* long_lived = build(max_depth);

  const auto shares = static_cast<std::uint64_t>(threads);
  std::vector<std::uint64_t> results(shares);
  std::vector<std::jthread> workers;
  for (std::uint64_t t = 1; t < shares; ++t) {
    workers.emplace_back([max_depth, t, shares, result = &results[t]] {
      contestant::ThreadScope scope;
      *result = short_lived(max_depth, t, shares);
    });
  }
  results[0] = short_lived(max_depth, 0, shares);
  contestant::wait([&] { workers.clear(); });  // Joins.
  for (const std::uint64_t result : results) nodes += result;

  return nodes + count_and_drop(long_lived);
}

// In units of 2^20 bytes, as gctrace counts; the kernel counts in 2^10.
double peak_rss_mb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

// The whole of `text` as a number between `least` and `most`; false if it is anything else.
bool parse(const char* text, int least, int most, int& value) {
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, value);
  return error == std::errc() && stop == end && least <= value && value <= most;
}

}  // namespace

int main(int argc, char** argv) {
  const auto start = std::chrono::steady_clock::now();
  int depth = 0;
  int threads = 1;
  if (argc < 2 || argc > 3 || !parse(argv[1], kMinDepth, kMaxDepth, depth) ||
      (argc == 3 && !parse(argv[2], 1, kMaxThreads, threads))) {
    std::fprintf(stderr, "usage: trees DEPTH [THREADS]  (DEPTH %d to %d, THREADS 1 to %d)\n",
                 kMinDepth, kMaxDepth, kMaxThreads);
    return 2;
  }
  contestant::Program program(threads);
  const std::uint64_t check = play(depth, threads);
  const std::chrono::duration<double, std::milli> wall = std::chrono::steady_clock::now() - start;
  std::printf(
      "question=trees contestant=%s depth=%d threads=%d wall_ms=%.1f peak_rss_mb=%.1f "
      "check=%llu",
      contestant::kName, depth, threads, wall.count(), peak_rss_mb(),
      static_cast<unsigned long long>(check));
  contestant::print_settings(stdout);
  std::printf("\n");
}
