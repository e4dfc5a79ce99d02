// expect: a reference may refer to a managed object
#include <tricolor/layout.h>

namespace gc = tricolor;

struct Options {
  int verbose = 0;
};
Options options;

struct Node {
  gc::ptr<Node> next;
  Options& owner = options;
};

int main() { tricolor::detail::check_layout<Node>(); }
