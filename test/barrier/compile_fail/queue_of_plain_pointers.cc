// expect: keeps gc::ptr or plain pointers in malloc memory
// expect: gc::unmanaged<U>
#include <tricolor/layout.h>

#include <queue>

namespace gc = tricolor;

struct Node {
  std::queue<Node*> waiting;
};

int main() { tricolor::detail::check_layout<Node>(); }
