// expect: ambiguous (default type )?conversion
#include <tricolor/layout.h>

namespace gc = tricolor;

struct Node {
  gc::ptr<Node> next;
};

void destroy(Node& node) { delete node.next; }
