// expect: Four ways
// expect: Class = Node
// expect: kMember = 1
// expect: Member = Key
#include <tricolor/layout.h>

namespace gc = tricolor;

class Key {
 public:
  explicit Key(int key) : x_key(key) {}
  int key() const { return x_key; }

 private:
  int x_key;
};

struct Node {
  gc::ptr<Node> next;
  Key key;
};

int main() { tricolor::detail::check_layout<Node>(); }
