// expect: gc_fields names nothing: specialise gc::pointer_free<T> as true
#include <tricolor/layout.h>

namespace gc = tricolor;

class Node {
 public:
  explicit Node(int key) : x_key(key) {}
  int key() const { return x_key; }

 private:
  int x_key;

 public:
  static constexpr auto gc_fields = gc::fields();
};

int main() { tricolor::detail::check_layout<Node>(); }
