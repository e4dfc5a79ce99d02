#include <tricolor/root_range.h>

#include <sys/mman.h>
#include <sys/resource.h>
#include <tricolor/gc.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "test/gc/support.h"

using namespace tricolor::test;

namespace {

// Malloc memory, in which the collector does not look by itself.
struct Words {
  explicit Words(std::size_t count_) : count(count_), words(new Node* volatile[count_]()) {}
  Node* volatile& operator[](std::size_t i) { return words[i]; }
  Node* volatile* begin() const { return words.get(); }
  Node* volatile* end() const { return words.get() + count; }
  std::size_t count;
  std::unique_ptr<Node* volatile[]> words;
};

gc::root_range add(const Words& words, gc::range_kind kind) {
  return gc::add_root_range(const_cast<Node**>(words.begin()), const_cast<Node**>(words.end()),
                            kind);
}

}  // namespace

TEST_CASE("what a raw range refers to lives as long as it is registered") {
  Words words(100);
  Hidden object;
  gc::root_range range = add(words, gc::raw);
  on_thread([&] {
    Node* const node = make_node(7, make_node(8));
    words[42] = reinterpret_cast<Node*>(&node->value);  // inside it
    object = Hidden(node);
  });
  for (int i = 0; i < 3; ++i) collect();
  REQUIRE(alive(object));
  on_thread([&] {
    const auto* const node = reinterpret_cast<const Node*>(object.address());
    CHECK(intact(node, 7));
    CHECK(intact(node->next, 8));
  });
  gc::root_range moved = std::move(range);
  CHECK_FALSE(range);
  CHECK(moved);
  range.reset();
  collect();
  CHECK(alive(object));
  moved.reset();
  collect();
  CHECK_FALSE(alive(object));
}

