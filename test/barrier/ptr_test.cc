#include <tricolor/ptr.h>

#include <tricolor/array.h>

#include <array>
#include <catch2/catch.hpp>
#include <compare>
#include <cstddef>
#include <functional>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

namespace gc = tricolor;
using tricolor::detail::current_cache;
using tricolor::detail::thread_cache;

namespace {

struct Animal {
  int legs = 4;
};
struct Named {
  int name = 7;
};
struct Dog : Animal, Named {
  gc::ptr<Dog> friend_;
};
struct Unknown;  // never defined: a ptr to it is fine

static_assert(sizeof(gc::ptr<Dog>) == 8 && alignof(gc::ptr<Dog>) == 8);
static_assert(sizeof(gc::array<Dog>) == 8 && alignof(gc::array<Dog>) == 8);
static_assert(std::is_trivially_destructible_v<gc::ptr<Dog>>);
static_assert(std::is_trivially_destructible_v<gc::array<Dog>>);
static_assert(!std::is_trivially_copyable_v<gc::ptr<Dog>>);
static_assert(!std::is_trivially_copyable_v<gc::array<Dog>>);
static_assert(std::is_nothrow_default_constructible_v<gc::ptr<Dog>>);
static_assert(std::is_nothrow_copy_constructible_v<gc::ptr<Dog>>);
static_assert(std::is_nothrow_move_assignable_v<gc::ptr<Dog>>);
static_assert(std::is_nothrow_move_assignable_v<gc::array<Dog>>);

// Conversions go where those of plain pointers go, and nowhere else.
static_assert(std::is_convertible_v<gc::ptr<Dog>, Dog*>);
static_assert(std::is_convertible_v<gc::ptr<Dog>, const Dog*>);
static_assert(std::is_convertible_v<gc::ptr<Dog>, Animal*>);
static_assert(std::is_convertible_v<gc::ptr<Dog>, gc::ptr<const Dog>>);
static_assert(std::is_convertible_v<gc::ptr<Dog>, gc::ptr<Named>>);
static_assert(std::is_convertible_v<gc::ptr<Dog>, gc::ptr<void>>);
static_assert(!std::is_convertible_v<gc::ptr<const Dog>, gc::ptr<Dog>>);
static_assert(!std::is_convertible_v<gc::ptr<const Dog>, Dog*>);
static_assert(!std::is_convertible_v<gc::ptr<Animal>, gc::ptr<Dog>>);
static_assert(!std::is_assignable_v<gc::ptr<Dog>&, gc::ptr<Animal>>);
static_assert(!std::is_convertible_v<gc::ptr<Dog>, gc::ptr<Unknown>>);
static_assert(!std::is_convertible_v<gc::ptr<Dog>, bool> || std::is_convertible_v<Dog*, bool>);

constinit gc::ptr<Unknown> global;  // initialised before anything runs
constinit gc::array<Dog> global_array;

// A thread's cache of which the test sees what happens. While it lives it is the calling thread's.
class FakeCache : public thread_cache {
 public:
  struct Logged {
    void* old_value;
    void* new_value;
    void* in_slot;  // what the slot held then
    bool in_unit;
  };

  explicit FakeCache(std::uint8_t is_armed) : x_before(std::exchange(current_cache, this)) {
    armed.store(is_armed, std::memory_order_relaxed);
    log = [](thread_cache& cache, void* old_value, void* new_value) {
      FakeCache& self = static_cast<FakeCache&>(cache);
      const bool inside = cache.in_unit.load(std::memory_order_relaxed) == 1;
      void* const held = self.slot == nullptr ? nullptr : *self.slot;
      self.logged.push_back({old_value, new_value, held, inside});
    };
    park = [](thread_cache& cache) {
      FakeCache& self = static_cast<FakeCache&>(cache);
      self.parked_in_unit = cache.in_unit.load(std::memory_order_relaxed) != 0;
      self.held_when_parked = self.slot == nullptr ? nullptr : *self.slot;
      ++self.parked;
      cache.stop_note.store(0, std::memory_order_relaxed);
    };
  }
  ~FakeCache() { current_cache = x_before; }
  FakeCache(const FakeCache&) = delete;
  FakeCache& operator=(const FakeCache&) = delete;

