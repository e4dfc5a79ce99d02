// What keeps an object alive: each test has objects that are reachable through one thing only, and takes that away.
#include <dlfcn.h>
#include <tricolor/gc.h>

#include <array>
#include <catch2/catch.hpp>
#include <list>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "roots/stack.h"
#include "test/gc/support.h"

using namespace tricolor::test;

namespace {

gc::ptr<Node> global;
gc::array<gc::ptr<Node>> global_array;
thread_local gc::ptr<Node> own;
thread_local gc::array<int> own_array;

struct Big {
  gc::ptr<Node> first;
  std::array<char, 200> padding = {};
  Node middle;
  std::array<char, 300> more_padding = {};
  int last = 0;
};
struct Base1 {
  std::uint64_t a = 1;
};
struct Base2 {
  std::uint64_t b = 2;
};
struct Derived : Base1, Base2 {
  gc::ptr<Node> node;
  static constexpr auto gc_fields = gc::fields(&Derived::node);
};

// A list of `length`, whose nodes are noted.
Node* make_list(int length, std::vector<Hidden>& notes) {
  Node* list = nullptr;
  for (int i = 0; i < length; ++i) {
    list = make_node(static_cast<std::uint64_t>(i), list);
    notes.emplace_back(list);
  }
  return list;
}

[[gnu::noinline]] Hidden make_hidden(std::uint64_t value) {
  Node* const node = make_node(value);
  node->next = make_node(value + 1);
  return Hidden(node);
}

[[gnu::noinline, maybe_unused]] bool intact_pair(Hidden object, std::uint64_t value) {
  const Node* const node = reinterpret_cast<const Node*>(object.address());
  return intact(node, value) && intact(node->next, value + 1);
}

}  // namespace

TEST_CASE("a global gc::ptr keeps what it refers to, until it is cleared") {
  std::vector<Hidden> notes;
  on_thread([&] { global = make_list(100, notes); });
  collect();
  CHECK(count_alive(notes) == 100);
  global = nullptr;
  collect();
  CHECK(count_alive(notes) == 0);
}

TEST_CASE("an overwritten global keeps the new object and not the old one") {
  Hidden older;
  Hidden newer;
  on_thread([&] {
    global = make_node(1);
    older = Hidden(global);
    global = make_node(2);
    newer = Hidden(global);
  });
  collect();
  CHECK_FALSE(alive(older));
  CHECK(alive(newer));
  global = nullptr;
}

