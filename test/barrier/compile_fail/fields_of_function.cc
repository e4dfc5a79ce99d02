// expect: gc::fields takes pointers to data members
#include <tricolor/layout.h>

namespace gc = tricolor;

struct Node {
  gc::ptr<Node> next;
  Node* last();
  static constexpr auto gc_fields = gc::fields(&Node::last);
};
