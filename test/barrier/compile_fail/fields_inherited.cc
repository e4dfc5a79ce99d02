// expect: gc_fields is inherited from a base
#include <tricolor/layout.h>

namespace gc = tricolor;

struct Base {
  gc::ptr<Base> next;
  static constexpr auto gc_fields = gc::fields(&Base::next);
};

struct Node : Base {
  gc::ptr<Node> left;
};

int main() { tricolor::detail::check_layout<Node>(); }
