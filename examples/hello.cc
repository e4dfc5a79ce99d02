// The README's example: a tree of managed nodes is built, dropped and collected. A test compiles it.
#include <tricolor/gc.h>

#include <iostream>

struct Node {
  gc::ptr<Node> left, right;  // A pointer field: storing to it is a write barrier.
};

gc::ptr<Node> root;  // Globals hold gc::ptr too: they are roots, and so is every stack.

Node* tree(int depth) {
  Node* node = gc::make<Node>();
  if (depth > 0) node->left = tree(depth - 1);
  if (depth > 0) node->right = tree(depth - 1);
  return node;
}

int main() {
  for (int depth : {18, 2}) {
    root = tree(depth);  // The second time the large tree is dropped: nothing else leads to it.
    gc::collect();
    const gc::statistics stats = gc::stats();
    std::cout << "a tree of depth " << depth << ": " << stats.heap_marked_bytes << " bytes live, "
              << stats.cycles_total << " cycles, longest pause " << stats.pause_ns_max << " ns\n";
  }
}
