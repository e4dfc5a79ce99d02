// The contracts of base/os.h against the real kernel, and the reports of base/check.h and lock.h.
#include "alloc/base/os.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "alloc/base/check.h"
#include "alloc/base/lock.h"
#include "alloc/base/log.h"
#include "alloc/base/units.h"
#include "child.h"

using namespace tricolor::impl;
using tricolor::test::in_child;

namespace {

std::uintptr_t address_of(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }

// Kernel pages of a range that have memory behind them.
std::size_t resident_pages(void* begin, std::size_t bytes) {
  std::vector<unsigned char> pages(bytes / os::kernel_page_bytes());
  if (mincore(begin, bytes, pages.data()) != 0) return SIZE_MAX;
  return static_cast<std::size_t>(
      std::count_if(pages.begin(), pages.end(), [](unsigned char c) { return (c & 1) != 0; }));
}

}  // namespace

TEST_CASE("a reservation is aligned, for every alignment") {
  for (std::size_t alignment = os::kernel_page_bytes(); alignment <= kArenaBytes; alignment *= 2) {
    for (const std::size_t bytes : {os::kernel_page_bytes(), alignment, 3 * alignment}) {
      void* const p = os::reserve(bytes, alignment, "test");
      CAPTURE(alignment, bytes);
      REQUIRE(p != nullptr);
      CHECK(address_of(p) % alignment == 0);
      REQUIRE(os::prepare(p, bytes, "test"));
      std::memset(p, 1, os::kernel_page_bytes());
      os::unreserve(p, bytes);
    }
  }
}

TEST_CASE("an arena is placed right above the one before") {
  char* const first = static_cast<char*>(os::reserve(kArenaBytes, kArenaBytes, "test"));
  char* const second = static_cast<char*>(os::reserve(kArenaBytes, kArenaBytes, "test"));
  REQUIRE(first != nullptr);
  REQUIRE(second != nullptr);
  // Only a wish; but it would be odd if something lay there in this process.
  CHECK(second == first + kArenaBytes);
  os::unreserve(second, kArenaBytes);
  CHECK(os::reserve(kArenaBytes, kArenaBytes, "test") == second);
  os::unreserve(first, 2 * kArenaBytes);
}

TEST_CASE("prepared memory reads as zero, and again after it was discarded") {
  const std::size_t bytes = 16 * os::kernel_page_bytes();
  char* const p = static_cast<char*>(os::reserve(bytes, os::kernel_page_bytes(), "test"));
  REQUIRE(p != nullptr);
  REQUIRE(os::prepare(p, bytes, "test"));
  CHECK(resident_pages(p, bytes) == 0);
  CHECK(std::all_of(p, p + bytes, [](char c) { return c == 0; }));
  std::memset(p, 7, bytes);
  CHECK(resident_pages(p, bytes) == 16);
  REQUIRE(os::discard(p, bytes));
  CHECK(resident_pages(p, bytes) == 0);
  CHECK(std::all_of(p, p + bytes, [](char c) { return c == 0; }));
  os::unreserve(p, bytes);
  CHECK_FALSE(os::prepare(p, bytes, "test"));
}

TEST_CASE("a map costs only what is touched") {
  const std::size_t bytes = std::size_t{1} << 34;  // more than most machines have
  char* const p = static_cast<char*>(os::map(bytes, std::size_t{1} << 22, "test"));
  REQUIRE(p != nullptr);
  CHECK(address_of(p) % (std::size_t{1} << 22) == 0);
  p[bytes / 2] = 1;
  CHECK(p[0] == 0);
  os::unreserve(p, bytes);
}

TEST_CASE("memory shows its name where the kernel can show it") {
  const std::size_t bytes = os::kernel_page_bytes();
  void* const p = os::map(bytes, bytes, "tricolor test name");
  REQUIRE(p != nullptr);
  std::ifstream maps("/proc/self/maps");
  bool found = false;
  bool any_named = false;
  for (std::string line; std::getline(maps, line);) {
    any_named = any_named || line.find("[anon:") != std::string::npos;
    found = found || line.find("[anon:tricolor test name]") != std::string::npos;
  }
  os::unreserve(p, bytes);
  if (any_named) CHECK(found);
}

