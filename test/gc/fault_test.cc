// Each fault of alloc/base/fault.h is planted in a program that is right, and must then be caught: by gccheckmark=1, or because
// an object that the program still holds has been freed (clobberfree=1 makes that show). The same program without the fault
// ends well.
#include "alloc/base/fault.h"

#include <signal.h>
#include <sys/mman.h>
#include <tricolor/gc.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "test/gc/support.h"

using namespace tricolor::test;
using tricolor::impl::Fault;

namespace {

// What a child plays: TRICOLOR_TEST_FAULT plants one for a while, or "none".
struct FaultName {
  Fault fault;
  const char* name;
  const char* child;                                  // the program that it breaks
  std::string debug = "gccheckmark=1,clobberfree=1";  // what it is caught with
};

constexpr const char* kTaken = "child takes the only references out of scanned slots";
constexpr const char* kTakenInBulk = "child takes the only references out of scanned slots in bulk";
constexpr const char* kMovedInBulk =
    "child moves references out of the frames of blocked threads in bulk";
constexpr const char* kMoved = "child moves references out of the frames of blocked threads";
constexpr const char* kConstructed = "child constructs over the only references";
constexpr const char* kStack = "child keeps new objects on its stack only";
constexpr const char* kBlocked = "child keeps objects in a blocked frame only";
constexpr const char* kGlobal = "child keeps objects in globals only";
constexpr const char* kThreadLocal = "child keeps objects in a thread_local only";
constexpr const char* kHandle = "child keeps objects in handles only";
constexpr const char* kRange = "child keeps objects in ranges only";
constexpr const char* kRangeGone = "child takes over what ranges held that have gone";
constexpr const char* kDropped = "child drops handles whose objects it keeps";
constexpr const char* kDetached = "child takes over what threads held that have detached";
constexpr const char* kDetachedStack =
    "child takes over what threads had in frames that have detached";
constexpr const char* kDetachedLocal =
    "child takes over what threads had in a thread_local that have detached";
constexpr const char* kUnready = "child makes large objects of what dead ones have left";
constexpr const char* kBlockedLog = "child takes over what threads took out that have blocked";
constexpr const char* kTree = "child keeps a large tree";
constexpr const char* kCleared = "child reads slots that another thread is about to clear";

const FaultName kFaults[] = {
    {Fault::no_deletion_half, "no_deletion_half", kTaken},
    {Fault::no_deletion_half, "no_deletion_half", kTakenInBulk},
    {Fault::no_log_flush, "no_log_flush", kTaken},
    {Fault::idle_with_log, "idle_with_log", kBlockedLog},
    {Fault::no_last_test, "no_last_test", kTaken},
    {Fault::no_insertion_half, "no_insertion_half", kMoved},
    {Fault::no_insertion_half, "no_insertion_half", kMovedInBulk},
    {Fault::no_constructor_shade, "no_constructor_shade", kConstructed},
    {Fault::white_allocation, "white_allocation", kStack},
    // What is freed must keep what it held.
    {Fault::scanned_unready, "scanned_unready", kUnready, "checkslot=1"},
    {Fault::run_tail_not_closed, "run_tail_not_closed", kStack},
    {Fault::no_stack_roots, "no_stack_roots", kStack},
    {Fault::no_late_stack_roots, "no_late_stack_roots", kBlocked},
    {Fault::no_global_roots, "no_global_roots", kGlobal},
    {Fault::no_thread_local_roots, "no_thread_local_roots", kThreadLocal},
    {Fault::no_handle_roots, "no_handle_roots", kHandle},
    {Fault::no_handle_shade, "no_handle_shade", kDropped},
    {Fault::no_range_roots, "no_range_roots", kRange},
    {Fault::no_range_shade, "no_range_shade", kRangeGone},
    {Fault::no_detach_log, "no_detach_log", kDetached},
    {Fault::no_detach_stack, "no_detach_stack", kDetachedStack},
    {Fault::no_detach_locals, "no_detach_locals", kDetachedLocal},
    {Fault::dropped_packet, "dropped_packet", kTree},
    {Fault::barrier_split, "barrier_split", kCleared},
};

// Plants what the environment says. How long a child looks for a fault, and how long it runs without one.
std::chrono::steady_clock::time_point plant() {
  const char* const wanted = std::getenv("TRICOLOR_TEST_FAULT");
  const gc::thread_scope attach;
  for (const FaultName& fault : kFaults) {
    if (wanted != nullptr && std::string(wanted) == fault.name)
      tricolor::impl::planted_fault = fault.fault;
  }
  const bool planted = tricolor::impl::planted_fault.load() != Fault::none;
  if (wanted != nullptr && std::string(wanted) == "no_ragged_flush")
    tricolor::impl::planted_fault = Fault::no_ragged_flush;
  return std::chrono::steady_clock::now() +
         (planted ? std::chrono::seconds(240) : std::chrono::milliseconds(700));
}

// Ends the process at once with the exit code that says so.
void expect_intact(const Node* node, std::uint64_t value) {
  if (node == nullptr || !intact(node, value)) {
    std::fputs("LOST\n", stderr);
    std::_Exit(9);
  }
}

template <class Step>
void repeat(Step step) {
  const auto end = plant();
  for (std::uint64_t round = 0; std::chrono::steady_clock::now() < end; ++round) step(round);
  tricolor::impl::planted_fault = Fault::none;  // what is left ends without it
}

// Black when it is made while a cycle marks: what its constructor stores in it is never scanned.
struct Box {
  Box() = default;
  explicit Box(Node* node_) : node(node_) {}
  gc::ptr<Node> node;
  static constexpr auto gc_fields = gc::fields(&Box::node);
};

constexpr std::size_t kSlots = 20'000;

}  // namespace

