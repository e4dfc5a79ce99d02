// expect: trace must be noexcept
#include <tricolor/layout.h>

namespace gc = tricolor;

class Node {
 public:
  Node();
  void trace(gc::tracer& t) const;

 private:
  gc::ptr<Node> x_next;
};

int main() { tricolor::detail::check_layout<Node>(); }