TEST_CASE("what the kernel refuses is null, and errno stays", "[kernel]") {
  errno = 4711;
  CHECK(os::reserve(std::size_t{1} << 56, kArenaBytes, "test") == nullptr);
  CHECK(os::reserve(SIZE_MAX & ~(kArenaBytes - 1), kArenaBytes, "test") == nullptr);
  CHECK(os::map(std::size_t{1} << 56, kArenaBytes, "test") == nullptr);
  CHECK_FALSE(os::discard(nullptr, os::kernel_page_bytes()));
  CHECK_FALSE(os::send_signal(os::thread_id(), 4711));
  char out;
  CHECK(os::read_maybe_unmapped(&out, nullptr, 1) == 0);
  const std::atomic<std::uint32_t> word{1};
  os::futex_wait(word, 0);
  CHECK(errno == 4711);
}

TEST_CASE("a reservation beyond RLIMIT_AS is refused", "[kernel]") {
  const auto end = in_child([] {
    const rlimit limit = {1 << 20, 1 << 20};  // below what is mapped already
    if (setrlimit(RLIMIT_AS, &limit) != 0) return 1;
    if (os::reserve(kArenaBytes, kArenaBytes, "test") != nullptr) return 2;
    if (os::map(std::size_t{4} << 20, std::size_t{4} << 20, "test") != nullptr) return 3;
    return 0;
  });
  CHECK(end.exit_code == 0);
}

TEST_CASE("the clocks run forward") {
  const std::uint64_t wall = os::now_ns();
  const std::uint64_t thread = os::thread_cpu_ns();
  const std::uint64_t process = os::process_cpu_ns();
  // CPU clocks may tick coarsely: burn until both have moved.
  while (os::thread_cpu_ns() == thread || os::process_cpu_ns() == process) {
  }
  CHECK(os::now_ns() > wall);
  CHECK(os::thread_cpu_ns() > thread);
  CHECK(os::process_cpu_ns() > process);
}

TEST_CASE("the CPU count is that of the affinity mask") {
  CHECK(os::cpu_count() >= 1);
  CHECK(os::cpu_count() <= static_cast<unsigned>(sysconf(_SC_NPROCESSORS_CONF)));
  const auto end = in_child([] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<std::size_t>(sched_getcpu()), &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) return 255;
    return static_cast<int>(os::cpu_count());
  });
  CHECK(end.exit_code == 1);
}

TEST_CASE("a thread's CPU is seen by others, also while it waits") {
  std::atomic<const std::uint32_t*> word = nullptr;
  std::atomic<bool> is_there = false;
  std::atomic<bool> is_over = false;
  std::uint32_t cpu = 0;
  std::thread other([&] {
    cpu = static_cast<std::uint32_t>(sched_getcpu());
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) == 0) word = os::cpu_word();
    is_there = true;
    is_there.notify_one();
    is_over.wait(false);
  });
  is_there.wait(false);
  // Null where the C library has not registered with the kernel (qemu does not do it).
  if (word != nullptr) {
    std::uint32_t seen = 0;
    CHECK(os::read_maybe_unmapped(&seen, word, sizeof seen) == sizeof seen);
    CHECK(seen == cpu);
    CHECK(word != os::cpu_word());
  }
  is_over = true;
  is_over.notify_one();
  other.join();
}

TEST_CASE("threads have ids of their own") {
  CHECK(os::thread_id() == getpid());
  std::int32_t other = 0;
  std::thread([&] { other = os::thread_id(); }).join();
  CHECK(other != 0);
  CHECK(other != os::thread_id());
}

TEST_CASE("a waiter wakes when the word changes, or when its time is up") {
  std::atomic<std::uint32_t> word{0};
  std::thread waker([&] {
    word.store(1, std::memory_order_release);  // Release: pairs with the loop below.
    os::futex_wake_all(word);
  });
  // Acquire: pairs with the waker.
  while (word.load(std::memory_order_acquire) == 0) os::futex_wait(word, 0);
  waker.join();

  const std::uint64_t begin = os::now_ns();
  while (os::now_ns() - begin < 2'000'000) os::futex_wait(word, 1, 2'000'000);
  SUCCEED("came back");
}

namespace {
std::atomic<std::int32_t> signalled_thread{0};
}

TEST_CASE("a signal reaches the thread it was sent to, and no ended one") {
  std::signal(SIGUSR2,
              [](int) { signalled_thread.store(os::thread_id(), std::memory_order_relaxed); });
  std::atomic<std::int32_t> id{0};
  std::thread target([&] {
    id.store(os::thread_id(), std::memory_order_relaxed);
    while (signalled_thread.load(std::memory_order_relaxed) == 0) std::this_thread::yield();
  });
  while (id.load(std::memory_order_relaxed) == 0) std::this_thread::yield();
  const std::int32_t thread = id.load(std::memory_order_relaxed);
  CHECK(os::send_signal(thread, SIGUSR2));
  target.join();
  CHECK(signalled_thread.load(std::memory_order_relaxed) == thread);
  // Joined is not yet gone: the kernel takes a moment to drop the id.
  while (os::send_signal(thread, 0)) std::this_thread::yield();
  std::signal(SIGUSR2, SIG_DFL);
}

