// What the tests of gc/ share: addresses that no scan recognises, threads that do not stand in the way of a stop, and child
// processes for what needs an environment of its own.
//
// The process's heap is shared by all tests of a program: measure differences, and drop what was made.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <sys/wait.h>
#include <tricolor/gc.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "alloc/base/os.h"
#include "alloc/base/sanitizer.h"
#include "alloc/cell.h"
#include "gc/heap.h"

extern char** environ;

namespace tricolor::test {

// Is there memory in the process that is a sanitizer's?
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kShadowMemory = true;
#else
inline constexpr bool kShadowMemory = false;
#endif

// ------------------------------------------------------------------------------------- who is alive

// An address that no conservative scan recognises.
class Hidden {
 public:
  Hidden() = default;
  explicit Hidden(const void* p) : x_word(~reinterpret_cast<std::uintptr_t>(p)) {}
  template <class T>
  explicit Hidden(const gc::ptr<T>& p) : Hidden(static_cast<const void*>(p.get())) {}
  std::uintptr_t address() const { return ~x_word; }
  std::uintptr_t complement() const { return x_word; }

 private:
  std::uintptr_t x_word = 0;
};

// Overwrites what functions that have returned left below this frame. (AddressSanitizer would keep a zone around the array.)
[[gnu::noinline]] __attribute__((no_sanitize("address"))) inline void scrub_stack() {
  volatile char dead[48 << 10];
  for (auto& byte : dead) byte = 0;
}

// A complete cycle without what the caller's dead frames hold.
[[gnu::noinline]] inline void collect() {
  scrub_stack();
  gc::collect();
}

// Does the object still exist? True for an address that has been allocated again, so ask right after collect().
[[gnu::noinline]] inline bool alive(Hidden object) {
  const impl::ArenaMap& map = impl::Heap::existing()->allocator().map;
  return static_cast<bool>(impl::find_allocated_cell(map, object.address()));
}

[[gnu::noinline]] inline std::size_t count_alive(const std::vector<Hidden>& objects) {
  std::size_t count = 0;
  for (const Hidden object : objects) count += alive(object);
  scrub_stack();
  return count;
}

// Runs fn in a frame of its own, so that what it leaves behind is scrubbed by collect().
template <class F>
[[gnu::noinline]] void apart(F fn) {
  fn();
  asm volatile("");
}

// A node whose content can be checked.
struct Node {
  gc::ptr<Node> next;
  gc::ptr<Node> other;
  std::uint64_t value = 0;
  std::uint64_t check = 0;
};

inline std::uint64_t checksum(std::uint64_t value) {
  return value * 0x9e3779b97f4a7c15 + 0x7f4a7c15;
}

inline Node* make_node(std::uint64_t value, Node* next = nullptr) {
  Node* const node = gc::make<Node>();
  node->value = value;
  node->check = checksum(value);
  node->next = next;
  return node;
}

inline std::size_t length_of(const Node* list) {
  std::size_t length = 0;
  for (; list != nullptr; list = list->next) ++length;
  return length;
}

inline bool intact(const Node* node, std::uint64_t value) {
  return node->value == value && node->check == checksum(value);
}

// Lists that are checked all the time: what a thread has made must be as it was made.
class Lists {
 public:
  explicit Lists(std::uint64_t seed) : x_random(seed) {}

  // One step: makes a list or checks and drops one. False when an object was lost.
  bool step() {
    const std::size_t slot = x_random() % x_lists.size();
    if (!check(slot)) return false;
    const std::size_t length = x_random() % 200;
    x_first[slot] = x_random();
    x_length[slot] = length;
    Node* list = nullptr;
    for (std::size_t i = 0; i < length; ++i) list = make_node(x_first[slot] + i, list);
    x_lists[slot] = list;
    return true;
  }

  bool check_all() const {
    for (std::size_t slot = 0; slot < x_lists.size(); ++slot) {
      if (!check(slot)) return false;
    }
    return true;
  }

  bool check(std::size_t slot) const {
    std::size_t left = x_length[slot];
    for (const Node* node = x_lists[slot]; node != nullptr; node = node->next) {
      if (left-- == 0 || !intact(node, x_first[slot] + left)) return false;
    }
    return left == 0;
  }

