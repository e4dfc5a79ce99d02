#include <tricolor/thread.h>

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <tricolor/gc.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "test/gc/support.h"

using namespace tricolor::test;

TEST_CASE("threads allocate while others collect, and lose nothing") {
  const auto seed = test_seed();
  INFO("TRICOLOR_TEST_SEED=" << seed);
  std::atomic<int> lost{0};
  std::atomic<bool> end{false};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.push_back(start_thread([&, t] {
      Lists lists(seed + t);
      for (std::uint64_t i = 0; i < many(1'500); ++i) {
        if (!lists.step()) ++lost;
      }
    }));
  }
  std::thread collector = start_thread([&] {
    while (!end) gc::collect();
  });
  for (std::thread& thread : threads) join(thread);
  end = true;
  join(collector);
  CHECK(lost == 0);
}

TEST_CASE("threads that all collect at once each get a cycle of their own or share one") {
  const std::uint64_t before = gc::stats().cycles_forced;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.push_back(start_thread([] {
      for (int i = 0; i < 50; ++i) gc::collect();
    }));
  }
  for (std::thread& thread : threads) join(thread);
  const std::uint64_t cycles = gc::stats().cycles_forced - before;
  CHECK(cycles >= 50);
  CHECK(cycles <= 400);
}

TEST_CASE("threads are born and die during collections, ten thousand times") {
  const std::uint64_t threads_before = gc::stats().threads_count;
  std::atomic<bool> end{false};
  std::atomic<int> lost{0};
  std::thread collector = start_thread([&] {
    while (!end) gc::collect();
  });
  // All of them once, in the plain run; some in those with debug knobs.
  const std::uint64_t rounds = many(std::getenv("TRICOLOR_DEBUG") == nullptr ? 2'500 : 500);
  for (std::uint64_t i = 0; i < rounds; ++i) {
    std::array<std::thread, 4> threads;
    for (std::thread& thread : threads) {
      thread = std::thread([&, i] {
        Node* list = nullptr;
        for (std::uint64_t n = 0; n < 10; ++n) list = make_node(n, list);
        if (i % 2 == 0) gc::blocking_call([] { std::this_thread::yield(); });
        std::uint64_t expected = 10;
        for (const Node* node = list; node != nullptr; node = node->next) {
          if (!intact(node, --expected)) ++lost;
        }
        if (expected != 0) ++lost;
      });
    }
    for (std::thread& thread : threads) join(thread);
  }
  end = true;
  join(collector);
  CHECK(lost == 0);
  CHECK(gc::stats().threads_count == threads_before);
}

TEST_CASE("a thread's cells that it had claimed and not used are free again when it has gone") {
  collect();
  const std::uint64_t before = gc::stats().heap_live_bytes;
  for (int i = 0; i < 1'000; ++i) {
    on_thread([] { make_node(1); });
  }
  collect();
  CHECK(gc::stats().heap_live_bytes <= before + (64 << 10));
}

TEST_CASE("a root that outlives its thread keeps the object") {
  gc::root<Node> root;
  on_thread([&] { root = make_node(12, make_node(13)); });
  collect();
  CHECK(intact(root, 12));
  CHECK(intact(root->next, 13));
}

namespace {

struct Last {
  gc::root<Node> root;
  ~Last() {
    Node* const node = make_node(14, root);
    gc::collect();
    ok = intact(node, 14) && intact(node->next, 15);
  }
  static inline std::atomic<bool> ok{false};
};

}  // namespace

TEST_CASE("a thread_local with a destructor may use the heap while its thread dies") {
  const std::uint64_t threads = gc::stats().threads_count;
  on_thread([] {
    thread_local Last last;
    last.root = make_node(15);
  });
  CHECK(Last::ok);
  CHECK(gc::stats().threads_count == threads);
}

TEST_CASE(
    "a key's destructor that allocates attaches its dying thread once more, and it is detached "
    "again") {
  static pthread_key_t key;
  REQUIRE(pthread_key_create(&key, [](void*) { make_node(16); }) == 0);
  const gc::thread_scope attach;  // collect() would
  const std::uint64_t threads = gc::stats().threads_count;
  for (int i = 0; i < 100; ++i) {
    on_thread([] {
      make_node(17);
      pthread_setspecific(key, &key);
    });
  }
  collect();
  CHECK(gc::stats().threads_count == threads);
  pthread_key_delete(key);
}

TEST_CASE("an attached thread is counted, and a thread_scope nests") {
  const std::uint64_t before = gc::stats().threads_count;
  std::array<std::uint64_t, 4> seen = {};
  on_thread([&] {
    seen[0] = gc::stats().threads_count;
    {
      const gc::thread_scope outer;
      seen[1] = gc::stats().threads_count;
      { const gc::thread_scope inner; }
      seen[2] = gc::stats().threads_count;
      make_node(1);
      gc::collect();
    }
    seen[3] = gc::stats().threads_count;
  });
  CHECK(seen == std::array<std::uint64_t, 4>{before, before + 1, before + 1, before});
}

// ------------------------------------------------------------------------------------ blocking_call

TEST_CASE("blocking_call returns what the function returns") {
  int number = 5;
  CHECK(gc::blocking_call([] { return 3; }) == 3);
  int& reference = gc::blocking_call([&]() -> int& { return number; });
  CHECK(&reference == &number);
  struct MoveOnly {
    explicit MoveOnly(int v) : value(v) {}
    MoveOnly(MoveOnly&&) = default;
    int value;
  };
  CHECK(gc::blocking_call([] { return MoveOnly(7); }).value == 7);
  gc::blocking_call([&] { ++number; });
  CHECK(number == 6);
  const auto constant = [] { return 8; };
  CHECK(gc::blocking_call(constant) == 8);
  CHECK(gc::blocking_call([] { return gc::blocking_call([] { return 9; }); }) == 9);
}

TEST_CASE("exceptions pass through blocking_call, and the thread can be stopped afterwards") {
  for (int i = 0; i < 1'000; ++i) {
    CHECK_THROWS_AS(gc::blocking_call([] { throw std::runtime_error("out"); }), std::runtime_error);
    CHECK_THROWS_AS(gc::blocking_call([]() -> int { throw 5; }), int);
  }
  std::atomic<int> ready{0};
  std::atomic<int> step{0};
  bool kept = false;
  std::thread thread = start_thread([&] {
    Node* const node = make_node(18);
    try {
      gc::blocking_call([] { throw 1; });
    } catch (int) {
    }
    raise(ready, 1);
    while (step.load() < 1) gc::safepoint();
    kept = intact(node, 18);
  });
  wait_until(ready, 1);
  collect();
  raise(step, 1);
  join(thread);
  CHECK(kept);
}

TEST_CASE("a thread that is cancelled inside blocking_call leaves the registry") {
  collect();  // this thread is attached
  const std::uint64_t threads = gc::stats().threads_count;
  std::atomic<int> ready{0};
  static std::atomic<int> destroyed;
  destroyed = 0;
  int pipe_ends[2];
  REQUIRE(pipe(pipe_ends) == 0);
  struct Argument {
    std::atomic<int>& ready;
    int fd;
  } argument{ready, pipe_ends[0]};
  for (int i = 1; i <= 20; ++i) {
    pthread_t thread;
    REQUIRE(pthread_create(
                &thread, nullptr,
                [](void* a) -> void* {
                  struct Destroyed {
                    ~Destroyed() { ++destroyed; }
                  } const guard;
                  auto& arg = *static_cast<Argument*>(a);
                  Node* const node = make_node(19);
                  gc::blocking_call([&] {
                    arg.ready.fetch_add(1);
                    arg.ready.notify_all();
                    for (char byte;;) (void)!read(arg.fd, &byte, 1);  // a cancellation point
                  });
                  gc::keep_alive(node);
                  return nullptr;
                },
                &argument) == 0);
    wait_until(ready, i);
    if (i % 2 == 0) collect();
    REQUIRE(pthread_cancel(thread) == 0);
    void* result = nullptr;
    gc::blocking_call([&] { pthread_join(thread, &result); });
    CHECK(result == PTHREAD_CANCELED);
    collect();
  }
  CHECK(destroyed == 20);
  CHECK(gc::stats().threads_count == threads);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
}

TEST_CASE("a thread that is cancelled while it is stopped unwinds when the world runs again",
          "[events]") {
  if (tricolor::impl::kStopByPolls) {
    WARN(
        "skipped: no signal stops threads in this build (and ThreadSanitizer loses sight of a "
        "thread that is cancelled inside one of its interceptors)");
    return;
  }
  collect();  // this thread is attached
  const std::uint64_t threads = gc::stats().threads_count;
  static std::atomic<int> lost;
  static std::atomic<int> destroyed;
  static std::atomic<tricolor::impl::Mutator*> cancelled;
  lost = 0;
  destroyed = 0;
  std::atomic<bool> end{false};
  std::thread collector = start_thread([&] {
    while (!end) gc::collect();
  });
  int inside = 0;  // a stop
  const int rounds = static_cast<int>(many(static_cast<std::uint64_t>(event_rounds())));
  for (int i = 0; i < rounds; ++i) {
    cancelled = nullptr;
    pthread_t thread;
    REQUIRE(pthread_create(
                &thread, nullptr,
                [](void* number) -> void* {
                  Lists lists(reinterpret_cast<std::uintptr_t>(number));
                  struct Allocates {
                    ~Allocates() {
                      if (!intact(make_node(7), 7)) ++lost;
                      ++destroyed;
                    }
                  } const guard;
                  volatile char frame[100'000];  // the owner itself captures such a stack
                  for (std::size_t at = 0; at < sizeof frame; at += 4096) frame[at] = 1;
                  make_node(1);
                  cancelled = tricolor::impl::current_mutator();
                  for (;;) {
                    if (!lists.step()) ++lost;
                    usleep(20);  // a cancellation point in which a stop may find it
                  }
                  return nullptr;
                },
                reinterpret_cast<void*>(static_cast<std::uintptr_t>(i))) == 0);
    gc::blocking_call([&] {
      tricolor::impl::Mutator* mutator = nullptr;
      while ((mutator = cancelled) == nullptr) std::this_thread::yield();
      // It waits for the world to run before, and after: the cancellation has come in the stop.
      const auto is_stopped = [&] {
        return *mutator->state == tricolor::impl::MutatorState::stopped;
      };
      while (!is_stopped()) std::this_thread::yield();
      pthread_cancel(thread);
      inside += is_stopped();
      pthread_join(thread, nullptr);
    });
  }
  end = true;
  join(collector);
  CHECK(lost == 0);
  CHECK(destroyed == rounds);
  INFO(inside << " of " << rounds);
  CHECK(inside >= rounds / 2);
  CHECK(gc::stats().threads_count == threads);
}

TEST_CASE("threads are cancelled anywhere while others collect, a thousand times") {
  collect();  // this thread is attached
  const std::uint64_t threads = gc::stats().threads_count;
  const auto seed = test_seed();
  INFO("TRICOLOR_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  static std::atomic<int> lost;
  static std::atomic<int> destroyed;
  lost = 0;
  destroyed = 0;
  std::atomic<bool> end{false};
  std::thread collector = start_thread([&] {
    while (!end) {
      gc::collect();
      gc::blocking_call([] { usleep(100); });  // or the threads hardly get anywhere
    }
  });
  const int rounds = static_cast<int>(many(1'000));
  for (int i = 0; i < rounds; ++i) {
    pthread_t thread;
    REQUIRE(pthread_create(
                &thread, nullptr,
                [](void* number) -> void* {
                  struct Destroyed {
                    ~Destroyed() { ++destroyed; }
                  } const guard;
                  Lists lists(reinterpret_cast<std::uintptr_t>(number));
                  gc::root<Node> handle;
                  for (std::uint64_t n = 0;; ++n) {
                    if (!lists.step()) ++lost;
                    handle = make_node(n);
                    if (n % 3 == 0) gc::blocking_call([] { pthread_testcancel(); });
                    if (n % 8 == 0) gc::collect();
                    if (!intact(handle, n)) ++lost;
                    pthread_testcancel();
                  }
                  return nullptr;
                },
                reinterpret_cast<void*>(static_cast<std::uintptr_t>(i))) == 0);
    gc::blocking_call([&] {
      usleep(static_cast<useconds_t>(random() % 1'500));
      pthread_cancel(thread);
      void* result = nullptr;
      pthread_join(thread, &result);
      if (result != PTHREAD_CANCELED) ++lost;
    });
  }
  end = true;
  join(collector);
  CHECK(lost == 0);
  CHECK(destroyed <= rounds);  // some are cancelled before their first instruction
  CHECK(destroyed > rounds / 4);
  CHECK(gc::stats().threads_count == threads);
}

TEST_CASE("a thread inside blocking_call gets no signal: its system call is never interrupted",
          "[events]") {
  int pipe_ends[2];
  REQUIRE(pipe(pipe_ends) == 0);
  std::atomic<int> ready{0};
  int result = 0;
  int error = 0;
  std::thread thread = start_thread([&] {
    make_node(1);
    gc::blocking_call([&] {
      raise(ready, 1);
      pollfd wanted{pipe_ends[0], POLLIN, 0};
      result = poll(&wanted, 1, -1);  // the kernel never restarts it
      error = errno;
    });
  });
  wait_until(ready, 1);
  for (int i = 0; i < event_rounds(); ++i) gc::collect();
  REQUIRE(write(pipe_ends[1], "x", 1) == 1);
  join(thread);
  INFO(error);
  CHECK(result == 1);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
}

TEST_CASE("a thread that leaves blocking_call while the world is stopped keeps its objects") {
  // It has an object that no earlier capture knows, each time it leaves.
  std::atomic<bool> end{false};
  std::atomic<int> lost{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.push_back(start_thread([&] {
      for (std::uint64_t i = 0; i < many(40'000); ++i) {
        Node* const node = make_node(i);
        gc::blocking_call([] {});
        if (!intact(node, i)) ++lost;
      }
    }));
  }
  std::thread collector = start_thread([&] {
    while (!end) gc::collect();
  });
  for (std::thread& thread : threads) join(thread);
  end = true;
  join(collector);
  CHECK(lost == 0);
}

TEST_CASE(
    "roots may be made of nothing, moved and dropped inside blocking_call while others collect") {
  std::atomic<bool> end{false};
  std::atomic<int> lost{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.push_back(start_thread([&] {
      for (std::uint64_t i = 0; i < many(20'000); ++i) {
        Node* const node = make_node(i);
        gc::root<Node> root = node;
        gc::blocking_call([&] { root.reset(); });
        if (!intact(node, i)) ++lost;
      }
    }));
  }
  std::thread collector = start_thread([&] {
    while (!end) gc::collect();
  });
  for (std::thread& thread : threads) join(thread);
  end = true;
  join(collector);
  CHECK(lost == 0);
}

TEST_CASE("a stop that was asked for too late does not park a thread inside blocking_call") {
  // The note of an earlier stop is still there, a stop is under way, and fn drops a root.
  std::atomic<int> step{0};
  auto after = tricolor::impl::MutatorState::running;
  bool kept = false;
  std::thread blocked = start_thread([&] {
    Node* const node = make_node(30);
    gc::root<Node> root = node;
    gc::blocking_call([&] {
      for (int now; (now = step.load()) < 1;) step.wait(now);
      tricolor::impl::current_mutator()->stop_note = 1;
      root.reset();
      after = *tricolor::impl::current_mutator()->state;
      raise(step, 2);
    });
    kept = intact(node, 30);
  });
  std::thread critical = start_thread([&] {
    const gc::critical section;
    std::thread collector = start_thread([] { gc::collect(); });
    while (tricolor::detail::current_cache->stop_note.load() == 0) std::this_thread::yield();
    raise(step, 1);
    // The stop is under way until this section is left: a thread that parks waits for us.
    for (int i = 0; i < 1'000 && step.load() < 2; ++i) std::this_thread::yield();
    collector.detach();
  });
  join(critical);
  join(blocked);
  // Idle where that took so long that the section has been left, and the stop has found nothing to look at.
  CHECK((after == tricolor::impl::MutatorState::blocked ||
         after == tricolor::impl::MutatorState::idle));
  CHECK(kept);
}

TEST_CASE("a collection inside blocking_call leaves the thread blocked") {
  const gc::thread_scope attached;
  const std::uint64_t cycles = gc::stats().cycles_total;
  const auto after = gc::blocking_call([] {
    gc::collect();
    return tricolor::impl::current_mutator()->state->load();
  });
  CHECK(after ==
        tricolor::impl::MutatorState::idle);  // the collection has taken what it had claimed
  CHECK(gc::stats().cycles_total > cycles);
}

// ---------------------------------------------------------------------------------- host's signals

TEST_CASE("errno is kept across a stop", "[events]") {
  if (tricolor::impl::kStopByPolls) {
    WARN("skipped: this build stops threads by polls, not in a signal handler");
    return;
  }
  std::atomic<int> ready{0};
  std::atomic<int> step{0};
  int changed = 0;
  std::thread thread = start_thread([&] {
    make_node(1);
    errno = 4711;
    raise(ready, 1);
    int seen = 4711;
    while (step.load() == 0 && seen == 4711) seen = errno;
    changed = seen;
  });
  wait_until(ready, 1);
  for (int i = 0; i < event_rounds(); ++i) gc::collect();
  raise(step, 1);
  join(thread);
  CHECK(changed == 4711);
}

TEST_CASE("the host's timer signals go on during collections, and interrupt nothing of ours",
          "[events]") {
  static std::atomic<int> ticks;
  ticks = 0;
  struct sigaction action = {};
  struct sigaction before;
  action.sa_handler = [](int) { ticks.fetch_add(1, std::memory_order_relaxed); };
  action.sa_flags = SA_RESTART;
  REQUIRE(sigaction(SIGALRM, &action, &before) == 0);
  const itimerval each_200_us{{0, 200}, {0, 200}};
  const itimerval never{};
  const auto seed = test_seed();
  INFO("TRICOLOR_TEST_SEED=" << seed);
  const int rounds = event_rounds();
  REQUIRE(setitimer(ITIMER_REAL, &each_200_us, nullptr) == 0);
  std::atomic<int> lost{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t) {
    threads.push_back(start_thread([&, t] {
      Lists lists(seed + t);
      for (int i = 0; i < 500 || ticks.load() < rounds; ++i) {
        if (!lists.step()) ++lost;
        if (i % 10 == 0) gc::collect();
      }
    }));
  }
  for (std::thread& thread : threads) join(thread);
  REQUIRE(setitimer(ITIMER_REAL, &never, nullptr) == 0);
  REQUIRE(sigaction(SIGALRM, &before, nullptr) == 0);
  CHECK(lost == 0);
  CHECK(ticks >= rounds);
}

TEST_CASE("a thread that waits for signals of the host's gets each of them while others collect",
          "[events]") {
  // The collector stops the thread in the very call that waits.
  const bool by_descriptor = GENERATE(false, true);
  const int number = SIGRTMAX - 3;  // such signals are queued, and come in order
  make_node(1);
  REQUIRE(number != tricolor::impl::Heap::existing()->handshake().signal());
  std::atomic<int> ready{0};
  std::atomic<int> got{0};
  std::atomic<int> wrong{0};
  const int rounds = static_cast<int>(many(static_cast<std::uint64_t>(event_rounds())));
  std::thread thread = start_thread([&] {
    sigset_t wanted;
    sigemptyset(&wanted);
    sigaddset(&wanted, number);
    pthread_sigmask(SIG_BLOCK, &wanted, nullptr);
    const int descriptor = by_descriptor ? signalfd(-1, &wanted, SFD_CLOEXEC) : -1;
    raise(ready, 1);
    for (int i = 0; i < rounds; ++i) {
      Node* const node = make_node(static_cast<std::uint64_t>(i));
      int value = -1;
      const auto wait = [&] {
        if (by_descriptor) {
          signalfd_siginfo info = {};
          if (read(descriptor, &info, sizeof info) == sizeof info) value = info.ssi_int;
        } else {
          siginfo_t info = {};
          if (sigwaitinfo(&wanted, &info) == number) value = info.si_value.sival_int;
        }
        // Like any handler's, the stop's signal may end the call early.
        return value != -1 || errno != EINTR;
      };
      if (tricolor::impl::kStopByPolls) {
        gc::blocking_call(wait);
      } else {
        while (!wait()) {
        }
      }
      wrong += value != i;
      if (!intact(node, static_cast<std::uint64_t>(i))) ++wrong;
      raise(got, i + 1);
    }
    if (by_descriptor) close(descriptor);
  });
  wait_until(ready, 1);
  {
    const Collector collector;
    for (int i = 0; i < rounds; ++i) {
      gc::collect();  // in which it waits
      sigval value = {};
      value.sival_int = i;
      REQUIRE(pthread_sigqueue(thread.native_handle(), number, value) == 0);
      wait_until(got, i + 1);
    }
    join(thread);
  }
  CHECK(got == rounds);
  CHECK(wrong == 0);
}

TEST_CASE(
    "a thread that blocked every signal before its first allocation is stopped all the same") {
  std::atomic<int> ready{0};
  std::atomic<int> step{0};
  bool kept = false;
  bool still_blocked = false;
  std::thread thread = start_thread([&] {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);
    Node* const node = make_node(20);
    raise(ready, 1);
    while (step.load() == 0) gc::safepoint();
    kept = intact(node, 20);
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, nullptr, &now);
    still_blocked = sigismember(&now, SIGUSR1) == 1 && sigismember(&now, SIGALRM) == 1;
  });
  wait_until(ready, 1);
  for (int i = 0; i < 3; ++i) gc::collect();
  raise(step, 1);
  join(thread);
  CHECK(kept);
  CHECK(still_blocked);
}

// -------------------------------------------------------------------------------- critical, safepoint

TEST_CASE("a critical section delays a stop until it is left") {
  std::atomic<int> ready{0};
  std::atomic<int> collected{0};
  int collected_inside = -1;
  bool was_asked = false;
  bool kept = false;
  std::thread thread = start_thread([&] {
    Node* node = nullptr;
    {
      const gc::critical section;
      const gc::critical nested;
      node = make_node(21);
      raise(ready, 1);
      // The note is left when the stop is asked for and cannot be done.
      const auto& note = tricolor::detail::current_cache->stop_note;
      while (note.load() == 0) std::this_thread::yield();
      was_asked = true;
      node->next = make_node(22);  // units inside do not stop the thread either
      collected_inside = collected.load();
    }
    while (collected.load() == 0) gc::safepoint();
    kept = intact(node, 21) && intact(node->next, 22);
  });
  std::thread collector = start_thread([&] {
    wait_until(ready, 1);
    gc::collect();
    raise(collected, 1);
  });
  join(collector);
  join(thread);
  CHECK(was_asked);
  CHECK(collected_inside == 0);
  CHECK(kept);
}

TEST_CASE("an allocation inside a critical section starts no cycle and succeeds") {
  const int percent = gc::set_percent(1);
  collect();
  {
    const gc::critical section;
    const std::uint64_t cycles = gc::stats().cycles_total;
    for (int i = 0; i < 1'000; ++i) gc::make_array<char>(10'000);
    CHECK(gc::stats().cycles_total == cycles);
  }
  const std::uint64_t cycles = gc::stats().cycles_total;
  for (int i = 0; i < 1'000; ++i) gc::make_array<char>(10'000);
  CHECK(gc::stats().cycles_total > cycles);
  gc::set_percent(percent);
}

TEST_CASE("a safepoint lets a thread be stopped that does nothing else") {
  std::atomic<int> ready{0};
  std::atomic<int> step{0};
  std::thread thread = start_thread([&] {
    const gc::thread_scope scope;
    raise(ready, 1);
    while (step.load() == 0) gc::safepoint();
  });
  wait_until(ready, 1);
  for (int i = 0; i < 100; ++i) gc::collect();
  raise(step, 1);
  join(thread);
  gc::safepoint();
  on_thread([] { gc::safepoint(); });  // of a thread that is not attached: nothing to do
}

TEST_CASE("a pointer store to an object is a poll") {
  std::atomic<int> ready{0};
  std::atomic<int> step{0};
  std::thread thread = start_thread([&] {
    Node* const node = make_node(23);
    raise(ready, 1);
    while (step.load() == 0) node->next = node;
  });
  wait_until(ready, 1);
  for (int i = 0; i < 20; ++i) gc::collect();
  raise(step, 1);
  join(thread);
}

// ------------------------------------------------------------------------------------------- CPUs

namespace {

// Of the threads of the library, how many may use exactly these CPUs, and how many may not.
struct LibraryThreads {
  int with = 0;
  int without = 0;

  explicit LibraryThreads(const cpu_set_t& cpus) {
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      char name[32];
      cpu_set_t its;
      const int id = std::stoi(task.path().filename());
      if (tricolor::impl::os::thread_name(id, name, sizeof name).substr(0, 8) != "tricolor")
        continue;
      if (sched_getaffinity(id, sizeof its, &its) != 0) continue;
      ++(CPU_EQUAL(&its, &cpus) ? with : without);
    }
  }
};

}  // namespace

TEST_CASE("child makes the first cycle on a pinned thread", "[.child]") {
  cpu_set_t all;
  REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
  if (CPU_COUNT(&all) < 2) {
    WARN("skipped: one CPU");
    return;
  }
  std::thread pinned([&] {
    if (!put_on_cpu(0)) return;  // then there is no thread to be found below
    make_node(1);
    gc::collect();
  });
  pinned.join();
  const LibraryThreads threads(all);
  CHECK(threads.with >= 1);
  CHECK(threads.without == 0);
}

TEST_CASE("child makes the first cycle on the main thread after pinning it", "[.child]") {
  cpu_set_t all;
  REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
  REQUIRE(put_on_cpu(0));
  gc::collect();
  const LibraryThreads threads(all);
  CHECK(threads.with >= 1);
  CHECK(threads.without == 0);
}

TEST_CASE("child forks a process that is pinned", "[.child]") {
  // A server that gives each of its processes a CPU: the collector stays there.
  make_node(1);
  gc::collect();
  const pid_t child = fork();
  if (child == 0) {
    cpu_set_t one;
    if (!put_on_cpu(0) || sched_getaffinity(0, sizeof one, &one) != 0) _exit(2);
    gc::collect();
    const LibraryThreads threads(one);
    _exit(threads.with >= 1 && threads.without == 0 ? 0 : 1);
  }
  int status = 0;
  gc::blocking_call([&] { return waitpid(child, &status, 0); });
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("the collector may use the process's CPUs, whichever thread is pinned where",
          "[process]") {
  const char* const test =
      GENERATE("child makes the first cycle on a pinned thread",
               "child makes the first cycle on the main thread after pinning it",
               "child forks a process that is pinned");
  if (kShadowMemory && std::string(test) == "child forks a process that is pinned") return;
  const ProgramEnd end = run_program(test, {{"TRICOLOR_DEBUG", "workers=2"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}