namespace {

// take_out(slot) leaves it null, without a new reference to what it held.
template <class TakeOut>
void take_out_of_slots(TakeOut take_out) {
  const Collector collector;
  gc::array<gc::ptr<Node>> nodes = gc::make_array<gc::ptr<Node>>(kSlots);
  gc::array<gc::ptr<Box>> boxes = gc::make_array<gc::ptr<Box>>(kSlots);
  for (std::size_t i = 0; i < kSlots; ++i) nodes[i] = make_node(i, make_node(i + 1));
  repeat([&](std::uint64_t) {
    // Out of a slot, which only the deletion half sees, and into new objects by their constructors.
    for (std::size_t i = kSlots; i-- > 0;) {
      Node* const node = nodes[i];
      take_out(nodes[i]);
      boxes[i] = gc::make<Box>(node);
    }
    for (std::size_t i = 0; i < kSlots; ++i) {
      expect_intact(boxes[i]->node, i);
      expect_intact(boxes[i]->node->next, i + 1);
      nodes[i] = boxes[i]->node;
      boxes[i] = nullptr;
    }
  });
}

}  // namespace

TEST_CASE("child takes the only references out of scanned slots", "[.child]") {
  take_out_of_slots([](gc::ptr<Node>& slot) { slot = nullptr; });
}

TEST_CASE("child takes the only references out of scanned slots in bulk", "[.child]") {
  take_out_of_slots([](gc::ptr<Node>& slot) { gc::clear(std::span(&slot, 1)); });
}

namespace {

template <class Store>
void move_out_of_frames(Store store) {
  constexpr std::size_t kThreads = 4, kEach = 2'000;
  std::atomic<int> ready{0}, end{0};
  std::array<std::atomic<Node*>*, kThreads> frames = {};
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < kThreads; ++t) {
    threads.push_back(start_thread([&, t] {
      const gc::thread_scope attach;
      std::array<std::atomic<Node*>, kEach> frame = {};
      for (std::size_t i = 0; i < kEach; ++i) frame[i] = make_node(i);
      frames[t] = frame.data();
      raise(ready, ready + 1);
      wait_until(end, 1);
    }));
    wait_until(ready, static_cast<int>(t) + 1);
  }
  {
    const Collector collector;
    gc::array<gc::ptr<Box>> boxes = gc::make_array<gc::ptr<Box>>(kThreads * kEach);
    repeat([&](std::uint64_t) {
      for (std::size_t i = 0; i < kThreads * kEach; ++i) {
        std::atomic<Node*>& place = frames[i / kEach][i % kEach];
        Box* const box = gc::make<Box>();
        boxes[i] = box;
        store(box->node, place.load());  // before it is taken out
        place = nullptr;
      }
      for (std::size_t i = 0; i < kThreads * kEach; ++i) {
        expect_intact(boxes[i]->node, i % kEach);
        frames[i / kEach][i % kEach] = boxes[i]->node.get();
        boxes[i] = nullptr;
      }
    });
  }
  raise(end, 1);
  for (std::thread& thread : threads) join(thread);
}

}  // namespace

