// What happens to threads that do not stop, and to programs that break the rules. Each case is a process of its own.
#include "gc/handshake.h"

#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <tricolor/gc.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "gc/library_thread.h"
#include "test/gc/support.h"

using namespace tricolor::test;

namespace {

// Lets the program read its own stderr.
class Stderr {
 public:
  Stderr() {
    int pipe_ends[2];
    if (pipe(pipe_ends) != 0) std::abort();
    x_before = dup(STDERR_FILENO);
    dup2(pipe_ends[1], STDERR_FILENO);
    close(pipe_ends[1]);
    x_read = pipe_ends[0];
  }
  Stderr(const Stderr&) = delete;
  Stderr& operator=(const Stderr&) = delete;
  ~Stderr() {
    dup2(x_before, STDERR_FILENO);
    close(x_before);
    close(x_read);
  }
  // Waits for a whole line. Async-signal-safe.
  void read_line() {
    char byte = 0;
    while (byte != '\n') {
      const ssize_t n = read(x_read, &byte, 1);
      if (n == 1 && x_used < sizeof x_text) x_text[x_used++] = byte;
      if (n == 0) return;
    }
  }
  std::string text() const { return {x_text, x_used}; }

 private:
  int x_before = -1;
  int x_read = -1;
  char x_text[2'000];
  std::size_t x_used = 0;
};

const Variables kWarnSoon = {{"TRICOLOR_DEBUG", "stopwarn=20"}};

}  // namespace

TEST_CASE("child a thread blocks the stop signal", "[.child]") {
  std::atomic<int> ready{0};
  Stderr errors;
  bool kept = false;
  std::thread thread = start_thread([&] {
    pthread_setname_np(pthread_self(), "deaf one");
    Node* const node = make_node(1);
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    raise(ready, 1);
    errors.read_line();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    while (ready.load() < 2) gc::safepoint();
    kept = intact(node, 1);
  });
  wait_until(ready, 1);
  gc::collect();
  raise(ready, 2);
  join(thread);
  const std::string text = errors.text();
  INFO(text);
  CHECK(has_line(text, "tricolor: thread "));
  CHECK(has_line(text, "(deaf one) has not stopped for "));
  CHECK(has_line(text, "it blocks signal " +
                           std::to_string(tricolor::impl::Heap::existing()->handshake().signal())));
  CHECK(kept);
  CHECK(gc::stats().cycles_total >= 1);
}

TEST_CASE(
    "a thread that blocks the stop signal is named on stderr, and all goes on when it lets it "
    "through",
    "[process]") {
  if (tricolor::impl::kStopByPolls) {
    WARN("skipped: this build stops threads by polls, so blocked signals do not matter");
    return;
  }
  const ProgramEnd end = run_program("child a thread blocks the stop signal", kWarnSoon);
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child a thread stays in a critical section", "[.child]") {
  std::atomic<int> ready{0};
  Stderr errors;
  std::thread thread = start_thread([&] {
    pthread_setname_np(pthread_self(), "critical one");
    const gc::thread_scope scope;
    {
      const gc::critical section;
      raise(ready, 1);
      errors.read_line();
      errors.read_line();  // it is named again
    }
    while (ready.load() < 2) gc::safepoint();
  });
  wait_until(ready, 1);
  gc::collect();
  raise(ready, 2);
  join(thread);
  const std::string text = errors.text();
  INFO(text);
  CHECK(has_line(text, "(critical one) has not stopped for "));
  CHECK(has_line(text, "gc::critical"));
}

TEST_CASE("a thread that stays in a critical section is named on stderr", "[process]") {
  const ProgramEnd end = run_program("child a thread stays in a critical section", kWarnSoon);
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child a handler stays on the alternate stack", "[.child]") {
  static Stderr* errors;
  Stderr own_errors;
  errors = &own_errors;
  std::atomic<int> ready{0};
  static std::atomic<int>* started;
  started = &ready;
  bool kept = false;
  std::thread thread = start_thread([&] {
    pthread_setname_np(pthread_self(), "elsewhere");
    Node* const node = make_node(2);
    std::vector<char> memory(256 << 10);
    stack_t alternate = {};
    alternate.ss_sp = memory.data();
    alternate.ss_size = memory.size();
    sigaltstack(&alternate, nullptr);
    struct sigaction action = {};
    action.sa_handler = [](int) {
      started->store(1);
      started->notify_all();
      errors->read_line();
    };
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGUSR1, &action, nullptr);
    pthread_kill(pthread_self(), SIGUSR1);
    while (ready.load() < 2) gc::safepoint();
    alternate.ss_flags = SS_DISABLE;
    sigaltstack(&alternate, nullptr);
    kept = intact(node, 2);
  });
  wait_until(ready, 1);
  gc::collect();
  raise(ready, 2);
  join(thread);
  INFO(own_errors.text());
  CHECK(has_line(own_errors.text(), "(elsewhere) has not stopped for "));
  CHECK(has_line(own_errors.text(), "stack that the collector does not know"));
  CHECK(kept);
}

