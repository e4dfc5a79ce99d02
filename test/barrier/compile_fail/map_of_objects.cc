// expect: keeps gc::ptr or plain pointers in malloc memory
#include <tricolor/layout.h>

#include <map>
#include <string>

namespace gc = tricolor;

struct Node {
  struct Item {
    int count[4];
    gc::array<int> values;
  };
  gc::ptr<Node> next;
  std::map<std::string, Item> items;
};

int main() { tricolor::detail::check_layout<Node>(); }