 private:
  std::mt19937_64 x_random;
  std::array<Node*, 16> x_lists = {};
  std::array<std::uint64_t, 16> x_first = {};
  std::array<std::size_t, 16> x_length = {};
};

// Under stress=n collections come by themselves, so numbers of them say nothing.
inline bool stressed() {
  const gc::thread_scope attach;
  return impl::Heap::existing()->settings().stress != 0;
}

// With gcstoptheworld=n all is marked in the stop.
inline bool marks_beside_the_program() {
  const gc::thread_scope attach;
  return impl::Heap::existing()->settings().gcstoptheworld == 0;
}

// With tinybuffers=1 nothing has more room than it must have.
inline bool tiny_buffers() {
  const gc::thread_scope attach;
  return impl::Heap::existing()->settings().tinybuffers != 0;
}

// How many objects or repetitions: fewer where each costs a collection (stress=n) or a sanitizer's time.
inline std::uint64_t many(std::uint64_t n) {
  return n / (stressed() ? 50 : kShadowMemory ? 5 : 1);
}

// ------------------------------------------------------------------------------------------ threads

// Waits until `counter` is at least `wanted`, without being in a collection's way.
inline void wait_until(const std::atomic<int>& counter, int wanted) {
  gc::blocking_call([&] {
    for (int now; (now = counter.load()) < wanted;) counter.wait(now);
  });
}

// Takes a lock that threads hold while they allocate or are stopped.
inline std::unique_lock<std::mutex> lock_blocked(std::mutex& mutex) {
  gc::blocking_call([&] { mutex.lock(); });
  return {mutex, std::adopt_lock};
}

inline void raise(std::atomic<int>& counter, int to) {
  counter.store(to);
  counter.notify_all();
}

inline void join(std::thread& thread) {
  gc::blocking_call([&] { thread.join(); });
}

// A thread whose stack holds nothing yet. (The C library uses the stacks of threads that have gone again, as they are.)
template <class F>
std::thread start_thread(F fn) {
  return std::thread([fn = std::move(fn)]() mutable {
    scrub_stack();
    fn();
  });
}

// Puts the calling thread on one of these CPUs. True when it is there.
inline bool put_on_cpu(std::size_t which, const cpu_set_t& all) {
  cpu_set_t one;
  CPU_ZERO(&one);
  for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &all) || which-- != 0) continue;
    CPU_SET(cpu, &one);
    return sched_setaffinity(0, sizeof one, &one) == 0;
  }
  return false;
}

// Of those that it may run on.
inline bool put_on_cpu(std::size_t which) {
  cpu_set_t all;
  return sched_getaffinity(0, sizeof all, &all) == 0 && put_on_cpu(which, all);
}

// Runs fn on a thread that is gone afterwards, with its stack and its registers.
template <class F>
void on_thread(F fn) {
  std::thread thread = start_thread(std::move(fn));
  join(thread);
}

// Runs fn as a thread of the library's would be: the calling thread does not count as one that runs, inside a Scope of
// gc/library_thread.h.
template <class Scope, class F>
void as_library_thread(F fn) {
  impl::Heap::existing()->handshake().while_blocked(*impl::current_mutator(), [&] {
    const Scope scope;
    fn();
  });
}

// A thread that does nothing but collect.
class Collector {
 public:
  Collector()
      : x_thread(start_thread([this] {
          while (!x_end) gc::collect();
        })) {}
  Collector(const Collector&) = delete;
  Collector& operator=(const Collector&) = delete;
  ~Collector() {
    x_end = true;
    join(x_thread);
  }

 private:
  std::atomic<bool> x_end{false};
  std::thread x_thread;
};

// ---------------------------------------------------------------------------------- child processes

inline std::string beside_this_program(const char* name) {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
  const std::string program(path, length > 0 ? static_cast<std::size_t>(length) : 0);
  return program.substr(0, program.rfind('/')) + "/" + name;
}

struct ProgramEnd {
  int exit_code = -1;  // -1 when a signal ended it
  int signal = 0;
  std::string output;  // what it wrote to stdout and stderr
};

using Variables = std::vector<std::pair<std::string, std::string>>;

// Runs a hidden test of this program ("[.child]") in a process of its own, with these variables changed. A knob of
// TRICOLOR_DEBUG that the parent has is not inherited.
inline ProgramEnd run_program(const std::string& test, const Variables& changed = {}) {
  Variables environment = changed;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const char* const equals = std::strchr(*variable, '=');
    if (equals == nullptr) continue;
    const std::string name(*variable, static_cast<std::size_t>(equals - *variable));
    bool known = name == "TRICOLOR_DEBUG";
    for (const auto& [mine, value] : changed) known |= mine == name;
    if (!known) environment.emplace_back(name, equals + 1);
  }
  std::vector<std::string> lines;
  for (const auto& [name, value] : environment) lines.push_back(name + "=" + value);
  std::vector<char*> envp;
  for (std::string& line : lines) envp.push_back(line.data());
  envp.push_back(nullptr);
  std::string program = "/proc/self/exe";
  std::string name = test;
  std::vector<char*> argv = {program.data(), name.data(), nullptr};

  ProgramEnd end;
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC) != 0) return end;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], STDERR_FILENO);
  pid_t child = 0;
  const int spawned =
      posix_spawn(&child, program.c_str(), &actions, nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  close(pipe_ends[1]);
  gc::blocking_call([&] {
    char bytes[4096];
    for (;;) {
      const ssize_t n = read(pipe_ends[0], bytes, sizeof bytes);
      if (n > 0) end.output.append(bytes, static_cast<std::size_t>(n));
      if (n == 0 || (n < 0 && errno != EINTR)) break;
    }
    int status = 0;
    if (spawned == 0) {
      while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
      }
      if (WIFEXITED(status)) end.exit_code = WEXITSTATUS(status);
      if (WIFSIGNALED(status)) end.signal = WTERMSIG(status);
    }
  });
  close(pipe_ends[0]);
  return end;
}

inline bool has_line(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// The seed of a random test: TRICOLOR_TEST_SEED, else a new one. Print it with INFO.
inline std::uint64_t test_seed() {
  if (const char* const given = std::getenv("TRICOLOR_TEST_SEED"); given != nullptr)
    return std::strtoull(given, nullptr, 0);
  return impl::os::now_ns();
}

// How often a test makes an event of the process happen: TRICOLOR_TEST_EVENTS, or 1,000 times.
inline int event_rounds() {
  const char* const given = std::getenv("TRICOLOR_TEST_EVENTS");
  return given != nullptr ? std::atoi(given) : 1'000;
}

}  // namespace tricolor::test
