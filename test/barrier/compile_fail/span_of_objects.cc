// expect: a span of objects of a class keeps nothing alive: write gc::array<U>
#include <tricolor/layout.h>

#include <span>

namespace gc = tricolor;

struct Item {
  int value;
};

struct Node {
  std::span<Item> items;
};

int main() { tricolor::detail::check_layout<Node>(); }