TEST_CASE("reading what may be unmapped yields the readable prefix") {
  const std::size_t page = os::kernel_page_bytes();
  char* const p = static_cast<char*>(os::map(40 * page, page, "test"));
  REQUIRE(p != nullptr);
  for (std::size_t i = 0; i < 40 * page; ++i) p[i] = static_cast<char>(i / 16);
  std::vector<char> out(40 * page);
  const auto copied = [&](std::size_t offset, std::size_t bytes) {
    std::fill(out.begin(), out.end(), char{0});
    const std::size_t n = os::read_maybe_unmapped(out.data(), p + offset, bytes);
    REQUIRE(n <= bytes);
    REQUIRE(std::equal(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(n), p + offset));
    return n;
  };
  CHECK(copied(0, 40 * page) == 40 * page);
  CHECK(copied(3, 35 * page + 11) == 35 * page + 11);
  CHECK(copied(7, 0) == 0);

  os::unreserve(p + 30 * page, page);
  CHECK(copied(0, 40 * page) == 30 * page);
  CHECK(copied(5, 40 * page - 5) == 30 * page - 5);
  CHECK(copied(29 * page + 100, page) == page - 100);
  CHECK(copied(29 * page, page) == page);
  CHECK(os::read_maybe_unmapped(out.data(), p + 30 * page, 10) == 0);
  CHECK(copied(31 * page, 9 * page) == 9 * page);
  CHECK(os::read_maybe_unmapped(out.data(), reinterpret_cast<void*>(UINTPTR_MAX - 7), 8) == 0);
  os::unreserve(p, 40 * page);
}

namespace {

// In a child: process_vm_readv is refused from now on. False where there is no sandbox to be had.
bool forbid_direct_reading() {
  sock_filter filter[] = {
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_process_vm_readv},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EPERM},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
  };
  const sock_fprog program = {4, filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

}  // namespace

TEST_CASE("where a sandbox forbids the direct way, reading goes through /proc") {
  const auto end = in_child([] {
    const std::size_t page = os::kernel_page_bytes();
    char* const p = static_cast<char*>(os::map(3 * page, page, "test"));
    std::memset(p, 5, 3 * page);
    os::unreserve(p + 2 * page, page);
    if (!forbid_direct_reading()) return 0;
    std::vector<char> out(3 * page);
    errno = 4711;
    if (os::read_maybe_unmapped(out.data(), p + 3, 3 * page - 3) != 2 * page - 3) return 1;
    if (std::count(out.begin(), out.end(), char{5}) != static_cast<long>(2 * page - 3)) return 2;
    if (os::read_maybe_unmapped(out.data(), p + 2 * page, 1) != 0) return 3;
    if (errno != 4711) return 4;
    return 0;
  });
  CHECK(end.exit_code == 0);
  CHECK(end.errors == "");
}

TEST_CASE("nothing that reads or writes is a cancellation point: the caller may hold locks") {
  const auto end = in_child([] {
    static bool came_through = false;
    pthread_t thread;
    const bool started =
        pthread_create(
            &thread, nullptr,
            [](void*) -> void* {
              pthread_cancel(pthread_self());
              char out[64];
              std::uint64_t word = 5;
              os::read_file("/proc/self/stat", out, sizeof out);
              os::thread_name(os::thread_id(), out, sizeof out);
              os::thread_blocks_signal(os::thread_id(), SIGUSR1);
              os::thread_started_after(os::thread_id(), 0);
              for (int i = 0; i < 2; ++i) {
                os::prepare_to_read_own_memory();
                os::read_maybe_unmapped(out, &word, sizeof word);
                os::read_pieces_maybe_unmapped(out, std::array{os::Piece{&word, sizeof word}});
                if (!forbid_direct_reading()) break;
              }
              log_line("still here");
              came_through = true;
              pthread_testcancel();
              return nullptr;
            },
            nullptr) == 0;
    void* result = nullptr;
    if (!started || pthread_join(thread, &result) != 0 || result != PTHREAD_CANCELED) return 1;
    return came_through ? 0 : 2;
  });
  CHECK(end.exit_code == 0);
  CHECK(end.errors == "still here\n");
}