TEST_CASE("a global gc::array keeps its elements and what they refer to") {
  std::vector<Hidden> notes;
  on_thread([&] {
    global_array = gc::make_array<gc::ptr<Node>>(1'000);
    for (gc::ptr<Node>& element : global_array.span()) {
      element = make_node(7);
      notes.emplace_back(element);
    }
  });
  collect();
  CHECK(count_alive(notes) == 1'000);
  CHECK(global_array.size() == 1'000);
  for (int i = 0; i < 500; ++i) global_array[2 * i] = nullptr;
  collect();
  CHECK(count_alive(notes) == 500);
  global_array = nullptr;
  collect();
  CHECK(count_alive(notes) == 0);
}

TEST_CASE("a static local gc::ptr is a root") {
  Hidden object;
  static gc::ptr<Node> local;
  on_thread([&] {
    local = make_node(3);
    object = Hidden(local);
  });
  collect();
  CHECK(alive(object));
  local = nullptr;
  collect();
  CHECK_FALSE(alive(object));
}

TEST_CASE("a thread_local gc::ptr of the main thread is a root") {
  Hidden object;
  std::atomic<gc::ptr<Node>*> slot{&own};
  on_thread([&] {
    *slot.load() = make_node(4);
    object = Hidden(*slot.load());
  });
  collect();
  CHECK(alive(object));
  apart([] { CHECK(own->value == 4); });
  own = nullptr;
  collect();
  CHECK_FALSE(alive(object));
}

TEST_CASE("thread_locals of other threads are roots while the threads live, running or blocked") {
  Hidden object;
  Hidden array;
  std::atomic<int> step{0};
  std::thread thread = start_thread([&] {
    const gc::thread_scope scope;
    // The objects are made by a thread that is gone, so nothing else of this thread's knows them.
    gc::ptr<Node>* const mine = &own;
    gc::array<int>* const mine_too = &own_array;
    on_thread([&, mine, mine_too] {
      *mine = make_node(5);
      object = Hidden(*mine);
      *mine_too = gc::make_array<int>(10'000);
      array = Hidden(mine_too->data());
    });
    raise(step, 1);
    wait_until(step, 2);
    own_array = nullptr;
    raise(step, 3);
    while (step.load() < 4) gc::safepoint();
  });
  wait_until(step, 1);
  collect();
  CHECK(alive(object));
  CHECK(alive(array));
  raise(step, 2);
  wait_until(step, 3);
  collect();
  CHECK(alive(object));
  CHECK_FALSE(alive(array));
  raise(step, 4);
  join(thread);
  collect();
  CHECK_FALSE(alive(object));
}

TEST_CASE(
    "roots in a vector, in a list, in an optional and behind a unique_ptr keep their objects") {
  std::vector<gc::root<Node>> vector;
  std::list<gc::root<Node>> list;
  std::optional<gc::root<Node>> optional;
  auto unique = std::make_unique<gc::root<Node>>();
  std::vector<Hidden> notes;
  on_thread([&] {
    for (int i = 0; i < 1'000; ++i) {
      vector.emplace_back(make_node(6));
      notes.emplace_back(vector.back().get());
    }
    list.emplace_back(make_list(10, notes));
    optional.emplace(make_list(10, notes));
    *unique = make_list(10, notes);
  });
  collect();
  CHECK(count_alive(notes) == 1'030);
  optional.reset();
  collect();
  CHECK(count_alive(notes) == 1'020);
  unique.reset();
  collect();
  CHECK(count_alive(notes) == 1'010);
  list.clear();
  collect();
  CHECK(count_alive(notes) == 1'000);
  for (int i = 0; i < 500; ++i) vector.pop_back();
  collect();
  CHECK(count_alive(notes) == 500);
  vector.clear();
  collect();
  CHECK(count_alive(notes) == 0);
}

TEST_CASE("roots are copied, moved, assigned, cleared, and only those left hold the object") {
  std::vector<Hidden> notes;
  gc::root<Node> first;
  on_thread([&] { first = make_list(1, notes); });
  gc::root<Node> copy;
  gc::root<Node> moved;
  apart([&] {
    gc::root<Node> constructed = first;
    copy = constructed;
    gc::root<Node> taken = std::move(first);
    CHECK_FALSE(first);
    moved = std::move(taken);
  });
  apart([&] {
    CHECK(copy.get() == moved.get());
    CHECK(copy->value == 0);
  });
  copy = nullptr;
  collect();
  CHECK(count_alive(notes) == 1);
  apart([&] { copy = moved; });
  moved.reset();
  collect();
  CHECK(count_alive(notes) == 1);
  gc::root<const Node> converted;
  apart([&] { converted = gc::root<const Node>(copy); });
  copy = static_cast<Node*>(nullptr);
  collect();
  CHECK(count_alive(notes) == 1);
  converted = gc::root<const Node>();
  collect();
  CHECK(count_alive(notes) == 0);
}

TEST_CASE("a root on an interior address keeps the whole object") {
  std::vector<Hidden> notes;
  gc::root<int> last;
  on_thread([&] {
    Big* const big = gc::make<Big>();
    big->first = make_list(5, notes);
    notes.emplace_back(big);
    last = &big->last;
  });
  collect();
  CHECK(count_alive(notes) == 6);
  apart([&] { CHECK(*last == 0); });
  last.reset();
  collect();
  CHECK(count_alive(notes) == 0);
}

TEST_CASE("a gc::ptr to a member, to a base or to an element keeps the object around it") {
  static gc::ptr<Node> member;
  static gc::ptr<Base2> base;
  static gc::ptr<int> element;
  Hidden big;
  Hidden derived;
  Hidden array;
  Hidden large;
  static gc::ptr<int> element_of_large;
  on_thread([&] {
    Big* const b = gc::make<Big>();
    member = &b->middle;
    big = Hidden(b);
    Derived* const d = gc::make<Derived>();
    base = d;
    derived = Hidden(d);
    const auto a = gc::make_array<int>(1'000);
    element = &a[777];
    array = Hidden(a.data());
    const auto l = gc::make_array<int>(1'000'000);
    element_of_large = &l[999'999];
    large = Hidden(l.data());
  });
  collect();
  CHECK(alive(big));
  CHECK(alive(derived));
  CHECK(alive(array));
  CHECK(alive(large));
  apart([] {
    CHECK(base->b == 2);
    CHECK(*element_of_large == 0);
  });
  member = nullptr;
  base = nullptr;
  element = nullptr;
  element_of_large = nullptr;
  collect();
  CHECK_FALSE(alive(big));
  CHECK_FALSE(alive(derived));
  CHECK_FALSE(alive(array));
  CHECK_FALSE(alive(large));
}

TEST_CASE("a past-the-end iterator alone keeps its array, whatever the array's size") {
  std::vector<gc::root<std::uint64_t>> ends;
  std::vector<gc::root<char>> ends_of_bytes;
  std::vector<Hidden> notes;
  on_thread([&] {
    for (std::size_t n = 0; n < 300;
         ++n) {  // among them those that fill a cell but for the byte behind the end
      const auto words = gc::make_array<std::uint64_t>(n);
      ends.emplace_back(words.end());
      notes.emplace_back(words.data() - 1);
      const auto bytes = gc::make_array<char>(n);
      ends_of_bytes.emplace_back(bytes.end());
      notes.emplace_back(bytes.data() - 1);
    }
    for (const std::size_t bytes : {32'760u, 32'768u, 65'528u, 65'536u, 1u << 20}) {
      const auto large = gc::make_array<std::uint64_t>(bytes / 8 - 1);
      ends.emplace_back(large.end());
      notes.emplace_back(large.data() - 1);
    }
  });
  collect();
  CHECK(count_alive(notes) == notes.size());
  ends.clear();
  ends_of_bytes.clear();
  collect();
  CHECK(count_alive(notes) == 0);
}

TEST_CASE("a stack slot keeps an object, and the slot's end lets it go") {
  std::vector<Hidden> notes;
  const auto build_and_keep = [&]() __attribute__((noinline)) {
    Node* volatile list = make_list(50, notes);
    collect();
    CHECK(count_alive(notes) == 50);
    CHECK(list->value == 49);
    Node* const start = list;
    list = start->next->next;
    asm volatile("" : : "r"(&list) : "memory");
  };
  build_and_keep();
  collect();
  CHECK(count_alive(notes) == 0);
}

TEST_CASE("a past-the-end iterator and an interior pointer in stack slots keep their objects") {
  std::vector<Hidden> notes;
  const auto build_and_keep = [&]() __attribute__((noinline)) {
    int* volatile end = nullptr;
    int* volatile inside = nullptr;
    on_thread([&] {
      const auto a = gc::make_array<int>(1'001);
      notes.emplace_back(a.data());
      end = a.end();
      const auto b = gc::make_array<int>(1'001);
      notes.emplace_back(b.data());
      inside = &b[500];
    });
    collect();
    CHECK(count_alive(notes) == 2);
    end = nullptr;
    inside = nullptr;
  };
  build_and_keep();
  collect();
  CHECK(count_alive(notes) == 0);
}

TEST_CASE("more pointers on one stack than a capture holds are all kept") {
  constexpr std::size_t kMany = 2 * tricolor::impl::StackCapture::kCapacity;
  std::atomic<int> step{0};
  std::vector<Hidden> notes;
  std::thread thread = start_thread([&] {
    Node* volatile slots[kMany];
    for (auto& slot : slots) {
      slot = make_node(8);
      notes.emplace_back(slot);
    }
    collect();  // blocked, as this thread waits
    const std::size_t blocked = count_alive(notes);
    raise(step, 1);
    while (step.load() < 2) gc::safepoint();  // running
    CHECK(blocked == kMany);
    for (auto& slot : slots) CHECK(intact(slot, 8));
  });
  wait_until(step, 1);
  collect();
  CHECK(count_alive(notes) == kMany);
  raise(step, 2);
  join(thread);
  collect();
  CHECK(count_alive(notes) == 0);
}

TEST_CASE("the frames above blocking_call are roots while the thread is blocked") {
  std::atomic<int> ready{0};
  std::atomic<int> step{0};
  Hidden object;
  bool kept_intact = false;
  std::thread thread = start_thread([&] {
    const auto work = [&]() __attribute__((noinline)) {
      Node* kept = make_node(9);
      object = Hidden(kept);
      asm volatile("" : "+r"(kept));
      raise(ready, 1);
      wait_until(step, 1);  // inside blocking_call
      kept_intact = intact(kept, 9);
    };
    work();
    scrub_stack();
    raise(ready, 2);
    wait_until(step, 2);
  });
  wait_until(ready, 1);
  collect();
  CHECK(alive(object));
  collect();
  CHECK(alive(object));
  raise(step, 1);
  wait_until(ready, 2);
  collect();
  CHECK_FALSE(alive(object));
  raise(step, 2);
  join(thread);
  CHECK(kept_intact);
}

TEST_CASE("objects that a thread leaves behind on its stack go with the thread") {
  std::vector<Hidden> notes;
  for (int i = 0; i < 20; ++i) {
    on_thread([&] {
      Node* volatile list = make_list(10, notes);
      asm volatile("" : : "r"(&list) : "memory");
    });
  }
  collect();
  CHECK(count_alive(notes) == 0);
}

TEST_CASE("a thread_scope ends with the thread's roots") {
  std::atomic<int> step{0};
  Hidden object;
  std::thread thread = start_thread([&] {
    {
      const gc::thread_scope scope;
      own = make_node(10);
      object = Hidden(own);
      Node* volatile local = own;
      collect();
      CHECK(alive(object));
      asm volatile("" : : "r"(&local) : "memory");
    }
    raise(step, 1);
    wait_until(step, 2);  // a plain wait: the thread is not attached
  });
  wait_until(step, 1);
  collect();
  CHECK_FALSE(alive(object));
  raise(step, 2);
  join(thread);
}

TEST_CASE("a thread_scope keeps what an attached thread only reads") {
  std::atomic<int> step{0};
  Hidden object = make_hidden(11);
  static gc::ptr<Node> handover;
  handover = reinterpret_cast<Node*>(object.address());
  std::thread reader = start_thread([&] {
    const gc::thread_scope scope;
    Node* volatile mine = handover;
    raise(step, 1);
    while (step.load() < 2) gc::safepoint();
    CHECK(intact(mine, 11));
    mine = nullptr;
  });
  wait_until(step, 1);
  handover = nullptr;
  collect();
  CHECK(alive(object));
  raise(step, 2);
  join(reader);
  collect();
  CHECK_FALSE(alive(object));
}

TEST_CASE("keep_alive keeps an object whose last use is before it") {
  std::vector<Hidden> notes;
  const auto build = [&]() __attribute__((noinline)) {
    Node* const node = make_list(1, notes);
    collect();
    gc::keep_alive(node);
    return count_alive(notes);
  };
  CHECK(build() == 1);
  collect();
  CHECK(count_alive(notes) == 0);
}

// ------------------------------------------------------------------------------ libraries of others

namespace {

struct Module {
  void* handle;
  void (*set)(int slot, std::uint64_t value);
  void (*clear)(int slot);
  std::uintptr_t (*hidden)(int slot);
  std::uint64_t (*value)(int slot);

  Module() : handle(dlopen(beside_this_program("libgc_module.so").c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (handle == nullptr) FAIL(dlerror());
    set = reinterpret_cast<decltype(set)>(dlsym(handle, "module_set"));
    clear = reinterpret_cast<decltype(clear)>(dlsym(handle, "module_clear"));
    hidden = reinterpret_cast<decltype(hidden)>(dlsym(handle, "module_hidden"));
    value = reinterpret_cast<decltype(value)>(dlsym(handle, "module_value"));
  }
};

}  // namespace

TEST_CASE("statics of a library that was opened by dlopen are roots, also after dlclose") {
  gc::collect();  // the list of segments is older than the library
  Module module;
  std::array<Hidden, 3> objects;
  on_thread([&] {
    for (int slot = 0; slot < 3; ++slot) {
      module.set(slot, 100 + static_cast<std::uint64_t>(slot));
      objects[static_cast<std::size_t>(slot)] =
          Hidden(reinterpret_cast<const void*>(~module.hidden(slot)));
    }
  });
  collect();
  for (int slot = 0; slot < 3; ++slot) {  // .data, .bss, inside a class in an anonymous namespace
    INFO(slot);
    CHECK(alive(objects[static_cast<std::size_t>(slot)]));
    CHECK(module.value(slot) == 100 + static_cast<std::uint64_t>(slot));
  }
  on_thread([&] { module.clear(1); });
  collect();
  CHECK(alive(objects[0]));
  CHECK_FALSE(alive(objects[1]));
  CHECK(alive(objects[2]));

  dlclose(module.handle);  // it has been seen to hold roots: it stays [library.pinned]
  collect();
  CHECK(alive(objects[0]));
  CHECK(alive(objects[2]));
  CHECK(module.value(2) == 102);
  on_thread([&] {
    module.clear(0);
    module.clear(2);
  });
  collect();
  CHECK_FALSE(alive(objects[0]));
  CHECK_FALSE(alive(objects[2]));
}

TEST_CASE("libraries are opened and closed while another thread collects") {
  std::atomic<bool> end{false};
  std::thread collector = start_thread([&] {
    while (!end) gc::collect();
  });
  for (int i = 0; i < 100; ++i) {
    void* const library = gc::blocking_call(
        [] { return dlopen(beside_this_program("libgc_module.so").c_str(), RTLD_NOW); });
    REQUIRE(library != nullptr);
    const auto set = reinterpret_cast<void (*)(int, std::uint64_t)>(dlsym(library, "module_set"));
    const auto value = reinterpret_cast<std::uint64_t (*)(int)>(dlsym(library, "module_value"));
    set(0, 42);
    set(1, 43);
    gc::make_array<char>(100'000);
    CHECK(value(0) == 42);
    CHECK(value(1) == 43);
    gc::blocking_call([&] { dlclose(library); });
  }
  end = true;
  join(collector);
}

TEST_CASE("a library whose constructors allocate and collect can be opened") {
  void* const library = dlopen(beside_this_program("libgc_module_collects.so").c_str(), RTLD_NOW);
  if (library == nullptr) FAIL(dlerror());
  const auto intact_after = reinterpret_cast<bool (*)()>(dlsym(library, "module_intact"));
  CHECK(intact_after());
  collect();
  CHECK(intact_after());
  dlclose(library);
  gc::collect();
}

// ---------------------------------------------------------------------------------------- registers

#if defined(__x86_64__)

namespace {

struct Spin {
  Hidden object;
  std::atomic<std::uint32_t> started{0};
  std::atomic<std::uint32_t> go{0};
  std::uintptr_t out = 0;

  void wait_started() {
    gc::blocking_call([&] {
      while (started.load() == 0) std::this_thread::yield();
    });
  }
};
static_assert(sizeof(std::atomic<std::uint32_t>) == 4);

// Each keeps the plain address in one register and spins until `go`.
[[gnu::noinline]] void spin_with_rbx(Spin& s) {
  asm volatile(
      "movq %[hidden], %%rbx\n\t"
      "notq %%rbx\n\t"
      "movl $1, %[started]\n"
      "1:\tpause\n\t"
      "cmpl $0, %[go]\n\t"
      "je 1b\n\t"
      "notq %%rbx\n\t"
      "movq %%rbx, %[out]"
      : [started] "=m"(s.started), [out] "=m"(s.out)
      : [hidden] "m"(s.object), [go] "m"(s.go)
      : "rbx", "memory", "cc");
}

[[gnu::noinline]] void spin_with_rax(Spin& s) {
  asm volatile(
      "movq %[hidden], %%rax\n\t"
      "notq %%rax\n\t"
      "movl $1, %[started]\n"
      "1:\tpause\n\t"
      "cmpl $0, %[go]\n\t"
      "je 1b\n\t"
      "notq %%rax\n\t"
      "movq %%rax, %[out]"
      : [started] "=m"(s.started), [out] "=m"(s.out)
      : [hidden] "m"(s.object), [go] "m"(s.go)
      : "rax", "memory", "cc");
}

[[gnu::noinline]] void spin_with_xmm(Spin& s) {
  asm volatile(
      "movq %[hidden], %%xmm9\n\t"
      "pcmpeqd %%xmm8, %%xmm8\n\t"
      "pxor %%xmm8, %%xmm9\n\t"
      "pslldq $8, %%xmm9\n\t"  // to the upper half
      "movl $1, %[started]\n"
      "1:\tpause\n\t"
      "cmpl $0, %[go]\n\t"
      "je 1b\n\t"
      "psrldq $8, %%xmm9\n\t"
      "pxor %%xmm8, %%xmm9\n\t"
      "movq %%xmm9, %[out]"
      : [started] "=m"(s.started), [out] "=m"(s.out)
      : [hidden] "m"(s.object), [go] "m"(s.go)
      : "xmm8", "xmm9", "memory", "cc");
}

[[gnu::noinline, gnu::target("avx2")]] void spin_with_upper_ymm(Spin& s) {
  asm volatile(
      "vmovq %[hidden], %%xmm9\n\t"
      "vpcmpeqd %%xmm8, %%xmm8, %%xmm8\n\t"
      "vpxor %%xmm8, %%xmm9, %%xmm9\n\t"
      "vpermq $0x45, %%ymm9, %%ymm9\n\t"  // words 1, 1, 0, 1: it is in the third word only
      "movl $1, %[started]\n"
      "1:\tpause\n\t"
      "cmpl $0, %[go]\n\t"
      "je 1b\n\t"
      "vextracti128 $1, %%ymm9, %%xmm9\n\t"
      "vpxor %%xmm8, %%xmm9, %%xmm9\n\t"
      "vmovq %%xmm9, %[out]\n\t"
      "vzeroupper"
      : [started] "=m"(s.started), [out] "=m"(s.out)
      : [hidden] "m"(s.object), [go] "m"(s.go)
      : "xmm8", "xmm9", "memory", "cc");
}

// The plain address lies in the red zone below the stack pointer and nowhere else.
[[gnu::noinline]] void spin_with_red_zone(Spin& s) {
  asm volatile(
      "movq %[hidden], %%rax\n\t"
      "notq %%rax\n\t"
      "leaq -256(%%rsp), %%rsp\n\t"  // out of the way of what the compiler keeps there
      "movq %%rax, -120(%%rsp)\n\t"
      "xorl %%eax, %%eax\n\t"
      "movl $1, (%[started])\n"
      "1:\tpause\n\t"
      "cmpl $0, (%[go])\n\t"
      "je 1b\n\t"
      "movq -120(%%rsp), %%rax\n\t"
      "movq $0, -120(%%rsp)\n\t"
      "leaq 256(%%rsp), %%rsp\n\t"
      "notq %%rax\n\t"
      "movq %%rax, (%[out])\n\t"
      "xorl %%eax, %%eax"
      :
      : [hidden] "r"(s.object.complement()), [started] "r"(&s.started), [go] "r"(&s.go),
        [out] "r"(&s.out)
      : "rax", "memory", "cc");
}

// Calls fn(argument) with the plain address in rbx alone, and returns what is there afterwards, hidden.
[[gnu::noinline]] std::uintptr_t call_with_rbx(Hidden object, void (*fn)(void*), void* argument) {
  std::uintptr_t out = 0;
  asm volatile(
      "movq %[hidden], %%rbx\n\t"
      "notq %%rbx\n\t"
      "movq %%rsp, %%r12\n\t"
      "leaq -256(%%rsp), %%rsp\n\t"
      "andq $-16, %%rsp\n\t"
      "call *%[fn]\n\t"
      "movq %%r12, %%rsp\n\t"
      "notq %%rbx\n\t"
      "movq %%rbx, %[out]"
      : [out] "=r"(out), "+D"(argument)
      : [hidden] "r"(object.complement()), [fn] "r"(fn)
      : "rbx", "r12", "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "memory", "cc", "xmm0",
        "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
        "xmm12", "xmm13", "xmm14", "xmm15");
  return out;
}

void check_spinning(void (*spin)(Spin&)) {
  Spin s;
  std::thread thread = start_thread([&] {
    s.object = make_hidden(20);
    scrub_stack();
    spin(s);
    scrub_stack();
    if (!intact_pair(s.object, 20)) s.out = 0;
  });
  s.wait_started();
  for (int i = 0; i < 3; ++i) {
    collect();
    CHECK(alive(s.object));
  }
  s.go = 1;
  join(thread);
  CHECK(s.out == s.object.complement());
  collect();
  CHECK_FALSE(alive(s.object));
}

}  // namespace

TEST_CASE(
    "a running thread's registers are roots: callee-saved, caller-saved, vector, upper vector "
    "halves, the red zone") {
  if (tricolor::impl::kStopByPolls) {
    WARN("skipped: this build stops threads by polls, and an assembly loop does not poll");
    return;
  }
  SECTION("a callee-saved register") { check_spinning(spin_with_rbx); }
  SECTION("a caller-saved register") { check_spinning(spin_with_rax); }
  SECTION("the upper half of a vector register") { check_spinning(spin_with_xmm); }
  SECTION("the upper lane of a wide vector register") {
    if (__builtin_cpu_supports("avx2")) {
      check_spinning(spin_with_upper_ymm);
    } else {
      WARN("skipped: this processor has no AVX2");
    }
  }
  SECTION("the red zone") { check_spinning(spin_with_red_zone); }
}

TEST_CASE("a callee-saved register keeps an object through blocking_call") {
  Hidden object;
  std::uintptr_t out = 0;
  std::atomic<int> step{0};
  std::thread thread = start_thread([&] {
    object = make_hidden(21);
    scrub_stack();
    out = call_with_rbx(
        object,
        [](void* s) {
          auto& step = *static_cast<std::atomic<int>*>(s);
          scrub_stack();
          gc::blocking_call([&] {
            raise(step, 1);
            for (int now; (now = step.load()) < 2;) step.wait(now);
          });
        },
        &step);
    if (!intact_pair(object, 21)) out = 0;
  });
  wait_until(step, 1);
  collect();
  CHECK(alive(object));
  raise(step, 2);
  join(thread);
  CHECK(out == object.complement());
  collect();
  CHECK_FALSE(alive(object));
}

TEST_CASE("a callee-saved register keeps an object through the thread's own collection") {
  std::uintptr_t out = 0;
  Hidden object;
  std::size_t alive_after = 0;
  on_thread([&] {
    object = make_hidden(22);
    scrub_stack();
    out = call_with_rbx(
        object, [](void*) { collect(); }, nullptr);
    alive_after = alive(object);
  });
  CHECK(alive_after == 1);
  CHECK(out == object.complement());
}

TEST_CASE("a callee-saved register keeps an object through a poll") {
  Spin s;
  std::thread thread = start_thread([&] {
    s.object = make_hidden(23);
    scrub_stack();
    s.out = call_with_rbx(
        s.object,
        [](void* p) {
          Spin& spin = *static_cast<Spin*>(p);
          spin.started = 1;
          while (spin.go.load() == 0) gc::safepoint();
        },
        &s);
    if (!intact_pair(s.object, 23)) s.out = 0;
  });
  s.wait_started();
  collect();
  CHECK(alive(s.object));
  s.go = 1;
  join(thread);
  CHECK(s.out == s.object.complement());
}

#endif
