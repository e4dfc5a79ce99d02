// expect: a plain pointer to a class keeps nothing alive: write gc::ptr<U>, or gc::unmanaged<U>
#include <tricolor/layout.h>

namespace gc = tricolor;

struct Cell {
  const struct Foreign* inside[2][3];
};

struct Node {
  int key : 3;
  Cell cells[2];
};

int main() { tricolor::detail::check_layout<Node>(); }
