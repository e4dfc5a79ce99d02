// Is what a stop uses there when it begins? Pages are taken away from the process as a host would take them, and looked for.
#include "gc/rehearsal.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <tricolor/gc.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdint>
#include <iterator>
#include <thread>
#include <vector>

#include "alloc/base/units.h"
#include "alloc/thread_cache.h"
#include "gc/library_thread.h"
#include "test/gc/support.h"

using namespace tricolor::test;
using tricolor::impl::Handshake;
using tricolor::impl::Heap;
using tricolor::impl::HostKeptOut;
using tricolor::impl::round_up;

namespace {

struct Pages {
  char* begin;
  std::size_t count;
};

// Those that lie in the range as a whole.
Pages pages_of(const void* begin, std::size_t bytes) {
  const std::size_t page = tricolor::impl::os::kernel_page_bytes();
  const auto from = round_up(reinterpret_cast<std::uintptr_t>(begin), page);
  const auto end = reinterpret_cast<std::uintptr_t>(begin) + bytes;
  return {reinterpret_cast<char*>(from), end > from ? (end - from) / page : 0};
}

// What is anonymous is lost, what comes from a file is read again.
void take_away(Pages pages) {
  REQUIRE(madvise(pages.begin, pages.count * tricolor::impl::os::kernel_page_bytes(),
                  MADV_DONTNEED) == 0);
}

// How many the process's page table knows (proc_pid_pagemap(5)).
std::size_t count_there(Pages pages) {
  const int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  std::vector<std::uint64_t> entries(pages.count);
  const auto at = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(pages.begin) /
                                     tricolor::impl::os::kernel_page_bytes() * sizeof entries[0]);
  const auto bytes = static_cast<ssize_t>(entries.size() * sizeof entries[0]);
  REQUIRE(pread(file, entries.data(), static_cast<std::size_t>(bytes), at) == bytes);
  close(file);
  std::size_t there = 0;
  for (const std::uint64_t entry : entries) there += entry >> 63;
  return there;
}

}  // namespace

