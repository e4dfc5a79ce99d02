// expect: keeps gc::ptr or plain pointers in malloc memory
#include <tricolor/layout.h>

#include <memory>
#include <optional>

namespace gc = tricolor;

struct Node {
  std::unique_ptr<std::optional<gc::ptr<Node>>[]> children;
};

int main() { tricolor::detail::check_layout<Node>(); }
