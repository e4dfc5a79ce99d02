// expect: keeps gc::ptr or plain pointers in malloc memory
#include <tricolor/layout.h>

#include <vector>

namespace gc = tricolor;

struct Node {
  std::vector<Node> children;
  gc::ptr<Node> parent;
};

int main() { tricolor::detail::check_layout<Node>(); }
