#include <tricolor/make.h>

#include <sys/resource.h>
#include <tricolor/gc.h>

#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <random>
#include <set>
#include <stdexcept>
#include <vector>

#include "test/gc/support.h"

using namespace tricolor::test;

namespace {

struct Legacy {
  std::uintptr_t words[6] = {};
};

struct Refused : std::runtime_error {
  Refused() : std::runtime_error("refused") {}
};

template <std::size_t kBytes>
struct PlainThrower {
  explicit PlainThrower(bool refuse) {
    std::memset(bytes, 0x77, kBytes);
    if (refuse) throw Refused();
  }
  char bytes[kBytes];
};

struct TinyThrower {
  explicit TinyThrower(bool refuse, std::uint32_t v = 0) : value(v) {
    if (refuse) throw Refused();
  }
  std::uint32_t value;
};

}  // namespace

template <>
inline constexpr bool tricolor::conservative<Legacy> = true;
template <std::size_t kBytes>
inline constexpr bool tricolor::pointer_free<PlainThrower<kBytes>> = true;
template <>
inline constexpr bool tricolor::pointer_free<TinyThrower> = true;

namespace {

std::uintptr_t address(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }

// Memory as it is, whatever the language says of objects whose constructor wrote nothing.
[[gnu::noinline]] bool all_zero(const void* begin, std::size_t bytes) {
  asm volatile("" : "+r"(begin) : : "memory");
  for (std::size_t i = 0; i < bytes; ++i) {
    if (static_cast<const volatile unsigned char*>(begin)[i] != 0) return false;
  }
  return true;
}

[[gnu::noinline]] void fill(void* begin, std::size_t bytes, unsigned char with) {
  std::memset(begin, with, bytes);
  asm volatile("" : : "r"(begin) : "memory");
}

std::size_t cell_bytes(const void* p) {
  return tricolor::impl::find_cell(tricolor::impl::Heap::existing()->allocator().map, address(p))
      .bytes();
}

template <std::size_t kAlign, bool kPointers>
struct alignas(kAlign) Aligned {
  std::uint64_t value = 0;
  static constexpr bool has_pointers = false;
};
template <std::size_t kAlign>
struct alignas(kAlign) Aligned<kAlign, true> {
  gc::ptr<Aligned> next;
  std::uint64_t value = 0;
};

template <std::size_t kAlign, bool kPointers>
void check_alignment() {
  using T = Aligned<kAlign, kPointers>;
  INFO(kAlign << (kPointers ? " with pointers" : " without pointers"));
  std::vector<gc::root<T>> kept;
  std::set<std::uintptr_t> addresses;
  for (std::uint64_t i = 0; i < 100; ++i) {
    T* const object = gc::make<T>();
    CHECK(address(object) % kAlign == 0);
    object->value = i;
    if constexpr (kPointers) object->next = object;
    kept.emplace_back(object);
    addresses.insert(address(object));
    if (i == 50) collect();
  }
  CHECK(addresses.size() == 100);
  for (std::uint64_t i = 0; i < 100; ++i) CHECK(kept[i]->value == i);

  for (const std::size_t n : {0u, 1u, 3u, 10u}) {
    const gc::array<T> array = gc::make_array<T>(n);
    CHECK(array.size() == n);
    CHECK(address(array.data()) % kAlign == 0);
    if (n != 0) CHECK(address(&array[n - 1]) % kAlign == 0);
    T* const extra = gc::make_extra<T>(n);
    CHECK(address(extra) % kAlign == 0);
    CHECK(gc::extra(extra).size() == n);
  }
}

}  // namespace

TEST_CASE("alignof is honoured up to a page, alone, in arrays and with trailing storage") {
  check_alignment<8, false>();
  check_alignment<16, false>();
  check_alignment<32, false>();
  check_alignment<64, false>();
  check_alignment<128, false>();
  check_alignment<256, false>();
  check_alignment<512, false>();
  check_alignment<1024, false>();
  check_alignment<2048, false>();
  check_alignment<4096, false>();
  check_alignment<8192, false>();
  check_alignment<16, true>();
  check_alignment<32, true>();
  check_alignment<64, true>();
  check_alignment<128, true>();
  check_alignment<256, true>();
  check_alignment<512, true>();
  check_alignment<1024, true>();
  check_alignment<2048, true>();
  check_alignment<4096, true>();
  check_alignment<8192, true>();
}

