// expect: trace must be const
#include <tricolor/layout.h>

namespace gc = tricolor;

class Node {
 public:
  Node();
  void trace(gc::tracer& t) noexcept;

 private:
  gc::ptr<Node> x_next;
};

int main() { tricolor::detail::check_layout<Node>(); }
