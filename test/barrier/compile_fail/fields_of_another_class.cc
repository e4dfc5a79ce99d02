// expect: gc_fields names a member of another class
#include <tricolor/layout.h>

namespace gc = tricolor;

struct Other {
  gc::ptr<Other> next;
};

struct Node {
  gc::ptr<Node> next;
  static constexpr auto gc_fields = gc::fields(&Node::next, &Other::next);
};

int main() { tricolor::detail::check_layout<Node>(); }
