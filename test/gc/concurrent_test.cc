// What can go wrong only while a cycle marks beside the program: a mark is held in its middle (held_mark.h).
#include <sys/resource.h>
#include <tricolor/gc.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "test/gc/held_mark.h"
#include "test/gc/support.h"

using namespace tricolor::test;

namespace {

// Takes the cells of what has been freed.
void reuse_cells() {
  for (std::uint64_t i = 0; i < 100'000; ++i) make_node(~i);
}

struct Copying {
  std::array<gc::ptr<Node>, 2> nodes;
  void trace(gc::tracer& t) const noexcept {
    for (auto node : nodes) t(node);
  }
};

}  // namespace

TEST_CASE("a trace function may copy what it reports") {
  const gc::root<Copying> copying = gc::make<Copying>();
  copying->nodes[0] = make_node(1);
  copying->nodes[1] = make_node(2);
  const auto threads = gc::stats().threads_count;
  for (int i = 0; i < 3; ++i) collect();
  CHECK(gc::stats().threads_count == threads);  // the library's threads are none
  CHECK(intact(copying->nodes[0], 1));
  CHECK(intact(copying->nodes[1], 2));
}

namespace {

std::atomic<int> traces_of_nothing{0};

// Fills its cell, so that the end of one is the beginning of the next.
struct Whole {
  static constexpr std::uint64_t kMagic = 0x1234;
  Whole() = default;
  std::uint64_t magic = kMagic;
  gc::ptr<Node> node;
  std::array<char, 48> rest = {};
  void trace(gc::tracer& t) const noexcept {
    if (magic != kMagic) ++traces_of_nothing;
    t(node);
  }
};
static_assert(sizeof(Whole) == 64);

}  // namespace

TEST_CASE("cells that a blocked thread has claimed are not traced before they are constructed") {
  for (int round = 0; round < 10; ++round) {
    std::atomic<int> ready{0}, end{0};
    std::thread thread = start_thread([&] {
      Whole* const whole = gc::make<Whole>();
      Whole* volatile behind = whole + 1;
      raise(ready, 1);
      wait_until(end, 1);
      CHECK(behind - 1 == whole);
    });
    wait_until(ready, 1);
    gc::collect();
    raise(end, 1);
    join(thread);
  }
  CHECK(traces_of_nothing == 0);
}

namespace {

std::atomic<int> traces_under_construction{0};

// Its constructor makes the rest of a chain, each of which refers back to the one that makes it.
struct Chain {
  Chain(int left, Chain* maker) : back(maker) {
    if (left == 0) {
      collect();
    } else {
      next = gc::make<Chain>(left - 1, this);
    }
    ready = true;
  }
  gc::ptr<Chain> back;
  gc::ptr<Chain> next;
  bool ready = false;
  void trace(gc::tracer& t) const noexcept {
    if (!ready) ++traces_under_construction;
    t(back);
    t(next);
  }
};

}  // namespace

TEST_CASE("child makes objects in constructors of others", "[.child]") {
  // So that there are two markers, for a while.
  gc::root<Node> heap;
  for (std::uint64_t i = 0; i < 200'000; ++i) heap = make_node(i, heap);
  for (int round = 0; round < 20; ++round) {
    gc::root<Chain> chain = gc::make<Chain>(1'200, nullptr);
    int length = 0;
    for (const Chain* c = chain.get(); c != nullptr; c = c->next) ++length;
    CHECK(length == 1'201);
  }
  CHECK(traces_under_construction == 0);
}

TEST_CASE("no object is traced while it is under construction, however many there are",
          "[process]") {
  const ProgramEnd end =
      run_program("child makes objects in constructors of others",
                  {{"TRICOLOR_DEBUG", GENERATE("workers=2", "workers=2,tinybuffers=1")}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

namespace {

struct Throwing {
  std::array<gc::ptr<Node>, 20> nodes;
  template <class Then>
  explicit Throwing(Then then) {
    fill();
    scrub_stack();
    then(*this);
    throw 1;
  }
  [[gnu::noinline]] void fill() {
    for (std::uint64_t i = 0; i < nodes.size(); ++i) nodes[i] = make_node(i);
  }
  static constexpr auto gc_fields = gc::fields(&Throwing::nodes);
};

}  // namespace

TEST_CASE(
    "what a constructor has stored and handed on survives when it throws while a cycle marks") {
  if (!can_hold_a_mark()) return;
  on_thread([] {
    std::array<Node*, 20> kept = {};
    std::unique_ptr<HeldMark> mark;
    CHECK_THROWS_AS(
        gc::make<Throwing>([&](Throwing& object) {
          mark = std::make_unique<HeldMark>();  // armed; the object's cell is not scanned yet
          for (std::size_t i = 0; i < kept.size(); ++i) kept[i] = object.nodes[i];
        }),
        int);
    mark = nullptr;
    reuse_cells();
    for (std::uint64_t i = 0; i < kept.size(); ++i) CHECK(intact(kept[i], i));
  });
}

TEST_CASE("a cycle that marks does not stop a thread from allocating, storing and attaching") {
  if (!can_hold_a_mark()) return;
  const gc::root<Node> list = make_node(0);
  {
    const HeldMark mark;
    const auto pauses = gc::stats().pauses.total_count();
    for (std::uint64_t i = 1; i <= 10'000; ++i) list->next = make_node(i, list->next);
    on_thread([&] { list->other = make_node(7); });
    CHECK(gc::stats().pauses.total_count() == pauses);
  }
  reuse_cells();
  collect();
  std::uint64_t left = 10'000;
  for (const Node* node = list->next; node != nullptr; node = node->next)
    CHECK(intact(node, left--));
  CHECK(intact(list->other, 7));
}

TEST_CASE(
    "an object that a cycle has not reached yet survives its way through every kind of place") {
  if (!can_hold_a_mark()) return;
  // Each step takes it out of one place and puts it into the next, while the same mark waits.
  static gc::ptr<Node> global;
  static thread_local gc::ptr<Node> own;
  const gc::root<Node> field = make_node(1);
  gc::array<gc::ptr<Node>> elements = gc::make_array<gc::ptr<Node>>(4);
  field->next = make_node(42);
  Hidden object(field->next);
  {
    const HeldMark mark;
    global = field->next;
    field->next = nullptr;
    own = global;
    global = nullptr;
    elements[3] = own;
    own = nullptr;
    gc::root<Node> handle = elements[3].get();
    gc::clear(elements.span());
    field->other = handle.get();
    handle.reset();
  }
  CHECK(alive(object));
  CHECK(intact(field->other, 42));
}

namespace {

struct Holder {
  explicit Holder(Node* node_) : node(node_) {}
  gc::ptr<Node> node;
  static constexpr auto gc_fields = gc::fields(&Holder::node);
};

}  // namespace

TEST_CASE("what is taken out of a range while a cycle marks was in it when the cycle began") {
  if (stressed()) return;
  if (tricolor::impl::Heap::existing()->settings().gcstoptheworld != 0) return;  // nobody takes
  for (const auto kind : {gc::raw, gc::barriered}) {
    const auto words = std::make_unique<gc::ptr<Node>[]>(2);
    gc::root_range range = gc::add_root_range(words.get(), words.get() + 2, kind);
    // It came later, so it is read first, which takes a while.
    const std::vector<std::uintptr_t> empty(8'000'000);
    const gc::root_range first_read =
        gc::add_root_range(empty.data(), empty.data() + empty.size(), gc::barriered);
    Hidden taken, left;
    on_thread([&] {
      words[0] = make_node(1, make_node(2));
      words[1] = make_node(3);
      taken = Hidden(words[0]);
      left = Hidden(words[1]);
    });
    scrub_stack();
    gc::root<Holder> first, second;
    const int percent = gc::set_percent(-1);
    std::thread collector = start_thread([] { gc::collect(); });
    auto& handshake = tricolor::impl::Heap::existing()->handshake();
    while (!tricolor::impl::is_marking(handshake.epoch())) gc::safepoint();
    // Into new objects, which nobody looks at.
    first = gc::make<Holder>(words[0].get());
    if (kind == gc::raw) {
      *reinterpret_cast<Node* volatile*>(words.get()) = nullptr;  // no barrier
    } else {
      words[0] = nullptr;
    }
    second = gc::make<Holder>(words[1].get());
    range.reset();
    join(collector);
    gc::set_percent(percent);
    CHECK(alive(taken));
    CHECK(alive(left));
    CHECK(intact(first->node, 1));
    CHECK(intact(first->node->next, 2));
    CHECK(intact(second->node, 3));
  }
}

TEST_CASE("a constructor over what is no reference does not attach its thread") {
  on_thread([] { make_node(1); });
  bool attached = true;
  std::thread thread([&] {
    alignas(gc::ptr<Node>) std::uintptr_t words[2] = {0x1234, ~std::uintptr_t{0}};
    for (std::uintptr_t& word : words) new (&word) gc::ptr<Node>(nullptr);
    attached = tricolor::impl::current_mutator() != nullptr;
  });
  join(thread);
  CHECK_FALSE(attached);
}

TEST_CASE("a constructor on a thread that is not attached shades what it overwrites") {
  if (!can_hold_a_mark()) return;
  Hidden object;
  on_thread([&] {
    gate = gc::make<Gate>();
    gate->node = make_node(1);  // not scanned before the mark goes on
    gate->node->next = make_node(42);
    object = Hidden(gate->node->next);
  });
  scrub_stack();
  {
    const HeldMark mark;
    std::thread thread([] { new (&gate->node->next) gc::ptr<Node>(nullptr); });
    join(thread);
  }
  CHECK(alive(object));  // it was there when the mark began
}

// The first stop that finds them captures them all, too, in a buffer that it makes.
TEST_CASE("references on a large stack are marked beside the program") {
  if (stressed() || tiny_buffers() || !marks_beside_the_program()) {
    WARN(
        "skipped: with tinybuffers=1 there is never room, and with gcstoptheworld=n all is marked "
        "in the stop");
    return;
  }
  const bool runs = GENERATE(false, true);
  CAPTURE(runs);
  constexpr std::size_t kMany = 20'000;  // and more than a capture has room for at first
  const auto look = [] {
    const auto before = gc::stats();
    for (int i = 0; i < 3; ++i) collect();
    const auto now = gc::stats();
    CHECK(now.marked_bytes_total - before.marked_bytes_total >= 3 * kMany * sizeof(Node));
    CHECK(now.stopped_marked_bytes_total - before.stopped_marked_bytes_total <= 30 * sizeof(Node));
  };
  std::atomic<int> step{0};
  std::thread thread = start_thread([&] {
    const gc::thread_scope its_own;
    std::array<gc::ptr<Node>, kMany> nodes;  // on this stack
    for (std::size_t i = 0; i < nodes.size(); ++i) nodes[i] = make_node(i);
    if (!runs) look();
    raise(step, 1);
    while (step.load() < 2) gc::safepoint();
    for (std::size_t i = 0; i < nodes.size(); ++i)
      if (!tricolor::test::intact(nodes[i], i)) FAIL_CHECK("lost " << i);
  });
  wait_until(step, 1);
  if (runs) look();
  raise(step, 2);
  join(thread);
}

TEST_CASE("child has more on its stack than there is memory to capture", "[.child]") {
  std::array<gc::ptr<Node>, 20'000> nodes;  // on this stack
  for (std::size_t i = 0; i < nodes.size(); ++i) nodes[i] = make_node(i);
  gc::array<gc::ptr<Node>> others = gc::make_array<gc::ptr<Node>>(nodes.size());
  for (std::size_t i = 0; i < nodes.size(); ++i) others[i] = make_node(i);
  gc::collect();  // starts threads
  std::uint64_t bytes[2] = {};
  const auto collect_with = [&](rlim_t limit) {
    on_thread([&] {
      std::array<gc::ptr<Node>, 20'000> mine;  // on another one, which has no large buffer yet
      for (std::size_t i = 0; i < mine.size(); ++i) mine[i] = others[i];
      rlimit before;
      REQUIRE(getrlimit(RLIMIT_AS, &before) == 0);
      const rlimit lower = {std::min(limit, before.rlim_max), before.rlim_max};
      REQUIRE(setrlimit(RLIMIT_AS, &lower) == 0);
      const std::uint64_t marked = gc::stats().stopped_marked_bytes_total;
      gc::collect();
      bytes[limit == 0] = gc::stats().stopped_marked_bytes_total - marked;
      REQUIRE(setrlimit(RLIMIT_AS, &before) == 0);
      for (std::size_t i = 0; i < mine.size(); ++i)
        if (!tricolor::test::intact(mine[i], i)) FAIL_CHECK("lost " << i);
    });
  };
  collect_with(RLIM_INFINITY);
  collect_with(0);
  for (std::size_t i = 0; i < nodes.size(); ++i)
    if (!tricolor::test::intact(nodes[i], i)) FAIL_CHECK("lost " << i);
  CHECK(bytes[0] <= 30 * sizeof(Node));
  CHECK(bytes[1] >= nodes.size() * sizeof(Node) / 2);  // marked where it stands
}
TEST_CASE("references that there is no memory to capture are marked in the stop", "[process]") {
  if (kShadowMemory) return;  // which takes the address space
  const ProgramEnd end = run_program("child has more on its stack than there is memory to capture");
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child stores pointers in malloc memory over many cycles", "[.child]") {
  std::vector<gc::ptr<Node>> wrong(10);
  for (int round = 0; round < 5; ++round) {
    const HeldMark mark;
    Node* const node = make_node(1);
    for (int i = 0; i < 100'000; ++i) wrong[3] = node;
  }
}
TEST_CASE("child stores pointers where they may be", "[.child]") {
  static gc::ptr<Node> global;
  static thread_local gc::ptr<Node> own;
  std::vector<gc::root<Node>> handles(1);
  const gc::root<Node> field = make_node(1);
  gc::ptr<Node> local;
  for (int round = 0; round < 5; ++round) {
    const HeldMark mark;
    Node* const node = make_node(1);
    const auto store = [&](auto& place) {
      for (int i = 0; i < 30'000; ++i) place = node;
    };
    store(global);
    store(own);
    store(handles[0]);
    store(field->next);
    store(local);
    // In the frame of a thread that is gone when the check looks.
    std::atomic<gc::ptr<Node>*> slot{nullptr};
    std::atomic<int> end{0};
    std::thread other = start_thread([&] {
      const gc::thread_scope attach;
      gc::ptr<Node> there;
      slot = &there;
      wait_until(end, 1);
    });
    while (slot == nullptr) gc::safepoint();
    store(*slot.load());
    raise(end, 1);
    join(other);
  }
}

TEST_CASE("a gc::ptr in malloc memory is reported, once, and none that is where it may be",
          "[process]") {
  const ProgramEnd wrong = run_program("child stores pointers in malloc memory over many cycles");
  INFO(wrong.output);
  CHECK(wrong.exit_code == 0);
  const std::size_t first = wrong.output.find("where the collector never looks");
  CHECK(first != std::string::npos);
  CHECK(wrong.output.find("where the collector never looks", first + 1) == std::string::npos);
  const ProgramEnd off = run_program("child stores pointers in malloc memory over many cycles",
                                     {{"TRICOLOR_DEBUG", "checkslot=0"}});
  CHECK_FALSE(has_line(off.output, "where the collector never looks"));
  const ProgramEnd right = run_program("child stores pointers where they may be");
  INFO(right.output);
  CHECK(right.exit_code == 0);
  CHECK_FALSE(has_line(right.output, "where the collector never looks"));
}

namespace {

// Stores without a barrier, as no program may.
void store_past_the_barrier(gc::ptr<Node>& slot, Node* node) {
  std::memcpy(static_cast<void*>(&slot), &node, sizeof node);
}

// Moves the only reference to a node, which a mark has yet to come to, into a new object. `name` and `where` are what the report is
// to say of that.
template <class Parent, class Slot>
void hide_from_the_mark(Slot slot, const char* name, const char* where) {
  on_thread([] {
    gate = gc::make<Gate>();
    gate->node = make_node(1);
    gate->node->next = make_node(42);
  });
  scrub_stack();
  const HeldMark mark;
  Parent* const parent = gc::make<Parent>();
  Node* const child = gate->node->next;
  store_past_the_barrier(slot(*parent), child);
  store_past_the_barrier(gate->node->next, nullptr);
  std::printf("expected: %s at %p%s) holds %p, in an object (tricolor::test::Node at %p)\n", name,
              static_cast<void*>(parent), where, static_cast<void*>(child),
              static_cast<void*>(child));
  std::fflush(stdout);
}

}  // namespace

TEST_CASE("child stores past the barrier into an object with a layout", "[.child]") {
  hide_from_the_mark<Node>([](Node& node) -> gc::ptr<Node>& { return node.other; },
                           "an object (tricolor::test::Node", ", at offset 8");
}
TEST_CASE("child stores past the barrier into an object with a trace function", "[.child]") {
  hide_from_the_mark<Copying>([](Copying& copying) -> gc::ptr<Node>& { return copying.nodes[1]; },
                              "Copying", "");
}

TEST_CASE("gccheckmark says which object holds what has not been marked, and where if it can tell",
          "[process]") {
  const ProgramEnd end =
      run_program(GENERATE("child stores past the barrier into an object with a layout",
                           "child stores past the barrier into an object with a trace function"),
                  {{"TRICOLOR_DEBUG", "gccheckmark=1"}});
  INFO(end.output);
  CHECK(end.exit_code != 0);
  CHECK(has_line(end.output, "verify.no-hidden-white"));
  const std::string mark = "expected: ";
  const std::size_t begin = end.output.find(mark);
  REQUIRE(begin != std::string::npos);
  const std::size_t from = begin + mark.size();
  const std::string expected = end.output.substr(from, end.output.find('\n', from) - from);
  CHECK(end.output.find(expected, from + expected.size()) != std::string::npos);
}