TEST_CASE("child moves references out of the frames of blocked threads", "[.child]") {
  move_out_of_frames([](gc::ptr<Node>& slot, Node* node) { slot = node; });
}

TEST_CASE("child moves references out of the frames of blocked threads in bulk", "[.child]") {
  move_out_of_frames([](gc::ptr<Node>& slot, Node* node) {
    const gc::ptr<Node> from(node);  // constructed: that does not shade what it is given
    gc::copy(std::span(&from, 1), &slot);
  });
}

namespace {

struct Optional {
  std::optional<gc::ptr<Node>> node;
};

}  // namespace

TEST_CASE("child constructs over the only references", "[.child]") {
  const Collector collector;
  gc::array<gc::ptr<Optional>> fields = gc::make_array<gc::ptr<Optional>>(kSlots);
  gc::array<gc::ptr<Box>> boxes = gc::make_array<gc::ptr<Box>>(kSlots);
  for (std::size_t i = 0; i < kSlots; ++i) {
    fields[i] = gc::make<Optional>();
    fields[i]->node.emplace(make_node(i));
  }
  repeat([&](std::uint64_t) {
    for (std::size_t i = kSlots; i-- > 0;) {
      Node* const node = *fields[i]->node;
      fields[i]->node.reset();
      fields[i]->node.emplace(nullptr);
      boxes[i] = gc::make<Box>(node);
    }
    for (std::size_t i = 0; i < kSlots; ++i) {
      expect_intact(boxes[i]->node, i);
      *fields[i]->node = boxes[i]->node;
      boxes[i] = nullptr;
    }
  });
}

namespace {

// Linked by its constructor, so that no store shades it.
struct Link {
  Link(Link* next_, std::uint64_t value_) : next(next_), value(value_) {}
  gc::ptr<Link> next;
  std::uint64_t value;
  static constexpr auto gc_fields = gc::fields(&Link::next);
};

}  // namespace

TEST_CASE("child keeps new objects on its stack only", "[.child]") {
  const Collector collector;
  repeat([&](std::uint64_t) {
    Link* list = nullptr;
    for (std::uint64_t i = 0; i < 500; ++i) list = gc::make<Link>(list, checksum(i));
    for (int i = 0; i < 100; ++i) gc::make<Link>(nullptr, 0);
    std::uint64_t left = 500;
    for (const Link* link = list; link != nullptr; link = link->next) {
      if (left-- == 0 || link->value != checksum(left)) expect_intact(nullptr, 0);
    }
    if (left != 0) expect_intact(nullptr, 0);
  });
}

TEST_CASE("child keeps objects in a blocked frame only", "[.child]") {
  repeat([&](std::uint64_t) {
    std::array<Node*, 100> nodes;
    for (std::size_t i = 0; i < nodes.size(); ++i) nodes[i] = make_node(i);
    gc::blocking_call([] {
      std::thread([] {
        for (int i = 0; i < 3; ++i) gc::collect();
      }).join();
    });
    for (std::size_t i = 0; i < nodes.size(); ++i) expect_intact(nodes[i], i);
  });
}

namespace {

std::array<gc::ptr<Node>, 100> globals;
thread_local std::array<gc::ptr<Node>, 100> thread_locals;

// Keeps 100 nodes where `place` says, and nowhere else, over a collection.
template <class Places>
void keep_in(Places& places) {
  repeat([&](std::uint64_t) {
    apart([&] {
      for (std::size_t i = 0; i < places.size(); ++i) places[i] = make_node(i);
    });
    collect();
    for (int i = 0; i < 1000; ++i) gc::make<Link>(nullptr, 0);
    for (std::size_t i = 0; i < places.size(); ++i) expect_intact(places[i], i);
  });
}

}  // namespace

