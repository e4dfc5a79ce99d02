// gcbench DEPTH: short-lived trees beside a large long-lived structure.
//
// GCBench of Ellis, Kovac and Boehm: a tree of depth DEPTH + 2 is built and dropped; then a tree of
// depth DEPTH and an array of 500,000 numbers live to the end, while trees of every second depth
// are built from the root down and from the leaves up, as many as hold twice the nodes of the first
// tree. wall_ms is all of it; the check is the number of nodes made.

#include <cstdint>
#include <cstdio>

#include "question.h"

namespace {

constexpr int kMinDepth = 4;
constexpr int kMaxDepth = 28;
constexpr int kNumbers = 500'000;

struct Node {
  contestant::field<Node> left{}, right{};
  int i = 0, j = 0;
};

struct Numbers {
  [[maybe_unused]] static constexpr bool kNoReferences = true;
  Numbers() {}  // Leaves them as they are.
  double values[kNumbers];
};

constexpr std::uint64_t nodes_of(int depth) { return (std::uint64_t{2} << depth) - 1; }

// From the root down: every store goes into a node that is older than what is stored.
void populate(int depth, Node* node) {
  if (depth == 0) return;
  node->left = contestant::make<Node>();
  node->right = contestant::make<Node>();
  populate(depth - 1, node->left);
  populate(depth - 1, node->right);
}

// From the leaves up.
Node* build(int depth) {
  if (depth == 0) return contestant::make<Node>();
  Node* left = build(depth - 1);
  Node* right = build(depth - 1);
  Node* node = contestant::make<Node>();
  node->left = left;
  node->right = right;
  return node;
}

void drop(Node* node) {
  if constexpr (!contestant::kCollects) {
    if (node->left != nullptr) {
      drop(node->left);
      drop(node->right);
    }
    contestant::free_by_hand(node);
  }
}

std::uint64_t count(const Node* node) {
  return node->left == nullptr ? 1 : 1 + count(node->left) + count(node->right);
}

std::uint64_t play(int long_lived_depth) {
  const int stretch_depth = long_lived_depth + 2;
  drop(build(stretch_depth));

  Node* long_lived = contestant::make<Node>();
  populate(long_lived_depth, long_lived);
  auto* numbers = contestant::make<Numbers>();
  for (int i = 0; i < kNumbers; ++i) numbers->values[i] = 1.0 / (i + 1);

  std::uint64_t made = nodes_of(stretch_depth);
  for (int depth = kMinDepth; depth <= long_lived_depth; depth += 2) {
    const std::uint64_t trees = 2 * nodes_of(stretch_depth) / nodes_of(depth);
    for (std::uint64_t i = 0; i < trees; ++i) {
      Node* tree = contestant::make<Node>();
      populate(depth, tree);
      drop(tree);
    }
    for (std::uint64_t i = 0; i < trees; ++i) drop(build(depth));
    made += 2 * trees * nodes_of(depth);
  }

  made += count(long_lived) + (numbers->values[1000] == 1.0 / 1001 ? 0 : 1);
  drop(long_lived);
  contestant::free_by_hand(numbers);
  return made;
}

}  // namespace

int main(int argc, char** argv) {
  const auto start = question::Clock::now();
  int depth = 0;
  if (argc != 2 || !question::parse(argv[1], kMinDepth, kMaxDepth, depth)) {
    std::fprintf(stderr, "usage: gcbench DEPTH  (%d to %d)\n", kMinDepth, kMaxDepth);
    return 2;
  }
  contestant::Program program(1);
  const std::uint64_t check = play(depth);
  std::printf("question=gcbench contestant=%s depth=%d wall_ms=%.1f", contestant::kName, depth,
              question::ms_since(start));
  question::print_rest(check);
}
