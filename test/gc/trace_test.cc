// Types with trace(), and objects of theirs whose constructor has not returned.
#include <tricolor/tracer.h>

#include <tricolor/gc.h>

#include <atomic>
#include <bit>
#include <catch2/catch.hpp>
#include <functional>
#include <stdexcept>
#include <thread>
#include <variant>
#include <vector>

#include "test/gc/support.h"

using namespace tricolor::test;

namespace {

class Value {
 public:
  Value() = default;
  explicit Value(double d) : x_kind(1) { x_word = std::bit_cast<std::uint64_t>(d); }
  void refer_to(Node* node) {
    x_node = node;
    x_kind = 2;
  }
  Node* node() const { return x_kind == 2 ? x_node.get() : nullptr; }
  void trace(gc::tracer& t) const noexcept {
    if (x_kind == 2) t(x_node);
  }

 private:
  int x_kind = 0;
  std::uint64_t x_word = 0;
  gc::ptr<Node> x_node;
};

// Reports whatever it is told to.
struct Reporter {
  std::vector<const void*>* words;  // of the test, outside of the heap
  void trace(gc::tracer& t) const noexcept {
    for (const void* const word : *words) t(word);
  }
};

// A table with references behind one another.
struct Table {
  static constexpr std::size_t kSlots = 5'000;
  gc::ptr<Node> slots[kSlots];
  void trace(gc::tracer& t) const noexcept {
    for (const auto& slot : slots) t(slot);
  }
};

// Counts calls of trace for objects whose constructor has not returned.
std::atomic<int> traced_too_early{0};
std::atomic<int> traced_in_time{0};

struct Probe {
  std::uint64_t constructed = 0;
  gc::ptr<Node> first;
  gc::ptr<Node> second;
  template <class F>
  explicit Probe(F while_constructing) {
    while_constructing(*this);
    constructed = 1;
  }
  void trace(gc::tracer& t) const noexcept {
    (constructed == 1 ? traced_in_time : traced_too_early).fetch_add(1);
    t(first);
    t(second);
  }
};

}  // namespace

TEST_CASE("trace decides what an object refers to") {
  std::vector<Hidden> notes;
  gc::root<Value> value;
  on_thread([&] {
    value = gc::make<Value>();
    Node* const node = make_node(1);
    notes.emplace_back(node);
    value->refer_to(node);
  });
  collect();
  CHECK(count_alive(notes) == 1);
  apart([&] { *value.get() = Value(2.5); });
  collect();
  CHECK(count_alive(notes) == 0);
}

TEST_CASE(
    "trace may report null, addresses of nothing, interior and past-the-end addresses, the same "
    "twice") {
  std::vector<const void*> words;
  std::vector<Hidden> notes;
  gc::root<Reporter> reporter;
  int local = 0;
  on_thread([&] {
    reporter = gc::make<Reporter>(&words);
    Node* const node = make_node(1);
    notes.emplace_back(node);
    const auto array = gc::make_array<int>(100);
    notes.emplace_back(array.data());
    words = {nullptr,
             &node->value,
             &node->value,
             &local,
             &words,
             reinterpret_cast<const void*>(1),
             array.end(),
             reinterpret_cast<const void*>(UINTPTR_MAX),
             reinterpret_cast<const void*>(std::uintptr_t{1} << 47),
             reinterpret_cast<const void*>(std::uintptr_t{0xdeadbeefdeadbeef})};
  });
  collect();
  CHECK(count_alive(notes) == 2);
  words.clear();
  collect();
  CHECK(count_alive(notes) == 0);
}

TEST_CASE("an address of a dead object that trace still reports brings nothing back") {
  std::vector<const void*> words;
  gc::root<Reporter> reporter;
  Hidden dead;
  on_thread([&] {
    reporter = gc::make<Reporter>(&words);
    dead = Hidden(make_node(1));
  });
  collect();
  CHECK_FALSE(alive(dead));
  words.push_back(reinterpret_cast<const void*>(dead.address()));
  collect();
  CHECK_FALSE(alive(dead));
  words.clear();
  reporter = nullptr;
  collect();
}