TEST_CASE(
    "a thread in a handler on the alternate stack is named, not captured, and stopped when it is "
    "back",
    "[process]") {
  if (tricolor::impl::kStopByPolls) {
    WARN("skipped: this build stops threads by polls");
    return;
  }
  const ProgramEnd end = run_program("child a handler stays on the alternate stack", kWarnSoon);
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child a host takes every real-time signal but one", "[.child]") {
  struct sigaction action = {};
  action.sa_handler = [](int) {};
  const int left = SIGRTMIN + 5;
  for (int signal = SIGRTMIN; signal <= SIGRTMAX; ++signal) {
    if (signal != left) sigaction(signal, &action, nullptr);
  }
  make_node(1);
  gc::collect();
  CHECK(tricolor::impl::Heap::existing()->handshake().signal() == left);
}

TEST_CASE("the stop signal is one that the host does not handle", "[process]") {
  const ProgramEnd end = run_program("child a host takes every real-time signal but one");
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child the stop signal is chosen", "[.child]") {
  std::atomic<int> ready{0};
  std::thread thread = start_thread([&] {
    make_node(1);
    raise(ready, 1);
    while (ready.load() < 2) gc::safepoint();
  });
  wait_until(ready, 1);
  gc::collect();
  raise(ready, 2);
  join(thread);
  CHECK(tricolor::impl::Heap::existing()->handshake().signal() == SIGUSR2);
}

