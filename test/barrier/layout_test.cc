#include <tricolor/layout.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <catch2/catch.hpp>
#include <chrono>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace gc = tricolor;
using namespace tricolor::detail;

namespace {

struct Target;
using P = gc::ptr<Target>;

// An address that no two calls return; nothing is there.
Target* next_target() {
  static std::uintptr_t last = 0x1000;
  return std::bit_cast<Target*>(last += 16);
}

using Offsets = std::vector<std::size_t>;

Offsets listed(const WordOffsets& words) { return Offsets(words.begin, words.begin + words.count); }

// Where these members of the object really are, ascending.
template <class T, class... M>
Offsets places(const T& object, const M&... members) {
  Offsets all{static_cast<std::size_t>(reinterpret_cast<const char*>(std::addressof(members)) -
                                       reinterpret_cast<const char*>(std::addressof(object)))...};
  std::sort(all.begin(), all.end());
  return all;
}

using Words = std::vector<const void*>;

// What a type's own trace function reports. The tracer's buffer is small, to be emptied often.
Words traced(const type_info& info, const void* cell) {
  static Words reported;
  static const void* buffer[3];
  reported.clear();
  gc::tracer t(buffer, 3, [](gc::tracer&, std::size_t count) {
    reported.insert(reported.end(), buffer, buffer + count);
  });
  info.trace(cell, t);
  t.flush();
  return reported;
}

// All references in a cell, by its description.
Words references(const type_info& info, const void* cell, std::size_t bytes) {
  Words found;
  const auto read = [&](std::size_t offset) {
    const void* word;
    std::memcpy(&word, static_cast<const char*>(cell) + offset, sizeof(word));
    if (word != nullptr) found.push_back(word);
  };
  if (info.scan == ScanMode::traced) return traced(info, cell);
  if (info.scan == ScanMode::conservative) {
    for (std::size_t at = 0; at + 8 <= bytes; at += 8) read(at);
  }
  if (info.scan != ScanMode::words) return found;
  for (const std::size_t offset : listed(info.fixed)) read(offset);
  if (info.tail_stride == 0) return found;
  for (std::size_t at = info.tail_offset; at + info.tail_stride <= bytes; at += info.tail_stride) {
    for (const std::size_t offset : listed(info.tail)) read(at + offset);
  }
  return found;
}
template <class T>
Words references(const T& object) {
  return references(object_type_info<T>(), &object, sizeof(T));
}

// Puts a new target into each field and returns them, in the order of the fields.
template <class... F>
Words fill(F&... fields) {
  return Words{(fields = next_target()).get()...};
}

Words sorted(Words words) {
  std::sort(words.begin(), words.end());
  return words;
}

std::string name_of(const type_info& info) { return {info.name, info.name_size}; }

// The offsets of an object whose words lie at fixed places.
template <class T>
Offsets fixed() {
  check_layout<T>();
  static_assert(scan_mode<T> == ScanMode::words);
  const type_info& info = object_type_info<T>();
  CHECK(info.scan == ScanMode::words);
  CHECK(info.align == alignof(T));
  CHECK(info.tail_stride == 0);
  CHECK(info.trace == nullptr);
  return listed(info.fixed);
}

}  // namespace

// -------------------------------------------------------------------------------------- aggregates

