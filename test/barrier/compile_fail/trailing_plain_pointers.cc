// expect: a plain pointer to a class keeps nothing alive
#include <tricolor/layout.h>

namespace gc = tricolor;

struct Node {
  int size = 0;
  static constexpr auto gc_fields = gc::fields(gc::trailing<Node*>{});
};

int main() { tricolor::detail::check_layout<Node>(); }
