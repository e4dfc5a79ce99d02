// expect: a reference may refer to a managed object
#include <tricolor/layout.h>

namespace gc = tricolor;

struct Node {
  gc::ptr<Node> next;
  const struct Owner& owner;
};

int main() { tricolor::detail::check_layout<Node>(); }