TEST_CASE("touching a range reads each of its pages, and passes by those that are gone") {
  const std::size_t page = tricolor::impl::os::kernel_page_bytes();
  constexpr std::size_t kPages = 100;
  void* const memory =
      mmap(nullptr, kPages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  const Pages all = pages_of(memory, kPages * page);
  REQUIRE(all.count == kPages);
  CHECK(count_there(all) == 0);
  tricolor::impl::touch_pages(memory, kPages * page);
  CHECK(count_there(all) == kPages);
  take_away(all);
  CHECK(count_there(all) == 0);
  // From the middle of the first to the beginning of the last.
  tricolor::impl::touch_pages(all.begin + page / 2, (kPages - 1) * page - page / 2 + 1);
  CHECK(count_there(all) == kPages);
  take_away(all);
  tricolor::impl::touch_lines(memory, kPages * page);
  CHECK(count_there(all) == kPages);
  take_away(all);
  tricolor::impl::touch_pages_through_kernel(all.begin + page / 2, (kPages - 1) * page);
  CHECK(count_there(all) == kPages);
  take_away(all);
  // A hole, and what may not be read.
  mprotect(all.begin + 50 * page, page, PROT_NONE);
  tricolor::impl::touch_pages_through_kernel(all.begin, kPages * page);
  CHECK(count_there(all) == kPages - 1);
  take_away(all);
  tricolor::impl::touch_lines_through_kernel(all.begin + page / 2, 10 * page);
  CHECK(count_there(all) == 11);
  munmap(memory, kPages * page);
}

TEST_CASE("the code of a stop stands together") {
  const auto code = tricolor::impl::stop_code();
  const auto holds = [&](auto* function) {
    const auto* const at = reinterpret_cast<const char*>(function);
    return at - code.data() >= 0 && at - code.data() < std::ssize(code);
  };
  CHECK(holds(&tricolor::impl::os::now_ns));
  CHECK(holds(&tricolor::impl::return_all));
  CHECK_FALSE(holds(&tricolor::impl::os::read_file));
}

namespace {

// A frame that refers to `object` thousands of times.
template <std::size_t kCount = 30'000, class F>
[[gnu::noinline]] void on_references(gc::ptr<Node> object, F fn) {
  Node* volatile many[kCount];
  for (auto& place : many) place = object;
  fn();
  many[0] = nullptr;
}

}  // namespace

namespace {

// Until the calling thread has claimed memory since its last capture, and far below `frame`. (ThreadSanitizer's own part of a stack is
// above that.)
void claim_below(const void* frame) {
  const tricolor::impl::Mutator& m = *tricolor::impl::current_mutator();
  for (const char* top = nullptr;
       top == nullptr || static_cast<const char*>(frame) - top < (128 << 10); top = m.top_at_claim)
    make_node(2);
}

void make_room() {
  Handshake& handshake = Heap::existing()->handshake();
  as_library_thread<HostKeptOut>([&] { handshake.make_room_for_captures(); });
}

}  // namespace

TEST_CASE("before an arming stop there is room for what stands on a stack that has grown") {
  if (stressed() || !marks_beside_the_program() || Heap::existing()->settings().tinybuffers != 0) {
    WARN("skipped: stress=n collects all the time, other buffers do not grow");
    return;
  }
  collect();
  std::atomic<int> ready{0};
  std::atomic<tricolor::impl::Mutator*> mutator{nullptr};
  std::thread thread = start_thread([&] {
    const gc::thread_scope attach;
    mutator = tricolor::impl::current_mutator();
    const void* const frame = __builtin_frame_address(0);
    on_references(make_node(1), [&] {
      claim_below(frame);
      raise(ready, 1);
      while (ready.load() < 2) gc::safepoint();
      claim_below(frame);
    });
    raise(ready, 3);  // it has come down since
    while (ready.load() < 4) gc::safepoint();
    on_references(make_node(1), [&] {
      claim_below(frame);
      gc::blocking_call([&] {
        raise(ready, 5);
        for (int now; (now = ready.load()) < 6;) ready.wait(now);
      });
    });
  });
  wait_until(ready, 1);
  const tricolor::impl::StackCapture& capture = mutator.load()->capture;
  REQUIRE(capture.capacity() < 30'000);
  const bool by_cycle = GENERATE(false, true);
  if (!by_cycle) {
    make_room();
    REQUIRE(capture.capacity() >= 30'000);
    const Pages buffer = pages_of(capture.buffer(), 30'000 * sizeof(std::uintptr_t));
    CHECK(count_there(buffer) == buffer.count);
  }
  collect();
  CHECK(capture.kept() >= 30'000);
  CHECK_FALSE(capture.went_on());
  // It stands as the last stop found it: there is nothing to be done.
  const auto* before = capture.buffer();
  make_room();
  CHECK(capture.buffer() == before);
  CHECK(capture.kept() >= 30'000);

  // Where it stood is found out once: the next stop knows better.
  raise(ready, 2);
  wait_until(ready, 3);
  collect();
  CHECK(capture.kept() < 30'000);
  CHECK(mutator.load()->top_at_claim == nullptr);
  before = capture.buffer();
  make_room();
  CHECK(capture.buffer() == before);

  // Who is blocked is not captured.
  raise(ready, 4);
  wait_until(ready, 5);
  make_room();
  CHECK(capture.buffer() == before);
  raise(ready, 6);
  join(thread);
  collect();
}

TEST_CASE("of a thread that was blocked in the last stop nothing is taken for kept") {
  if (stressed() || tiny_buffers() || !marks_beside_the_program()) return;
  collect();
  // Twice as many do not fit into what the first capture takes.
  constexpr std::size_t kCount = 50'000;
  std::atomic<int> ready{0};
  std::atomic<tricolor::impl::Mutator*> mutator{nullptr};
  std::thread thread = start_thread([&] {
    const gc::thread_scope attach;
    mutator = tricolor::impl::current_mutator();
    const void* const frame = __builtin_frame_address(0);
    on_references<kCount>(make_node(1), [&] {
      claim_below(frame);
      raise(ready, 1);
      while (ready.load() < 2) gc::safepoint();
      claim_below(frame);
      gc::blocking_call([&] {
        raise(ready, 3);
        for (int now; (now = ready.load()) < 4;) ready.wait(now);
      });
      claim_below(frame);
      raise(ready, 5);
      while (ready.load() < 6) gc::safepoint();
    });
  });
  wait_until(ready, 1);
  make_room();
  collect();
  const tricolor::impl::StackCapture& capture = mutator.load()->capture;
  REQUIRE(capture.kept() >= kCount);
  const std::size_t capacity = capture.capacity();
  REQUIRE(capacity < 2 * kCount);
  raise(ready, 2);
  wait_until(ready, 3);
  collect();
  REQUIRE(capture.stack_bytes() == 0);
  raise(ready, 4);
  wait_until(ready, 5);
  make_room();
  CHECK(capture.capacity() == capacity);
  collect();
  CHECK(capture.kept() >= kCount);
  CHECK_FALSE(capture.went_on());
  raise(ready, 6);
  join(thread);
  collect();
}

TEST_CASE("room for captures is made while those that it is for go, and others take their place") {
  if (stressed() || tiny_buffers()) return;
  collect();
  const std::uint64_t seed = tricolor::impl::perturbation.exchange(1);
  const int percent = gc::set_percent(-1);  // cycles only in between
  std::atomic<bool> is_over{false};
  std::atomic<std::uint64_t> cycles{0};  // begun or ended
  std::atomic<std::uint64_t> found_room{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.push_back(start_thread([&] {
      while (!is_over) {
        const gc::thread_scope attach;
        const std::uint64_t before = cycles;
        const void* const frame = __builtin_frame_address(0);
        on_references(make_node(1), [&] { claim_below(frame); });
        const gc::critical section;  // the lock's
        tricolor::impl::Mutator& m = *tricolor::impl::current_mutator();
        const tricolor::impl::Guard turn(m.turn);
        // A stop that it stood deep in may have made it, too.
        if (m.capture.capacity() >= 30'000 && before % 2 == 0 && cycles == before) ++found_room;
      }
    }));
  }
  for (std::uint64_t i = 0; i < many(100); ++i) {
    for (int k = 0; k < 20; ++k) make_room();
    if (i % 10 != 0) continue;
    ++cycles;
    collect();
    ++cycles;
  }
  // They may have been too late for all of it on a busy machine.
  for (const std::uint64_t begin_ns = tricolor::impl::os::now_ns();
       found_room == 0 && tricolor::impl::os::now_ns() - begin_ns < 60'000'000'000;) {
    make_room();
    tricolor::impl::os::yield();
  }
  is_over = true;
  for (std::thread& thread : threads) join(thread);
  tricolor::impl::perturbation = seed;
  gc::set_percent(percent);
  CHECK(found_room != 0);
  collect();
}

TEST_CASE("before an arming stop the buffers for captures are there") {
  if (stressed() || !marks_beside_the_program() || Heap::existing()->settings().tinybuffers != 0) {
    WARN("skipped: stress=n collects all the time, other buffers do not grow");
    return;
  }
  std::atomic<int> ready{0};
  std::atomic<tricolor::impl::Mutator*> mutator{nullptr};
  std::thread thread = start_thread([&] {
    const gc::thread_scope attach;
    on_references(make_node(1), [&] {
      mutator = tricolor::impl::current_mutator();
      raise(ready, 1);
      while (ready.load() < 2) gc::safepoint();
    });
  });
  wait_until(ready, 1);
  collect();  // makes a larger buffer
  collect();
  const tricolor::impl::StackCapture& capture = mutator.load()->capture;
  REQUIRE(capture.kept() > 30'000 / 2);
  REQUIRE(capture.capacity() >= 15'000);
  const Pages buffer = pages_of(capture.buffer(), 15'000 * sizeof(std::uintptr_t));
  REQUIRE(buffer.count != 0);
  // Nobody needs what is in there between two cycles.
  Heap& heap = *Heap::existing();
  const auto rehearse = [&](Handshake::Purpose purpose) {
    take_away(buffer);
    as_library_thread<HostKeptOut>([&] { heap.handshake().rehearse(purpose); });
    return count_there(buffer);
  };
  CHECK(rehearse(Handshake::Purpose::end) == 0);
  CHECK(rehearse(Handshake::Purpose::arm) == buffer.count);
  raise(ready, 2);
  join(thread);
  collect();
}

TEST_CASE("the signal of a rehearsal leaves nothing behind") {
  collect();
  Handshake& handshake = Heap::existing()->handshake();
  as_library_thread<HostKeptOut>([&] {
    sigset_t before, after, pending;
    pthread_sigmask(SIG_SETMASK, nullptr, &before);
    // More often than signals may be queued.
    for (int i = 0; i < 100'000; ++i) handshake.rehearse(Handshake::Purpose::end);
    pthread_sigmask(SIG_SETMASK, nullptr, &after);
    for (int signal = 1; signal < NSIG; ++signal)
      CHECK(sigismember(&before, signal) == sigismember(&after, signal));
    sigpending(&pending);
    CHECK(sigismember(&pending, handshake.signal()) == 0);
  });
}

TEST_CASE("both stops of a cycle are rehearsed") {
  collect();
  const auto& cycle = Heap::existing()->cycle();
  const auto rehearsed = [&](Handshake::Purpose purpose) { return cycle.rehearsed_ns(purpose); };
  // Not again right after it, but after some milliseconds.
  const std::uint64_t begin_ns = tricolor::impl::os::now_ns();
  while (tricolor::impl::os::now_ns() - begin_ns < 20'000'000) gc::safepoint();
  collect();
  CHECK(rehearsed(Handshake::Purpose::arm) > begin_ns);
  if (marks_beside_the_program()) CHECK(rehearsed(Handshake::Purpose::end) > begin_ns);
}

TEST_CASE("a start of a cycle that is only rehearsed changes no goal") {
  collect();
  tricolor::impl::Pacing& pacing = Heap::existing()->cycle().pacing();
  as_library_thread<HostKeptOut>([&] {
    const std::uint64_t goal = pacing.goal_bytes();
    tricolor::impl::CycleStart start;
    start.now_ns = tricolor::impl::os::now_ns();
    start.live_bytes = start.heap_scan_bytes = std::uint64_t{1} << 32;
    pacing.rehearse(start);
    CHECK(pacing.goal_bytes() == goal);
    pacing.commit();
    CHECK(pacing.goal_bytes() == goal);
  });
}