TEST_CASE("child keeps objects in globals only", "[.child]") { keep_in(globals); }
TEST_CASE("child keeps objects in a thread_local only", "[.child]") { keep_in(thread_locals); }
TEST_CASE("child keeps objects in handles only", "[.child]") {
  std::vector<gc::root<Node>> handles(100);
  keep_in(handles);
}

TEST_CASE("child drops handles whose objects it keeps", "[.child]") {
  const Collector collector;
  gc::array<gc::ptr<Box>> boxes = gc::make_array<gc::ptr<Box>>(kSlots);
  std::vector<gc::root<Node>> handles(kSlots);
  for (std::size_t i = 0; i < kSlots; ++i) handles[i] = make_node(i);
  repeat([&](std::uint64_t) {
    for (std::size_t i = kSlots; i-- > 0;) {
      Node* const node = handles[i];
      handles[i].reset();
      boxes[i] = gc::make<Box>(node);
    }
    for (std::size_t i = 0; i < kSlots; ++i) {
      expect_intact(boxes[i]->node, i);
      handles[i] = boxes[i]->node.get();
      boxes[i] = nullptr;
    }
  });
}

TEST_CASE("child takes over what threads held that have detached", "[.child]") {
  const Collector collector;
  gc::array<gc::ptr<Node>> nodes = gc::make_array<gc::ptr<Node>>(kSlots);
  gc::array<gc::ptr<Box>> boxes = gc::make_array<gc::ptr<Box>>(kSlots);
  for (std::size_t i = 0; i < kSlots; ++i) nodes[i] = make_node(i);
  // It takes a batch out of slots, hands it over to the main thread's frame, and detaches with its log.
  constexpr std::size_t kBatch = 50;
  std::array<std::atomic<Node*>, kBatch> frame = {};
  std::atomic<std::size_t> wanted{0}, done{0};  // batches; SIZE_MAX ends it
  std::thread helper([&] {
    for (std::size_t batch = 1;; ++batch) {
      while (wanted < batch) std::this_thread::yield();
      if (wanted == SIZE_MAX) return;
      const gc::thread_scope attach;
      const std::size_t first = (batch - 1) % (kSlots / kBatch) * kBatch;
      for (std::size_t i = 0; i < kBatch; ++i) {
        frame[i] = nodes[first + i].get();
        nodes[first + i] = nullptr;
      }
      done = batch;
    }
  });
  std::size_t batch = 0;
  repeat([&](std::uint64_t) {
    ++batch;
    wanted = batch;
    while (done < batch) gc::safepoint();
    const std::size_t first = (batch - 1) % (kSlots / kBatch) * kBatch;
    for (std::size_t i = 0; i < kBatch; ++i) {
      boxes[first + i] = gc::make<Box>(frame[i].load());
      frame[i] = nullptr;
    }
    if (first + kBatch < kSlots) return;
    for (std::size_t i = 0; i < kSlots; ++i) {
      expect_intact(boxes[i]->node, i);
      nodes[i] = boxes[i]->node;
      boxes[i] = nullptr;
    }
  });
  wanted = SIZE_MAX;
  join(helper);
}

namespace {

constexpr std::size_t kHanded = 50;
thread_local std::array<gc::ptr<Node>, kHanded> detached_locals;

// Threads that a cycle looks at before those that attach later, and for long: their frames are large.
class LargeFrames {
 public:
  LargeFrames() {
    for (int i = 0; i < 3; ++i) {
      x_threads.push_back(start_thread([this] {
        const gc::thread_scope attach;
        constexpr std::size_t kWords = 200'000;
        std::array<std::atomic<Node*>, kWords> frame = {};
        for (std::size_t k = 0; k < kWords; k += 100) frame[k] = make_node(k);
        raise(x_ready, x_ready + 1);
        wait_until(x_end, 1);
      }));
      wait_until(x_ready, i + 1);
    }
  }
  LargeFrames(const LargeFrames&) = delete;
  LargeFrames& operator=(const LargeFrames&) = delete;
  ~LargeFrames() {
    raise(x_end, 1);
    for (std::thread& thread : x_threads) join(thread);
  }

