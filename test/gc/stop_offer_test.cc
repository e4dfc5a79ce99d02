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
#include <climits>
#include <cstdint>
#include <fstream>
#include <memory>
#include <random>
#include <string>
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
  while (offer.offer(kEnd, {}) == Maker::nobody) before = 1;
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
  CHECK(offer.offer(kArm, {}) == Maker::nobody);
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
        const std::uint64_t until_ns =
            os::now_ns() + (chance() % 2 == 0 ? 0 : chance() % (2 * StopOffer::kOfferedNs));
        while (!is_over && os::now_ns() < until_ns) os::relax();
        if (offer.take(kArm, make)) ++taken;
      }
    });
  }
  constexpr std::uint64_t kStops = 3'000;
  std::uint64_t made_here = 0;
  for (std::uint64_t i = 0; i < kStops; ++i) {
    is_made = false;
    if (offer.offer(kArm, {}) == Maker::nobody) {
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
  CHECK(made_here != 0);
  CHECK(made_here != kStops);
  CHECK(taken_here[0] + taken_here[1] == kStops - made_here);
  CHECK(offer.taken_count(kArm) == kStops - made_here);
}

namespace {

// Does it sleep, by what the kernel says?
bool sleeps(std::int32_t thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string line;
  std::getline(file, line);
  const std::size_t name_end = line.rfind(')');
  return name_end != std::string::npos && line.compare(name_end, 3, ") S") == 0;
}

}  // namespace

TEST_CASE("who sleeps until a stop is offered is woken when nobody who runs has come by") {
  StopOffer offer;
  std::atomic<std::int32_t> id = 0;
  std::atomic<bool> is_over = false;
  std::atomic<bool> comes_by = true;
  std::atomic<int> taken_by_sleeper = 0;
  std::atomic<int> taken_by_runner = 0;
  // As Cycle::wait_to_arm does, but for ever.
  std::thread sleeper([&] {
    id = os::thread_id();
    for (;;) {
      const std::uint32_t word = offer.word().load(std::memory_order_acquire);
      if (is_over) return;
      if (!offer.take(kArm, [&] { ++taken_by_sleeper; })) os::futex_wait(offer.word(), word);
    }
  });
  std::thread runner([&] {
    while (!is_over) {
      os::yield();
      if (!comes_by || !offer.is_offered(kArm)) continue;
      // Later than the sleeper, were it woken at once.
      const std::uint64_t until_ns = os::now_ns() + 200'000;
      while (os::now_ns() < until_ns) os::yield();
      offer.take(kArm, [] {});
      ++taken_by_runner;
    }
  });
  const auto wait_for_sleeper = [&] {
    while (id == 0 || !sleeps(id)) os::yield();
  };
  constexpr std::uint64_t kForEver = 100'000'000'000;
  for (int i = 0; i < 100; ++i) {
    while (taken_by_runner < i) os::yield();  // it has woken whom it wakes
    wait_for_sleeper();
    CHECK(offer.offer(kArm, {.looks_ns = kForEver}) == Maker::one_that_ran);
  }
  CHECK(taken_by_sleeper == 0);
  while (taken_by_runner < 100) os::yield();
  comes_by = false;
  // It may be too late for an offer on a busy machine.
  for (int i = 0; i < 10'000 && taken_by_sleeper < 20; ++i) {
    wait_for_sleeper();
    offer.offer(kArm, {.looks_ns = 1});
  }
  CHECK(taken_by_sleeper >= 20);
  is_over = true;
  offer.end();
  sleeper.join();
  runner.join();
}

TEST_CASE("who leaves an offered stop to somebody else waits until that is over") {
  StopOffer offer;
  offer.leave();  // nothing is offered
  CHECK(offer.left_count(kEnd) == 0);
  std::atomic<int> round = 0;
  std::atomic<int> left = 0;       // in this round
  std::atomic<int> withdrawn = 0;  // likewise
  std::atomic<int> leaver_done = 0;
  std::atomic<int> taker_done = 0;
  int made = 0;  // in this round
  std::atomic<int> in_time = 0;
  std::atomic<int> errors = 0;
  constexpr int kRounds = 10'000;
  constexpr int kInTime = 100;
  std::thread leaver([&] {
    for (int r = 1; r <= kRounds; ++r) {
      while (round < r) os::yield();
      if (round == INT_MAX) return;
      while (!offer.is_offered(kEnd) && withdrawn < r) os::yield();
      const std::uint32_t offered = offer.word();
      const std::uint64_t count = offer.left_count(kEnd);
      const std::uint64_t begin_ns = os::now_ns();
      left = r;
      offer.leave();
      const bool has_waited = os::now_ns() - begin_ns >= StopOffer::kLeftNs;
      // Acquire, as for who offers: the stop.
      const std::uint32_t word = offer.word().load(std::memory_order_acquire);
      if (offer.left_count(kEnd) != count) {
        const bool is_over = word == (offered | 3) + 1;
        if (is_over && made != r) ++errors;
        // It has come back while the stop was offered, or made.
        if ((word == offered || word == (offered | 3)) && !has_waited) ++errors;
        if (is_over) ++in_time;
      }
      leaver_done = r;
    }
  });
  std::thread taker([&] {
    for (int r = 1; r <= kRounds; ++r) {
      while (round < r) os::yield();
      if (round == INT_MAX) return;
      while (left < r) os::yield();
      offer.take(kEnd, [&] {
        // Without giving the CPU away, which on a busy machine would be too late for the leaver.
        for (const std::uint64_t until_ns = os::now_ns() + 20'000; os::now_ns() < until_ns;)
          os::relax();
        made = r;
      });
      taker_done = r;
    }
  });
  int r = 0;
  while (r < kRounds && in_time < kInTime) {
    round = ++r;
    if (offer.offer(kEnd, {}) == Maker::nobody) withdrawn = r;
    while (leaver_done < r || taker_done < r) os::yield();
  }
  if (r < kRounds) round = INT_MAX;
  leaver.join();
  taker.join();
  CHECK(in_time >= kInTime);
  CHECK(errors == 0);
  CHECK(offer.left_count(kEnd) > 0);

  // Not for ever, should nobody come; and that is told.
  std::atomic<bool> is_told = false;
  std::thread alone([&] {
    while (!is_told) {
      const std::uint64_t begin_ns = os::now_ns();
      const std::uint32_t before = offer.word();
      offer.leave();
      // It has come back too early.
      if (offer.is_offered(kArm) && offer.word() == before &&
          os::now_ns() - begin_ns < StopOffer::kLeftNs)
        ++errors;
    }
  });
  // On a busy machine it may have been withdrawn by then.
  for (int i = 0; i < 10'000 && !is_told; ++i) {
    CHECK(offer.offer(kArm, {}) == Maker::nobody);
    offer.end();  // so that the next one has another word
    is_told = offer.left() == StopOffer::Left::in_vain;
  }
  CHECK(is_told);
  is_told = true;
  alone.join();
  CHECK(errors == 0);
}

TEST_CASE("what has been in vain is left out more and more often, until it works again") {
  tricolor::impl::Patience patience;
  const auto left_out = [&] {
    int n = 0;
    while (!patience.tries()) ++n;
    return n;
  };
  CHECK(left_out() == 0);
  for (const int expected : {1, 3, 7, 15, 31, 63, 63}) {
    patience.note(false);
    CHECK(left_out() == expected);
    CHECK(left_out() == 0);  // nothing is known of what was tried
  }
  patience.note(true);
  CHECK(left_out() == 0);
  patience.note(false);
  CHECK(left_out() == 1);
}

TEST_CASE("what has come of an offer decides how the next ones are made") {
  using tricolor::impl::OfferedTo;
  using tricolor::impl::OfferPatience;
  using Left = StopOffer::Left;
  struct Next {
    bool expects_comers, looks, may_be_left;
    bool operator==(const Next&) const = default;
  };
  // After one such offer, where everything had worked before or nothing had.
  const auto after = [](OfferedTo to, OfferPatience::Way way, Maker maker, Left left) {
    OfferPatience patience;
    patience.note(to, way, maker, left);
    const bool expects = patience.expects_comers();
    const OfferPatience::Way next = patience.choose(OfferedTo::who_waits, true);
    return Next{expects, next.looks, next.may_be_left};
  };
  constexpr OfferPatience::Way kLooks{.looks = true, .may_be_left = true};
  constexpr OfferPatience::Way kWakes{.looks = false, .may_be_left = true};
  constexpr auto kRan = Maker::one_that_ran;
  constexpr auto kSlept = Maker::one_that_may_have_slept;
  constexpr Next kAll{true, true, true}, kNoComers{false, true, true}, kNoLooks{true, false, true},
      kNotLeft{true, true, false}, kNeither{true, false, false};

  CHECK(after(OfferedTo::who_comes_by, kWakes, kRan, Left::no) == kAll);
  CHECK(after(OfferedTo::who_comes_by, kWakes, Maker::nobody, Left::no) == kNoComers);
  CHECK(after(OfferedTo::who_comes_by, kWakes, kSlept, Left::yes) == kAll);
  CHECK(after(OfferedTo::who_comes_by, kWakes, kSlept, Left::in_vain) == kNotLeft);
  CHECK(after(OfferedTo::who_comes_by, kWakes, Maker::nobody, Left::yes) == kNotLeft);

  CHECK(after(OfferedTo::who_waits, kLooks, kRan, Left::no) == kAll);
  CHECK(after(OfferedTo::who_waits, kLooks, kSlept, Left::no) == kNoLooks);
  CHECK(after(OfferedTo::who_waits, kLooks, kRan, Left::yes) == kAll);
  CHECK(after(OfferedTo::who_waits, kLooks, kSlept, Left::yes) == kNeither);
  CHECK(after(OfferedTo::who_waits, kLooks, kSlept, Left::in_vain) == kNeither);
  // Nobody looked: on one CPU, or as that had been in vain.
  CHECK(after(OfferedTo::who_waits, kWakes, kSlept, Left::no) == kAll);
  CHECK(after(OfferedTo::who_waits, kWakes, kSlept, Left::yes) == kAll);
  CHECK(after(OfferedTo::who_waits, kWakes, kSlept, Left::in_vain) == kNotLeft);
  CHECK(after(OfferedTo::who_waits, kWakes, Maker::nobody, Left::yes) == kNotLeft);

  // It says nothing of success: what has been learnt stays.
  OfferPatience patience;
  for (int i = 0; i < 2; ++i) {
    patience.note(OfferedTo::who_waits, kWakes, kSlept, Left::in_vain);
    CHECK_FALSE(patience.choose(OfferedTo::who_waits, false).may_be_left);
    patience.note(OfferedTo::who_waits, kWakes, kSlept, Left::yes);
    while (!patience.choose(OfferedTo::who_waits, false).may_be_left) {
    }
  }
  patience.note(OfferedTo::who_waits, kWakes, kSlept, Left::in_vain);
  int left_out = 0;
  while (!patience.choose(OfferedTo::who_waits, false).may_be_left) ++left_out;
  CHECK(left_out == 7);
  // It does not look where it may not, or nobody waits.
  CHECK_FALSE(patience.choose(OfferedTo::who_waits, false).looks);
  CHECK_FALSE(patience.choose(OfferedTo::who_comes_by, true).looks);
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
  while (!has_seen) offer.offer(kEnd, {});
  for (int i = 0; i < 100; ++i) offer.offer(kEnd, {});
  is_over = true;
  program.join();
}

namespace {

const StopOffer& stop_offer() { return Heap::existing()->cycle().stop_offer(); }

std::uint64_t stops_taken() {
  return stop_offer().taken_count(kArm) + stop_offer().taken_count(kEnd);
}

// Is fn() true some time? Where other processes have the CPUs, threads come too late for offers.
template <class Fn>
bool comes_true(Fn fn) {
  constexpr std::uint64_t kForNs = 60'000'000'000;
  for (const std::uint64_t until_ns = os::now_ns() + kForNs; os::now_ns() < until_ns;) {
    if (fn()) return true;
  }
  return false;
}

struct Threads {
  std::size_t count = os::cpu_count();
  std::size_t stack_bytes = 0;  // 0: the system's usual
};

// Threads that allocate, on all CPUs if nothing else is said, until the collector has gone through some cycles. Returns how many stops
// they have made for it.
template <class Prepare>
std::uint64_t stops_made_on_busy_cpus(Prepare prepare, Threads wanted = {}) {
  const std::uint64_t taken = stops_taken();
  const std::uint64_t cycles = gc::stats().cycles_total;
  struct Work {
    Prepare& prepare;
    std::uint64_t end_at;
    std::atomic<bool> may_begin{false};
    std::atomic<int> errors{0};
  } work{prepare, cycles + 20};
  const auto run = [](void* argument) -> void* {
    Work& w = *static_cast<Work*>(argument);
    w.may_begin.wait(false);
    const auto prepared = w.prepare();
    asm volatile("" ::"r"(&prepared) : "memory");  // it stands on the stack
    errno = 4321;
    for (std::uint64_t i = 0; gc::stats().cycles_total < w.end_at; ++i) {
      for (int k = 0; k < 1000; ++k) make_node(i);
      if (errno != 4321) ++w.errors;
    }
    return nullptr;
  };
  std::vector<pthread_t> threads(wanted.count);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  if (wanted.stack_bytes != 0) pthread_attr_setstacksize(&attributes, wanted.stack_bytes);
  for (pthread_t& thread : threads) REQUIRE(pthread_create(&thread, &attributes, run, &work) == 0);
  pthread_attr_destroy(&attributes);
  // When this thread does not run any more.
  gc::blocking_call([&] {
    work.may_begin = true;
    work.may_begin.notify_all();
    for (const pthread_t thread : threads) pthread_join(thread, nullptr);
  });
  CHECK(work.errors == 0);
  return stops_taken() - taken;
}

}  // namespace

TEST_CASE(
    "where all CPUs are busy, threads of the program make stops, but for those that must not") {
  if (stressed()) return;  // the heap does not get to its trigger
  collect();
  const auto nothing = [] { return 0; };
  if (!marks_beside_the_program()) {
    CHECK(stops_made_on_busy_cpus(nothing) == 0);
    return;
  }
  // One comes by in nearly every cycle; how many is a matter of the machine.
  CHECK(comes_true([&] { return stops_made_on_busy_cpus(nothing) != 0; }));
  // Who must never be kept waiting, and who has no room for it.
  CHECK(stops_made_on_busy_cpus([] { return std::make_unique<gc::never_assist>(); }) == 0);
  CHECK(stops_made_on_busy_cpus(nothing, {.stack_bytes = 96 << 10}) == 0);
}

namespace {

// What a first stop leaves to its owner to capture.
struct LargeFrame {
  char bytes[256 << 10] = {};
};

}  // namespace

TEST_CASE("the first stop, too, is made by who comes by, where those that ask cannot wait for it") {
  // (With one CPU the collector gets it from the one that asks, which does not run then.)
  if (!marks_beside_the_program() || stressed() || os::cpu_count() == 1) return;
  collect();
  // The owner of a large stack does not wait: it captures that in the stop.
  const std::uint64_t before = stop_offer().taken_count(kArm);
  CHECK(comes_true([&] {
    stops_made_on_busy_cpus([] { return LargeFrame(); });
    return stop_offer().taken_count(kArm) != before;
  }));
}

TEST_CASE("who comes by while another one waits for its CPU leaves the stop to that one") {
  if (!marks_beside_the_program() || stressed()) return;
  if (os::cpu_word() == nullptr || os::cpu_count() == 1) return;  // nobody is told; nothing else
  collect();
  const auto left = [] { return stop_offer().left_count(kArm) + stop_offer().left_count(kEnd); };
  // Each on a CPU of its own: nobody waits for another one's.
  std::atomic<std::size_t> next = 0;
  std::atomic<std::size_t> there = 0;
  std::uint64_t before = left();
  stops_made_on_busy_cpus([&] {
    there += put_on_cpu(next++) ? 1 : 0;
    return 0;
  });
  REQUIRE(there == os::cpu_count());
  CHECK(left() == before);
  // All on one. One of them waits for each first stop, having asked for it, and where marking is slow (a sanitizer's) also for each last
  // one: so there are more than CPUs, of which two run.
  const Threads more{.count = os::cpu_count() + 2};
  CHECK(comes_true([&] {
    stops_made_on_busy_cpus([] { return put_on_cpu(0); }, more);
    return left() != before;
  }));
  // Who waits does not capture its stack itself. A large one is not left to others.
  before = stop_offer().left_count(kArm);
  const std::uint64_t taken = stop_offer().taken_count(kArm);
  CHECK(comes_true([&] {
    stops_made_on_busy_cpus(
        [] {
          put_on_cpu(0);
          return LargeFrame();
        },
        more);
    return stop_offer().taken_count(kArm) != taken;
  }));
  CHECK(stop_offer().left_count(kArm) == before);
}

TEST_CASE("stops are not left for long to a thread that sleeps") {
  if (stressed() || tricolor::impl::kStopByPolls) return;  // this one would not be stopped
  collect();
  cpu_set_t all;
  REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
  REQUIRE(put_on_cpu(0));
  const std::uint64_t before = stop_offer().left_count(kArm) + stop_offer().left_count(kEnd);
  const std::uint64_t end_at = gc::stats().cycles_total + 100;
  std::thread thread([&] {  // on the same CPU
    while (gc::stats().cycles_total < end_at) {
      for (int k = 0; k < 1000; ++k) make_node(1);
    }
  });
  thread.join();  // outside of blocking_call, it counts as running
  CHECK(sched_setaffinity(0, sizeof all, &all) == 0);
  // After 1, 2, 4, ... 64 offers. (With more CPUs than the two that count as busy here none is made.)
  CHECK(stop_offer().left_count(kArm) + stop_offer().left_count(kEnd) - before <= 16);
}

TEST_CASE("a thread waits at the goal while a stop is offered that it cannot make") {
  if (!marks_beside_the_program() || stressed()) return;
  collect();
  constexpr std::size_t kMost = 256 << 10;
  std::atomic<std::size_t> most = 0;
  stops_made_on_busy_cpus([&] {
    make_node(1);  // the collector's thread is there, which the kernel prefers from now on
    setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + 1);
    auto& cycle = Heap::existing()->cycle();
    const auto marks = [] {
      return tricolor::impl::is_marking(Heap::existing()->handshake().epoch());
    };
    // Allocated past the goal without having waited for a cycle that marks.
    std::size_t past = 0;
    for (const std::uint64_t end = gc::stats().cycles_total + 20; gc::stats().cycles_total < end;) {
      for (int k = 0; k < 100; ++k) {
        constexpr std::size_t kWords =
            256;  // the heap grows by a good part of the goal while a stop is offered
        gc::make_array<std::uint64_t>(kWords);
        past = cycle.pacing().at_goal() && !marks() ? past + kWords * sizeof(std::uint64_t) : 0;
        if (past > most) most = past;
      }
    }
    return 0;
  });
  CHECK(most <= kMost);
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
  CHECK(comes_true([&] { return stops_made_on_busy_cpus(nothing) != 0; }));
  CHECK(traces_with_a_mutator == 0);
}

TEST_CASE("a stop that a thread of the program makes runs no trace function on a mutator",
          "[process]") {
  CHECK(run_program(
            "child a stop that a thread of the program makes runs no trace function on a mutator",
            {{"TRICOLOR_DEBUG", "gccheckmark=1"}})
            .exit_code == 0);
}
