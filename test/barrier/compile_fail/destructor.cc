// expect: destructors of managed objects are not run in this version
// expect: gc::no_destructor<T>
#include <tricolor/layout.h>

#include <string>

namespace gc = tricolor;

struct Node {
  gc::ptr<Node> next;
  std::string name;
};

int main() { tricolor::detail::check_layout<Node>(); }
