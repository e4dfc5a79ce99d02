// expect: keeps gc::ptr or plain pointers in malloc memory
// expect: gc::vector
// expect: gc::root<U>
#include <tricolor/layout.h>

#include <vector>

namespace gc = tricolor;

struct Node {
  std::vector<gc::ptr<Node>> children;
};

int main() { tricolor::detail::check_layout<Node>(); }