TEST_CASE("a failed check reports label, place and values on one line, calls the hook and aborts",
          "[kernel]") {
  const auto end = in_child([] {
    set_report_hook([]() noexcept { (void)!write(STDERR_FILENO, "the hook\n", 9); });
    check(false, "test.label", {0x2a, 7});
    return 0;
  });
  CHECK(end.signal == SIGABRT);
  CHECK_THAT(end.errors, Catch::StartsWith("tricolor: check failed: test.label at "));
  CHECK_THAT(end.errors, Catch::Contains("os_test.cc:"));
  CHECK_THAT(end.errors, Catch::Contains("a=0x2a (42) b=0x7 (7)"));
  CHECK_THAT(end.errors, Catch::EndsWith("\nthe hook\n"));
}

TEST_CASE("a hook that fails itself does not run again", "[kernel]") {
  const auto end = in_child([] {
    set_report_hook([]() noexcept { check(false, "test.inner"); });
    usage_error("do not do that: do this");
    return 0;
  });
  CHECK(end.signal == SIGABRT);
  CHECK(std::count(end.errors.begin(), end.errors.end(), '\n') == 2);
  CHECK_THAT(end.errors, Catch::StartsWith("tricolor: do not do that: do this\n"));
  CHECK_THAT(end.errors, Catch::Contains("test.inner"));
}

TEST_CASE("of two threads that fail, both report and one hook runs to its end") {
  const auto end = in_child([] {
    static std::atomic<bool> other_reports{false};
    set_report_hook([]() noexcept {
      std::thread([] {
        other_reports.store(true, std::memory_order_relaxed);
        check(false, "test.second");
      }).detach();
      while (!other_reports.load(std::memory_order_relaxed)) std::this_thread::yield();
      (void)!write(STDERR_FILENO, "the hook\n", 9);
    });
    check(false, "test.first");
    return 0;
  });
  CHECK(end.signal == SIGABRT);
  CHECK_THAT(end.errors, Catch::Contains("test.first"));
  CHECK_THAT(end.errors, Catch::Contains("the hook"));
}

TEST_CASE("locks are taken in the order of their ranks") {
  Mutex outer(LockRank::kCycle);
  Mutex inner(LockRank::kPageHeap);
  {
    const Guard a(outer);
    const Guard b(inner);
  }
  { const Guard b(inner); }
  outer.lock();
  inner.lock();
  outer.unlock();  // not the last one taken
  inner.unlock();
  const Guard again(outer);
}

TEST_CASE("debug builds report a lock taken out of order") {
  if (!kDebugChecks) return;
  for (const LockRank second : {LockRank::kCycle, LockRank::kPageHeap}) {
    const auto end = in_child([second] {
      Mutex inner(LockRank::kPageHeap);
      Mutex outer(second);
      const Guard a(inner);
      const Guard b(outer);
      return 0;
    });
    CHECK(end.signal == SIGABRT);
    CHECK_THAT(end.errors, Catch::Contains("lock.order"));
  }
}

TEST_CASE("a thread that was started after an instant is told from one that was there") {
  const std::uint64_t before = os::boot_clock_ns();
  CHECK_FALSE(os::thread_started_after(os::thread_id(), before));
  os::futex_wait(std::atomic<std::uint32_t>{0}, 0, 30'000'000);  // more than the kernel's tick
  std::thread([before] {
    CHECK(os::thread_started_after(os::thread_id(), before));
    CHECK_FALSE(os::thread_started_after(os::thread_id(), os::boot_clock_ns()));
  }).join();
  CHECK_FALSE(os::thread_started_after(1 << 30, 0));  // there is none
}

TEST_CASE("a file is read as far as there is room, and one that cannot be read is empty") {
  std::array<char, 8192> text;
  const std::size_t size = os::read_file("/proc/self/status", text.data(), text.size());
  CHECK_THAT(std::string(text.data(), size), Catch::Contains("VmRSS:"));
  CHECK(os::read_file("/proc/self/status", text.data(), 5) == 5);
  CHECK(std::string(text.data(), 5) == "Name:");
  errno = 0;
  CHECK(os::read_file("/proc/self/nothing", text.data(), text.size()) == 0);
  CHECK(os::read_file("/proc/self", text.data(), text.size()) == 0);
  CHECK(errno == 0);
}

TEST_CASE("the main stack's address lies on no other thread's stack") {
  const char here = 0;
  CHECK(address_of(os::main_stack_address()) > address_of(&here));
  CHECK(address_of(os::main_stack_address()) - address_of(&here) < std::size_t{1} << 20);
}