TEST_CASE("a vector of gc::ptr in malloc memory keeps objects alive when it is registered") {
  std::vector<gc::ptr<Node>> table(1'000);
  std::vector<Hidden> objects;
  gc::root_range range =
      gc::add_root_range(table.data(), table.data() + table.size(), gc::barriered);
  on_thread([&] {
    for (std::size_t i = 0; i < table.size(); ++i) {
      table[i] = make_node(i);
      objects.emplace_back(table[i]);
    }
  });
  collect();
  CHECK(count_alive(objects) == objects.size());
  for (std::size_t i = 0; i < table.size(); ++i) CHECK(intact(table[i], i));
  for (std::size_t i = 500; i < table.size(); ++i) table[i] = nullptr;
  collect();
  CHECK(count_alive(objects) <= 502);
  CHECK(count_alive(objects) >= 500);
  range.reset();
  collect();
  CHECK(count_alive(objects) <= 2);
}

TEST_CASE("a raw range may hold as many references as it has words") {
  Words words(300'000);
  const gc::root_range range = add(words, gc::raw);
  on_thread([&] {
    for (std::size_t i = 0; i < words.count; ++i) words[i] = make_node(i);
  });
  for (int i = 0; i < 3; ++i) {
    collect();
    for (std::size_t n = 0; n < words.count; n += 997) CHECK(intact(words[n], n));
  }
}

namespace {

// A value stack with its top, which is in a mapping of its own.
struct Stack {
  explicit Stack(std::size_t count) : words(count) {
    top = static_cast<Node***>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    raise(0);
  }
  ~Stack() { munmap(top, 4096); }
  Node** begin() const { return const_cast<Node**>(words.begin()); }
  Node** end() const { return const_cast<Node**>(words.end()); }
  gc::root_range add() { return gc::add_stack(begin(), end(), top); }
  gc::root_range add_without_end() { return gc::add_stack(begin(), top); }
  void raise(std::ptrdiff_t count) { __atomic_store_n(top, begin() + count, __ATOMIC_RELAXED); }
  // Nobody can read it any more.
  void drop_top() { mprotect(top, 4096, PROT_NONE); }
  Words words;
  Node*** top;
};

// Fills it, and tells what it holds.
std::vector<Hidden> fill(Stack& stack) {
  std::vector<Hidden> objects;
  stack.raise(static_cast<std::ptrdiff_t>(stack.words.count));
  on_thread([&] {
    for (std::size_t i = 0; i < stack.words.count; ++i) {
      stack.words[i] = make_node(i);
      objects.emplace_back(stack.words[i]);
    }
  });
  return objects;
}

}  // namespace

TEST_CASE("a value stack is a root up to its top") {
  const bool has_end = GENERATE(true, false);
  Stack stack(100);
  const gc::root_range range = has_end ? stack.add() : stack.add_without_end();
  const std::vector<Hidden> objects = fill(stack);
  stack.raise(60);
  collect();
  for (std::size_t i = 0; i < 60; ++i) CHECK(intact(stack.words[i], i));
  CHECK(count_alive(objects) <= 62);
  stack.raise(20);
  collect();
  for (std::size_t i = 0; i < 20; ++i) CHECK(intact(stack.words[i], i));
  CHECK(count_alive(objects) <= 22);
  stack.raise(-10);  // below its beginning: nothing
  collect();
  CHECK(count_alive(objects) <= 2);
}

TEST_CASE("a value stack whose top points elsewhere is empty, so one can move") {
  Stack small(100);
  gc::root_range range = small.add();
  const std::vector<Hidden> objects = fill(small);
  const auto large = std::make_unique<Node*[]>(1'000);
  std::copy(small.begin(), small.end(), large.get());
  gc::root_range moved = gc::add_stack(large.get(), large.get() + 1'000, small.top);
  collect();
  CHECK(count_alive(objects) == 100);
  *small.top = large.get() + 50;
  collect();
  CHECK(count_alive(objects) >= 50);
  CHECK(count_alive(objects) <= 52);  // the old buffer holds all, and is not read
  range.reset();
  collect();
  for (std::size_t i = 0; i < 50; ++i) CHECK(intact(large[i], i));
}

TEST_CASE("a value stack without an end may hold more than was expected") {
  Stack stack(100'000);
  const gc::root_range range = stack.add_without_end();
  fill(stack);
  for (int i = 0; i < 3; ++i) {  // the first time its capture grows
    const std::uint64_t before = gc::stats().stopped_marked_bytes_total;
    collect();
    if (!stressed() && marks_beside_the_program() && !tiny_buffers())
      CHECK(gc::stats().stopped_marked_bytes_total - before < sizeof(Node) * 100);
    for (std::size_t n = 0; n < stack.words.count; n += 97) CHECK(intact(stack.words[n], n));
  }
}

TEST_CASE("a value stack goes with its thread") {
  Stack stack(10);
  Hidden object;
  gc::root_range range;
  on_thread([&] {
    const gc::thread_scope attach;
    range = stack.add();
    stack.raise(10);
    stack.words[3] = make_node(1);
    object = Hidden(stack.words[3]);
    collect();
    CHECK(alive(object));
  });
  stack.drop_top();
  collect();
  CHECK_FALSE(alive(object));
  Words others(10);
  const gc::root_range other = add(others, gc::raw);  // in its place
  on_thread([&] {
    others[0] = make_node(2);
    object = Hidden(others[0]);
  });
  range.reset();
  collect();
  CHECK(alive(object));
}

TEST_CASE("a thread that is not attached removes a range") {
  Words words(10);
  Hidden object;
  gc::root_range range = add(words, GENERATE(gc::raw, gc::barriered));
  on_thread([&] {
    words[3] = make_node(1);
    object = Hidden(words[3]);
  });
  collect();
  REQUIRE(alive(object));
  bool attached = true;
  std::thread thread([&] {
    range.reset();
    attached = tricolor::impl::current_mutator() != nullptr;
  });
  join(thread);
  CHECK_FALSE(attached);
  collect();
  CHECK_FALSE(alive(object));
}

TEST_CASE("what a large range holds is kept when it goes while a cycle marks") {
  // In every cycle, the last reference to a part of what it holds.
  constexpr std::size_t kWords = 400'000;
  constexpr std::size_t kStep = 400;
  std::vector<gc::ptr<Node>> table(kWords);
  std::atomic<bool> end{false};
  std::thread collector = start_thread([&] {
    while (!end) gc::collect();
  });
  for (std::uint64_t round = 0; round < many(20); ++round) {
    gc::root_range range = gc::add_root_range(table.data(), table.data() + kWords, gc::barriered);
    for (std::size_t i = 0; i < kWords; i += kStep) table[i] = make_node(i ^ round);
    const std::uint64_t cycle = gc::stats().cycles_total;
    while (gc::stats().cycles_total < cycle + 1) gc::safepoint();
    gc::array<gc::ptr<Node>> kept = gc::make_array<gc::ptr<Node>>(kWords / kStep);
    for (std::size_t i = 0; i < kWords; i += kStep) kept[i / kStep] = table[i].get();
    range.reset();
    std::memset(static_cast<void*>(table.data()), 0, kWords * sizeof table[0]);
    for (std::size_t i = 0; i < kWords; i += kStep) REQUIRE(intact(kept[i / kStep], i ^ round));
  }
  end = true;
  join(collector);
}

TEST_CASE("nobody reads a range that has gone, whatever is registered in its place") {
  Stack stack(300'000);  // large enough to be a mapping of its own
  fill(stack);
  for (int round = 0; round < 4; ++round) {
    {
      const gc::root_range range = round % 2 == 0 ? stack.add() : stack.add_without_end();
      collect();
    }
    collect();  // where a larger buffer would come
    auto words = std::make_unique<Words>(300'000);
    gc::root_range range = add(*words, round < 2 ? gc::barriered : gc::raw);
    Hidden object;
    on_thread([&] {
      (*words)[299'999] = make_node(5);
      object = Hidden((*words)[299'999]);
    });
    for (int i = 0; i < 2; ++i) collect();
    CHECK(alive(object));
    range.reset();
    words.reset();
    for (int i = 0; i < 2; ++i) collect();
    CHECK_FALSE(alive(object));
  }
}

namespace {

std::uint64_t virtual_bytes() {
  std::FILE* const file = std::fopen("/proc/self/statm", "r");
  unsigned long pages = 0;
  if (file == nullptr || std::fscanf(file, "%lu", &pages) != 1) return 0;
  std::fclose(file);
  return std::uint64_t{pages} * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

TEST_CASE("child adds ranges until memory is refused", "[.child]") {
  Words words(100'000);
  const gc::root_range kept = add(words, gc::raw);
  on_thread([&] {
    for (std::size_t i = 0; i < words.count; ++i) words[i] = make_node(i);
  });
  Node** const begin = const_cast<Node**>(words.begin());
  Node** volatile top = begin;
  collect();
  std::vector<gc::root_range> ranges;
  ranges.reserve(1'000'000);
  for (int round = 0; round < 3; ++round) {
    rlimit before;
    REQUIRE(getrlimit(RLIMIT_AS, &before) == 0);
    const rlimit now{virtual_bytes() + (8 << 20), before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_AS, &now) == 0);
    std::size_t refused = 0;
    while (refused < 10 && ranges.size() < 900'000) {
      try {
        switch (ranges.size() % 3) {
          case 0:
            ranges.push_back(gc::add_root_range(begin, begin + 9'000, gc::raw));
            break;
          case 1:
            ranges.push_back(add(words, gc::barriered));
            break;
          default:
            ranges.push_back(gc::add_stack(begin, begin + words.count, &top));
        }
      } catch (const std::bad_alloc&) {
        ++refused;
      }
    }
    CHECK(refused == 10);
    REQUIRE(setrlimit(RLIMIT_AS, &before) == 0);
    collect();
    ranges.clear();
    collect();
    for (std::size_t n = 0; n < words.count; n += 97) CHECK(intact(words[n], n));
  }
}

TEST_CASE("a range for which there is no memory is refused, and nothing is lost", "[process]") {
  if (kShadowMemory) return;  // which takes the address space
  const ProgramEnd end = run_program("child adds ranges until memory is refused");
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("only whole words of a range are read, and nonsense is passed over") {
  Words words(4);
  Hidden first, last;
  on_thread([&] {
    words[0] = make_node(1);
    words[1] = reinterpret_cast<Node*>(~std::uintptr_t{0});
    words[2] = reinterpret_cast<Node*>(std::uintptr_t{1} << 62);
    words[3] = make_node(4);
    first = Hidden(words[0]);
    last = Hidden(words[3]);
  });
  const char* const begin = reinterpret_cast<const char*>(const_cast<Node**>(words.begin()));
  for (const auto kind : {gc::raw, gc::barriered}) {
    const gc::root_range range = gc::add_root_range(begin + 1, begin + 31, kind);
    const gc::root_range empty = gc::add_root_range(begin + 1, begin + 7, kind);
    const gc::root_range none = gc::add_root_range(begin, begin, kind);
    collect();
  }
  CHECK_FALSE(alive(first));
  CHECK_FALSE(alive(last));
}

TEST_CASE("a range that ends before it begins is refused") {
  Words words(2);
  Node** const begin = const_cast<Node**>(words.begin());
  Node** const none = nullptr;
  Node** volatile top = begin;
  CHECK_THROWS_AS(gc::add_root_range(begin + 1, begin, gc::raw), std::invalid_argument);
  CHECK_THROWS_AS(gc::add_root_range(nullptr, begin, gc::raw), std::invalid_argument);
  CHECK_THROWS_AS(gc::add_root_range(begin, nullptr, gc::barriered), std::invalid_argument);
  const auto* const highest = reinterpret_cast<Node* const*>(UINTPTR_MAX & ~std::uintptr_t{15});
  CHECK_THROWS_AS(gc::add_root_range(begin, highest, gc::raw), std::invalid_argument);
  CHECK_THROWS_AS(gc::add_root_range(highest, highest + 1, gc::raw), std::invalid_argument);
  CHECK_THROWS_AS(gc::add_stack<Node*>(begin, highest, &top), std::invalid_argument);
  CHECK_THROWS_AS(gc::add_stack<Node*>(highest, &top), std::invalid_argument);
  CHECK_THROWS_AS(gc::add_stack(begin + 1, begin, &top), std::invalid_argument);
  CHECK_THROWS_AS(gc::add_stack(begin, none, &top), std::invalid_argument);
  CHECK_THROWS_AS(gc::add_stack(none, &top), std::invalid_argument);
  CHECK_THROWS_AS(gc::add_stack(begin, begin + 1, static_cast<Node***>(nullptr)),
                  std::invalid_argument);
  CHECK_THROWS_AS(gc::add_stack(begin, static_cast<Node***>(nullptr)), std::invalid_argument);
}

TEST_CASE("ranges come and go on many threads while others collect") {
  std::atomic<bool> end{false};
  std::thread collector = start_thread([&] {
    while (!end) gc::collect();
  });
  std::atomic<int> lost{0};
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 4; ++t) {
    threads.push_back(start_thread([&, t] {
      const gc::thread_scope attach;
      for (std::uint64_t i = 0; i < many(2'000); ++i) {
        Words words(16);
        Node** const begin = const_cast<Node**>(words.begin());
        std::atomic<Node**> top = begin + 16;
        const gc::root_range range = i % 3 == 0   ? gc::add_stack(begin, begin + 16, &top)
                                     : i % 3 == 1 ? gc::add_stack(begin, &top)
                                                  : add(words, gc::raw);
        for (std::size_t n = 0; n < 16; ++n) words[n] = make_node(i ^ n);
        for (std::size_t n = 0; n < 16; ++n) lost += intact(words[n], i ^ n) ? 0 : 1;
        if (i % 64 == t) gc::blocking_call([] { std::this_thread::yield(); });
      }
    }));
  }
  for (std::thread& thread : threads) join(thread);
  end = true;
  join(collector);
  CHECK(lost == 0);
}