  // The bytes of a ptr or an array, to look past its functions.
  template <class Field>
  void watch(const Field& field) {
    slot = reinterpret_cast<void* const*>(&field);
  }

  std::vector<Logged> logged;
  int parked = 0;
  bool parked_in_unit = false;
  void* held_when_parked = nullptr;
  void* const* slot = nullptr;

 private:
  thread_cache* const x_before;
};

}  // namespace

TEST_CASE("a ptr begins as null and reads like the pointer it was given") {
  gc::ptr<Dog> p;
  CHECK(p == nullptr);
  CHECK(nullptr == p);
  CHECK(!p);
  CHECK(p.get() == nullptr);
  CHECK(global == nullptr);

  Dog dog;
  p = &dog;
  CHECK(p != nullptr);
  CHECK(nullptr != p);
  if (p) {
    p->legs = 3;
  } else {
    FAIL("a ptr that is not null is true");
  }
  CHECK(dog.legs == 3);
  CHECK(&*p == &dog);
  Dog* const raw = p;
  CHECK(raw == &dog);
  p = nullptr;
  CHECK_FALSE(static_cast<bool>(p));
}

TEST_CASE("a ptr copies, moves, and exchanges, and its source keeps its value") {
  Dog a, b;
  gc::ptr<Dog> p(&a), q = &b;
  gc::ptr<Dog> copy(p);
  gc::ptr<Dog> moved(std::move(p));
  CHECK(copy == &a);
  CHECK(moved == &a);
  CHECK(p == &a);
  p = q;
  CHECK(p == &b);
  q = std::move(copy);
  CHECK(q == &a);
  std::swap(p, q);
  CHECK(p == &a);
  CHECK(q == &b);
  gc::ptr<Dog>& itself = p;
  p = itself;
  CHECK(p == &a);
}

TEST_CASE("a ptr converts to a base, to const and to void as its pointer does") {
  Dog dog;
  gc::ptr<Dog> p = &dog;
  gc::ptr<Named> second_base = p;
  CHECK(second_base.get() == static_cast<Named*>(&dog));
  CHECK(static_cast<void*>(second_base.get()) != static_cast<void*>(p.get()));
  second_base = nullptr;
  second_base = p;
  CHECK(second_base->name == 7);
  gc::ptr<const Dog> constant = p;
  CHECK(constant == p);
  gc::ptr<void> anything = p;
  CHECK(anything.get() == &dog);
  const gc::ptr<Dog> fixed = p;  // what a const ptr points to may still change
  fixed->legs = 1;
  CHECK(dog.legs == 1);
  gc::ptr<Dog> none;
  second_base = none;
  CHECK(second_base == nullptr);
}

TEST_CASE("ptrs compare with each other and with plain pointers, in either order") {
  std::array<Dog, 2> dogs;
  const gc::ptr<Dog> first = &dogs[0], second = &dogs[1];
  const gc::ptr<const Dog> constant = first;
  const gc::ptr<Animal> base = first;
  Dog* const raw = &dogs[0];
  const Dog* const raw_constant = raw;
  Animal* const raw_base = raw;
  CHECK(first == constant);
  CHECK(first == base);
  CHECK(first != second);
  CHECK(first == raw);
  CHECK(raw == first);
  CHECK(first == raw_constant);
  CHECK(raw_constant == first);
  CHECK(raw_base == first);
  CHECK(first == raw_base);
  CHECK(second != raw);
  CHECK(raw != second);
  CHECK(first < second);
  CHECK(second >= constant);
  CHECK((first <=> second) == std::strong_ordering::less);
}

TEST_CASE("a ptr hashes as its pointer") {
  Dog a, b;
  CHECK(std::hash<gc::ptr<Dog>>{}(&a) == std::hash<Dog*>{}(&a));
  std::unordered_set<gc::ptr<Dog>> set;
  set.insert(&a);
  set.insert(gc::ptr<Dog>(&a));
  set.insert(&b);
  CHECK(set.size() == 2);
  CHECK(set.count(&b) == 1);
}

