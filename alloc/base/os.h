// What the library asks of the operating system. os_linux.cc is the only file with system calls and the only one with
// platform conditionals. Every function keeps errno, is async-signal-safe unless it says otherwise, takes no lock, and is no
// cancellation point.
//
// Address-space states (as in Go's runtime/mem.go):
//   None      not ours
//   Reserved  address range is ours, no access, costs nothing but address space
//   Prepared  accessible, no memory behind it: reads as zero, is not counted against a limit
//   Ready     in use: counted
//
//   None --reserve--> Reserved --prepare--> Prepared <--(first touch | discard)--> Ready; unreserve: any --> None
//
// On Linux the step from Prepared to Ready is the page fault; the page heap does the counting.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace tricolor::impl::os {

// Reserves `bytes` (a multiple of the kernel's page) at a multiple of `alignment` (a power of two). `name` (static
// storage) shows in /proc/self/maps where the kernel can. Returns null when the kernel refuses.
void* reserve(std::size_t bytes, std::size_t alignment, const char* name);

// Reserved -> Prepared. False when the kernel refuses (rlimit, strict overcommit): nothing has changed.
bool prepare(void* begin, std::size_t bytes, const char* name);

// Ready -> Prepared: contents are dropped, the range reads as zero. The range must be whole kernel pages. False when the
// kernel refuses (contents are then unspecified but the range stays accessible).
bool discard(void* begin, std::size_t bytes);

// Any -> None.
void unreserve(void* begin, std::size_t bytes);

// reserve + prepare in one step, for metadata. Null when refused.
void* map(std::size_t bytes, std::size_t alignment, const char* name);

// Advises huge pages for a range; best effort.
void want_huge_pages(void* begin, std::size_t bytes);

std::size_t kernel_page_bytes();

// Monotonic clock, and the CPU time of the calling thread and of the process.
std::uint64_t now_ns();
std::uint64_t thread_cpu_ns();
std::uint64_t process_cpu_ns();

// CPUs the calling thread may run on (affinity mask), at least 1.
unsigned cpu_count();

// CPUs that a thread may run on, as the kernel writes them. Empty when it does not tell.
struct Cpus {
  std::array<unsigned long, 8192 / (8 * sizeof(unsigned long))> words = {};
  std::size_t bytes = 0;
};
Cpus cpus_of(std::int32_t thread);
// For the calling thread; best effort.
void set_cpus(const Cpus& cpus);

// The kernel's id of the calling thread.
std::int32_t thread_id();

// Waits while `word == expected`, at most `timeout_ns` (0 = for ever). May return early: the caller re-tests.
void futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected,
                std::uint64_t timeout_ns = 0);
// Rests for that long, or less.
void nap(std::uint64_t ns);
void futex_wake_one(const std::atomic<std::uint32_t>& word);
void futex_wake_all(const std::atomic<std::uint32_t>& word);

// Lets others run that wait for this CPU, if there are any.
void yield();

// A moment's rest inside a spinning loop.
inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// For a process that has failed: SIGKILL ends it after `seconds` if it is still there, whatever its threads wait for and
// whatever signals they block.
void kill_process_after(unsigned seconds);

std::int32_t process_id();

// Is there a thread of this process with this id?
bool thread_exists(std::int32_t thread);

// The clock that thread_started_after compares with; it counts while the machine sleeps.
std::uint64_t boot_clock_ns();

// Is there a thread of this process with this id that was started later than that, by 10 ms or so at least? Reads /proc;
// false when that does not tell.
bool thread_started_after(std::int32_t thread, std::uint64_t boot_clock_ns);

// An address on the stack that the process began with, above every frame. Null where the kernel does not tell.
const void* main_stack_address();

// How far the main thread's stack may grow now (RLIMIT_STACK); 0 when there is no limit.
std::size_t main_stack_limit_bytes();

// Of a signal handler's third argument: does what it has interrupted look like a system call that will say EINTR? Async-signal-safe.
bool is_interrupted_call(const void* context);

// Does the caller run on the calling thread's alternate signal stack (sigaltstack)? Async-signal-safe. Not told of one that was
// set up with SS_AUTODISARM.
bool on_alternate_stack();

// Of the calling thread: whom the kernel prefers has the larger number.
int thread_priority();

// Where the kernel writes which CPU the calling thread runs on, or has run on last before it slept or lost it (rseq(2), which the C
// library registers); none if negative. Lasts as long as the thread's thread-local storage. Null where nobody is told.
const std::uint32_t* cpu_word();

// Sends signal `number` to one thread of this process. False when it does not exist or the kernel's queue is full.
bool send_signal(std::int32_t thread, int number);

// For reports about a thread of this process, read from /proc. The name lands in `out` (cut to `capacity`); "?" when the
// thread is gone.
std::string_view thread_name(std::int32_t thread, char* out, std::size_t capacity);
bool thread_blocks_signal(std::int32_t thread, int number);

// The program headers that the kernel gave the program.
struct ProgramHeaders {
  const void* begin;
  std::size_t count;
};
ProgramHeaders program_headers();

// Where the loader put the program or library that `p` lies in, end included. Does not take the loader's locks. Null when
// there is none, or a C library that does not tell.
struct LoadedRange {
  const char* begin;
  const char* end;
};
LoadedRange loaded_range_of(const void* p);

// Reads the file's first bytes into out[0, capacity). Returns how many there are; 0 when it cannot be read.
std::size_t read_file(const char* path, char* out, std::size_t capacity);

// Copies `bytes` from `from`, which may be unmapped, to `to`. Returns the number of bytes that could be read.
std::size_t read_maybe_unmapped(void* to, const void* from, std::size_t bytes);

// To be called before the first use of the above. False when the process may not read its own memory through the kernel.
bool prepare_to_read_own_memory();

// Copies at most 32 such pieces, one after the other, to `to`, in one go. False unless all could be read.
struct Piece {
  const void* from;
  std::size_t bytes;
};
bool read_pieces_maybe_unmapped(void* to, std::span<const Piece> pieces);

}  // namespace tricolor::impl::os
