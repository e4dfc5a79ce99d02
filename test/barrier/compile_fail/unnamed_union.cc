// expect: which member of a union is active is only known at run time: write `void trace\(gc::tracer& t\) const noexcept`
#include <tricolor/layout.h>

namespace gc = tricolor;

struct Node {
  bool is_leaf = true;
  union {
    double value = 0;
    gc::ptr<Node> next;
  };
};

int main() { tricolor::detail::check_layout<Node>(); }