TEST_CASE("an array reads the elements behind its count") {
  struct {
    std::size_t count = 3;
    int elements[4] = {5, 6, 7, 0};
  } cell;
  gc::array<int> a = gc::array<int>::from_data(cell.elements);
  CHECK(a.size() == 3);
  CHECK(a.data() == cell.elements);
  CHECK(a.end() - a.begin() == 3);
  CHECK(a[2] == 7);
  CHECK(a.span().back() == 7);
  int sum = 0;
  for (const int i : a) sum += i;
  CHECK(sum == 18);
  const gc::array<int> copy = a;
  CHECK(copy == a);
  copy[0] = 1;  // the handle is const, not the elements
  CHECK(a[0] == 1);

  gc::array<int> none;
  CHECK(none.empty());
  CHECK(!none);
  CHECK(none.begin() == none.end());
  CHECK(none.span().empty());
  CHECK(global_array.size() == 0);
  a = nullptr;
  CHECK(a == none);
}

TEST_CASE("without a cycle a store logs nothing") {
  FakeCache cache(0);
  Dog dog;
  gc::ptr<Dog> p;
  p = &dog;
  p = nullptr;
  gc::array<int> a;
  a = nullptr;
  CHECK(cache.logged.empty());
  CHECK(cache.parked == 0);
  CHECK(cache.in_unit.load() == 0);
}

TEST_CASE("an armed store logs the old and the new value before it stores, in one unit") {
  Dog first, second;
  gc::ptr<Dog> p = &first;
  FakeCache cache(1);
  cache.watch(p);

  p = &second;
  REQUIRE(cache.logged.size() == 1);
  CHECK(cache.logged[0].old_value == &first);
  CHECK(cache.logged[0].new_value == &second);
  CHECK(cache.logged[0].in_slot == &first);
  CHECK(cache.logged[0].in_unit);
  CHECK(cache.in_unit.load() == 0);
  CHECK(p == &second);

  p = nullptr;
  REQUIRE(cache.logged.size() == 2);
  CHECK(cache.logged[1].old_value == &second);
  CHECK(cache.logged[1].new_value == nullptr);
}

TEST_CASE("every way to assign to a ptr or an array passes the barrier") {
  Dog a, b;
  const gc::ptr<Dog> source = &b;
  const gc::ptr<const Animal> same_type = &b;
  const auto logs = [&](auto&& store) {
    gc::ptr<const Animal> p = &a;
    FakeCache cache(1);
    store(p);
    return cache.logged.size() == 1 && cache.logged[0].old_value == static_cast<Animal*>(&a) &&
           cache.in_unit.load() == 0;
  };
  CHECK(logs([&](auto& p) { p = &b; }));
  CHECK(logs([&](auto& p) { p = nullptr; }));
  CHECK(logs([&](auto& p) { p = source; }));
  CHECK(logs([&](auto& p) { p = same_type; }));

  struct {
    std::size_t count = 1;
    int elements[2] = {};
  } cells[2];
  gc::array<int> array = gc::array<int>::from_data(cells[0].elements);
  const gc::array<int> other = gc::array<int>::from_data(cells[1].elements);
  const gc::array<int> none;
  FakeCache cache(1);
  cache.watch(array);
  array = other;
  array = none;
  REQUIRE(cache.logged.size() == 2);
  CHECK(cache.logged[0].old_value == cells[0].elements);
  CHECK(cache.logged[0].new_value == cells[1].elements);
  CHECK(cache.logged[0].in_slot == cells[0].elements);
  CHECK(cache.logged[1].old_value == cells[1].elements);
  CHECK(cache.logged[1].new_value == nullptr);
}

TEST_CASE("reading a ptr passes no barrier") {
  Dog dog;
  const gc::ptr<Dog> p = &dog;
  const gc::array<int> a;
  FakeCache cache(1);
  Dog* const raw = p;
  CHECK(raw == p.get());
  CHECK(p->legs == (*p).legs);
  CHECK(p != nullptr);
  CHECK(a.size() == 0);
  CHECK(cache.logged.empty());
}

TEST_CASE("a stop that came during a store parks the thread once the store is done") {
  for (const std::uint8_t armed : {0, 1}) {
    Dog dog;
    gc::ptr<Dog> p;
    FakeCache cache(armed);
    cache.watch(p);
    cache.stop_note.store(1, std::memory_order_relaxed);
    p = &dog;
    CHECK(cache.parked == 1);
    CHECK_FALSE(cache.parked_in_unit);
    CHECK(cache.held_when_parked == &dog);
    CHECK(cache.logged.size() == armed);
    p = nullptr;
    CHECK(cache.parked == 1);
  }
}
