// expect: the trace\(\) of a class cannot be called on an optional
#include <tricolor/layout.h>

#include <optional>

namespace gc = tricolor;

struct Value {
  long bits = 0;
  void trace(gc::tracer& t) const noexcept;
};

struct Node {
  std::optional<Value> value;
};

int main() { tricolor::detail::check_layout<Node>(); }