TEST_CASE("trace may report more than a tracer buffers") {
  std::vector<Hidden> notes;
  gc::root<Table> table;
  on_thread([&] {
    table = gc::make<Table>();
    for (std::uint64_t i = 0; i < Table::kSlots; ++i) {
      table->slots[i] = make_node(i, make_node(i + 1));
      notes.emplace_back(table->slots[i]);
      notes.emplace_back(table->slots[i]->next);
    }
  });
  collect();
  CHECK(count_alive(notes) == 2 * Table::kSlots);
  apart([&] {
    for (std::uint64_t i = 0; i < Table::kSlots; ++i) {
      if (!intact(table->slots[i], i)) FAIL(i);
    }
  });
  table = nullptr;
  collect();
  CHECK(count_alive(notes) == 0);
}

TEST_CASE("arrays of a type with trace, and trailing storage of one, are traced") {
  std::vector<Hidden> notes;
  gc::root<Value> values;
  on_thread([&] {
    const auto array = gc::make_array<Value>(1'000);
    for (Value& value : array.span()) {
      Node* const node = make_node(3);
      notes.emplace_back(node);
      value.refer_to(node);
    }
    values = array.data();
  });
  collect();
  CHECK(count_alive(notes) == 1'000);
  apart([&] {
    for (int i = 0; i < 1'000; i += 2) values.get()[i] = Value();
  });
  collect();
  CHECK(count_alive(notes) == 500);
  values = nullptr;
  collect();
  CHECK(count_alive(notes) == 0);
}

// ------------------------------------------------------------------------------- under construction

TEST_CASE(
    "an object whose constructor collects is not traced before the constructor has returned, and "
    "keeps its fields") {
  traced_too_early = 0;
  traced_in_time = 0;
  std::vector<Hidden> notes;
  gc::root<Probe> kept;
  on_thread([&] {
    kept = gc::make<Probe>([&](Probe& self) {
      self.first = make_node(1);
      notes.emplace_back(self.first);
      collect();
      self.second = make_node(2);
      notes.emplace_back(self.second);
      collect();
    });
    CHECK(count_alive(notes) == 2);
  });
  CHECK(traced_too_early == 0);
  collect();
  CHECK(traced_in_time >= 1);
  CHECK(count_alive(notes) == 2);
  CHECK(intact(kept->first, 1));
  CHECK(intact(kept->second, 2));
}

TEST_CASE(
    "objects under construction inside one another are not traced, whoever refers to them "
    "already") {
  traced_too_early = 0;
  // The outer one is known to the inner one, to a global, to a root and to a node before it is complete.
  static gc::ptr<Probe> global;
  struct Holder {
    gc::ptr<Probe> probe;
  };
  gc::root<Probe> root;
  gc::root<Holder> holder;
  struct Inner {
    std::uint64_t constructed = 0;
    gc::ptr<Probe> parent;
    explicit Inner(Probe* p) : parent(p) {
      collect();
      constructed = 1;
    }
    void trace(gc::tracer& t) const noexcept {
      if (constructed != 1) traced_too_early.fetch_add(1);
      t(parent);
    }
  };
  SECTION("the inner one") {
    gc::make<Probe>([&](Probe& self) { gc::make<Inner>(&self); });
  }
  SECTION("a global") {
    gc::make<Probe>([&](Probe& self) {
      global = &self;
      collect();
    });
    global = nullptr;
  }
  SECTION("a root") {
    gc::make<Probe>([&](Probe& self) {
      root = &self;
      collect();
    });
  }
  SECTION("another object") {
    gc::make<Probe>([&](Probe& self) {
      holder = gc::make<Holder>(&self);
      collect();
    });
  }
  SECTION("five of them, each known to the next") {
    gc::root<Inner> last;
    const std::function<void(Probe*, int)> deeper = [&](Probe* outer, int depth) {
      gc::make<Probe>([&](Probe& self) {
        self.first = reinterpret_cast<Node*>(outer);  // any managed address
        if (depth > 0) return deeper(&self, depth - 1);
        last = gc::make<Inner>(&self);
      });
    };
    deeper(nullptr, 5);
  }
  CHECK(traced_too_early == 0);
  collect();
}

TEST_CASE(
    "an object under construction on another thread is not traced, while that thread waits or "
    "runs") {
  traced_too_early = 0;
  std::vector<Hidden> notes;
  std::atomic<int> ready{0};
  std::atomic<int> step{0};
  bool kept_intact = false;
  std::thread thread = start_thread([&] {
    Probe* const probe = gc::make<Probe>([&](Probe& self) {
      self.first = make_node(4);
      notes.emplace_back(self.first);
      raise(ready, 1);
      wait_until(step, 1);
      raise(ready, 2);
      while (step.load() < 2) gc::safepoint();
    });
    kept_intact = intact(probe->first, 4);
  });
  wait_until(ready, 1);
  collect();
  CHECK(count_alive(notes) == 1);
  raise(step, 1);
  wait_until(ready, 2);
  collect();
  CHECK(count_alive(notes) == 1);
  raise(step, 2);
  join(thread);
  CHECK(kept_intact);
  CHECK(traced_too_early == 0);
}

namespace {

struct Element {
  std::uint64_t constructed = 0;
  gc::ptr<Node> node;
  Element() {
    node = make_node(5);
    if (intact(node, 5) && ++count % 25 == 0) collect();
    constructed = 1;
  }
  void trace(gc::tracer& t) const noexcept {
    if (constructed != 1) traced_too_early.fetch_add(1);
    t(node);
  }
  static inline int count = 0;
};

}  // namespace

TEST_CASE("elements of an array under construction are kept and not traced") {
  traced_too_early = 0;
  for (const std::size_t n : {1u, 100u, 400u}) {
    Element::count = 24;
    const auto array = gc::make_array<Element>(n);
    CHECK(traced_too_early == 0);
    for (const Element& element : array.span()) {
      if (!intact(element.node, 5)) FAIL("lost");
    }
  }
}

TEST_CASE("trailing storage of an object under construction is kept") {
  struct Extended {
    std::uint64_t constructed = 0;
    Extended() {
      auto* const slot = reinterpret_cast<gc::ptr<Node>*>(gc::extra(this).data());
      slot[0] = make_node(6);
      slot[9] = make_node(7);
      collect();
      constructed = 1;
    }
    void trace(gc::tracer& t) const noexcept {
      if (constructed != 1) traced_too_early.fetch_add(1);
      const auto* const slot =
          reinterpret_cast<const gc::ptr<Node>*>(gc::extra(const_cast<Extended*>(this)).data());
      t(slot[0]);
      t(slot[9]);
    }
  };
  traced_too_early = 0;
  Extended* const object = gc::make_extra<Extended>(10 * sizeof(gc::ptr<Node>));
  CHECK(traced_too_early == 0);
  collect();
  const auto* const slot = reinterpret_cast<const gc::ptr<Node>*>(gc::extra(object).data());
  CHECK(intact(slot[0], 6));
  CHECK(intact(slot[9], 7));
}

TEST_CASE(
    "an object whose constructor throws is forgotten at once, collections on other threads "
    "notwithstanding") {
  traced_too_early = 0;
  std::atomic<bool> end{false};
  std::thread collector = start_thread([&] {
    while (!end) gc::collect();
  });
  int caught = 0;
  const auto times = static_cast<int>(many(30'000));
  for (int i = 0; i < times; ++i) {
    try {
      gc::make<Probe>([](Probe& self) {
        self.first = nullptr;
        throw std::runtime_error("no");
      });
    } catch (const std::runtime_error&) {
      ++caught;
    }
  }
  end = true;
  join(collector);
  CHECK(caught == times);
  CHECK(traced_too_early == 0);
}
