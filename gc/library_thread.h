// Threads of the library's own, and what keeps the host out of them.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <optional>

#include <tricolor/detail/thread_cache.h>

namespace tricolor::impl {

// While it lives, no signal handler of the host runs on this thread, and it is not cancelled: for a thread that runs a cycle.
// A handler could wait for a lock that a stopped thread holds. Signals that say that this very thread has crashed come
// through.
class HostKeptOut {
 public:
  HostKeptOut();
  HostKeptOut(const HostKeptOut&) = delete;
  HostKeptOut& operator=(const HostKeptOut&) = delete;
  ~HostKeptOut();

 private:
  sigset_t x_before;
  int x_cancel_before = 0;
  bool x_kept_out_before;
};

// While it lives, a thread of the program that marks is to the library one of the library's own: it has no mutator, is not
// cancelled, and what the host runs on it can only be a trace function or a handler. (Whose signals are not blocked: that would
// be two system calls for some microseconds of marking. A handler delays the end of marking by as long as it takes.)
class OwnThread {
 public:
  OwnThread();
  OwnThread(const OwnThread&) = delete;
  OwnThread& operator=(const OwnThread&) = delete;
  ~OwnThread();

 private:
  detail::thread_cache* const x_cache;
  int x_cancel_before = 0;
  bool x_kept_out_before;
};

// For a moment in which a thread may hold locks of ours and has no mutator to say so. What a handler that interrupts it asks of
// the library would wait for this very thread.
class HostRefused {
 public:
  HostRefused();
  HostRefused(const HostRefused&) = delete;
  HostRefused& operator=(const HostRefused&) = delete;
  ~HostRefused();

 private:
  bool x_before;
};

// Does one of these live on the calling thread, or is that one of the library's? What the host runs there then can only be a
// handler for a crash. Async-signal-safe.
bool host_is_kept_out();

// Runs body(argument) on a thread of that name (at most 15 characters), with the host kept out and on the process's CPUs: those of
// the main thread when the library was loaded. The caller may be pinned to one of them, and so may the main thread by now; the
// collector's threads then are not. Nothing when the system
// refuses. The caller joins or detaches it. Not while a thread is stopped: it allocates from malloc.
std::optional<pthread_t> start_library_thread(const char* name, void (*body)(void*),
                                              void* argument);

// In a forked child: a process's CPUs are from now on those of its main thread when it starts a thread of the library. (Servers
// give each of their processes a CPU.)
void forget_cpus_at_load();

}  // namespace tricolor::impl