namespace {

struct Empty {};
struct AlsoEmpty {};
enum Color { kRed, kGreen };
enum class Shade : unsigned char { kDark };

struct Plain {
  int a;
  double b[3];
  Color color;
  Shade shade;
  const char* text;
  void (*function)(Target*);
  void* any;
  int Plain::*member;
  std::byte bytes[5];
  std::nullptr_t null;
  bool flag : 1;
  std::atomic<std::uint64_t> count;
  gc::unmanaged<Target> elsewhere;
};

struct Node {
  P left, right;
  int key = 0;
};

struct Arrays {
  char name[3];
  P row[4];
  int count;
  P square[2][3];
  std::array<P, 3> standard;
  std::array<std::array<P, 2>, 2> nested;
  std::array<P, 0> none;
  gc::array<int> managed[2];
};

struct BitFields {
  unsigned a : 3;
  unsigned b : 30;
  P first;
  bool c : 1;
  Color d : 2;
  P second;
  std::uint64_t : 0;
  std::uint64_t e : 60;
  unsigned f : 1;
};

struct Nested {
  struct {
    P a;
    int b[3];
  } x[2];
  P c;
  struct {
    Empty empty;
    Node node;
    struct {
      P last;
    } deep;
  } y;
};

struct YetEmpty {};
struct Empties : Empty, AlsoEmpty {
  YetEmpty e;
  P p;
  [[no_unique_address]] AlsoEmpty f;
  P q;
  [[no_unique_address]] std::less<> g;
};

struct EmptyDerived : AlsoEmpty {};
struct Mistakable : Empty, EmptyDerived {
  Empty e;  // a member, though it has the type of a base
  AlsoEmpty f;
  P p;
  std::tuple<P> q;
};
struct OnlyBases : Empty, EmptyDerived {};

struct Aligned {
  char a;
  alignas(64) P p;
  alignas(32) char b;
  alignas(16) P q[2];
};

struct Constant {
  const int id = 3;
  const P fixed = nullptr;
  mutable P cache;
  volatile int seen = 0;
  mutable unsigned hits : 4 = 0;
  std::tuple<int, P> pair;  // without standard layout
};

// Members that {} does not initialise; values count them, and arrays among them.
struct Symbol {
  explicit Symbol(const char* s) : text(s) {}
  const char* text;
};
class Key {
 public:
  explicit Key(P owner) : x_owner(owner) {}
  const P& owner() const { return x_owner; }

 private:
  P x_owner;

 public:
  static constexpr auto gc_fields = gc::fields(&Key::x_owner);
};
struct NoDefaults : Empty {
  P rows[2][3];
  Key key;
  Nested nested[2];
  int numbers[4];
  Key keys[2];
  P last;
};
struct DefaultByInitializer {
  P first;
  Key key = Key(nullptr);
  P last;
};

struct Many {
  P a0, a1, a2, a3, a4, a5, a6, a7;
  int b0, b1, b2, b3, b4, b5, b6, b7;
  P c0, c1, c2, c3, c4, c5, c6, c7;
  char d0[3], d1, d2[5], d3, d4, d5, d6, d7;
  Node e0, e1, e2, e3, e4, e5, e6, e7;
  unsigned f0 : 1, f1 : 2, f2 : 3, f3 : 4, f4 : 5, f5 : 6, f6 : 7, f7 : 8;
  P g0, g1, g2, g3, g4, g5, g6, g7, h0, h1, h2, h3, h4, h5, h6, h7;
};

template <class Value, std::size_t kSize>
struct Generic {
  Value values[kSize];
  Generic* next() { return nullptr; }
  gc::ptr<Generic> link;
};

// Classes that are anything to anyone must not be taken for more members, or fewer.
struct TakesAnything {
  TakesAnything() = default;
  template <class A>
  TakesAnything(A&&) {}
};
struct Greedy {
  std::optional<P> optional;
  TakesAnything anything;
  std::string_view view;
  std::optional<int> number;
  P p;
};

}  // namespace

template <>
inline constexpr bool gc::pointer_free<Symbol> = true;

TEST_CASE("an aggregate of numbers, enums and foreign pointers is pointer-free") {
  check_layout<Plain>();
  STATIC_REQUIRE(gc::pointer_free<Plain>);
  STATIC_REQUIRE(gc::pointer_free<const Plain>);
  STATIC_REQUIRE(gc::pointer_free<int>);
  STATIC_REQUIRE(gc::pointer_free<Color[3]>);
  STATIC_REQUIRE(gc::pointer_free<Empty>);
  STATIC_REQUIRE(!gc::pointer_free<Node>);
  STATIC_REQUIRE(scan_mode<Plain> == ScanMode::none);
  STATIC_REQUIRE(scan_mode<std::pair<Plain, Symbol>> == ScanMode::none);
  STATIC_REQUIRE(scan_mode<Plain[2]> == ScanMode::none);
  const type_info& info = object_type_info<Plain>();
  CHECK(info.scan == ScanMode::none);
  CHECK(info.fixed.count == 0);
  CHECK(info.tail_stride == 0);
  CHECK(array_type_info<Plain>().scan == ScanMode::none);
  CHECK(array_type_info<char>().align == 8);
}

