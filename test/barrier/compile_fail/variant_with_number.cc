// expect: alternatives of this variant have their references at different places, or numbers in the same place
#include <tricolor/layout.h>

#include <variant>

namespace gc = tricolor;

struct Node {
  std::variant<double, gc::ptr<Node>> value;
};

int main() { tricolor::detail::check_layout<Node>(); }
