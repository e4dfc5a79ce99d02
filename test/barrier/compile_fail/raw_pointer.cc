// expect: a plain pointer to a class keeps nothing alive: write gc::ptr<U>, or gc::unmanaged<U>
// expect: Class = Node
// expect: kMember = 1
// expect: Member = Node ?\*
#include <tricolor/layout.h>

namespace gc = tricolor;

struct Node {
  gc::ptr<Node> left;
  Node* right = nullptr;
};

int main() { tricolor::detail::check_layout<Node>(); }