TEST_CASE("classes of the standard library without references are pointer-free") {
  STATIC_REQUIRE(gc::pointer_free<std::string_view>);
  STATIC_REQUIRE(gc::pointer_free<std::chrono::nanoseconds>);
  STATIC_REQUIRE(gc::pointer_free<std::chrono::steady_clock::time_point>);
  STATIC_REQUIRE(gc::pointer_free<std::complex<double>>);
  STATIC_REQUIRE(gc::pointer_free<std::mutex>);
  STATIC_REQUIRE(gc::pointer_free<std::atomic_flag>);
  STATIC_REQUIRE(gc::pointer_free<std::span<int>>);
  STATIC_REQUIRE(gc::pointer_free<std::string>);
  STATIC_REQUIRE(gc::pointer_free<std::vector<std::string>>);
  STATIC_REQUIRE(gc::pointer_free<std::unique_ptr<int[]>>);
  STATIC_REQUIRE(gc::pointer_free<std::optional<std::pair<int, Color>>>);
  STATIC_REQUIRE(gc::pointer_free<std::variant<int, double>>);
}

TEST_CASE("a managed word is at its own start") {
  STATIC_REQUIRE(is_managed_word<P>);
  STATIC_REQUIRE(is_managed_word<const gc::array<int>>);
  STATIC_REQUIRE(!is_managed_word<Node>);
  CHECK(fixed<P>() == Offsets{0});
  CHECK(fixed<gc::array<char>>() == Offsets{0});
  CHECK(fixed<P[3]>() == Offsets{0, 8, 16});
}

TEST_CASE("the pointers of a node are found and its key is not") {
  Node n;
  CHECK(fixed<Node>() == places(n, n.left, n.right));
  const Words expected = fill(n.left, n.right);
  n.key = 77;
  CHECK(references(n) == expected);
}

TEST_CASE("arrays of arrays are laid out element by element") {
  Arrays a = {};
  CHECK(fixed<Arrays>() == places(a, a.row[0], a.row[1], a.row[2], a.row[3], a.square[0][0],
                                  a.square[0][1], a.square[0][2], a.square[1][0], a.square[1][1],
                                  a.square[1][2], a.standard[0], a.standard[1], a.standard[2],
                                  a.nested[0][0], a.nested[0][1], a.nested[1][0], a.nested[1][1],
                                  a.managed[0], a.managed[1]));
  const Words expected = fill(a.row[1], a.square[1][2], a.standard[2], a.nested[1][0]);
  CHECK(references(a) == expected);
}

TEST_CASE("bit-fields before, between and behind pointers change nothing") {
  BitFields b = {};
  CHECK(fixed<BitFields>() == places(b, b.first, b.second));
  b.a = 7;
  b.b = 0x3FFFFFFF;
  b.e = 0xFFFFFFFFFFFFFFF;
  const Words expected = fill(b.first, b.second);
  CHECK(references(b) == expected);
}

TEST_CASE("nested aggregates are not flattened by brace elision") {
  Nested n = {};
  CHECK(fixed<Nested>() ==
        places(n, n.x[0].a, n.x[1].a, n.c, n.y.node.left, n.y.node.right, n.y.deep.last));
  const Words expected =
      fill(n.x[0].a, n.x[1].a, n.c, n.y.node.left, n.y.node.right, n.y.deep.last);
  n.x[0].b[0] = n.x[1].b[2] = 99;
  CHECK(references(n) == expected);
}

TEST_CASE("empty members and empty bases take no part") {
  Empties e;
  CHECK(fixed<Empties>() == places(e, e.p, e.q));
  Mistakable m;
  CHECK(fixed<Mistakable>() == places(m, m.p, m.q));
  STATIC_REQUIRE(gc::pointer_free<OnlyBases>);
}

TEST_CASE("members may be aligned") {
  Aligned a = {};
  CHECK(fixed<Aligned>() == places(a, a.p, a.q[0], a.q[1]));
  CHECK(object_type_info<Aligned>().align == 64);
  CHECK(array_type_info<Aligned>().align == 64);
  CHECK(array_type_info<Aligned>().tail_offset == 64);
}

