// expect: ok
#include <tricolor/layout.h>

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gc = tricolor;

enum class Color { kRed, kBlack };

class Hidden {
 public:
  explicit Hidden(int key) : x_key(key) {}
  int key() const { return x_key; }

 private:
  int x_key;
};
template <>
inline constexpr bool gc::pointer_free<Hidden> = true;

struct Foreign {
  void* user_data;
  gc::ptr<Foreign> user_pointer;
  Foreign* owner;
};
template <>
struct gc::layout_of<Foreign> {
  static constexpr auto fields = gc::fields(&Foreign::user_pointer);
};

struct Node {
  gc::ptr<Node> left, right;
  gc::array<gc::ptr<Node>> others;
  gc::unmanaged<Foreign> foreign;
  std::string_view name;
  std::atomic<int> uses = 0;
  std::optional<gc::ptr<Node>> parent;
  std::string kept;
  std::vector<int> numbers;
  std::unique_ptr<int> number;
  Color color : 1;
  Hidden hidden{7};
  Foreign known;
  void (*run)(Node*) = nullptr;
  int Node::*member = nullptr;
};
template <>
inline constexpr bool gc::no_destructor<Node> = true;

class Legacy {
 public:
  Legacy();

 private:
  long x_words[4];
};
template <>
inline constexpr bool gc::conservative<Legacy> = true;

static_assert(gc::pointer_free<Color>);
static_assert(gc::pointer_free<std::array<std::pair<int, double>, 4>>);
static_assert(!gc::pointer_free<Node>);
static_assert(!gc::pointer_free<Legacy>);

int main() {
  tricolor::detail::check_layout<Node>();
  tricolor::detail::check_layout<Legacy>();
  tricolor::detail::check_layout<gc::ptr<Node>>();
  tricolor::detail::check_layout<char>();
}
