// Who makes stops: offers by themselves, and the threads of a program whose CPUs are all busy.
#include "gc/stop_offer.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <tricolor/gc.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "alloc/base/perturb.h"
#include "test/gc/support.h"

using namespace tricolor::test;
using tricolor::impl::Handshake;
using tricolor::impl::Heap;
using tricolor::impl::StopOffer;
using Maker = StopOffer::Maker;
namespace os = tricolor::impl::os;

namespace {

constexpr auto kArm = Handshake::Purpose::arm;
constexpr auto kEnd = Handshake::Purpose::end;

}  // namespace

TEST_CASE("a stop that is offered is made by who takes it, and both know what the other one did") {
  StopOffer offer;
  int before = 0;
  int made = 0;
  std::thread program([&] {
    while (!offer.take(kEnd, [&] { made = before + 1; })) {
      CHECK_FALSE(offer.take(kArm, [&] { made = -1; }));  // not what is offered
    }
  });
  before = 1;
  // It may not come by in time on a busy machine.
  while (offer.offer(kEnd) == Maker::nobody) before = 1;
  CHECK(made == 2);
  CHECK(offer.taken_count(kEnd) == 1);
  CHECK(offer.taken_count(kArm) == 0);
  CHECK_FALSE(offer.is_offered(kEnd));
  CHECK_FALSE(offer.take(kEnd, [&] { made = -1; }));
  program.join();
}