 private:
  std::atomic<int> x_ready{0}, x_end{0};
  std::vector<std::thread> x_threads;
};

// The main thread has new objects in `Place` when a cycle begins to mark, hands them over to another thread's frame, and detaches
// before the cycle has looked at it. (Of other threads the static thread-local storage is a part of the stack, too.)
template <class Place>
void take_over_from_detached() {
  const LargeFrames first;
  const Collector collector;
  std::array<std::atomic<Node*>, kHanded>* frame = nullptr;
  std::atomic<int> wanted{0}, done{0};  // batches
  std::atomic<bool> end{false};
  std::thread taker = start_thread([&] {
    std::array<std::atomic<Node*>, kHanded> mine = {};
    frame = &mine;
    gc::array<gc::ptr<Box>> boxes = gc::make_array<gc::ptr<Box>>(kHanded);
    repeat([&](std::uint64_t) {
      raise(wanted, wanted + 1);
      while (done < wanted) gc::safepoint();
      for (std::size_t i = 0; i < kHanded; ++i) {
        boxes[i] = gc::make<Box>(mine[i].load());
        mine[i] = nullptr;
      }
      const std::uint64_t cycles = gc::stats().cycles_total;
      while (gc::stats().cycles_total < cycles + 2) gc::safepoint();
      for (std::size_t i = 0; i < kHanded; ++i) expect_intact(boxes[i]->node, i);
    });
    end = true;
    raise(wanted, wanted + 1);
  });
  for (int batch = 1;; ++batch) {
    wait_until(wanted, batch);
    if (end) break;
    apart([&] {
      const gc::thread_scope attach;
      Place place;
      while (tricolor::detail::current_cache->armed != 0) gc::safepoint();
      apart([&] {
        for (std::size_t i = 0; i < kHanded; ++i) place.put(i, make_node(i));
      });
      scrub_stack();
      while (tricolor::detail::current_cache->armed == 0) gc::safepoint();
      for (std::size_t i = 0; i < kHanded; ++i) (*frame)[i] = place.get(i);
    });
    done = batch;
  }
  join(taker);
}

struct InFrame {
  std::array<std::atomic<Node*>, kHanded> nodes = {};
  void put(std::size_t i, Node* node) { nodes[i] = node; }
  Node* get(std::size_t i) const { return nodes[i]; }
};
struct InThreadLocal {
  void put(std::size_t i, Node* node) { detached_locals[i] = node; }
  Node* get(std::size_t i) const { return detached_locals[i]; }
};

}  // namespace

TEST_CASE("child takes over what threads had in frames that have detached", "[.child]") {
  take_over_from_detached<InFrame>();
}
TEST_CASE("child takes over what threads had in a thread_local that have detached", "[.child]") {
  take_over_from_detached<InThreadLocal>();
}

namespace {

// A page of a dead object that is not to be written: whoever zeroes what is made over it is held there, as long as it takes to collect.
class Trap {
 public:
  static void catch_writes() {
    struct sigaction action = {};
    action.sa_sigaction = on_write;
    action.sa_flags = SA_SIGINFO;
    REQUIRE(sigaction(SIGSEGV, &action, nullptr) == 0);
  }
  // In the second one of the object's pages.
  void set(const char* object) {
    const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
    x_page = reinterpret_cast<char*>(
        tricolor::impl::round_up(reinterpret_cast<std::uintptr_t>(object) + 1, page));
    REQUIRE(mprotect(x_page, page, PROT_READ) == 0);
  }
  // Async-signal-safe.
  void remove() {
    if (x_page != nullptr)
      mprotect(x_page, static_cast<std::size_t>(sysconf(_SC_PAGESIZE)), PROT_READ | PROT_WRITE);
    x_page = nullptr;
  }

  static std::atomic<bool> holds;
  static std::atomic<std::uint32_t> may_go_on;

 private:
  static void on_write(int, siginfo_t* info, void*);

