// expect: write gc::atomic_ptr<U>, or std::atomic<gc::unmanaged<U>>
#include <tricolor/layout.h>

#include <atomic>

namespace gc = tricolor;

struct Node {
  std::atomic<Node*> next = nullptr;
};

int main() { tricolor::detail::check_layout<Node>(); }
