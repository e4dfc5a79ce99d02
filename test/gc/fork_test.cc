// fork for real, with other threads in the middle of whatever they do. Each case is a process of its own, and each of its
// children collects.
#include "gc/fork.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <tricolor/gc.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "test/gc/support.h"

using namespace tricolor::test;

namespace {

constexpr int kPatienceMs = 60'000;  // then a child counts as one that hangs

// The forked children's exit codes.
enum Fault : int {
  kNone = 0,
  kLostBefore,    // what was alive at the fork
  kLostAfter,     // what survived a collection, or was made by the child
  kThreads,       // the number of threads is wrong
  kNoCycle,       // a cycle that was due did not run
  kGrandchild,    // the same there
  kSignal = 100,  // ended by a signal: a crash, or it did hang
};

int wait_for(pid_t child) {
  int status = 0;
  if (child < 0) return kSignal;
  gc::blocking_call([&] {
    // An alarm of its own would not end it: a thread that runs a cycle lets no signals through.
    for (int ms = 0; waitpid(child, &status, WNOHANG) == 0; ++ms) {
      if (ms == kPatienceMs) kill(child, SIGKILL);
      usleep(1'000);
    }
  });
  return WIFEXITED(status) ? WEXITSTATUS(status) : kSignal + WTERMSIG(status);
}

// ThreadSanitizer would miss the threads that a child does not have, and wait a second at each exit.
const Variables kForkingChild = {
    {"TSAN_OPTIONS",
     "halt_on_error=1:second_deadlock_stack=1:report_thread_leaks=0:atexit_sleep_ms=0"}};

// Neither sanitizer supports what the children here do. ThreadSanitizer ends a child of several threads that starts one, as
// the first cycle does; AddressSanitizer (GCC 12) does not free locks of its own in a child, which then hangs now and then.
bool skipped_under_sanitizers() {
  if (kShadowMemory) WARN("skipped: sanitizers do not support threads in forked children");
  return kShadowMemory;
}

// ------------------------------------------------------------------------ what everybody looks at

// A list that some threads change under a lock, which whoever forks holds meanwhile, as with any data of several threads.
gc::ptr<Node> shared;
std::atomic<std::uint64_t> shared_length{0};
std::mutex shared_lock;

void grow_shared() {
  Node* const node = make_node(0);
  const auto guard = lock_blocked(shared_lock);
  const std::uint64_t length = shared_length.load(std::memory_order_relaxed);
  if (length >= 200) {
    shared = nullptr;
    shared_length = 0;
  } else {
    node->value = length;
    node->check = checksum(length);
    node->next = shared;
    shared = node;
    shared_length = length + 1;
  }
}

bool shared_is_whole() {
  std::uint64_t left = shared_length.load();
  for (const Node* node = shared; node != nullptr; node = node->next) {
    if (left == 0 || !intact(node, --left)) return false;
  }
  return left == 0;
}

// A child's life. `lists`: of the thread that forked, null if it had none.
Fault live_on(Lists* lists, bool until_due, int generation) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // if the parent gives up
  if (lists != nullptr && !lists->check_all()) return kLostBefore;
  if (!shared_is_whole()) return kLostBefore;
  Node* const mine = make_node(77, make_node(78));
  gc::collect();
  if (gc::stats().threads_count != 1) return kThreads;
  if (!intact(mine, 77) || !intact(mine->next, 78) || !shared_is_whole()) return kLostAfter;
  Lists more(static_cast<std::uint64_t>(generation));
  for (int i = 0; i < 20; ++i) {
    grow_shared();
    if (!more.step()) return kLostAfter;
    if (lists != nullptr && !lists->step()) return kLostAfter;
  }
  if (until_due) {  // the collector's thread starts again
    const std::uint64_t cycles = gc::stats().cycles_total;
    for (int i = 0; i < 100'000 && gc::stats().cycles_total == cycles; ++i)
      gc::make_array<char>(2'000);
    if (gc::stats().cycles_total == cycles) return kNoCycle;
  }
  if (generation == 1) {
    const pid_t grandchild = fork();
    if (grandchild == 0) _exit(live_on(lists, until_due, 2));
    if (wait_for(grandchild) != kNone) return kGrandchild;
  }
  gc::collect();
  const bool whole = (lists == nullptr || lists->check_all()) && more.check_all();
  return whole && shared_is_whole() ? kNone : kLostAfter;
}

// Forks as the round says; in the parent, the child's fault.
int fork_once(int round, Lists& lists) {
  const bool until_due = round % 20 < 4;
  int fault = 0;
  const auto fork_here = [&](Lists* mine) {
    auto guard = lock_blocked(shared_lock);
    const pid_t child = fork();
    guard.unlock();
    if (child == 0) _exit(live_on(mine, until_due, 1));
    fault = wait_for(child);
  };
  switch (round % 4) {
    case 0:  // a running mutator
      fork_here(&lists);
      break;
    case 1: {  // inside blocking_call
      pid_t child = -1;
      gc::blocking_call([&] {
        shared_lock.lock();
        child = fork();
        shared_lock.unlock();
      });
      if (child == 0) _exit(live_on(&lists, until_due, 1));
      fault = wait_for(child);
      break;
    }
    case 2:  // a thread that is attached
      on_thread([&] {
        Lists own(static_cast<std::uint64_t>(round));
        for (int i = 0; i < 5; ++i) own.step();
        fork_here(&own);
        if (!own.check_all()) fault = kLostAfter;
      });
      break;
    default: {  // a thread that is not, also not in the child until it collects
      std::thread thread([&] {
        shared_lock.lock();
        const pid_t child = fork();
        shared_lock.unlock();
        if (child == 0) _exit(live_on(nullptr, until_due, 1));
        fault = wait_for(child);
      });
      join(thread);
    }
  }
  return fault;
}

void fork_many_times(int rounds) {
  gc::set_min_heap(0);
  const auto seed = test_seed();
  INFO("TRICOLOR_TEST_SEED=" << seed);
  std::atomic<bool> end{false};
  std::atomic<int> lost{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 2; ++t) {
    threads.push_back(start_thread([&, t] {
      Lists own(seed + t);
      gc::root<Node> handle;
      while (!end) {
        if (!own.step()) ++lost;
        grow_shared();
        handle = make_node(5);
        gc::blocking_call([&] { handle.reset(); });
        gc::make_array<char>(40'000);
      }
    }));
  }
  threads.push_back(start_thread([&] {
    while (!end) {
      gc::collect();
      on_thread([] { make_node(1); });  // threads come and go, too
    }
  }));
  Lists lists(seed + 100);
  int failed = 0;
  int first_fault = kNone;
  for (int round = 0; round < rounds && failed < 5; ++round) {
    if (!lists.step()) ++lost;
    const int fault = fork_once(round, lists);
    if (fault != kNone && failed++ == 0) first_fault = fault;
  }
  end = true;
  for (std::thread& thread : threads) join(thread);
  INFO("first fault: " << first_fault);
  CHECK(failed == 0);
  CHECK(lost == 0);
  CHECK(lists.check_all());
  CHECK(shared_is_whole());
}

}  // namespace

TEST_CASE("child forks again and again", "[.child]") { fork_many_times(event_rounds()); }

TEST_CASE(
    "a program whose threads allocate and collect forks again and again; the children collect and "
    "fork, and nobody loses an object or hangs",
    "[process][events]") {
  if (skipped_under_sanitizers()) return;
  const ProgramEnd end = run_program("child forks again and again", kForkingChild);
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child forks in the middle of a mark", "[.child]") {
  constexpr std::uint64_t kLength = 100'000;
  gc::root<Node> list;  // followed one by one
  for (std::uint64_t i = 0; i < kLength; ++i) list = make_node(i, list);
  const auto is_whole = [&] {
    std::uint64_t left = kLength;
    for (const Node* node = list; node != nullptr; node = node->next) {
      if (!intact(node, --left)) return false;
    }
    return left == 0;
  };
  std::atomic<bool> end{false};
  std::thread collector = start_thread([&] {
    while (!end) gc::collect();
  });
  const tricolor::impl::Handshake& handshake = tricolor::impl::Heap::existing()->handshake();
  int in_the_middle = 0;
  const int rounds = event_rounds();
  for (int round = 0; round < rounds; ++round) {
    tricolor::impl::MarkEpoch epoch = 0;
    while (!tricolor::impl::is_marking(epoch = handshake.epoch())) make_node(1);
    Node* const fresh = make_node(7);  // black
    const pid_t child = fork();
    if (child == 0) {
      if (tricolor::impl::is_marking(handshake.epoch())) _exit(kNoCycle);
      if (!is_whole() || !intact(fresh, 7)) _exit(kLostBefore);
      for (int i = 0; i < 1'000; ++i) make_node(2);
      gc::collect();
      for (int i = 0; i < 1'000; ++i) make_node(3);
      _exit(is_whole() && intact(fresh, 7) ? kNone : kLostAfter);
    }
    in_the_middle += handshake.epoch() == epoch;  // the mark is not over
    CHECK(wait_for(child) == kNone);
    CHECK(intact(fresh, 7));
  }
  end = true;
  join(collector);
  CHECK(is_whole());
  CHECK(in_the_middle >= rounds / 2);
}

TEST_CASE("a fork in the middle of a mark does not wait for it, and the child gives it up",
          "[process][events]") {
  if (skipped_under_sanitizers()) return;
  for (const char* debug : {"gccheckmark=1,clobberfree=1", "gccheckmark=1,workers=3,seed=5"}) {
    Variables variables = kForkingChild;
    variables.emplace_back("TRICOLOR_DEBUG", debug);
    const ProgramEnd end = run_program("child forks in the middle of a mark", variables);
    INFO(debug << end.output);
    CHECK(end.exit_code == 0);
  }
}

TEST_CASE("child forks with markers' threads", "[.child]") {
  gc::root<Node> large;
  for (std::uint64_t i = 0; i < 150'000; ++i) large = make_node(i, large);  // some 5 MB
  gc::collect();
  fork_many_times(20);
  std::uint64_t left = 150'000;
  bool whole = true;
  for (const Node* node = large; node != nullptr; node = node->next) whole &= intact(node, --left);
  CHECK(whole);
  CHECK(left == 0);
}

TEST_CASE("children start the markers' threads again", "[process]") {
  if (skipped_under_sanitizers()) return;
  Variables variables = kForkingChild;
  variables.emplace_back("TRICOLOR_DEBUG", "workers=3");
  const ProgramEnd end = run_program("child forks with markers' threads", variables);
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child forks before its first allocation", "[.child]") {
  for (int generation = 0; generation < 2; ++generation) {
    const pid_t child = fork();
    if (child == 0) _exit(live_on(nullptr, true, 1));
    CHECK(wait_for(child) == kNone);
    make_node(1);
  }
}

TEST_CASE("a program that forks before it has a heap, and after, has one in each process",
          "[process]") {
  if (skipped_under_sanitizers()) return;
  const ProgramEnd end = run_program("child forks before its first allocation", kForkingChild);
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child forks inside a stop that waits for it", "[.child]") {
  // Another thread is inside gc::critical while a stop is under way: the stop does not wait for the thread that forks.
  for (int i = 0; i < 20; ++i) {
    std::atomic<int> step{0};
    std::thread critical = start_thread([&] {
      const gc::critical section;
      raise(step, 1);
      while (tricolor::detail::current_cache->stop_note.load() == 0) std::this_thread::yield();
      raise(step, 2);
      for (int turns = 0; turns < 200; ++turns) std::this_thread::yield();
    });
    std::thread collector = start_thread([&] {
      wait_until(step, 1);
      gc::collect();
    });
    while (step.load() < 2) gc::safepoint();
    Node* const node = make_node(6);
    const pid_t child = fork();
    if (child == 0) _exit(intact(node, 6) ? live_on(nullptr, false, 1) : kLostBefore);
    CHECK(wait_for(child) == kNone);
    CHECK(intact(node, 6));
    join(critical);
    join(collector);
  }
}

TEST_CASE("a fork waits for the stop that is under way and does not hold it up", "[process]") {
  if (skipped_under_sanitizers()) return;
  const ProgramEnd end = run_program("child forks inside a stop that waits for it", kForkingChild);
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child forks beside a thread with a value stack", "[.child]") {
  constexpr std::size_t kWords = 1'000;
  const auto own = std::make_unique<Node* volatile[]>(kWords);
  const auto other = std::make_unique<Node* volatile[]>(kWords);
  const auto begin = [](const auto& words) { return const_cast<Node**>(words.get()); };
  Node** volatile own_top = begin(own) + kWords;
  // The other's top stands in memory that the child does not have.
  auto* const other_top = static_cast<Node** volatile*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  REQUIRE(madvise(const_cast<Node***>(other_top), 4096, MADV_DONTFORK) == 0);
  const gc::root_range own_stack = gc::add_stack(begin(own), begin(own) + kWords, &own_top);
  std::atomic<int> step{0};
  std::thread thread = start_thread([&] {
    *other_top = begin(other) + kWords;
    gc::root_range other_stack = gc::add_stack(begin(other), begin(other) + kWords, other_top);
    raise(step, 1);
    wait_until(step, 2);
    other_stack.reset();
  });
  wait_until(step, 1);
  on_thread([&] {
    for (std::uint64_t i = 0; i < kWords; ++i) own[i] = make_node(i);
  });
  const auto is_whole = [&] {
    bool whole = true;
    for (std::uint64_t i = 0; i < kWords; ++i) whole &= intact(own[i], i);
    return whole;
  };
  gc::collect();
  const pid_t child = fork();
  if (child == 0) {
    const Fault fault = live_on(nullptr, false, 1);
    _exit(fault == kNone && !is_whole() ? kLostAfter : fault);
  }
  CHECK(wait_for(child) == kNone);
  gc::collect();
  CHECK(is_whole());
  raise(step, 2);
  join(thread);
}

TEST_CASE("a forked child keeps the value stack of the thread that it has, and no other",
          "[process]") {
  if (skipped_under_sanitizers()) return;
  const ProgramEnd end =
      run_program("child forks beside a thread with a value stack", kForkingChild);
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child forks beside a thread that stays in a critical section", "[.child]") {
  std::atomic<int> step{0};
  std::thread critical = start_thread([&] {
    const gc::critical section;
    raise(step, 1);
    while (step.load() < 2) std::this_thread::yield();
  });
  wait_until(step, 1);
  const pid_t child = fork();  // user code: not waited for
  if (child == 0) _exit(live_on(nullptr, false, 1));
  CHECK(wait_for(child) == kNone);
  raise(step, 2);
  join(critical);
}

TEST_CASE("a fork does not wait for a thread inside gc::critical", "[process]") {
  if (skipped_under_sanitizers()) return;
  const ProgramEnd end =
      run_program("child forks beside a thread that stays in a critical section", kForkingChild);
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child forks inside critical", "[.child]") {
  const gc::critical section;
  if (fork() == 0) _exit(0);
}

TEST_CASE("a fork inside gc::critical is told so", "[process]") {
  const ProgramEnd end = run_program("child forks inside critical", kForkingChild);
  INFO(end.output);
  CHECK((end.exit_code != 0 || end.signal != 0));
  CHECK(has_line(end.output, "fork() inside gc::critical"));
}

// ---------------------------------------------------------------------------------- the loader's lock

namespace {

// A thread inside the loader's lock while this lives. It is not attached.
class InsideLoader {
 public:
  InsideLoader()
      : x_thread([this] {
          dl_iterate_phdr(
              [](dl_phdr_info*, std::size_t, void* self) {
                InsideLoader& inside = *static_cast<InsideLoader*>(self);
                raise(inside.x_step, 1);
                inside.x_step.wait(1);
                return 1;
              },
              this);
        }) {
    wait_until(x_step, 1);
  }
  InsideLoader(const InsideLoader&) = delete;
  InsideLoader& operator=(const InsideLoader&) = delete;
  ~InsideLoader() {
    raise(x_step, 2);
    join(x_thread);
  }

 private:
  std::atomic<int> x_step{0};
  std::thread x_thread;
};

thread_local gc::ptr<Node> of_thread;

// Everything that asks for libraries: listing them, attaching, pinning. The library `roots` was opened after the last cycle,
// as was `types`, of whose types there is no object yet.
Fault use_libraries(void** slot, void* types) {
  gc::collect();
  if (!intact(static_cast<Node*>(*slot), 5)) return kLostBefore;
  auto* const list = reinterpret_cast<void* (*)(std::uint64_t)>(dlsym(types, "module_list"));
  auto* const sum = reinterpret_cast<std::uint64_t (*)(void*)>(dlsym(types, "module_sum"));
  gc::root<void> of_library = list(10);
  Fault fault = kNone;
  on_thread([&] {
    of_thread = make_node(6);
    scrub_stack();
    for (int i = 0; i < 3; ++i) {
      collect();
      make_node(7);
    }
    if (!intact(of_thread, 6)) fault = kLostAfter;
  });
  dlclose(types);
  gc::collect();
  if (sum(of_library) != 55) return kLostAfter;
  return fault;
}

}  // namespace

TEST_CASE("child forks while a thread is inside the loader", "[.child]") {
  Lists lists(1);
  for (int i = 0; i < 5; ++i) lists.step();
  gc::collect();
  void* const roots =
      dlopen(beside_this_program("libgc_module_roots.so").c_str(), RTLD_NOW | RTLD_LOCAL);
  void* const types = dlopen(beside_this_program("libgc_module.so").c_str(), RTLD_NOW | RTLD_LOCAL);
  REQUIRE(roots != nullptr);
  REQUIRE(types != nullptr);
  void** const slot = reinterpret_cast<void** (*)()>(dlsym(roots, "module_bss"))();
  on_thread([&] { *slot = make_node(5); });
  for (int round = 0; round < 4; ++round) {
    pid_t child = -1;
    {
      const InsideLoader inside;
      child = fork();
      if (child == 0) {
        const Fault fault = use_libraries(slot, types);
        _exit(fault != kNone ? fault : live_on(&lists, true, 1));
      }
    }
    CHECK(wait_for(child) == kNone);
    CHECK(lists.step());
  }
}

TEST_CASE("child forks inside the loader before it has a heap", "[.child]") {
  const auto fork_inside = [](dl_phdr_info*, std::size_t, void* child) {
    *static_cast<pid_t*>(child) = fork();
    return 1;
  };
  pid_t child = -1;
  dl_iterate_phdr(fork_inside, &child);
  if (child == 0) _exit(live_on(nullptr, true, 1));
  CHECK(wait_for(child) == kNone);
}

TEST_CASE("child forks inside the loader beside threads that attach", "[.child]") {
  tricolor::impl::os::kill_process_after(120);  // if it hangs
  std::atomic<bool> end{false};
  std::atomic<int> attached{0};
  std::thread attaching([&] {
    while (!end) {
      std::thread([] { make_node(1); }).join();
      ++attached;
    }
  });
  std::thread collector = start_thread([&] {
    while (!end) gc::collect();
  });
  Lists lists(3);
  struct Round {
    Lists& lists;
    pid_t child = -1;
  } round{lists};
  for (int i = 0; i < 50; ++i) {
    const int before = attached;
    gc::blocking_call([&] {
      while (attached == before) std::this_thread::yield();
    });
    dl_iterate_phdr(
        [](dl_phdr_info*, std::size_t, void* argument) {
          Round& r = *static_cast<Round*>(argument);
          // Time for the thread that attaches to come and wait for us.
          for (int turns = 0; turns < 10; ++turns) {
            gc::collect();
            r.lists.step();
          }
          r.child = fork();
          return 1;
        },
        &round);
    if (round.child == 0) _exit(live_on(&lists, false, 1));
    CHECK(wait_for(round.child) == kNone);
  }
  end = true;
  gc::blocking_call([&] { attaching.join(); });
  join(collector);
}

TEST_CASE("a fork does not wait for a thread that waits for the loader to attach", "[process]") {
  if (skipped_under_sanitizers()) return;
  const ProgramEnd end =
      run_program("child forks inside the loader beside threads that attach", kForkingChild);
  INFO(end.output);
  CHECK(end.exit_code == 0);
  CHECK(end.signal == 0);
}

TEST_CASE("a child that inherits the loader's lock from a thread it does not have collects",
          "[process]") {
  if (skipped_under_sanitizers()) return;
  const ProgramEnd end = run_program(GENERATE("child forks while a thread is inside the loader",
                                              "child forks inside the loader before it has a heap"),
                                     kForkingChild);
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

// ---------------------------------------------------------------------------------------- exit

namespace {

// Ends the process by exit(), with threads in the middle of everything; statics are destroyed meanwhile. `marking` is in memory
// that the parent sees: it is raised if exit() has begun while a cycle marks.
[[noreturn]] void exit_amid_cycles(int round, std::atomic<int>* marking) {
  static gc::root<Node> last;  // its handle is given back by a destructor
  static std::atomic<int>* const raised = marking;
  static const auto is_marking_now = [] {
    return tricolor::impl::is_marking(tricolor::impl::Heap::existing()->handshake().epoch());
  };
  last = make_node(9);
  for (int t = 0; t < 3; ++t) {
    std::thread([t] {
      gc::root<Node> mine;
      for (std::uint64_t i = 0;; ++i) {
        mine = make_node(i, i % 50 == 0 ? nullptr : mine.get());
        if (t != 0 && i % 10 == 0) gc::collect();
      }
    }).detach();
  }
  // Registered last: the first thing that exit() does.
  std::atexit([] { *raised += is_marking_now(); });
  for (int i = 0; i < round % 4; ++i) gc::collect();
  // But for a few that exit where they are, each in the middle of a mark.
  while (round % 4 != 0 && !is_marking_now()) gc::safepoint();
  std::exit(intact(last, 9) ? 0 : 1);
}

}  // namespace

TEST_CASE("child forks and the children exit", "[.child]") {
  gc::root<Node> list;  // followed one by one: a mark takes a while
  for (std::uint64_t i = 0; i < 20'000; ++i) list = make_node(i, list);
  void* const memory = mmap(nullptr, sizeof(std::atomic<int>), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  auto* const in_the_middle = new (memory) std::atomic<int>(0);
  const int rounds = event_rounds();
  int failed = 0;
  for (int round = 0; round < rounds && failed < 5; ++round) {
    std::fflush(nullptr);  // or exit writes what is there once more
    const pid_t child = fork();
    if (child == 0) exit_amid_cycles(round, in_the_middle);
    if (wait_for(child) != 0) ++failed;
  }
  CHECK(failed == 0);
  INFO(*in_the_middle << " of " << rounds);
  CHECK(*in_the_middle >= rounds / 2);
}

TEST_CASE(
    "a process exits while a cycle marks and its threads allocate and collect, again and again",
    "[process][events]") {
  if (skipped_under_sanitizers()) return;
  const ProgramEnd end = run_program("child forks and the children exit", kForkingChild);
  INFO(end.output);
  CHECK(end.exit_code == 0);
  if (std::getenv("TRICOLOR_TEST_SHOW") != nullptr) std::printf("%s", end.output.c_str());
}

// ------------------------------------------------------------------------------ handlers of the program

TEST_CASE("child has handlers around fork", "[.child]") {
  // The program's handlers run while the library may be used: before its own prepare, after its own parent and child.
  static std::atomic<int> runs;
  static gc::root<Node> made;
  REQUIRE(pthread_atfork(
              [] {
                made = make_node(1);
                gc::collect();
                ++runs;
              },
              [] {
                made = make_node(2, made);
                gc::collect();
                ++runs;
              },
              [] {
                made = make_node(3, made);
                gc::collect();
                ++runs;
              }) == 0);
  const auto made_since = [](std::uint64_t value) {
    return intact(made, value) && intact(made->next, 1) && runs == 2;
  };
  const pid_t child = fork();
  if (child == 0) _exit(made_since(3) ? live_on(nullptr, false, 1) : kLostBefore);
  CHECK(made_since(2));
  CHECK(wait_for(child) == kNone);
}

TEST_CASE("the program's own handlers around fork may allocate and collect", "[process]") {
  if (skipped_under_sanitizers()) return;
  const ProgramEnd end = run_program("child has handlers around fork", kForkingChild);
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

// -------------------------------------------------------------------------------------- crash handlers

namespace {

std::atomic<int> crashes{0};
std::atomic<int> good_children{0};

// As crash reporters do it: the child would exec a debugger.
void report_crash(int) {
  const int saved_errno = errno;
  const pid_t child = fork();
  if (child == 0) _exit(7);
  int status = 0;
  while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 7) ++good_children;
  ++crashes;
  errno = saved_errno;
}

std::vector<int> library_threads() {
  std::vector<int> found;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    char name[32];
    const int id = std::stoi(task.path().filename());
    if (tricolor::impl::os::thread_name(id, name, sizeof name).substr(0, 8) == "tricolor")
      found.push_back(id);
  }
  return found;
}

}  // namespace

TEST_CASE("child has a crash handler that forks", "[.child]") {
  struct sigaction action = {};
  action.sa_handler = report_crash;
  REQUIRE(sigaction(SIGSEGV, &action, nullptr) == 0);
  Lists lists(1);
  gc::root<Node> large;
  for (std::uint64_t i = 0; i < 150'000; ++i) large = make_node(i, large);
  gc::collect();  // from here on the threads of the library allocate nothing
  std::atomic<bool> end{false};
  std::thread collector = start_thread([&] {
    while (!end) gc::collect();
  });
  const std::vector<int> threads = library_threads();
  REQUIRE(threads.size() >= 2);  // the collector and a marker
  int sent = 0;
  for (int round = 0; round < 50; ++round) {
    for (const int thread : threads) {
      // Nearly always inside a cycle. It comes when the handler of the one before has returned.
      REQUIRE(syscall(SYS_tgkill, getpid(), thread, SIGSEGV) == 0);
      ++sent;
      for (int ms = 0; crashes.load() < sent; ++ms) {
        if (ms == 10'000) _exit(kLostAfter);  // it hangs, and so would the end of this test
        gc::blocking_call([] { usleep(1'000); });
      }
      lists.step();
    }
  }
  end = true;
  join(collector);
  CHECK(good_children == sent);
  CHECK(lists.check_all());
}

TEST_CASE("a fork by a crash handler on a thread of the library goes through", "[process]") {
  if (skipped_under_sanitizers()) return;
  Variables variables = kForkingChild;
  variables.emplace_back("TRICOLOR_DEBUG", "workers=2");
  const ProgramEnd end = run_program("child has a crash handler that forks", variables);
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

// ------------------------------------------------------------------------- types that are just being described

namespace {

std::atomic<int> describes{0};
std::atomic<bool> forks{false};

// What a template of the library's does, slowly: the C++ runtime holds a lock while it makes the description.
const tricolor::detail::type_info& slow_description() {
  static const tricolor::detail::type_info& made = []() -> const tricolor::detail::type_info& {
    raise(describes, 1);
    while (!forks) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));  // fork() is called, and must wait
    static constexpr tricolor::detail::type_info kText{.name = "Text",
                                                       .name_size = 4,
                                                       .align = 8,
                                                       .scan = tricolor::detail::ScanMode::none,
                                                       .fixed = {},
                                                       .tail = {}};
    return kText;
  }();
  return made;
}

char* allocate_described_slowly() {
  static std::atomic<std::uint32_t> kind{0};
  tricolor::detail::cell_request request;
  request.bytes = 16;
  request.size_class = tricolor::detail::size_class_for(request.bytes, 8);
  request.type = slow_description;
  request.kind_slot = &kind;
  return tricolor::detail::allocate_slow(request, nullptr);
}

}  // namespace

TEST_CASE("child forks while a type is described", "[.child]") {
  make_node(1);
  std::thread thread = start_thread([] { allocate_described_slowly(); });
  wait_until(describes, 1);
  forks = true;
  const pid_t child = fork();
  if (child == 0) {
    tricolor::impl::os::kill_process_after(20);  // if it hangs
    _exit(allocate_described_slowly() != nullptr ? kNone : kLostAfter);
  }
  CHECK(wait_for(child) == kNone);
  join(thread);
}

TEST_CASE("a fork waits for a type that is just being described", "[process]") {
  if (skipped_under_sanitizers()) return;
  const ProgramEnd end = run_program("child forks while a type is described", kForkingChild);
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

// ------------------------------------------------- handlers that have interrupted the library on their own thread

namespace {

bool sleeps(std::int32_t thread) {
  const std::string path = "/proc/self/task/" + std::to_string(thread) + "/stat";
  char stat[512];
  const std::size_t size = tricolor::impl::os::read_file(path.c_str(), stat, sizeof stat);
  return std::string_view(stat, size).find(") S ") != std::string_view::npos;
}

// Runs use() on a thread, which comes to sleep in it as it has to wait for us, and has it interrupted there by a signal whose
// handler forks. To be called inside gc::critical.
template <class Use>
std::thread fork_by_handler_inside(Use use) {
  const int before = crashes;
  std::atomic<std::int32_t> id{0};
  std::thread thread([&id, use] {
    scrub_stack();
    id = tricolor::impl::os::thread_id();
    use();
  });
  while (id == 0 || !sleeps(id)) std::this_thread::yield();
  if (syscall(SYS_tgkill, getpid(), id.load(), SIGUSR1) != 0) std::abort();
  while (crashes == before) std::this_thread::yield();
  return thread;
}

}  // namespace

TEST_CASE("child has a signal handler that forks", "[.child]") {
  tricolor::impl::os::kill_process_after(60);  // if it hangs
  struct sigaction action = {};
  action.sa_handler = report_crash;
  action.sa_flags = SA_RESTART;
  REQUIRE(sigaction(SIGUSR1, &action, nullptr) == 0);
  action.sa_flags = SA_RESTART | SA_ONSTACK;
  REQUIRE(sigaction(SIGUSR2, &action, nullptr) == 0);
  std::vector<char> alternate(256 << 10);
  stack_t stack = {};
  stack.ss_sp = alternate.data();
  stack.ss_size = alternate.size();
  REQUIRE(sigaltstack(&stack, nullptr) == 0);
  gc::root<Node> kept = make_node(1);
  gc::collect();
  tricolor::impl::Heap& heap = *tricolor::impl::Heap::existing();
  constexpr int kRounds = 20;
  for (int round = 0; round < kRounds; ++round) {
    std::array<std::thread, 6> threads;
    raise(SIGUSR2);  // on an alternate stack, on top of the program
    {                // which is a part of the thread's own
      std::array<char, 64 << 10> own;
      stack_t part = {};
      part.ss_sp = own.data();
      part.ss_size = own.size();
      REQUIRE(sigaltstack(&part, nullptr) == 0);
      raise(SIGUSR2);
      REQUIRE(sigaltstack(&stack, nullptr) == 0);
    }
    {  // comes out of blocking_call while a stop waits for us
      std::atomic<bool> attached{false};
      std::atomic<bool> end{false};
      const gc::critical section;
      threads[3] = std::thread([&] {
        while (!attached) std::this_thread::yield();
        gc::collect();
      });
      threads[4] = fork_by_handler_inside([&] {
        const gc::thread_scope attach;
        attached = true;
        while (!end) gc::blocking_call([] { std::this_thread::yield(); });
      });
      end = true;
    }
    join(threads[3]);
    join(threads[4]);
    {  // waits for a cycle, which waits for us
      const gc::critical section;
      threads[0] = fork_by_handler_inside([] { gc::collect(); });
    }
    {  // attaches
      const gc::critical section;
      const tricolor::impl::Guard guard(heap.allocator().metadata.mutex());
      threads[1] = fork_by_handler_inside([] { make_node(2); });
    }
    {  // gives a handle back, and is not attached
      auto* const handle = new gc::root<Node>(make_node(3));
      const gc::critical section;
      const tricolor::impl::Guard guard(heap.roots().mutex());
      threads[2] = fork_by_handler_inside([handle] { delete handle; });
    }
    {  // forks itself
      const gc::critical section;
      const tricolor::impl::Guard guard(tricolor::impl::Heap::creation_mutex());
      threads[5] = fork_by_handler_inside([] { report_crash(0); });
    }
    for (const std::size_t i : {0, 1, 2, 5}) join(threads[i]);
  }
  CHECK(good_children == 8 * kRounds);
  CHECK(intact(kept, 1));
}

TEST_CASE("a fork by a signal handler that has interrupted the library waits for nothing",
          "[process]") {
  if (skipped_under_sanitizers()) return;
  const ProgramEnd end = run_program("child has a signal handler that forks", kForkingChild);
  INFO(end.output);
  CHECK(end.exit_code == 0);
  CHECK(end.signal == 0);
}

namespace {

// Holds the only reference to an object while a handler forks that runs on `alternate`, further up on this stack.
[[gnu::noinline]] void fork_above(std::atomic<int>& step) {
  Node* volatile only = nullptr;
  on_thread([&] { only = make_node(5); });
  scrub_stack();
  raise(step, 2);
  raise(SIGUSR2);
  CHECK(intact(only, 5));
}

}  // namespace

TEST_CASE("child forks on an alternate stack in the middle of its own", "[.child]") {
  tricolor::impl::os::kill_process_after(60);  // if it hangs
  struct sigaction action = {};
  action.sa_handler = report_crash;
  action.sa_flags = SA_RESTART | SA_ONSTACK;
  REQUIRE(sigaction(SIGUSR2, &action, nullptr) == 0);
  const gc::thread_scope attach;
  gc::collect();
  std::array<char, 64 << 10> alternate;
  stack_t stack = {};
  stack.ss_sp = alternate.data();
  stack.ss_size = alternate.size();
  REQUIRE(sigaltstack(&stack, nullptr) == 0);
  for (int round = 0; round < 10; ++round) {
    std::atomic<int> step{0};
    const std::int32_t main = tricolor::impl::os::thread_id();
    // Whoever forks has to wait, if it waits for anything, and a whole cycle passes.
    std::thread other = start_thread([&] {
      const int before = crashes;
      const tricolor::impl::Guard guard(tricolor::impl::Heap::creation_mutex());
      raise(step, 1);
      wait_until(step, 2);
      while (crashes == before && !sleeps(main)) std::this_thread::yield();
      on_thread([] { gc::collect(); });
    });
    wait_until(step, 1);
    fork_above(step);
    join(other);
  }
  stack.ss_flags = SS_DISABLE;
  sigaltstack(&stack, nullptr);
  CHECK(good_children == 10);
}

TEST_CASE("nothing is lost of what lies below an alternate stack on which a handler forks",
          "[process]") {
  if (skipped_under_sanitizers()) return;
  const ProgramEnd end = run_program("child forks on an alternate stack in the middle of its own",
                                     {{"TRICOLOR_DEBUG", "clobberfree=1"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
  CHECK(end.signal == 0);
}

namespace {

std::atomic<int> looks{0};
std::atomic<int> foreign_sections{0};

// What a fork here would be told.
void look_at_mutator(int) {
  const tricolor::impl::Mutator* const m = tricolor::impl::current_mutator();
  if (m == nullptr) return;
  if (m->critical_depth.load(std::memory_order_relaxed) != 0 &&
      m->internal_depth.load(std::memory_order_relaxed) == 0 &&
      m->in_unit.load(std::memory_order_relaxed) == 0 &&
      !m->is_stopping.load(std::memory_order_relaxed))
    ++foreign_sections;
  ++looks;
}

}  // namespace

TEST_CASE("a signal handler takes no section of the library for a gc::critical of the program") {
  if (tricolor::impl::kThreadSanitizer) return;  // runs handlers late
  struct sigaction action = {}, before = {};
  action.sa_handler = look_at_mutator;
  action.sa_flags = SA_RESTART;
  REQUIRE(sigaction(SIGUSR1, &action, &before) == 0);
  std::atomic<std::int32_t> id{0};
  std::atomic<bool> end{false};
  std::thread thread = start_thread([&] {
    const gc::thread_scope attach;
    tricolor::impl::Mutator& mutator = *tricolor::impl::current_mutator();
    id = tricolor::impl::os::thread_id();
    while (!end) {
      const tricolor::impl::CriticalSection section(mutator);
    }
  });
  while (id == 0) std::this_thread::yield();
  looks = foreign_sections = 0;
  while (looks < 20'000) {  // without the order, one in some thousand shows it
    const int seen = looks;
    REQUIRE(syscall(SYS_tgkill, getpid(), id.load(), SIGUSR1) == 0);
    while (looks == seen) std::this_thread::yield();
  }
  end = true;
  join(thread);
  sigaction(SIGUSR1, &before, nullptr);
  CHECK(foreign_sections == 0);
}
