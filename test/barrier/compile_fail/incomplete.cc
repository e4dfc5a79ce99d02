// expect: the type is only declared here
#include <tricolor/layout.h>

namespace gc = tricolor;

struct Node;

int main() { tricolor::detail::check_layout<Node>(); }
