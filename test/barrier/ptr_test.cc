#include <tricolor/ptr.h>

#include <tricolor/array.h>
#include <tricolor/atomic_ptr.h>
#include <tricolor/bulk.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <compare>
#include <cstddef>
#include <functional>
#include <optional>
#include <set>
#include <span>
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
  explicit FakeCache(std::uint8_t is_armed, std::size_t room = 16)
      : words(room), x_before(std::exchange(current_cache, this)) {
    armed.store(is_armed, std::memory_order_relaxed);
    log_next.store(words.data(), std::memory_order_relaxed);
    log_end = words.data() + room;
    flush_log = [](thread_cache& cache) {
      FakeCache& self = static_cast<FakeCache&>(cache);
      self.flushed_in_unit = cache.in_unit.load(std::memory_order_relaxed) != 0;
      self.held_when_flushed = self.slot == nullptr ? nullptr : *self.slot;
      ++self.flushed;
      cache.log_next.store(self.words.data(), std::memory_order_relaxed);
      if (self.ends_at_flush) cache.armed.store(0, std::memory_order_relaxed);
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

  // What has been logged since the last call.
  std::vector<const void*> take_log() {
    std::vector<const void*> logged;
    for (std::uintptr_t* word = words.data(); word != log_next.load(std::memory_order_relaxed);
         ++word)
      logged.push_back(reinterpret_cast<const void*>(*word));
    log_next.store(words.data(), std::memory_order_relaxed);
    return logged;
  }

  std::vector<std::uintptr_t> words;
  int flushed = 0;
  bool flushed_in_unit = false;
  bool ends_at_flush = false;  // the cycle
  void* held_when_flushed = nullptr;
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

using Words = std::vector<const void*>;

TEST_CASE("without a cycle a store logs nothing") {
  FakeCache cache(0);
  Dog dog;
  gc::ptr<Dog> p;
  p = &dog;
  p = nullptr;
  gc::array<int> a;
  a = nullptr;
  CHECK(cache.take_log().empty());
  CHECK(cache.parked == 0);
  CHECK(cache.in_unit.load() == 0);
}

TEST_CASE("an armed store logs the old and the new value, but no nulls") {
  Dog first, second;
  gc::ptr<Dog> p = &first;
  FakeCache cache(1);
  p = &second;
  CHECK(cache.take_log() == Words{&first, &second});
  CHECK(cache.in_unit.load() == 0);
  CHECK(p == &second);
  p = nullptr;
  CHECK(cache.take_log() == Words{&second});
  p = nullptr;
  CHECK(cache.take_log().empty());
}

TEST_CASE("a full log is flushed between two units, before the store") {
  Dog first, second, third;
  gc::ptr<Dog> p = &first;
  FakeCache cache(1, 3);
  cache.watch(p);
  p = &second;
  p = &third;
  CHECK(cache.flushed == 1);
  CHECK_FALSE(cache.flushed_in_unit);
  CHECK(cache.held_when_flushed == &second);
  CHECK(cache.take_log() == Words{&second, &third});
  CHECK(p == &third);

  cache.log_next.store(cache.log_end, std::memory_order_relaxed);
  cache.ends_at_flush = true;
  p = &first;
  CHECK(cache.flushed == 2);
  CHECK(cache.take_log().empty());
  CHECK(p == &first);
  CHECK(cache.in_unit.load() == 0);
}

TEST_CASE("every way to assign to a ptr or an array passes the barrier") {
  Dog a, b;
  const gc::ptr<Dog> source = &b;
  const gc::ptr<const Animal> same_type = &b;
  const auto logs = [&](auto&& store) {
    gc::ptr<const Animal> p = &a;
    FakeCache cache(1);
    store(p);
    const Words logged = cache.take_log();
    return !logged.empty() && logged[0] == static_cast<Animal*>(&a) && cache.in_unit.load() == 0;
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
  array = other;
  CHECK(cache.take_log() == Words{cells[0].elements, cells[1].elements});
  array = none;
  CHECK(cache.take_log() == Words{cells[1].elements});
}

TEST_CASE("a constructor logs the word that it overwrites, and only that") {
  Dog a, b;
  alignas(gc::ptr<Dog>) unsigned char memory[sizeof(gc::ptr<Dog>)] = {};
  auto* const p = ::new (memory) gc::ptr<Dog>(&a);
  FakeCache cache(1);
  ::new (memory) gc::ptr<Dog>(&b);
  CHECK(cache.take_log() == Words{&a});
  CHECK(p->get() == &b);
  ::new (memory) gc::ptr<Dog>();
  CHECK(cache.take_log() == Words{&b});
  ::new (memory) gc::ptr<Dog>(&a);  // over null
  CHECK(cache.take_log().empty());

  std::optional<gc::ptr<Dog>> field(std::in_place, &a);
  cache.take_log();
  field.reset();
  field.emplace(&b);
  CHECK(cache.take_log() == Words{&a});
  CHECK(cache.in_unit.load() == 0);
}

TEST_CASE("an atomic_ptr exchanges and compares, and logs both words of what it changes") {
  Dog a, b, c;
  gc::atomic_ptr<Dog> p(&a);
  FakeCache cache(1);
  CHECK(p.exchange(&b) == &a);
  CHECK(cache.take_log() == Words{&b, &a});
  Dog* expected = &a;
  CHECK_FALSE(p.compare_exchange_strong(expected, &c));
  CHECK(expected == &b);
  cache.take_log();  // a failure may shade too much
  CHECK(p.compare_exchange_weak(expected, &c));
  CHECK(cache.take_log() == Words{&c, &b});
  p.store(nullptr);
  CHECK(cache.take_log() == Words{&c});
  p.store(&a, std::memory_order_release);
  CHECK(cache.take_log() == Words{&a});
  CHECK(p.load() == &a);
  CHECK(p.load(std::memory_order_relaxed) == &a);
  CHECK(cache.in_unit.load() == 0);

  cache.armed.store(0, std::memory_order_relaxed);
  CHECK(p.exchange(&b) == &a);
  expected = &b;
  CHECK(p.compare_exchange_strong(expected, &a));
  CHECK(cache.take_log().empty());
}

TEST_CASE("bulk operations store every word and log what they overwrite and store") {
  std::vector<Dog> dogs(200);
  for (const std::size_t room : {2, 7, 1000}) {
    std::vector<gc::ptr<Dog>> from(200), to(200);
    for (std::size_t i = 0; i < 200; ++i) from[i] = &dogs[i];
    FakeCache cache(1, room);
    gc::copy(std::span<const gc::ptr<Dog>>(from), to.data());
    if (room == 1000) {
      const Words logged = cache.take_log();
      CHECK(std::set<const void*>(logged.begin(), logged.end()).size() == 200);
    } else {
      CHECK(cache.flushed >= static_cast<int>(200 / room) - 1);
    }
    CHECK(std::equal(from.begin(), from.end(), to.begin()));
    // Overlapping, either way.
    gc::copy(std::span(to).first(150), to.data() + 50);
    CHECK(to[49] == &dogs[49]);
    CHECK(to[50] == &dogs[0]);
    CHECK(to[199] == &dogs[149]);
    gc::copy(std::span(to).last(150), to.data());
    CHECK(to[0] == &dogs[0]);
    CHECK(to[149] == &dogs[149]);
    gc::fill(std::span(to), from[7]);
    CHECK(std::count(to.begin(), to.end(), &dogs[7]) == 200);
    cache.take_log();
    gc::clear(std::span(to));
    CHECK(std::count(to.begin(), to.end(), nullptr) == 200);
    if (room == 1000) CHECK(cache.take_log() == Words(200, &dogs[7]));
    gc::release(from[0]);
    CHECK(from[0] == nullptr);
    CHECK(cache.in_unit.load() == 0);
  }
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
  CHECK(cache.take_log().empty());
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
    CHECK(cache.take_log().size() == armed);
    p = nullptr;
    CHECK(cache.parked == 1);
  }
}
