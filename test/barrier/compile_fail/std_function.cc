// expect: what std::function and std::any hold is in malloc memory.*use gc::function
#include <tricolor/layout.h>

#include <functional>

namespace gc = tricolor;

struct Node {
  std::function<void()> run;
};

int main() { tricolor::detail::check_layout<Node>(); }
