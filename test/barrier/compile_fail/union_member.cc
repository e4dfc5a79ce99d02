// expect: which member of a union is active is only known at run time
#include <tricolor/layout.h>

namespace gc = tricolor;

union Bits {
  double real;
  long integer;
};

struct Node {
  gc::ptr<Node> next;
  Bits bits;
};

int main() { tricolor::detail::check_layout<Node>(); }
