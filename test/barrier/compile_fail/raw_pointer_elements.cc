// expect: a plain pointer to a class keeps nothing alive
#include <tricolor/layout.h>

namespace gc = tricolor;

struct Node {
  gc::ptr<Node> next;
};

int main() { tricolor::detail::check_layout<Node*>(); }