TEST_CASE("const, mutable and volatile members count") {
  Constant c;
  CHECK(fixed<Constant>() == places(c, c.fixed, c.cache, std::get<1>(c.pair)));
  CHECK(fixed<const Node>() == fixed<Node>());
}

TEST_CASE("members without a default constructor count, and so do arrays beside them") {
  Key k{nullptr};
  NoDefaults n{{}, {}, k, {}, {}, {k, k}, {}};
  CHECK(fixed<NoDefaults>() ==
        places(n, n.rows[0][0], n.rows[0][1], n.rows[0][2], n.rows[1][0], n.rows[1][1],
               n.rows[1][2], n.key.owner(), n.nested[0].x[0].a, n.nested[0].x[1].a, n.nested[0].c,
               n.nested[0].y.node.left, n.nested[0].y.node.right, n.nested[0].y.deep.last,
               n.nested[1].x[0].a, n.nested[1].x[1].a, n.nested[1].c, n.nested[1].y.node.left,
               n.nested[1].y.node.right, n.nested[1].y.deep.last, n.keys[0].owner(),
               n.keys[1].owner(), n.last));
  DefaultByInitializer d;
  CHECK(fixed<DefaultByInitializer>() == places(d, d.first, d.key.owner(), d.last));
}

TEST_CASE("64 members are decomposed") {
  Many m = {};
  STATIC_REQUIRE(Aggregate<Many>::kMembers == 64);
  CHECK(fixed<Many>() == places(m, m.a0, m.a1, m.a2, m.a3, m.a4, m.a5, m.a6, m.a7, m.c0, m.c1, m.c2,
                                m.c3, m.c4, m.c5, m.c6, m.c7, m.e0.left, m.e0.right, m.e1.left,
                                m.e1.right, m.e2.left, m.e2.right, m.e3.left, m.e3.right, m.e4.left,
                                m.e4.right, m.e5.left, m.e5.right, m.e6.left, m.e6.right, m.e7.left,
                                m.e7.right, m.g0, m.g1, m.g2, m.g3, m.g4, m.g5, m.g6, m.g7, m.h0,
                                m.h1, m.h2, m.h3, m.h4, m.h5, m.h6, m.h7));
}

TEST_CASE("templates and greedy members are decomposed") {
  Generic<Node, 2> g;
  CHECK(fixed<Generic<Node, 2>>() == places(g, g.values[0].left, g.values[0].right,
                                            g.values[1].left, g.values[1].right, g.link));
  Greedy greedy;
  CHECK(fixed<Greedy>() == places(greedy, greedy.optional, greedy.p));
}

TEST_CASE("local and unnamed classes are decomposed") {
  struct Local {
    int n;
    P p;
  };
  CHECK(fixed<Local>() == Offsets{8});
  const struct {
    P p[2];
    short n = 0;
  } unnamed;
  CHECK(fixed<std::remove_cv_t<decltype(unnamed)>>() ==
        places(unnamed, unnamed.p[0], unnamed.p[1]));
}

// ---------------------------------------------------------------------- pairs, optionals, variants

namespace {

struct Standard {
  std::pair<int, P> pair;
  std::tuple<P, char, Node, double> tuple;
  std::optional<P> optional;
  std::optional<Node> node;
  std::variant<std::monostate, P, gc::array<int>> variant;
  std::variant<std::monostate, Node> maybe;
  std::variant<int, double> number;
  std::optional<int> no_number;
};

}  // namespace

TEST_CASE("the words of pairs, tuples, optionals and plain variants are found where they lie") {
  Standard s;
  const Offsets offsets = fixed<Standard>();
  s.node.emplace();
  s.maybe.emplace<Node>();
  s.optional.emplace();
  s.variant.emplace<P>();
  CHECK(offsets == places(s, s.pair.second, std::get<0>(s.tuple), std::get<Node>(s.tuple).left,
                          std::get<Node>(s.tuple).right, *s.optional, s.node->left, s.node->right,
                          std::get<P>(s.variant), std::get<Node>(s.maybe).left,
                          std::get<Node>(s.maybe).right));
  const Words expected = fill(s.pair.second, std::get<0>(s.tuple), *s.optional, s.node->right,
                              std::get<P>(s.variant), std::get<Node>(s.maybe).left);
  s.number = -1;
  CHECK(sorted(references(s)) == expected);
}

