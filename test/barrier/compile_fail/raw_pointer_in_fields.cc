// expect: a plain pointer to a class keeps nothing alive
// expect: kMember = 1
#include <tricolor/layout.h>

namespace gc = tricolor;

class Node {
 public:
  Node();

 private:
  gc::ptr<Node> x_left;
  Node* x_right = nullptr;

 public:
  static constexpr auto gc_fields = gc::fields(&Node::x_left, &Node::x_right);
};

int main() { tricolor::detail::check_layout<Node>(); }