// ---------------------------------------------------------------------------------------- arguments

namespace {

struct MoveOnly {
  explicit MoveOnly(int v) : value(v) {}
  MoveOnly(MoveOnly&& other) noexcept : value(std::exchange(other.value, 0)) {}
  int value;
};
struct Takes {
  Takes(int& reference, MoveOnly&& moved, Node* node) : in(std::move(moved)), to(node) {
    ++reference;
  }
  MoveOnly in;
  gc::ptr<Node> to;
  static constexpr auto gc_fields = gc::fields(&Takes::to);
};
struct Plain {
  gc::ptr<Node> node;
  int number;
};

}  // namespace

TEST_CASE("arguments are forwarded, and an aggregate takes its members") {
  int counter = 0;
  Node* const node = make_node(1);
  Takes* const takes = gc::make<Takes>(counter, MoveOnly(5), node);
  CHECK(counter == 1);
  CHECK(takes->in.value == 5);
  CHECK(takes->to == node);
  const Plain* const plain = gc::make<Plain>(node, 7);
  CHECK(plain->node == node);
  CHECK(plain->number == 7);
  CHECK(*gc::make<int>(3) == 3);
  CHECK(*gc::make<const double>(2.5) == 2.5);
  CHECK(*gc::make<int>() == 0);
  CHECK(*gc::make<gc::ptr<Node>>(node) == node);
}

// ------------------------------------------------------------------------------------- zeroed memory

namespace {

// Constructors that write nothing show what the memory was.
template <std::size_t kWords>
struct Lazy {
  Lazy() {}
  gc::ptr<Lazy> next;
  std::uint64_t words[kWords];
  static constexpr auto gc_fields = gc::fields(&Lazy::next);
};

template <class T>
std::set<std::uintptr_t> make_dirty(int count) {
  collect();  // the lowest free memory, which is taken first, is then the same both times
  std::set<std::uintptr_t> seen;
  on_thread([&] {
    for (int i = 0; i < count; ++i) {
      T* const object = gc::make<T>();
      seen.insert(~address(object));
      fill(&object->words, sizeof object->words, 0xa5);
    }
  });
  collect();
  return seen;
}

template <class T>
void check_reused_is_zero(int count) {
  const std::set<std::uintptr_t> before = make_dirty<T>(count);
  int reused = 0;
  for (int i = 0; i < count; ++i) {
    T* const object = gc::make<T>();
    reused += static_cast<int>(before.count(~address(object)));
    if (!all_zero(object, sizeof(T))) FAIL("not zero: " << i);
    fill(&object->words, sizeof object->words, 0x5a);
  }
  INFO(sizeof(T));
  CHECK(reused > 0);
  collect();
}

}  // namespace

