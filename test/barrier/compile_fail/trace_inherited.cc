// expect: trace is inherited from a base
// expect: call Base::trace\(t\) there
#include <tricolor/layout.h>

namespace gc = tricolor;

struct Base {
  gc::ptr<Base> next;
  void trace(gc::tracer& t) const noexcept;
};

struct Node : Base {
  gc::ptr<Node> left;
};

int main() { tricolor::detail::check_layout<Node>(); }
