// expect: a base with fields
// expect: static constexpr auto gc_fields = gc::fields\(&T::inherited, &T::own\)
#include <tricolor/layout.h>

namespace gc = tricolor;

struct Tag {};

struct Base {
  gc::ptr<Base> next;
};

struct Node : Tag, Base {
  gc::ptr<Node> left;
};

int main() { tricolor::detail::check_layout<Node>(); }