TEST_CASE(
    "the memory of a type with pointers is zero when its constructor starts, also when it is used "
    "again") {
  check_reused_is_zero<Lazy<1>>(5'000);
  check_reused_is_zero<Lazy<2>>(5'000);
  check_reused_is_zero<Lazy<7>>(5'000);
  check_reused_is_zero<Lazy<100>>(1'000);
  check_reused_is_zero<Lazy<3'000>>(100);
  check_reused_is_zero<Lazy<10'000>>(30);  // large
}

TEST_CASE("memory that has been used by another type is zero for a type with pointers") {
  for (int round = 0; round < 3; ++round) {
    on_thread([&] {
      for (int i = 0; i < 2'000; ++i) {
        const auto bytes =
            gc::make_array_for_overwrite<unsigned char>(static_cast<std::size_t>(i) * 8);
        fill(bytes.data(), bytes.size(), 0xff);
      }
    });
    collect();
    for (int i = 0; i < 2'000; ++i) {
      const auto* const small = gc::make<Lazy<5>>();
      if (!all_zero(small, sizeof *small)) FAIL("small");
    }
    for (int i = 0; i < 20; ++i) {
      const auto* const large = gc::make<Lazy<6'000>>();
      if (!all_zero(large, sizeof *large)) FAIL("large");
    }
    collect();
  }
}

TEST_CASE(
    "a value-initialised array is zero, also of pointer-free elements in memory that was used") {
  for (int round = 0; round < 3; ++round) {
    for (const std::size_t n : {1u, 5u, 100u, 1'000u, 50'000u}) {
      on_thread([&] {
        for (int i = 0; i < 50; ++i) {
          const auto dirty = gc::make_array_for_overwrite<std::uint32_t>(n);
          fill(dirty.data(), n * 4, 0xee);
        }
      });
      collect();
      for (int i = 0; i < 50; ++i) {
        const auto numbers = gc::make_array<std::uint32_t>(n);
        if (!all_zero(numbers.data(), n * 4)) FAIL("numbers " << n);
        const auto pointers = gc::make_array<gc::ptr<Node>>(n);
        if (!all_zero(pointers.data(), n * 8)) FAIL("pointers " << n);
      }
    }
  }
}

// ---------------------------------------------------------------------------- constructors that throw

namespace {

template <std::size_t kBytes>
struct Thrower {
  explicit Thrower(bool refuse) {
    self = this;
    std::memset(bytes, 0x77, kBytes);
    if (refuse) throw Refused();
  }
  gc::ptr<Thrower> self;
  char bytes[kBytes];
  static constexpr auto gc_fields = gc::fields(&Thrower::self);
};

// Makes another of its kind first; throws at the depths whose bit is set.
struct Nested {
  Nested(int depth, unsigned throw_at) : number(depth) {
    if (depth > 0) {
      try {
        inner = gc::make<Nested>(depth - 1, throw_at);
      } catch (const Refused&) {
      }
    }
    if ((throw_at >> depth & 1) != 0) throw Refused();
  }
  gc::ptr<Nested> inner;
  int number;
  static constexpr auto gc_fields = gc::fields(&Nested::inner);
};

template <class T>
void check_no_leak(int times) {
  const std::uint64_t before = gc::stats().allocated_bytes_total - gc::stats().freed_bytes_total;
  int caught = 0;
  for (int i = 0; i < times; ++i) {
    try {
      gc::make<T>(true);
    } catch (const Refused&) {
      ++caught;
    }
  }
  CHECK(caught == times);
  const std::uint64_t after = gc::stats().allocated_bytes_total - gc::stats().freed_bytes_total;
  CHECK(after <= before + (64 << 10));
  const T* const good = gc::make<T>(false);
  CHECK(good->bytes[0] == 0x77);
}

}  // namespace

TEST_CASE("a cell whose constructor throws is given back: 100000 of them leak nothing") {
  check_no_leak<Thrower<24>>(100'000);
  check_no_leak<Thrower<1'000>>(100'000);
  check_no_leak<PlainThrower<100>>(100'000);
  check_no_leak<PlainThrower<8>>(100'000);
}

TEST_CASE("a large object whose constructor throws goes with the next collection") {
  const auto live = [] { return gc::stats().heap_live_bytes; };
  collect();
  const std::uint64_t before = live();
  for (int i = 0; i < 100; ++i) CHECK_THROWS_AS(gc::make<Thrower<100'000>>(true), Refused);
  collect();
  CHECK(live() < before + (1 << 20));
}

namespace {

struct Witness {
  Witness() {}
  gc::ptr<Witness> self;
  char bytes[56];
  static constexpr auto gc_fields = gc::fields(&Witness::self);
};

}  // namespace

TEST_CASE("the memory of an object whose constructor threw is zero for the next one") {
  for (int i = 0; i < 1'000; ++i) {
    CHECK_THROWS_AS(gc::make<Thrower<56>>(true), Refused);
    const auto* const next = gc::make<Witness>();
    if (!all_zero(next, sizeof *next)) FAIL(i);
  }
}

TEST_CASE("constructors that throw inside of constructors give back their own cells only") {
  std::vector<gc::root<Nested>> kept;
  for (unsigned pattern = 0; pattern < 2'000; ++pattern) {
    try {
      kept.emplace_back(gc::make<Nested>(5, pattern % 64));
    } catch (const Refused&) {
    }
    if (pattern % 100 == 0) collect();
  }
  collect();
  std::size_t objects = 0;
  for (const auto& root : kept) {
    CHECK(root->number == 5);
    for (const Nested* n = root; n != nullptr; n = n->inner) {
      if (n->inner && n->inner->number != n->number - 1) FAIL("an object was overwritten");
      ++objects;
    }
  }
  CHECK(objects >= 1'000);
}

namespace {

struct Twice {
  explicit Twice(int depth) {
    if (depth == 0) return;
    if (depth == 2) {
      try {
        gc::make<Twice>(1);
      } catch (const Refused&) {
      }
    }
    throw Refused();
  }
  gc::ptr<Twice> next;
  std::uint64_t value = 0;
  static constexpr auto gc_fields = gc::fields(&Twice::next);
};

}  // namespace

TEST_CASE(
    "two constructors that throw where one span ends and the next one begins leave the heap in "
    "order") {
  // Every place of the boundary is met: one object more is kept each time.
  on_thread([] {
    gc::root<Twice> list;
    constexpr std::uint64_t kCount = 1'200;  // more than two spans
    for (std::uint64_t i = 0; i < kCount; ++i) {
      CHECK_THROWS_AS(gc::make<Twice>(2), Refused);
      gc::collect();
      Twice* const kept = gc::make<Twice>(0);
      kept->value = i;
      kept->next = list;
      list = kept;
    }
    std::uint64_t expected = kCount;
    for (const Twice* t = list; t != nullptr; t = t->next) {
      if (t->value != --expected) FAIL("an object was overwritten");
    }
    CHECK(expected == 0);
  });
}

TEST_CASE("a tiny object whose constructor throws leaves its neighbours in the block alone") {
  std::vector<gc::root<TinyThrower>> kept;
  for (std::uint32_t i = 0; i < 3'000; ++i) {
    if (i % 3 != 2) {
      kept.emplace_back(gc::make<TinyThrower>(false, i));
    } else {
      CHECK_THROWS_AS(gc::make<TinyThrower>(true, i), Refused);
    }
    // Objects of 16 bytes that would get the block if it was given back.
    if (i % 5 == 0) fill(gc::make<std::array<char, 16>>(), 16, 0xbb);
  }
  collect();
  for (int i = 0; i < 3'000; ++i) fill(gc::make<std::array<char, 16>>(), 16, 0xcc);
  std::uint32_t expected = 0;
  for (const auto& object : kept) {
    if (object->value != expected) FAIL("object " << expected << " is " << object->value);
    expected += expected % 3 == 1 ? 2 : 1;
  }
}

TEST_CASE("tiny objects whose constructors throw do not leak") {
  const std::uint64_t before = gc::stats().allocated_bytes_total - gc::stats().freed_bytes_total;
  for (int i = 0; i < 100'000; ++i) CHECK_THROWS_AS(gc::make<TinyThrower>(true), Refused);
  const std::uint64_t after = gc::stats().allocated_bytes_total - gc::stats().freed_bytes_total;
  // A block may be lost to an exception until the next collection; four tiny objects share one.
  CHECK(after <= before + 100'000 * 4 + (64 << 10));
}

namespace {

// The cycle is not forced, so nothing is swept when the cell comes back.
struct Late {
  Late() {
    const std::uint64_t cycles = gc::stats().cycles_total;
    while (gc::stats().cycles_total == cycles) gc::make_array<char>(100'000);
    throw Refused();
  }
  gc::ptr<Late> self;
  std::uint64_t more[3];
  static constexpr auto gc_fields = gc::fields(&Late::self);
};

}  // namespace

TEST_CASE("a constructor may wait for a collection that comes by itself, and then throw") {
  const int percent = gc::set_percent(10);
  for (int i = 0; i < 20; ++i) {
    CHECK_THROWS_AS(gc::make<Late>(), Refused);
    if (i % 4 == 0) collect();
  }
  collect();
  gc::set_percent(percent);
}

// -------------------------------------------------------------------------------------------- arrays

namespace {

struct Counted {
  Counted() : number(++made), node(make_node(static_cast<std::uint64_t>(made))) {
    if (made == throw_at) throw Refused();
  }
  static inline int made = 0;
  static inline int throw_at = 0;
  int number;
  gc::ptr<Node> node;
  static constexpr auto gc_fields = gc::fields(&Counted::node);
};

}  // namespace

TEST_CASE("arrays have the asked number of value-initialised elements, in place and apart") {
  for (const std::size_t n : {0u, 1u, 2u, 7u, 100u, 4'095u, 4'096u, 100'000u}) {
    INFO(n);
    const auto a = gc::make_array<std::uint64_t>(n);
    const auto b = gc::make_array<std::uint64_t>(n);
    CHECK(a);
    CHECK(a.size() == n);
    CHECK(a.empty() == (n == 0));
    CHECK(static_cast<std::size_t>(a.end() - a.begin()) == n);
    CHECK(a.span().size() == n);
    CHECK_FALSE(a == b);
    CHECK(all_zero(a.data(), n * 8));
    for (std::uint64_t& word : a.span()) word = 1;
    CHECK(all_zero(b.data(), n * 8));
    CHECK(b.size() == n);
    CHECK(address(a.end()) < address(a.data()) - 8 + cell_bytes(a.data()));
  }
  const gc::array<int> none;
  CHECK_FALSE(none);
  CHECK(none.size() == 0);
  CHECK(none.begin() == none.end());
}

TEST_CASE(
    "elements with constructors are constructed in order, and the collector knows their pointers") {
  Counted::made = 0;
  Counted::throw_at = 0;
  const gc::root<Counted> kept = gc::make_array<Counted>(2'000).data();
  collect();
  for (int i = 0; i < 2'000; ++i) {
    const Counted& element = kept.get()[i];
    CHECK(element.number == i + 1);
    CHECK(intact(element.node, static_cast<std::uint64_t>(i + 1)));
  }
}

TEST_CASE("an element constructor that throws gives the array back and lets the exception pass") {
  const auto used = [] {
    return gc::stats().allocated_bytes_total - gc::stats().freed_bytes_total;
  };
  for (const int at : {1, 50, 100}) {
    Counted::made = 0;
    Counted::throw_at = at;
    CHECK_THROWS_AS(gc::make_array<Counted>(100), Refused);
    CHECK(Counted::made == at);
  }
  Counted::throw_at = 1;
  const std::uint64_t before = used();
  for (int i = 0; i < 10'000; ++i) {
    Counted::made = 0;
    CHECK_THROWS_AS(gc::make_array<Counted>(100), Refused);
  }
  collect();
  CHECK(used() <= before + (256 << 10));
  Counted::throw_at = 0;
}

TEST_CASE(
    "sizes that overflow are bad_array_new_length, and sizes that no machine has are bad_alloc") {
  constexpr std::size_t kMax = std::numeric_limits<std::size_t>::max();
  CHECK_THROWS_AS(gc::make_array<int>(kMax), std::bad_array_new_length);
  CHECK_THROWS_AS(gc::make_array<int>(kMax / 2), std::bad_array_new_length);
  CHECK_THROWS_AS(gc::make_array<int>(kMax / 4), std::bad_array_new_length);
  CHECK_THROWS_AS(gc::make_array<int>(kMax / 4 + 2), std::bad_array_new_length);
  CHECK_THROWS_AS(gc::make_array<char>(kMax), std::bad_array_new_length);
  CHECK_THROWS_AS(gc::make_array<char>(kMax / 2), std::bad_array_new_length);
  CHECK_THROWS_AS(gc::make_array<gc::ptr<Node>>(kMax / 8), std::bad_array_new_length);
  CHECK_THROWS_AS(gc::make_array_for_overwrite<int>(kMax / 2), std::bad_array_new_length);
  CHECK_THROWS_AS((gc::make_array<Aligned<8192, false>>(kMax / 8192)), std::bad_array_new_length);
  CHECK_THROWS_AS(gc::make_extra<Node>(kMax), std::bad_array_new_length);
  CHECK_THROWS_AS(gc::make_extra<Node>(kMax / 2), std::bad_array_new_length);

  CHECK_THROWS_AS(gc::make_array<char>(kMax / 2 - 64), std::bad_alloc);
  CHECK_THROWS_AS(gc::make_array<char>(kMax / 4), std::bad_alloc);
  CHECK_THROWS_AS(gc::make_array<gc::ptr<Node>>(std::size_t{1} << 50), std::bad_alloc);
  CHECK_THROWS_AS(gc::make_array<char>(std::size_t{1} << 47), std::bad_alloc);
  CHECK_THROWS_AS(gc::make_extra<Node>(std::size_t{1} << 62), std::bad_alloc);
  CHECK(intact(make_node(4), 4));
}

TEST_CASE("an array for overwriting holds what is written") {
  for (const std::size_t n : {0u, 1u, 1'000u, 1'000'000u}) {
    const auto a = gc::make_array_for_overwrite<int>(n);
    CHECK(a.size() == n);
    for (std::size_t i = 0; i < n; ++i) a[i] = static_cast<int>(i);
    gc::root<int> kept = a.data();
    collect();
    for (std::size_t i = 0; i < n; ++i) {
      if (a[i] != static_cast<int>(i)) FAIL(i);
    }
  }
}

// ---------------------------------------------------------------------------------- trailing storage

namespace {

struct String {
  std::uint32_t hash = 0;
};
struct Closure {
  explicit Closure(std::uint64_t c = 0) : code(c) {}
  std::uint64_t code;
  gc::ptr<Node> environment;
  static constexpr auto gc_fields =
      gc::fields(&Closure::environment, gc::trailing<gc::ptr<Node>>{});
};
struct alignas(64) Wide {
  char byte = 1;
};

}  // namespace

TEST_CASE(
    "trailing storage has exactly the asked size, is zero, is not the object's, and lies inside "
    "the cell") {
  for (std::size_t bytes = 0; bytes < 3'000; bytes = bytes < 100 ? bytes + 1 : bytes + 37) {
    INFO(bytes);
    String* const s = gc::make_extra<String>(bytes, String{5});
    const std::span<std::byte> extra = gc::extra(s);
    CHECK(extra.size() == bytes);
    CHECK(all_zero(extra.data(), bytes));
    CHECK(address(extra.data()) >= address(s) + sizeof(String));
    CHECK(address(extra.data()) % alignof(String) == 0);
    CHECK(address(extra.data()) + bytes < address(s) + cell_bytes(s));
    fill(extra.data(), bytes, 0xab);
    CHECK(s->hash == 5);
    CHECK(gc::extra(s).size() == bytes);
  }
  for (const std::size_t bytes : {32'000u, 32'768u, 1u << 20}) {
    String* const s = gc::make_extra<String>(bytes);
    CHECK(gc::extra(s).size() == bytes);
    CHECK(all_zero(gc::extra(s).data(), bytes));
    fill(gc::extra(s).data(), bytes, 0xab);
  }
  Wide* const wide = gc::make_extra<Wide>(10);
  CHECK(address(wide) % 64 == 0);
  CHECK(gc::extra(wide).size() == 10);
}

TEST_CASE("trailing storage is zero where it was used before") {
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 2'000; ++i) {
      String* const s = gc::make_extra<String>(100);
      if (!all_zero(gc::extra(s).data(), 100)) FAIL("round " << round);
      fill(gc::extra(s).data(), 100, 0xff);
    }
    collect();
  }
}

TEST_CASE("references in trailing storage keep what they refer to, all of them") {
  gc::root<Closure> kept;
  std::vector<Hidden> notes;
  constexpr std::size_t kMany = 3'000;
  for (const std::size_t n :
       {std::size_t{0}, std::size_t{1}, std::size_t{5}, std::size_t{60}, kMany}) {
    INFO(n);
    notes.clear();
    on_thread([&] {
      kept = gc::make_extra<Closure>(n * sizeof(gc::ptr<Node>), 99);
      CHECK(kept->code == 99);
      kept->environment = make_node(0);
      notes.emplace_back(kept->environment);
      auto* const slots = reinterpret_cast<gc::ptr<Node>*>(gc::extra(kept.get()).data());
      for (std::size_t i = 0; i < n; ++i) {
        slots[i] = make_node(i);
        notes.emplace_back(slots[i]);
      }
    });
    collect();
    CHECK(count_alive(notes) == n + 1);
    kept = nullptr;
    collect();
    CHECK(count_alive(notes) == 0);
  }
}

// ------------------------------------------------------------------------------------- small objects

TEST_CASE("tiny objects share blocks and each survives alone") {
  std::vector<gc::root<std::uint32_t>> numbers;
  std::vector<gc::root<char>> letters;
  std::set<std::uintptr_t> blocks;
  for (std::uint32_t i = 0; i < 4'000; ++i) {
    std::uint32_t* const number = gc::make<std::uint32_t>(i);
    char* const letter = gc::make<char>(static_cast<char>(i));
    CHECK(address(number) % alignof(std::uint32_t) == 0);
    blocks.insert(~(address(number) / 16));
    blocks.insert(~(address(letter) / 16));
    if (i % 4 == 0) {
      numbers.emplace_back(number);
      letters.emplace_back(letter);
    }
  }
  CHECK(blocks.size() < 6'000);  // 8000 objects, so blocks are shared
  collect();
  for (int i = 0; i < 10'000; ++i) gc::make<std::uint32_t>(0xffffffff);
  for (std::uint32_t i = 0; i < 1'000; ++i) {
    if (*numbers[i] != 4 * i) FAIL("number " << i);
    if (*letters[i] != static_cast<char>(4 * i)) FAIL("letter " << i);
  }
}

TEST_CASE("objects of every small size keep their content and overlap nobody") {
  const auto seed = test_seed();
  INFO("TRICOLOR_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  struct Piece {
    gc::root<unsigned char> data;
    std::size_t size;
    unsigned char content;
  };
  std::vector<Piece> pieces;
  const auto check = [](const Piece& p) {
    for (std::size_t i = 0; i < p.size; ++i) {
      if (p.data.get()[i] != p.content) FAIL("size " << p.size << " at " << i);
    }
  };
  for (int i = 0; i < 10'000; ++i) {
    const std::size_t size = random() % (random() % 50 == 0 ? 70'000 : 600);
    const auto content = static_cast<unsigned char>(random());
    const auto array = gc::make_array_for_overwrite<unsigned char>(size);
    std::memset(array.data(), content, size);
    pieces.push_back({gc::root<unsigned char>(array.data()), size, content});
    if (pieces.size() > 1'500) {
      const std::size_t victim = random() % pieces.size();
      check(pieces[victim]);
      std::swap(pieces[victim], pieces.back());
      pieces.pop_back();
    }
    if (i % 1'000 == 999) collect();
  }
  for (const Piece& piece : pieces) check(piece);
}

TEST_CASE("pointer-free objects are not read for references") {
  Hidden hidden;
  gc::root<std::uintptr_t> holder;
  on_thread([&] {
    hidden = Hidden(make_node(3));
    const auto words = gc::make_array<std::uintptr_t>(4);
    words[1] = hidden.address();
    holder = words.data();
  });
  collect();
  CHECK_FALSE(alive(hidden));
  CHECK(holder.get()[1] == hidden.address());
  holder.get()[1] = 0;
}

TEST_CASE("a class that asks for it is read word by word, and statistics count it") {
  std::vector<Hidden> notes;
  gc::root<Legacy> kept;
  on_thread([&] {
    kept = gc::make<Legacy>();
    for (std::uintptr_t& word : kept->words) {
      const Node* const node = make_node(3);
      notes.emplace_back(node);
      word = reinterpret_cast<std::uintptr_t>(&node->value);
    }
  });
  collect();
  CHECK(count_alive(notes) == std::size(kept->words));
  CHECK(gc::stats().conservative_cells_count == 1);
  kept = nullptr;
  collect();
  CHECK(count_alive(notes) == 0);
  CHECK(gc::stats().conservative_cells_count == 0);
}

TEST_CASE("the address of a dead object is given out again") {
  std::set<std::uintptr_t> first;
  on_thread([&] {
    for (int i = 0; i < 1'000; ++i) first.insert(~address(make_node(1)));
  });
  collect();
  int again = 0;
  on_thread([&] {
    for (int i = 0; i < 1'000; ++i) again += static_cast<int>(first.count(~address(make_node(2))));
  });
  CHECK(again > 500);
}

// ------------------------------------------------------------------------------- fresh memory

namespace {

struct Constructed {
  Constructed() : value(1) {}
  gc::ptr<Constructed> first, second;
  std::uint64_t value;
  std::uint64_t more[5];
  static constexpr auto gc_fields = gc::fields(&Constructed::first, &Constructed::second);
};

long page_faults() {
  rusage usage;
  return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_minflt : 0;
}

}  // namespace

TEST_CASE("child makes objects in fresh memory", "[.child]") {
  gc::set_percent(-1);
  constexpr long kObjects = 1'000'000;
  const long before = page_faults();
  for (long i = 0; i < kObjects; ++i) gc::make<Constructed>();
  const long pages = kObjects * long{sizeof(Constructed)} / 4096;
  CHECK(page_faults() - before < pages * 3 / 2);
}

TEST_CASE("constructors do not make the kernel map a page twice", "[process]") {
  if (kShadowMemory) return;  // which has faults of its own
  const ProgramEnd end = run_program("child makes objects in fresh memory");
  INFO(end.output);
  CHECK(end.exit_code == 0);
}