TEST_CASE("a stop that nobody takes is left to the collector") {
  StopOffer offer;
  const std::uint64_t begin_ns = os::now_ns();
  CHECK(offer.offer(kArm) == Maker::nobody);
  CHECK(os::now_ns() - begin_ns < 1'000'000'000);
  CHECK_FALSE(offer.is_offered(kArm));
  CHECK_FALSE(offer.take(kArm, [] { FAIL("it has been withdrawn"); }));
  const std::uint32_t word = offer.word();
  offer.end();
  CHECK(offer.word() != word);  // who waited for it looks again
}

TEST_CASE("a stop is made once, also where it is taken as it is withdrawn") {
  StopOffer offer;
  std::atomic<bool> is_over = false;
  std::uint64_t made = 0;
  bool is_made = false;
  const auto make = [&] {
    CHECK_FALSE(is_made);
    is_made = true;
    ++made;
  };
  const std::uint64_t seed = tricolor::impl::perturbation.exchange(1);
  std::vector<std::thread> program;
  std::atomic<std::uint64_t> taken_here[2] = {};
  for (auto& taken : taken_here) {
    program.emplace_back([&] {
      std::minstd_rand chance(7);
      while (!is_over) {
        while (!is_over && !offer.is_offered(kArm)) os::relax();
        // At once, as the other one does, or about when it is withdrawn.
        const std::uint64_t until_ns = os::now_ns() + (chance() % 2 == 0 ? 0 : chance() % 300'000);
        while (!is_over && os::now_ns() < until_ns) os::relax();
        if (offer.take(kArm, make)) ++taken;
      }
    });
  }
  constexpr std::uint64_t kStops = 3'000;
  std::uint64_t made_here = 0;
  for (std::uint64_t i = 0; i < kStops; ++i) {
    is_made = false;
    if (offer.offer(kArm) == Maker::nobody) {
      make();
      ++made_here;
      offer.end();
    }
    CHECK(is_made);
  }
  is_over = true;
  for (auto& thread : program) thread.join();
  tricolor::impl::perturbation = seed;
  CHECK(made == kStops);
  CHECK(taken_here[0] + taken_here[1] == kStops - made_here);
  CHECK(offer.taken_count(kArm) == kStops - made_here);
}

TEST_CASE("who sleeps until a stop is offered is woken when nobody who runs has come by") {
  StopOffer offer;
  std::atomic<bool> is_over = false;
  std::atomic<bool> comes_by = true;
  std::atomic<std::uint64_t> taken_by_sleeper = 0;
  // As Cycle::wait_to_arm does, but for ever.
  std::thread sleeper([&] {
    for (;;) {
      const std::uint32_t word = offer.word().load(std::memory_order_acquire);
      if (is_over) return;
      if (!offer.take(kArm, [&] { ++taken_by_sleeper; })) os::futex_wait(offer.word(), word);
    }
  });
  std::thread runner([&] {
    while (!is_over) {
      if (comes_by) offer.take(kArm, [] {});
      os::relax();
    }
  });
  constexpr std::uint64_t kForEver = 100'000'000'000;
  for (int i = 0; i < 200; ++i) CHECK(offer.offer(kArm, kForEver) == Maker::one_that_ran);
  comes_by = false;
  // It may be too late for an offer on a busy machine.
  for (const std::uint64_t before = taken_by_sleeper; taken_by_sleeper < before + 20;) {
    if (offer.offer(kArm, 1) == Maker::nobody) offer.end();
  }
  is_over = true;
  offer.end();
  sleeper.join();
  runner.join();
}

TEST_CASE("who leaves an offered stop to somebody else waits until that is over") {
  StopOffer offer;
  offer.leave();  // nothing is offered
  CHECK(offer.left_count() == 0);
  std::uint64_t in_time = 0;
  for (int i = 0; i < 1000 && in_time < 100; ++i) {
    std::atomic<bool> is_left = false;
    std::atomic<bool> is_over = false;
    bool made = false;
    std::thread leaver([&] {
      while (!is_over && !offer.is_offered(kEnd)) os::relax();
      const std::uint64_t begin_ns = os::now_ns();
      is_left = true;
      offer.leave();
      // Acquire, as for who offers: the stop. (One that takes longer is not waited for.)
      const std::uint32_t word = offer.word().load(std::memory_order_acquire);
      if (word % 4 != 0 || os::now_ns() - begin_ns >= StopOffer::kOfferedNs || is_over) return;
      CHECK(made);
      ++in_time;
    });
    std::thread taker([&] {
      while (!is_over && !is_left) os::relax();
      offer.take(kEnd, [&] {
        os::yield();
        made = true;
      });
    });
    if (offer.offer(kEnd) == Maker::nobody) is_over = true;
    taker.join();
    leaver.join();
    if (is_over) offer.end();
  }
  CHECK(in_time == 100);
  CHECK(offer.left_count() >= 100);
}

TEST_CASE("only a thread that the kernel prefers as much as who offers a stop takes it") {
  StopOffer offer;
  std::atomic<bool> is_ready = false;
  std::atomic<bool> has_seen = false;
  std::atomic<bool> is_over = false;
  std::thread program([&] {
    const int before = os::thread_priority();
    setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + 1);  // this thread's
    // Where it has the least already there is none to be less.
    const bool is_less = os::thread_priority() < before;
    is_ready = true;
    while (!is_over) {
      if (offer.is_offered(kEnd)) has_seen = true;
      const bool takes = offer.take(kEnd, [] {});
      if (is_less) CHECK_FALSE(takes);
    }
  });
  while (!is_ready) std::this_thread::yield();
  while (!has_seen) offer.offer(kEnd);
  for (int i = 0; i < 100; ++i) offer.offer(kEnd);
  is_over = true;
  program.join();
}

namespace {

const StopOffer& stop_offer() { return Heap::existing()->cycle().stop_offer(); }

std::uint64_t stops_taken() {
  return stop_offer().taken_count(kArm) + stop_offer().taken_count(kEnd);
}

// Puts the calling thread on one of the CPUs that it may run on. True when it is there.
bool put_on_cpu(std::size_t which) {
  cpu_set_t all, one;
  CPU_ZERO(&one);
  if (sched_getaffinity(0, sizeof all, &all) != 0) return false;
  for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &all) || which-- != 0) continue;
    CPU_SET(cpu, &one);
    return sched_setaffinity(0, sizeof one, &one) == 0;
  }
  return false;
}

// Threads that allocate on all CPUs until the collector has gone through some cycles. Returns how many stops they have made for it.
template <class Prepare>
std::uint64_t stops_made_on_busy_cpus(Prepare prepare, std::size_t stack_bytes = 0) {
  const std::uint64_t taken = stops_taken();
  const std::uint64_t cycles = gc::stats().cycles_total;
  struct Work {
    Prepare& prepare;
    std::uint64_t end_at;
    std::atomic<int> errors{0};
  } work{prepare, cycles + 20};
  const auto run = [](void* argument) -> void* {
    Work& w = *static_cast<Work*>(argument);
    [[maybe_unused]] const auto prepared = w.prepare();
    errno = 4321;
    for (std::uint64_t i = 0; gc::stats().cycles_total < w.end_at; ++i) {
      for (int k = 0; k < 1000; ++k) make_node(i);
      if (errno != 4321) ++w.errors;
    }
    return nullptr;
  };
  std::vector<pthread_t> threads(os::cpu_count());
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  if (stack_bytes != 0) pthread_attr_setstacksize(&attributes, stack_bytes);
  for (pthread_t& thread : threads) REQUIRE(pthread_create(&thread, &attributes, run, &work) == 0);
  pthread_attr_destroy(&attributes);
  gc::blocking_call([&] {
    for (const pthread_t thread : threads) pthread_join(thread, nullptr);
  });
  CHECK(work.errors == 0);
  return stops_taken() - taken;
}

}  // namespace

