// expect: managed objects are aligned to 8192 bytes at most
#include <tricolor/layout.h>

namespace gc = tricolor;

struct alignas(16384) Node {
  gc::ptr<Node> next;
};

int main() { tricolor::detail::check_layout<Node>(); }