TEST_CASE("storage of an optional is described whether engaged or not") {
  struct Holder {
    std::optional<P> p;
  };
  Holder h;
  CHECK(fixed<Holder>() == places(h, h.p));
}

// ---------------------------------------------------------------------------- gc_fields, layout_of

namespace {

class Base {
 public:
  explicit Base(int id) : x_id(id) {}
  int id() const { return x_id; }
  Offsets own_places() const { return places(*this, x_a); }

 private:
  int x_id;

 protected:
  P x_a;

 public:
  static constexpr auto gc_fields = gc::fields(&Base::x_a);
};

class Interface {
 public:
  virtual int count() const = 0;

 protected:
  ~Interface() = default;
};

class Derived final : public Base, private Interface {
 public:
  explicit Derived(int id) : Base(id) {}
  int count() const override { return x_count; }
  Offsets own_places() const {
    return places(*this, x_a, x_table[0][0], x_table[0][1], x_table[1][0], x_table[1][1],
                  x_node.left, x_node.right, *x_maybe);
  }
  Words fill_all() { return fill(x_a, x_table[1][0], x_node.left); }

 private:
  P x_table[2][2];
  int x_count = 2;
  Node x_node;
  std::optional<P> x_maybe = P();

 public:
  // Not in the order of the members, and one twice.
  static constexpr auto gc_fields =
      gc::fields(&Derived::x_maybe, &Derived::x_table, Base::gc_fields, &Derived::x_count,
                 &Derived::x_node, &Derived::x_a);
};

class Hidden : private Base {
 public:
  Hidden() : Base(1) {}
  Offsets own_places() const { return places(*this, x_a, x_b); }

 private:
  P x_b;

 public:
  static constexpr auto gc_fields = gc::fields(&Hidden::x_a, &Hidden::x_b);
};

template <class Element>
class Ring {
 public:
  explicit Ring(int start) : x_start(start) {}
  int start() const { return x_start; }
  Offsets own_places() const { return places(*this, x_elements[0], x_elements[1], x_next); }

 private:
  Element x_elements[2];
  int x_start;
  gc::ptr<Ring> x_next;

 public:
  static constexpr auto gc_fields = gc::fields(&Ring::x_elements, &Ring::x_next);
};

// Adds no member, so the base's list is complete.
class Renamed : public Base {
 public:
  Renamed() : Base(2) {}
};

struct Foreign {
  Target* raw = nullptr;
  P p;
  union {
    int i;
    double d;
  };
  Foreign() : i(0) {}
};

struct HoldsForeign {
  int n;
  Foreign foreign[2];
  Derived derived{1};
};

}  // namespace

template <>
struct gc::layout_of<Foreign> {
  static constexpr auto fields = gc::fields(&Foreign::p);
};

TEST_CASE("gc_fields names private members, members of bases, and arrays") {
  CHECK(fixed<Base>() == Base(1).own_places());
  Derived d(3);
  CHECK(fixed<Derived>() == d.own_places());
  const Words expected = d.fill_all();
  CHECK(sorted(references(d)) == expected);
  CHECK(fixed<Hidden>() == Hidden().own_places());
  CHECK(fixed<Renamed>() == fixed<Base>());
  CHECK(fixed<Ring<P>>() == Ring<P>(1).own_places());
}

TEST_CASE("layout_of describes a class from outside, also as a member") {
  Foreign f;
  CHECK(fixed<Foreign>() == places(f, f.p));
  HoldsForeign h{};
  Offsets expected = places(h, h.foreign[0].p, h.foreign[1].p);
  for (const std::size_t offset : h.derived.own_places()) {
    expected.push_back(places(h, h.derived)[0] + offset);
  }
  CHECK(fixed<HoldsForeign>() == expected);
}

// ------------------------------------------------------------------------------------------- trace

namespace {

// A tagged value: an address if the tag is set.
struct Value {
  bool is_pointer = false;
  union {
    double number = 0;
    const void* pointer;
  };
  void set(const void* p) {
    is_pointer = true;
    pointer = p;
  }
  void trace(gc::tracer& t) const noexcept {
    if (is_pointer) t(pointer);
  }
};

struct Frame {
  P code;
  Value locals[3];
  unsigned depth : 7;
  std::pair<int, Value> result;
  P caller;
};

struct Shape {
  virtual void trace(gc::tracer& t) const noexcept { t(origin); }
  P origin;
};
struct Circle : Shape {
  void trace(gc::tracer& t) const noexcept override {
    Shape::trace(t);
    t(centre);
  }
  P centre;
};

struct Table {
  P slots[2000];
  int size = 0;
  Node nodes[2];
};

}  // namespace

