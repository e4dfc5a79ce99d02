// os.h on Linux. The only file with system calls (log.cc has its write) and, with sanitizer.h, with
// platform conditionals.
//
// Everything here is a thin wrapper over one system call, keeps errno and takes no lock, so it may
// run in a signal handler and while other threads are stopped anywhere. Nothing here is a cancellation point: the caller may
// hold locks. So files are read by raw system calls.
//
// Invariant [os.arguments]: alignments are powers of two, ranges are whole kernel pages.
#include "alloc/base/os.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#if __has_include(<sys/rseq.h>)  // since glibc 2.35
#include <sys/rseq.h>
#endif

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <climits>
#include <string_view>

#include "alloc/base/check.h"
#include "alloc/base/log.h"
#include "alloc/base/stop_code.h"
#include "alloc/base/units.h"

namespace tricolor::impl::os {
namespace {

// Puts errno back: the caller may be a signal handler, or a program between a call and its errno.
class KeepErrno {
 public:
  KeepErrno() : x_errno(errno) {}
  ~KeepErrno() { errno = x_errno; }
  KeepErrno(const KeepErrno&) = delete;
  KeepErrno& operator=(const KeepErrno&) = delete;

 private:
  const int x_errno;
};

std::uintptr_t address_of(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }
void* pointer_to(std::uintptr_t address) { return reinterpret_cast<void*>(address); }

// Shows as [anon:name] in /proc/self/maps. Needs Linux 5.17 with CONFIG_ANON_VMA_NAME, and headers
// of that age for the constants; without, the kernel says EINVAL and nobody minds.
void name_range(void* begin, std::size_t bytes, const char* name) {
  constexpr int kSetVma = 0x53564d41;  // PR_SET_VMA
  constexpr unsigned long kAnonName = 0;
  (void)prctl(kSetVma, kAnonName, address_of(begin), bytes, name);
}

// Null when refused. `hint` is where we would like it; the kernel goes elsewhere when it is taken.
void* map_anywhere(std::uintptr_t hint, std::size_t bytes, int protection, int flags) {
  void* const p =
      mmap(pointer_to(hint), bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  return p == MAP_FAILED ? nullptr : p;
}

void unmap(std::uintptr_t begin, std::size_t bytes) {
  // munmap of whole mappings, or of an end of one, needs no new memory in the kernel. A refusal
  // (the kernel's limit of mappings, when cutting one in two) leaves address space behind, no more.
  if (bytes != 0) (void)munmap(pointer_to(begin), bytes);
}

// Where the next arena goes. Left alone, the kernel places each mapping below the one before, so an
// address-ordered heap would turn to its newest arena first and leave the holes of the older ones
// idle. We ask for the place right above our last arena instead: first fit keeps old memory busy,
// and arenas that touch can serve one large run. Only a wish: any answer of the kernel is fine, and
// so is a race (relaxed; the value guards nothing).
std::atomic<std::uintptr_t> next_arena_place{0};

std::uintptr_t arena_place(std::size_t bytes) {
  const std::uintptr_t next = next_arena_place.load(std::memory_order_relaxed);
  if (next != 0) return next;
  // The first one: 1/256 of the address space below where the kernel would put it (512 GiB of room
  // to grow on x86-64). Derived from the kernel's choice, so it is as random as that.
  void* const probe = map_anywhere(0, bytes, PROT_NONE, 0);
  if (probe == nullptr) return 0;
  unmap(address_of(probe), bytes);
  const std::uintptr_t place = address_of(probe) - address_of(probe) / 256;
  return place & ~(kArenaBytes - 1);
}

void* map_aligned(std::size_t bytes, std::size_t alignment, int protection, int flags,
                  const char* name) {
  dcheck(std::has_single_bit(alignment), "os.arguments", {alignment});
  dcheck(bytes % kernel_page_bytes() == 0, "os.arguments", {bytes});
  const bool is_arena = alignment >= kArenaBytes;
  const std::uintptr_t mask = alignment - 1;

  // Exactly as much as is needed, in the hope that it falls right.
  void* p = map_anywhere(is_arena ? arena_place(bytes) : 0, bytes, protection, flags);
  if (p == nullptr) return nullptr;
  if ((address_of(p) & mask) != 0) {
    // It did not: take more than enough, and trim both ends.
    unmap(address_of(p), bytes);
    const std::size_t slack = alignment - kernel_page_bytes();
    if (bytes + slack < bytes) return nullptr;
    p = map_anywhere(0, bytes + slack, protection, flags);
    if (p == nullptr) return nullptr;
    const std::uintptr_t begin = (address_of(p) + mask) & ~mask;
    const std::size_t head = begin - address_of(p);
    unmap(address_of(p), head);
    unmap(begin + bytes, slack - head);
    p = pointer_to(begin);
  }
  if (is_arena) next_arena_place.store(address_of(p) + bytes, std::memory_order_relaxed);
  name_range(p, bytes, name);
  return p;
}

TRICOLOR_STOP_CODE std::uint64_t clock_ns(clockid_t clock) {
  const KeepErrno keep;
  timespec t = {};
  clock_gettime(clock, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(t.tv_nsec);
}

int open_file(const char* path) {
  return static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC));
}

void close_file(int fd) { (void)syscall(SYS_close, fd); }

// The fallback of read_maybe_unmapped where a sandbox forbids process_vm_readv. Kept open then, so that no lack of descriptors is
// taken for a lack of memory; a forked child, to which it would show its parent's memory, opens its own each time.
struct {
  std::atomic<int> fd{-1};
  std::atomic<pid_t> process{0};
} own_memory;

int open_own_memory() { return open_file("/proc/self/mem"); }

std::size_t read_through_proc(char* to, std::uintptr_t from, std::size_t bytes) {
  // Relaxed: written once, before there are readers.
  const bool is_kept = own_memory.process.load(std::memory_order_relaxed) == getpid();
  const int fd = is_kept ? own_memory.fd.load(std::memory_order_relaxed) : open_own_memory();
  if (fd < 0) return 0;
  std::size_t done = 0;
  while (done < bytes) {
    const long n = syscall(SYS_pread64, fd, to + done, bytes - done, from + done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += static_cast<std::size_t>(n);
  }
  if (!is_kept) close_file(fd);
  return done;
}

}  // namespace

bool prepare_to_read_own_memory() {
  const KeepErrno keep;
  std::uintptr_t from = 1;
  std::uintptr_t to = 0;
  const iovec target = {&to, sizeof to};
  const iovec source = {&from, sizeof from};
  if (syscall(SYS_process_vm_readv, getpid(), &target, 1UL, &source, 1UL, 0UL) == sizeof to)
    return true;
  const int fd = open_own_memory();
  if (fd < 0) return false;
  own_memory.fd.store(fd, std::memory_order_relaxed);
  own_memory.process.store(getpid(), std::memory_order_relaxed);
  return true;
}

void* reserve(std::size_t bytes, std::size_t alignment, const char* name) {
  const KeepErrno keep;
  return map_aligned(bytes, alignment, PROT_NONE, 0, name);
}

bool prepare(void* begin, std::size_t bytes, const char* name) {
  const KeepErrno keep;
  // Without MAP_NORESERVE above, this is where the kernel's accounting may say no.
  if (mprotect(begin, bytes, PROT_READ | PROT_WRITE) != 0) return false;
  name_range(begin, bytes, name);
  return true;
}

bool discard(void* begin, std::size_t bytes) {
  const KeepErrno keep;
  // DONTNEED, not FREE: the range must read as zero at once, and monitors of the resident size
  // should see that the memory is gone.
  return madvise(begin, bytes, MADV_DONTNEED) == 0;
}

void unreserve(void* begin, std::size_t bytes) {
  const KeepErrno keep;
  unmap(address_of(begin), bytes);
  // If it was the last arena, the next one may have its place.
  std::uintptr_t end = address_of(begin) + bytes;
  next_arena_place.compare_exchange_strong(end, address_of(begin), std::memory_order_relaxed);
}

void* map(std::size_t bytes, std::size_t alignment, const char* name) {
  const KeepErrno keep;
  // NORESERVE: tables are sparse, most of their pages are never touched.
  return map_aligned(bytes, alignment, PROT_READ | PROT_WRITE, MAP_NORESERVE, name);
}

void want_huge_pages(void* begin, std::size_t bytes) {
  const KeepErrno keep;
  (void)madvise(begin, bytes, MADV_HUGEPAGE);
}

std::size_t kernel_page_bytes() { return getauxval(AT_PAGESZ); }

TRICOLOR_STOP_CODE std::uint64_t now_ns() { return clock_ns(CLOCK_MONOTONIC); }
std::uint64_t thread_cpu_ns() { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }
std::uint64_t process_cpu_ns() { return clock_ns(CLOCK_PROCESS_CPUTIME_ID); }

unsigned cpu_count() {
  unsigned cpus = 0;
  for (const unsigned long word : cpus_of(0).words)
    cpus += static_cast<unsigned>(std::popcount(word));
  return std::max(cpus, 1U);
}

Cpus cpus_of(std::int32_t thread) {
  const KeepErrno keep;
  // The raw call: it returns how many bytes the kernel wrote, and knows no CPU_SETSIZE.
  Cpus cpus;
  const long bytes = syscall(SYS_sched_getaffinity, thread, sizeof cpus.words, cpus.words.data());
  cpus.bytes = bytes > 0 ? static_cast<std::size_t>(bytes) : 0;
  return cpus;
}

void set_cpus(const Cpus& cpus) {
  const KeepErrno keep;
  if (cpus.bytes != 0) (void)syscall(SYS_sched_setaffinity, 0, cpus.bytes, cpus.words.data());
}

void kill_process_after(unsigned seconds) {
  // Not a signal that can be handled or blocked: libunwind blocks all of those while it waits for the loader's lock.
  sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGKILL;
  int timer = 0;  // the kernel's timer; the C library's functions may allocate
  if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer) != 0) return;
  itimerspec when = {};
  when.it_value.tv_sec = static_cast<time_t>(seconds);
  syscall(SYS_timer_settime, timer, 0, &when, nullptr);
}

