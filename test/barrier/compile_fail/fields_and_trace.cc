// expect: the class has both gc_fields and trace
#include <tricolor/layout.h>

namespace gc = tricolor;

struct Node {
  gc::ptr<Node> next;
  void trace(gc::tracer& t) const noexcept;
  static constexpr auto gc_fields = gc::fields(&Node::next);
};

int main() { tricolor::detail::check_layout<Node>(); }