TEST_CASE(
    "where all CPUs are busy, threads of the program make stops, but for those that must not") {
  collect();
  const auto nothing = [] { return 0; };
  if (!marks_beside_the_program()) {
    CHECK(stops_made_on_busy_cpus(nothing) == 0);
    return;
  }
  // One comes by in nearly every cycle; how many is a matter of the machine.
  std::uint64_t made = 0;
  for (int i = 0; i < 100 && made == 0; ++i) made = stops_made_on_busy_cpus(nothing);
  CHECK(made != 0);
  // Who must never be kept waiting, and who has no room for it.
  CHECK(stops_made_on_busy_cpus([] { return std::make_unique<gc::never_assist>(); }) == 0);
  CHECK(stops_made_on_busy_cpus(nothing, 96 << 10) == 0);
}

TEST_CASE("the first stop, too, is made by who comes by, where those that ask cannot wait for it") {
  if (!marks_beside_the_program()) return;
  collect();
  // A large stack is captured by its owner in the stop, so its owner does not wait.
  struct Large {
    char bytes[256 << 10] = {};
  };
  std::uint64_t made = 0;
  for (int i = 0; i < 100 && made == 0; ++i) {
    const std::uint64_t before = stop_offer().taken_count(kArm);
    stops_made_on_busy_cpus([] { return Large(); });
    made = stop_offer().taken_count(kArm) - before;
  }
  CHECK(made != 0);
}

TEST_CASE("who comes by while another one waits for its CPU leaves the stop to that one") {
  if (!marks_beside_the_program()) return;
  if (os::cpu_word() == nullptr) return;  // nobody is told
  collect();
  // Each on a CPU of its own: nobody waits for another one's.
  std::atomic<std::size_t> next = 0;
  std::uint64_t before = stop_offer().left_count();
  stops_made_on_busy_cpus([&] { return put_on_cpu(next++); });
  CHECK(stop_offer().left_count() == before);
  if (os::cpu_count() == 1) return;
  // All on one.
  std::uint64_t left = 0;
  for (int i = 0; i < 100 && left == 0; ++i) {
    before = stop_offer().left_count();
    stops_made_on_busy_cpus([] { return put_on_cpu(0); });
    left = stop_offer().left_count() - before;
  }
  CHECK(left != 0);
}

TEST_CASE("stops are not offered where nobody comes by") {
  if (stressed()) return;
  collect();
  // Busy, and the heap is far from its trigger.
  std::atomic<bool> is_over = false;
  std::atomic<int> ready = 0;
  std::vector<std::thread> threads;
  for (std::uint32_t i = 0; i < os::cpu_count(); ++i) {
    threads.push_back(start_thread([&] {
      make_node(1);
      ++ready;
      ready.notify_all();
      while (!is_over) gc::safepoint();
    }));
  }
  wait_until(ready, static_cast<int>(threads.size()));
  const std::uint64_t taken = stops_taken();
  for (int i = 0; i < 20; ++i) collect();
  CHECK(stops_taken() == taken);
  is_over = true;
  for (std::thread& thread : threads) join(thread);
}

namespace {

std::atomic<std::uint64_t> traces_with_a_mutator{0};

struct Traced {
  gc::ptr<Node> node;
  void trace(gc::tracer& t) const noexcept {
    if (tricolor::impl::current_mutator() != nullptr) ++traces_with_a_mutator;
    t(node);
  }
};

}  // namespace

TEST_CASE("child a stop that a thread of the program makes runs no trace function on a mutator",
          "[.child]") {
  const gc::root<Traced> traced = gc::make<Traced>();
  traced->node = make_node(1);
  const auto nothing = [] { return 0; };
  std::uint64_t made = 0;
  for (int i = 0; i < 100 && made == 0; ++i) made = stops_made_on_busy_cpus(nothing);
  CHECK(made != 0);
  CHECK(traces_with_a_mutator == 0);
}

TEST_CASE("a stop that a thread of the program makes runs no trace function on a mutator",
          "[process]") {
  CHECK(run_program(
            "child a stop that a thread of the program makes runs no trace function on a mutator",
            {{"TRICOLOR_DEBUG", "gccheckmark=1"}})
            .exit_code == 0);
}
