// trees DEPTH [THREADS]: how fast are small objects allocated, linked, traversed and given back?
//
// The workload of examples/binary_trees.cc, once per contestant (contestant.h). wall_ms runs from
// the beginning of main() to the last check, the number of nodes counted.

#include <cstdint>
#include <cstdio>

#include "question.h"

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
  if constexpr (!contestant::kCollects) {
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
  nodes += question::on_threads(threads, [=](int thread) {
    return short_lived(max_depth, static_cast<std::uint64_t>(thread),
                       static_cast<std::uint64_t>(threads));
  });
  return nodes + count_and_drop(long_lived);
}

}  // namespace

int main(int argc, char** argv) {
  const auto start = question::Clock::now();
  int depth = 0;
  int threads = 1;
  if (argc < 2 || argc > 3 || !question::parse(argv[1], kMinDepth, kMaxDepth, depth) ||
      (argc == 3 && !question::parse(argv[2], 1, kMaxThreads, threads))) {
    std::fprintf(stderr, "usage: trees DEPTH [THREADS]  (DEPTH %d to %d, THREADS 1 to %d)\n",
                 kMinDepth, kMaxDepth, kMaxThreads);
    return 2;
  }
  contestant::Program program(threads);
  const std::uint64_t check = play(depth, threads);
  std::printf("question=trees contestant=%s depth=%d threads=%d wall_ms=%.1f", contestant::kName,
              depth, threads, question::ms_since(start));
  question::print_rest(check);
}