TEST_CASE("a trace function is called for its objects") {
  check_layout<Value>();
  STATIC_REQUIRE(scan_mode<Value> == ScanMode::traced);
  Value v;
  CHECK(references(v).empty());
  v.set(&v);
  CHECK(references(v) == Words{&v});
  CHECK(object_type_info<Value>().scan == ScanMode::traced);
}

TEST_CASE("an aggregate with a traced member is traced: its words and the member's") {
  check_layout<Frame>();
  STATIC_REQUIRE(scan_mode<Frame> == ScanMode::traced);
  Frame f = {};
  f.depth = 127;
  Words expected = fill(f.code);
  f.locals[1].set(next_target());
  f.locals[2].number = 1e300;
  f.result.second.set(next_target());
  expected.push_back(f.locals[1].pointer);
  expected.push_back(f.result.second.pointer);
  expected.push_back(fill(f.caller)[0]);
  CHECK(references(f) == expected);
}

TEST_CASE("a virtual trace is called on the class that was made") {
  check_layout<Circle>();
  Circle c;
  const Words expected = fill(c.origin, c.centre);
  CHECK(references(c) == expected);
}

TEST_CASE("very many words are visited, not listed") {
  check_layout<Table>();
  STATIC_REQUIRE(scan_mode<Table> == ScanMode::traced);
  const auto table = std::make_unique<Table>();
  const Words expected =
      fill(table->slots[0], table->slots[1000], table->slots[1999], table->nodes[1].right);
  CHECK(references(*table) == expected);
}

// ------------------------------------------------------------------------------------ conservative

namespace {

class Legacy {
 public:
  void set(int i, void* p) { x_words[i + x_first] = p; }

 private:
  void* x_words[4] = {};
  int x_first = 1;
};

struct HoldsLegacy {
  P p;
  Legacy legacy;
};

struct HoldsLegacyAndValue {
  int n = 0;
  Legacy legacy;
  Value value;
};

}  // namespace

template <>
inline constexpr bool gc::conservative<Legacy> = true;

TEST_CASE("conservative is contagious, and nothing is conservative by itself") {
  STATIC_REQUIRE(scan_mode<Legacy> == ScanMode::conservative);
  STATIC_REQUIRE(scan_mode<HoldsLegacy> == ScanMode::conservative);
  STATIC_REQUIRE(!gc::pointer_free<Legacy>);
  STATIC_REQUIRE(!gc::conservative<HoldsLegacy>);
  STATIC_REQUIRE(!Traceable<std::chrono::year*>);
  check_layout<HoldsLegacy>();
  HoldsLegacy h;
  h.legacy.set(1, &h);
  const Words all = references(h);
  CHECK(std::count(all.begin(), all.end(), &h) == 1);
}

TEST_CASE("beside a traced member the words of a conservative one are reported") {
  STATIC_REQUIRE(scan_mode<HoldsLegacyAndValue> == ScanMode::traced);
  HoldsLegacyAndValue h;
  h.legacy.set(0, next_target());
  h.legacy.set(1, next_target());
  h.value.set(&h);
  const Words all = references(h);
  REQUIRE(all.size() == 4);  // x_first lies in a word too
  CHECK(all.back() == &h);
}

// ------------------------------------------------------------------------ arrays, trailing storage