TEST_CASE("the knob signal=n chooses the stop signal", "[process]") {
  const ProgramEnd end = run_program("child the stop signal is chosen",
                                     {{"TRICOLOR_DEBUG", "signal=" + std::to_string(SIGUSR2)}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child a signal that cannot be used", "[.child]") {
  std::atomic<int> ready{0};
  std::thread thread = start_thread([&] {
    make_node(1);
    raise(ready, 1);
    while (ready.load() < 2) gc::safepoint();
  });
  wait_until(ready, 1);
  gc::collect();
  raise(ready, 2);
  join(thread);
}

TEST_CASE("a stop signal that cannot be used costs one line, and another one stops threads",
          "[process]") {
  for (const int signal : {SIGKILL, SIGSTOP}) {
    const ProgramEnd end = run_program("child a signal that cannot be used",
                                       {{"TRICOLOR_DEBUG", "signal=" + std::to_string(signal)}});
    INFO(end.output);
    CHECK(end.exit_code == 0);
    CHECK(has_line(end.output,
                   "tricolor: signal=" + std::to_string(signal) + " is taken or cannot be caught"));
  }
}

TEST_CASE("a thread that waits knows whether another one has no CPU because of it") {
  make_node(1);
  if (tricolor::impl::os::cpu_word() == nullptr) return;  // nobody is told
  auto& handshake = tricolor::impl::Heap::existing()->handshake();
  cpu_set_t all;
  REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
  REQUIRE(put_on_cpu(0));
  std::atomic<std::size_t> wanted = 0;
  std::atomic<std::size_t> there = SIZE_MAX;
  std::atomic<int> step{0};
  std::thread other = start_thread([&] {
    make_node(1);
    while (step == 0) {
      if (there != wanted && put_on_cpu(wanted, all)) there = wanted.load();
      gc::safepoint();
      sched_yield();
    }
    gc::blocking_call([&] {
      raise(step, 2);
      for (int now; (now = step.load()) < 3;) step.wait(now);
    });
  });
  gc::blocking_call([&] {
    while (there != 0) sched_yield();
    CHECK(handshake.keeps_another_from_cpu());
    if (CPU_COUNT(&all) > 1) {
      wanted = 1;
      while (there != 1) sched_yield();
      CHECK_FALSE(handshake.keeps_another_from_cpu());
      wanted = 0;
      while (there != 0) sched_yield();
      CHECK(handshake.keeps_another_from_cpu());
    }
    // One that does not run waits for no CPU.
    raise(step, 1);
    for (int now; (now = step.load()) < 2;) step.wait(now);
    CHECK_FALSE(handshake.keeps_another_from_cpu());
    raise(step, 3);
  });
  CHECK(sched_setaffinity(0, sizeof all, &all) == 0);
  join(other);
}

// ----------------------------------------------------------------------------- threads that have ended

namespace {

// Ends a thread that is attached: in each round of its key destructors it attaches once more. Returns what is left of it.
tricolor::impl::Mutator* end_attached(void (*in_each_round)() = [] {}) {
  struct Round {
    pthread_key_t key;
    void (*fn)();
    int left = PTHREAD_DESTRUCTOR_ITERATIONS;
    tricolor::impl::Mutator* mutator = nullptr;
  };
  static Round round;
  round = {};
  round.fn = in_each_round;
  if (pthread_key_create(&round.key, [](void*) {
        make_node(1);
        round.fn();
        round.mutator = tricolor::impl::current_mutator();
        if (--round.left > 0) pthread_setspecific(round.key, &round);
      }) != 0) {
    return nullptr;
  }
  on_thread([] {
    make_node(1);  // the library's key is older than ours, so in each round it is destroyed first
    pthread_setspecific(round.key, &round);
  });
  pthread_key_delete(round.key);
  return round.mutator;
}

}  // namespace

TEST_CASE("child outlives a thread that ended attached", "[.child]") {
  make_node(1);
  const std::uint64_t threads = gc::stats().threads_count;
  REQUIRE(end_attached() != nullptr);
  CHECK(gc::stats().threads_count == threads + 1);
  for (int i = 0; i < 10; ++i) gc::collect();
}

TEST_CASE("child outlives a thread whose id is another thread's now", "[.child]") {
  make_node(1);
  tricolor::impl::Mutator* const ended = end_attached();
  REQUIRE(ended != nullptr);
  // A thread that lives on, started later, with the same id as far as the collector can tell.
  usleep(30'000);
  std::atomic<int> step{0};
  std::atomic<std::int32_t> id{0};
  std::thread other([&] {
    id = tricolor::impl::os::thread_id();
    raise(step, 1);
    for (int now; (now = step.load()) < 2;) step.wait(now);
  });
  wait_until(step, 1);
  ended->thread = id;
  for (int i = 0; i < 10; ++i) gc::collect();
  raise(step, 2);
  join(other);
}

TEST_CASE("child reads no value stack of a thread that ended attached", "[.child]") {
  static Node* words[4];
  // In memory that goes with the thread, like its stack.
  static auto* const top = static_cast<Node***>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  static gc::root_range stack;
  *top = words;
  REQUIRE(end_attached([] { stack = gc::add_stack(words, words + 4, top); }) != nullptr);
  REQUIRE(mprotect(top, 4096, PROT_NONE) == 0);
  for (int i = 0; i < 10; ++i) gc::collect();
  stack.reset();  // has gone already
  gc::collect();
}

TEST_CASE("child does not look for the CPU of a thread that ended attached", "[.child]") {
  make_node(1);
  tricolor::impl::Mutator* const ended = end_attached();
  REQUIRE(ended != nullptr);
  // As its memory may be, in which the word was.
  ended->cpu_word = static_cast<const std::uint32_t*>(
      mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  gc::blocking_call([&] { CHECK_FALSE(ended->heap.handshake().keeps_another_from_cpu()); });
  gc::collect();
}

TEST_CASE("child makes no room for the stack of a thread that ended attached", "[.child]") {
  make_node(1);
  tricolor::impl::Mutator* const ended = end_attached();
  REQUIRE(ended != nullptr);
  // As its stack may be.
  constexpr std::size_t kBytes = 2 << 20;
  auto* const gone = static_cast<char*>(
      mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  ended->stack = {gone, gone + kBytes};
  ended->top_at_claim = gone + kBytes / 2;
  const std::size_t capacity = ended->capture.capacity();
  as_library_thread<tricolor::impl::HostKeptOut>(
      [&] { ended->heap.handshake().make_room_for_captures(); });
  CHECK(ended->capture.capacity() == capacity);
  gc::collect();
}

TEST_CASE("a stop does not wait for a thread that ended attached, nor for one that has its id now",
          "[process]") {
  if (tricolor::impl::kThreadSanitizer) {
    WARN("skipped: ThreadSanitizer has finished a thread by its last round of destructors");
    return;
  }
  const ProgramEnd end =
      run_program(GENERATE("child outlives a thread that ended attached",
                           "child outlives a thread whose id is another thread's now",
                           "child reads no value stack of a thread that ended attached",
                           "child does not look for the CPU of a thread that ended attached",
                           "child makes no room for the stack of a thread that ended attached"));
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

// -------------------------------------------------------------------------------- rules of the API

TEST_CASE("child allocates inside blocking_call", "[.child]") {
  make_node(1);
  gc::blocking_call([] {
    for (int i = 0; i < 100'000; ++i) make_node(2);
  });
}
TEST_CASE("child collects inside critical", "[.child]") {
  const gc::critical section;
  gc::collect();
}
TEST_CASE("child blocks inside critical", "[.child]") {
  const gc::critical section;
  gc::blocking_call([] {});
}

TEST_CASE("whoever breaks a rule is told which and what to do, and does not hang", "[process]") {
  const auto [test, message] = GENERATE(table<const char*, const char*>({
      {"child allocates inside blocking_call", "inside gc::blocking_call"},
      {"child collects inside critical", "gc::collect() inside gc::critical"},
      {"child blocks inside critical", "gc::blocking_call inside gc::critical"},
  }));
  const ProgramEnd end = run_program(test);
  INFO(end.output);
  CHECK((end.exit_code != 0 || end.signal != 0));
  CHECK(has_line(end.output, message));
}

// Its report wants a backtrace; libunwind waits for the loader's lock, which the stopped thread holds; the stop waits for the
// one that fails.
TEST_CASE("child breaks a rule while a thread is stopped inside the loader", "[.child]") {
  std::thread([] {
    make_node(1);
    for (;;) {
      dl_iterate_phdr(
          [](dl_phdr_info*, std::size_t, void*) {
            for (int i = 0; i < 20'000; ++i) asm volatile("");
            return 0;
          },
          nullptr);
    }
  }).detach();
  std::thread([] {
    for (;;) gc::collect();
  }).detach();
  make_node(1);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const gc::critical section;
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  gc::collect();
}

TEST_CASE("a fatal report ends the process though it waits for a lock of a stopped thread",
          "[process]") {
  for (int i = 0; i < 2; ++i) {
    const ProgramEnd end =
        run_program("child breaks a rule while a thread is stopped inside the loader");
    INFO(end.output);
    CHECK((end.exit_code != 0 || end.signal != 0));
    CHECK(has_line(end.output, "gc::collect() inside gc::critical"));
  }
}

// -------------------------------------------------------------------------------------- sleep

// A sleep that was interrupted goes on for what the kernel says was left. That is up to the timer slack (50 us) more than there was,
// so where stops follow each other closely it never ends.
TEST_CASE("a sleep outside of blocking_call ends while another thread does nothing but collect",
          "[collector]") {
  if (tricolor::impl::kStopByPolls) return;  // nothing is interrupted
  constexpr int kSleeps = 20;
  constexpr std::chrono::milliseconds kSleep(20);
  // Without it who sleeps is woken, stops and sleeps again so fast that it gets on.
  std::atomic<bool> end{false};
  std::thread computes = start_thread([&] {
    make_node(1);
    while (!end) {
      for (int i = 0; i < 20'000; ++i) asm volatile("");
    }
  });
  std::uint64_t interruptions = 0;
  std::chrono::nanoseconds took{};
  {
    make_node(1);
    const Collector collector;
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < kSleeps; ++i) {
      timespec left = {0, std::chrono::nanoseconds(kSleep).count()};
      while (took < 8 * kSleeps * kSleep &&
             clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR) {
        ++interruptions;
        took = std::chrono::steady_clock::now() - begin;
      }
    }
  }
  end = true;
  join(computes);
  INFO(interruptions << " interruptions");
  CHECK(interruptions > 0);
  CHECK(took < 8 * kSleeps * kSleep);
}

// --------------------------------------------------------------------------------------- exit

TEST_CASE("child exits while threads allocate and collect", "[.child]") {
  for (int t = 0; t < 4; ++t) {
    std::thread([t] {
      for (;;) {
        make_node(1);
        if (t % 2 == 0) gc::collect();
      }
    }).detach();
  }
  for (int i = 0; i < 50; ++i) gc::collect();
}

TEST_CASE("a program ends while its threads allocate and collect", "[process]") {
  for (int i = 0; i < 10; ++i) {
    const ProgramEnd end = run_program("child exits while threads allocate and collect");
    INFO(end.output);
    CHECK(end.exit_code == 0);
  }
}
