// expect: keeps gc::ptr or plain pointers in malloc memory
#include <tricolor/layout.h>

#include <memory>

namespace gc = tricolor;

class Shared {
 public:
  Shared();

 private:
  gc::ptr<struct Node> x_node;

 public:
  static constexpr auto gc_fields = gc::fields(&Shared::x_node);
};

struct Node {
  std::shared_ptr<Shared> shared;
};

int main() { tricolor::detail::check_layout<Node>(); }