  char* x_page = nullptr;
};

std::atomic<bool> Trap::holds{false};
std::atomic<std::uint32_t> Trap::may_go_on{0};
std::array<Trap, 2> traps;

void Trap::on_write(int, siginfo_t* info, void*) {
  for (Trap& trap : traps) {
    const auto* const address = static_cast<const char*>(info->si_addr);
    if (trap.x_page == nullptr || address < trap.x_page ||
        address >= trap.x_page + sysconf(_SC_PAGESIZE))
      continue;
    holds = true;
    while (may_go_on == 0) tricolor::impl::os::futex_wait(may_go_on, 0);
    trap.remove();
    return;
  }
  signal(SIGSEGV, SIG_DFL);  // no trap: what has been interrupted fails again
}

}  // namespace

// What dies leaves words behind that refer to objects which die later. Nobody is to find them there while a new object over them
// is zeroed: a cycle that runs meanwhile frees what they refer to.
TEST_CASE("child makes large objects of what dead ones have left", "[.child]") {
  constexpr std::size_t kWords = (32 << 20) / sizeof(std::uintptr_t), kNodes = 1'000;
  if (tricolor::impl::kStopByPolls) return;  // no thread is stopped while it zeroes
  gc::set_percent(-1);
  Trap::catch_writes();
  std::uint64_t held = 0;
  repeat([&](std::uint64_t) {
    std::vector<gc::root<Node>> roots(kNodes);
    std::vector<Hidden> nodes;
    std::array<Hidden, traps.size()> dead;  // what is made lies over one of them
    on_thread([&] {
      for (std::size_t i = 0; i < kNodes; ++i) {
        roots[i] = make_node(i);
        nodes.emplace_back(roots[i].get());
      }
      for (Hidden& place : dead) {
        const auto words = gc::make_array_for_overwrite<std::uintptr_t>(kWords);
        for (std::size_t i = 0; i < kWords; ++i) words[i] = nodes[i % kNodes].address();
        place = Hidden(words.data());
      }
    });
    collect();
    roots.clear();
    scrub_stack();
    for (std::size_t i = 0; i < dead.size(); ++i)
      traps[i].set(reinterpret_cast<const char*>(dead[i].address()));
    Trap::holds = false;
    Trap::may_go_on = 0;
    std::atomic<bool> is_made{false};
    // On a thread that is gone afterwards, with what the signal leaves on its stack: what it makes is dead in the next round.
    std::thread maker = start_thread([&] {
      gc::make_array<gc::ptr<Node>>(kWords);
      is_made = true;
    });
    while (!Trap::holds && !is_made) gc::safepoint();
    gc::collect();
    const std::size_t alive = count_alive(nodes);
    held += Trap::holds ? 1 : 0;
    Trap::may_go_on = 1;
    tricolor::impl::os::futex_wake_all(Trap::may_go_on);
    join(maker);
    for (Trap& trap : traps) trap.remove();
    // A few may be on a stack.
    if (alive > kNodes / 10) expect_intact(nullptr, 0);
    collect();  // the next one's words lie where this one's lay, and what it makes lies over them
  });
  CHECK(held > 0);
}

TEST_CASE("child takes over what threads took out that have blocked", "[.child]") {
  const Collector collector;
  constexpr std::size_t kBatch = 50;
  gc::array<gc::ptr<Node>> nodes = gc::make_array<gc::ptr<Node>>(kSlots);
  gc::array<gc::ptr<Box>> boxes = gc::make_array<gc::ptr<Box>>(kBatch);
  for (std::size_t i = 0; i < kSlots; ++i) nodes[i] = make_node(i);
  const auto last = [&](std::size_t i) -> gc::ptr<Node>& { return nodes[kSlots - kBatch + i]; };
  // As soon as a cycle marks it takes a batch out of the slots that are scanned last, hands it over to the main thread's frame, and
  // is blocked up to the end of that cycle, with the batch in its log.
  std::array<std::atomic<Node*>, kBatch> frame = {};
  std::atomic<int> wanted{0}, done{0};  // batches
  std::atomic<bool> end{false};
  std::thread helper = start_thread([&] {
    const gc::thread_scope attach;
    for (int batch = 1;; ++batch) {
      wait_until(wanted, batch);
      if (end) return;
      while (tricolor::detail::current_cache->armed == 0) gc::safepoint();
      for (std::size_t i = 0; i < kBatch; ++i) {
        frame[i] = last(i).get();
        last(i) = nullptr;
      }
      done = batch;
    }
  });
  repeat([&](std::uint64_t) {
    const std::uint64_t cycles = gc::stats().cycles_total;
    raise(wanted, wanted + 1);
    while (done < wanted) gc::safepoint();
    for (std::size_t i = 0; i < kBatch; ++i) {
      boxes[i] = gc::make<Box>(frame[i].load());
      frame[i] = nullptr;
    }
    while (gc::stats().cycles_total < cycles + 2) gc::safepoint();
    for (std::size_t i = 0; i < kBatch; ++i) {
      expect_intact(boxes[i]->node, kSlots - kBatch + i);
      last(i) = boxes[i]->node;
      boxes[i] = nullptr;
    }
  });
  end = true;
  raise(wanted, wanted + 1);
  join(helper);
}

