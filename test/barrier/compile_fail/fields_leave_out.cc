// expect: gc_fields leaves out a member that holds a gc::ptr or gc::array
#include <tricolor/layout.h>

namespace gc = tricolor;

struct Node {
  gc::ptr<Node> left;
  int key = 0;
  gc::ptr<Node> added_later;
  static constexpr auto gc_fields = gc::fields(&Node::left, gc::trailing<gc::ptr<Node>>{});
};

int main() { tricolor::detail::check_layout<Node>(); }