namespace {

struct Closure {
  P code;
  std::uint16_t count = 0;
  static constexpr auto gc_fields = gc::fields(&Closure::code, gc::trailing<P>{});
};
struct Entry {
  int hash;
  P key;
  P value;
};
struct Bucket {
  std::uint32_t size = 0;
  static constexpr auto gc_fields = gc::fields(gc::trailing<Entry>{});
};
struct Stack {
  P owner;
  static constexpr auto gc_fields = gc::fields(&Stack::owner, gc::trailing<Value>{});
};
struct Text {
  std::uint32_t hash;
};
struct Rope {
  P left;
  char first;
};
struct alignas(32) Wide {
  P p;
};
struct WideTail {
  P p;
  static constexpr auto gc_fields = gc::fields(&WideTail::p, gc::trailing<Wide>{});
};

// A cell as make_array and make_extra lay it out: 64-byte aligned, zeroed.
struct alignas(64) Cell {
  char bytes[512] = {};
};

void store_count(Cell& cell, std::size_t before, std::size_t count) {
  std::memcpy(cell.bytes + before - sizeof(count), &count, sizeof(count));
}
const void* store_target(Cell& cell, std::size_t offset) {
  const void* const target = next_target();
  std::memcpy(cell.bytes + offset, &target, sizeof(target));
  return target;
}

}  // namespace

TEST_CASE("elements of an array repeat from its header to the end of the cell") {
  const type_info& info = array_type_info<Entry>();
  CHECK(info.scan == ScanMode::words);
  CHECK(info.fixed.count == 0);
  CHECK(info.tail_offset == kArrayHeaderBytes<Entry>);
  CHECK(info.tail_stride == sizeof(Entry));
  CHECK(listed(info.tail) == fixed<Entry>());
  CHECK(info.align == 8);

  Cell cell;
  store_count(cell, 8, 5);
  const Words expected = {store_target(cell, 8 + 8), store_target(cell, 8 + 16),
                          store_target(cell, 8 + 4 * sizeof(Entry) + 8)};
  std::memset(cell.bytes + 8, 0x55, 4);  // a hash is no reference
  CHECK(references(info, &cell, 8 + 5 * sizeof(Entry) + 1) == expected);
}

TEST_CASE("an array of arrays and of aligned elements") {
  CHECK(listed(array_type_info<P[2]>().tail) == Offsets{0, 8});
  CHECK(array_type_info<P[2]>().tail_stride == 16);
  CHECK(array_type_info<Wide>().tail_offset == 32);
  CHECK(array_type_info<Wide>().tail_stride == 32);
  CHECK(array_type_info<Wide>().align == 32);
}

TEST_CASE("traced elements are visited as far as the count goes") {
  const type_info& info = array_type_info<Value>();
  REQUIRE(info.scan == ScanMode::traced);
  Cell cell;
  store_count(cell, 8, 2);
  Value v;
  Words expected;
  for (int i = 0; i < 3; ++i) {  // one more than there are
    v.set(next_target());
    std::memcpy(cell.bytes + 8 + i * sizeof(Value), &v, sizeof(v));
    if (i < 2) expected.push_back(v.pointer);
  }
  CHECK(references(info, &cell, sizeof(cell)) == expected);
}

TEST_CASE("trailing storage of words repeats behind the object") {
  STATIC_REQUIRE(kExtraOffset<Closure> == 24);
  STATIC_REQUIRE(extra_scan_mode<Closure> == ScanMode::words);
  const type_info& info = extra_type_info<Closure>();
  CHECK(listed(info.fixed) == Offsets{0});
  CHECK(info.tail_offset == 24);
  CHECK(info.tail_stride == 8);
  CHECK(listed(info.tail) == Offsets{0});
  CHECK(object_type_info<Closure>().tail_stride == 0);

  Cell cell;
  store_count(cell, 24, 4 * sizeof(P));
  const Words expected = {store_target(cell, 0), store_target(cell, 24),
                          store_target(cell, 24 + 3 * 8)};
  CHECK(references(info, &cell, 24 + 4 * 8) == expected);
}

TEST_CASE("an object without references may have trailing storage with them") {
  STATIC_REQUIRE(!gc::pointer_free<Bucket>);
  STATIC_REQUIRE(scan_mode<Bucket> == ScanMode::none);
  STATIC_REQUIRE(extra_scan_mode<Bucket> == ScanMode::words);
  const type_info& info = extra_type_info<Bucket>();
  CHECK(info.fixed.count == 0);
  CHECK(info.tail_offset == 16);
  CHECK(listed(info.tail) == Offsets{8, 16});
}