std::int32_t thread_id() { return static_cast<std::int32_t>(syscall(SYS_gettid)); }

void futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected,
                std::uint64_t timeout_ns) {
  const KeepErrno keep;
  const timespec timeout = {static_cast<time_t>(timeout_ns / 1'000'000'000),
                            static_cast<long>(timeout_ns % 1'000'000'000)};
  // EAGAIN (the word has changed), EINTR and ETIMEDOUT all mean: look again.
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, timeout_ns == 0 ? nullptr : &timeout,
          nullptr, 0);
}

void nap(std::uint64_t ns) {
  const std::atomic<std::uint32_t> never{0};
  if (ns != 0) futex_wait(never, 0, ns);
}

namespace {

void futex_wake(const std::atomic<std::uint32_t>& word, int most) {
  const KeepErrno keep;
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, most, nullptr, nullptr, 0);
}

}  // namespace

void futex_wake_one(const std::atomic<std::uint32_t>& word) { futex_wake(word, 1); }

TRICOLOR_STOP_CODE void futex_wake_all(const std::atomic<std::uint32_t>& word) {
  futex_wake(word, INT_MAX);
}

TRICOLOR_STOP_CODE void yield() { sched_yield(); }

std::int32_t process_id() { return static_cast<std::int32_t>(getpid()); }

bool thread_exists(std::int32_t thread) {
  const KeepErrno keep;
  // Where the call is denied (seccomp) nothing is known: it may well live.
  return syscall(SYS_tgkill, getpid(), thread, 0) == 0 || errno != ESRCH;
}

const void* main_stack_address() {
  // The kernel puts these bytes there, for the C library's stack protector.
  return pointer_to(getauxval(AT_RANDOM));
}

std::size_t main_stack_limit_bytes() {
  const KeepErrno keep;
  rlimit limit = {};
  if (getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return 0;
  return limit.rlim_cur;
}

TRICOLOR_STOP_CODE bool is_interrupted_call(const void* context) {
  const mcontext_t& machine = static_cast<const ucontext_t*>(context)->uc_mcontext;
#if defined(__x86_64__)
  return machine.gregs[REG_RAX] == -EINTR;
#elif defined(__aarch64__)
  return machine.regs[0] == static_cast<unsigned long long>(-EINTR);
#endif
}

bool on_alternate_stack() {
  const KeepErrno keep;
  stack_t stack = {};
  return sigaltstack(nullptr, &stack) == 0 && (stack.ss_flags & SS_ONSTACK) != 0;
}

TRICOLOR_STOP_CODE bool send_signal(std::int32_t thread, int number) {
  const KeepErrno keep;
  // ESRCH: it has ended. EAGAIN: the queue of real-time signals is full.
  return syscall(SYS_tgkill, getpid(), thread, number) == 0;
}

namespace {

// Reads a small file of /proc/self/task/<thread>/ into `out`; returns the bytes read.
std::size_t read_task_file(std::int32_t thread, std::string_view file, char* out,
                           std::size_t capacity) {
  LineBuffer<64> path;
  path.text("/proc/self/task/").number(thread).text("/").text(file);
  std::array<char, 65> name = {};
  std::copy(path.view().begin(), path.view().end(), name.begin());
  const int fd = open_file(name.data());
  if (fd < 0) return 0;
  const long n = syscall(SYS_read, fd, out, capacity);
  close_file(fd);
  return n > 0 ? static_cast<std::size_t>(n) : 0;
}

}  // namespace

std::string_view thread_name(std::int32_t thread, char* out, std::size_t capacity) {
  const KeepErrno keep;
  const std::string_view name(out, read_task_file(thread, "comm", out, capacity));
  return name.empty() ? "?" : name.substr(0, name.find('\n'));
}

int thread_priority() {
  constexpr int kRealTime = 1000;
  const KeepErrno keep;
  const int policy = sched_getscheduler(0) & ~SCHED_RESET_ON_FORK;
  if (policy == SCHED_FIFO || policy == SCHED_RR) {
    sched_param parameters = {};
    sched_getparam(0, &parameters);
    return kRealTime + parameters.sched_priority;
  }
  if (policy == SCHED_OTHER || policy == SCHED_BATCH) return -getpriority(PRIO_PROCESS, 0);
  return -kRealTime;  // may be kept waiting for long: idle, or out of budget
}

const std::uint32_t* cpu_word() {
#ifdef RSEQ_SIG
  if (__rseq_size == 0) return nullptr;
  const char* const area = static_cast<const char*>(__builtin_thread_pointer()) + __rseq_offset;
  return &reinterpret_cast<const struct rseq*>(area)->cpu_id;
#else
  return nullptr;
#endif
}

bool thread_blocks_signal(std::int32_t thread, int number) {
  const KeepErrno keep;
  std::array<char, 4096> text;
  const std::string_view status(text.data(),
                                read_task_file(thread, "status", text.data(), text.size()));
  constexpr std::string_view kField = "\nSigBlk:\t";
  const std::size_t at = status.find(kField);
  if (at == std::string_view::npos || status.size() < at + kField.size() + 16) return false;
  std::uint64_t mask = 0;  // 16 hexadecimal digits, signal 1 in bit 0
  const char* const digits = status.data() + at + kField.size();
  std::from_chars(digits, digits + 16, mask, 16);
  return (mask >> (number - 1) & 1) != 0;
}

std::uint64_t boot_clock_ns() { return clock_ns(CLOCK_BOOTTIME); }

bool thread_started_after(std::int32_t thread, std::uint64_t boot_clock_ns) {
  const KeepErrno keep;
  std::array<char, 1024> text;
  std::string_view rest(text.data(), read_task_file(thread, "stat", text.data(), text.size()));
  // The second field is the name in parentheses, with anything in it; the 22nd the start, in clock ticks, rounded down.
  constexpr int kFieldsBetween = 19;
  constexpr std::uint64_t kTickNs = 10'000'000;  // USER_HZ is 100 on every machine of ours
  const std::size_t name_end = rest.rfind(')');
  if (name_end == std::string_view::npos) return false;
  rest.remove_prefix(name_end + 1);
  for (int i = 0; i <= kFieldsBetween; ++i) {
    const std::size_t space = rest.find(' ');
    if (space == std::string_view::npos) return false;
    rest.remove_prefix(space + 1);
  }
  std::uint64_t ticks = 0;
  if (std::from_chars(rest.data(), rest.data() + rest.size(), ticks).ec != std::errc{})
    return false;
  return ticks * kTickNs > boot_clock_ns;
}

std::size_t read_file(const char* path, char* out, std::size_t capacity) {
  const KeepErrno keep;
  const int fd = open_file(path);
  if (fd < 0) return 0;
  std::size_t size = 0;
  while (size < capacity) {
    const long n = syscall(SYS_read, fd, out + size, capacity - size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    size += static_cast<std::size_t>(n);
  }
  close_file(fd);
  return size;
}

ProgramHeaders program_headers() { return {pointer_to(getauxval(AT_PHDR)), getauxval(AT_PHNUM)}; }

LoadedRange loaded_range_of(const void* p) {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)
  dl_find_object found = {};
  if (_dl_find_object(const_cast<void*>(p), &found) == 0)
    return {static_cast<const char*>(found.dlfo_map_start),
            static_cast<const char*>(found.dlfo_map_end)};
#else
  (void)p;
#endif
  return {nullptr, nullptr};
}

std::size_t read_maybe_unmapped(void* to, const void* from, std::size_t bytes) {
  const KeepErrno keep;
  char* const out = static_cast<char*>(to);
  const std::uintptr_t begin = address_of(from);
  const std::size_t page = kernel_page_bytes();
  std::array<iovec, 16> pieces;
  std::size_t done = 0;
  while (done < bytes) {
    // One piece a page: the kernel gives up at a piece that it cannot read in full.
    std::size_t count = 0;
    std::size_t length = 0;
    while (count < pieces.size() && done + length < bytes) {
      const std::uintptr_t at = begin + done + length;
      const std::size_t n = std::min(page - at % page, bytes - done - length);
      pieces[count++] = {pointer_to(at), n};
      length += n;
    }
    const iovec target = {out + done, length};
    // The raw call: sanitizers would take the wrapper's argument for a read of their own.
    const long n = syscall(SYS_process_vm_readv, getpid(), &target, 1UL, pieces.data(), count, 0UL);
    if (n < 0) {
      if (errno == EFAULT) return done;
      return done + read_through_proc(out + done, begin + done, bytes - done);
    }
    done += static_cast<std::size_t>(n);
    if (static_cast<std::size_t>(n) < length) return done;
  }
  return done;
}

bool read_pieces_maybe_unmapped(void* to, std::span<const Piece> pieces) {
  const KeepErrno keep;
  std::array<iovec, 32> from;
  dcheck(pieces.size() <= from.size(), "os.arguments", {pieces.size()});
  std::size_t length = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    from[i] = {const_cast<void*>(pieces[i].from), pieces[i].bytes};
    length += pieces[i].bytes;
  }
  const iovec target = {to, length};
  const long n =
      syscall(SYS_process_vm_readv, getpid(), &target, 1UL, from.data(), pieces.size(), 0UL);
  if (n >= 0 || errno == EFAULT) return n == static_cast<long>(length);
  char* out = static_cast<char*>(to);
  for (const Piece& piece : pieces) {
    if (read_through_proc(out, address_of(piece.from), piece.bytes) != piece.bytes) return false;
    out += piece.bytes;
  }
  return true;
}

}  // namespace tricolor::impl::os
