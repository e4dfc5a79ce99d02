// expect: Four ways: \(1\) make it an aggregate
// expect: gc_fields = gc::fields\(&T::a, &T::b\)
// expect: gc::layout_of<T>
// expect: void trace\(gc::tracer& t\) const noexcept
// expect: gc::conservative<T>
// expect: Member = Node
#include <tricolor/layout.h>

namespace gc = tricolor;

class Node {
 public:
  explicit Node(int key) : x_key(key) {}
  int key() const { return x_key; }

 private:
  gc::ptr<Node> x_next;
  int x_key;
};

int main() { tricolor::detail::check_layout<Node>(); }