TEST_CASE("trailing storage that nothing is said about is not scanned") {
  STATIC_REQUIRE(extra_scan_mode<Text> == ScanMode::none);
  STATIC_REQUIRE(kExtraOffset<Text> == 16);
  const type_info& info = extra_type_info<Rope>();
  CHECK(info.scan == ScanMode::words);
  CHECK(listed(info.fixed) == Offsets{0});
  CHECK(info.tail_stride == 0);
  CHECK(info.align == 8);
}

TEST_CASE("trailing elements are aligned, with their number just before them") {
  STATIC_REQUIRE(kExtraOffset<WideTail> == 32);
  CHECK(extra_type_info<WideTail>().align == 32);
  CHECK(extra_type_info<WideTail>().tail_offset == 32);
  CHECK(extra_type_info<WideTail>().tail_stride == 32);
}

TEST_CASE("traced trailing elements are visited as far as there are whole ones") {
  const type_info& info = extra_type_info<Stack>();
  REQUIRE(info.scan == ScanMode::traced);
  Cell cell;
  store_count(cell, kExtraOffset<Stack>, 2 * sizeof(Value) + 5);
  Words expected = {store_target(cell, 0)};
  Value v;
  v.set(next_target());
  std::memcpy(cell.bytes + kExtraOffset<Stack> + sizeof(v), &v, sizeof(v));
  expected.push_back(v.pointer);
  v.set(next_target());
  std::memcpy(cell.bytes + kExtraOffset<Stack> + 2 * sizeof(v), &v, sizeof(v));  // beyond
  CHECK(references(info, &cell, sizeof(cell)) == expected);
}

// ---------------------------------------------------------------------------------------- the rest

namespace {

struct WithString {
  P p;
  std::string name;
  std::vector<WithString> kept;  // holds gc::ptr in malloc memory
};
struct WithDestructor {
  P p;
  ~WithDestructor() {}
};
class Opaque {
 public:
  explicit Opaque(int n) : x_n(n) {}
  int n() const { return x_n; }

 private:
  int x_n;
};

}  // namespace

TEST_CASE("a type is traceable where the collector knows all its references") {
  STATIC_REQUIRE(Traceable<Node>);
  STATIC_REQUIRE(Traceable<const Node>);
  STATIC_REQUIRE(Traceable<int>);
  STATIC_REQUIRE(Traceable<Value[3]>);
  STATIC_REQUIRE(Traceable<WithDestructor>);  // its destructor is another matter
  STATIC_REQUIRE(!Traceable<WithString>);
  STATIC_REQUIRE(!Traceable<Opaque>);
  STATIC_REQUIRE(!Traceable<std::pair<int, Opaque>>);
  STATIC_REQUIRE(!Traceable<Node*>);
  STATIC_REQUIRE(!Traceable<Node&>);
  STATIC_REQUIRE(!Traceable<Target>);
  STATIC_REQUIRE(!Traceable<void>);
  STATIC_REQUIRE(!Traceable<int()>);
  STATIC_REQUIRE(!Traceable<int[]>);
  STATIC_REQUIRE(!gc::pointer_free<Opaque>);
}

TEST_CASE("a type has one description, with its name") {
  CHECK(&object_type_info<Node>() == &object_type_info<Node>());
  CHECK(name_of(object_type_info<int>()) == "int");
  CHECK(name_of(object_type_info<gc::unmanaged<int>>()) == "tricolor::unmanaged<int>");
  CHECK_THAT(name_of(object_type_info<Node>()), Catch::EndsWith("::Node"));
  CHECK_THAT(name_of(array_type_info<Node>()), Catch::Contains("::Node") && Catch::EndsWith("[]"));
  CHECK_THAT(name_of(extra_type_info<Closure>()), Catch::EndsWith("::Closure"));
}

TEST_CASE("an unmanaged pointer is used like a plain one") {
  Opaque o(4);
  gc::unmanaged<Opaque> u;
  CHECK(u == nullptr);
  u = &o;
  CHECK(u);
  CHECK(u == &o);
  CHECK(u->n() == 4);
  CHECK((*u).n() == 4);
  Opaque* const raw = u;
  CHECK(raw == u.get());
  const gc::unmanaged<void> anything = raw;
  CHECK(anything.get() == raw);
  STATIC_REQUIRE(sizeof(u) == 8);
  STATIC_REQUIRE(std::is_trivially_copyable_v<gc::unmanaged<Opaque>>);
}