namespace {

Node* make_tree(int depth) {
  Node* const node = make_node(static_cast<std::uint64_t>(depth));
  if (depth > 0) {
    node->next = make_tree(depth - 1);
    node->other = make_tree(depth - 1);
  }
  return node;
}
void expect_tree(const Node* tree, int depth) {
  expect_intact(tree, static_cast<std::uint64_t>(depth));
  if (depth == 0) return;
  expect_tree(tree->next, depth - 1);
  expect_tree(tree->other, depth - 1);
}

}  // namespace

TEST_CASE("child keeps objects in ranges only", "[.child]") {
  const Collector collector;
  std::vector<Node*> raw(1'000);
  std::vector<gc::ptr<Node>> barriered(1'000);
  const auto first = gc::add_root_range(raw.data(), raw.data() + raw.size(), gc::raw);
  const auto second =
      gc::add_root_range(barriered.data(), barriered.data() + barriered.size(), gc::barriered);
  repeat([&](std::uint64_t round) {
    for (std::size_t i = 0; i < 1'000; ++i) {
      if (round != 0) {
        expect_intact(raw[i], i);
        expect_intact(barriered[i], i + 1);
      }
      if (i % 16 == round % 16 || round == 0) {
        raw[i] = make_node(i);
        barriered[i] = make_node(i + 1);
      }
    }
  });
}

// What is in a range when a cycle begins, and is taken out and the range removed before the cycle has come to it.
TEST_CASE("child takes over what ranges held that have gone", "[.child]") {
  constexpr std::size_t kRanges = 500;
  const Collector collector;
  std::vector<std::unique_ptr<gc::ptr<Node>[]>> words;
  std::vector<gc::root_range> ranges(kRanges);
  for (std::size_t i = 0; i < kRanges; ++i) words.push_back(std::make_unique<gc::ptr<Node>[]>(4));
  gc::array<gc::ptr<Box>> boxes = gc::make_array<gc::ptr<Box>>(kRanges);
  repeat([&](std::uint64_t) {
    for (std::size_t i = 0; i < kRanges; ++i) {
      const bool is_raw = i % 2 == 0;
      ranges[i] =
          gc::add_root_range(words[i].get(), words[i].get() + 4, is_raw ? gc::raw : gc::barriered);
      words[i][2] = make_node(i);
    }
    const std::uint64_t cycle = gc::stats().cycles_total;
    while (gc::stats().cycles_total < cycle + 1) gc::safepoint();  // the next one has them
    for (std::size_t i = 0; i < kRanges; ++i) {
      boxes[i] = gc::make<Box>(words[i][2]);
      // Without a barrier, where that is allowed.
      if (i % 2 == 0) *reinterpret_cast<Node* volatile*>(&words[i][2]) = nullptr;
      ranges[i].reset();
    }
    for (std::size_t i = 0; i < kRanges; ++i) {
      expect_intact(boxes[i]->node, i);
      boxes[i] = nullptr;
    }
  });
}

TEST_CASE("child keeps a large tree", "[.child]") {
  // Ten of it in a row, so that there is more grey than fits into a packet.
  gc::array<gc::ptr<Node>> trees = gc::make_array<gc::ptr<Node>>(2'000);
  for (auto& tree : trees) tree = make_tree(4);
  repeat([&](std::uint64_t) {
    gc::collect();
    for (const auto& tree : trees) expect_tree(tree, 4);
  });
}

// A thread stopped between the test of its barrier and its stores makes them without a log when the world runs again. Who wakes up
// before it reads what it is about to clear: references to white objects, which from then on are only on a stack that has been
// captured already.
TEST_CASE("child reads slots that another thread is about to clear", "[.child]") {
  constexpr std::size_t kSlotsAUnit = 64, kNodes = 8;  // at the end: they are cleared last
  gc::array<gc::ptr<Node>> slots = gc::make_array<gc::ptr<Node>>(kSlotsAUnit);
  const std::span<gc::ptr<Node>> last = slots.span().last(kNodes);
  std::atomic<bool> end{false};
  std::thread clears = start_thread([&] {
    while (!end) {
      for (std::size_t i = 0; i < kNodes; ++i) last[i] = make_node(i);
      gc::clear(slots.span());
    }
  });
  {
    const Collector collector;
    const tricolor::impl::Handshake& handshake = tricolor::impl::Heap::existing()->handshake();
    repeat([&](std::uint64_t) {
      tricolor::impl::MarkEpoch epoch = handshake.epoch();
      for (tricolor::impl::MarkEpoch before = epoch;
           epoch == before || !tricolor::impl::is_marking(epoch); epoch = handshake.epoch()) {
        before = epoch;
        if (tricolor::impl::kStopByPolls) gc::safepoint();
      }
      // A cycle has just begun to mark.
      std::array<Node*, kNodes> taken;
      for (std::size_t i = kNodes; i-- > 0;) taken[i] = last[i];
      while (handshake.epoch() - epoch < 2) gc::safepoint();  // until the next one begins
      for (std::size_t i = 0; i < kNodes; ++i) {
        if (taken[i] != nullptr) expect_intact(taken[i], i);
      }
    });
  }
  end = true;
  join(clears);
}

TEST_CASE("every planted fault is caught", "[process]") {
  for (const FaultName& fault : kFaults) {
    // Where threads stop by polls, no unit is stopped in its middle, whatever a signal handler does.
    if (tricolor::impl::kStopByPolls && fault.fault == Fault::barrier_split) continue;
    // Nor is a thread stopped while it zeroes.
    if (tricolor::impl::kStopByPolls && fault.fault == Fault::scanned_unready) continue;
    INFO(fault.name << ", " << fault.child);
    const ProgramEnd end = run_program(
        fault.child, {{"TRICOLOR_DEBUG", fault.debug}, {"TRICOLOR_TEST_FAULT", fault.name}});
    INFO(end.output);
    // By the verifier, by the program, or because what has been freed ended it before anybody looked. (Catch or a sanitizer
    // reports the signal, or the address 0xdeadbeefdeadbeef before that. What is freed while it is used is a race, which ThreadSanitizer may see first; without a fault it
    // sees none.)
    const bool is_reported = has_line(end.output, "verify.no-hidden-white");
    const bool is_lost = has_line(end.output, "LOST");
    const bool has_crashed = end.signal == SIGSEGV || has_line(end.output, "SEGV") ||
                             has_line(end.output, "runtime error: ") ||
                             has_line(end.output, "ThreadSanitizer: data race");
    CHECK(end.exit_code != 0);
    CHECK((is_reported || is_lost || has_crashed));
  }
}

TEST_CASE("the last stop finds by itself what is in logs", "[process]") {
  const ProgramEnd end = run_program(kTaken, {{"TRICOLOR_DEBUG", "gccheckmark=1,clobberfree=1"},
                                              {"TRICOLOR_TEST_FAULT", "no_ragged_flush"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("the programs that faults are planted in are right", "[process]") {
  std::vector<std::pair<std::string, std::string>> children;  // and their knobs
  for (const FaultName& fault : kFaults) children.emplace_back(fault.child, fault.debug);
  std::sort(children.begin(), children.end());
  children.erase(std::unique(children.begin(), children.end()), children.end());
  for (const auto& [child, knobs] : children) {
    for (const char* more : {",seed=7", ",tinybuffers=1"}) {
      const std::string debug = knobs + more;
      INFO(child << ", " << debug);
      const ProgramEnd end = run_program(child, {{"TRICOLOR_DEBUG", debug}});
      INFO(end.output);
      CHECK(end.exit_code == 0);
    }
  }
}
