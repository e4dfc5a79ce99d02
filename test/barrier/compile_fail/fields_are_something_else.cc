// expect: gc_fields .* must be what gc::fields\(&T::a, &T::b\) returns
#include <tricolor/layout.h>

namespace gc = tricolor;

struct Node {
  gc::ptr<Node> next;
  static constexpr auto gc_fields = &Node::next;
};

int main() { tricolor::detail::check_layout<Node>(); }
