// expect: a reference may refer to a managed object
// expect: gc::ptr<U>
// expect: gc_fields
#include <tricolor/layout.h>

namespace gc = tricolor;

struct Node {
  gc::ptr<Node> next;
  Node& owner;
};

int main() { tricolor::detail::check_layout<Node>(); }
