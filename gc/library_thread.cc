#include "gc/library_thread.h"

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>

#include "alloc/base/os.h"

namespace tricolor::impl {

namespace {

[[gnu::tls_model("initial-exec")]] constinit thread_local bool kept_out = false;

// Written when the library is loaded, and in a forked child before it has any of our threads.
os::Cpus cpus_at_load;

// The main thread's id is the process's.
os::Cpus cpus_of_process() { return os::cpus_of(os::process_id()); }

[[gnu::constructor(101)]] void remember_cpus_at_load() { cpus_at_load = cpus_of_process(); }

}  // namespace

HostKeptOut::HostKeptOut() : x_kept_out_before(kept_out) {
  sigset_t all;
  sigfillset(&all);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS})
    sigdelset(&all, fault);
  pthread_sigmask(SIG_BLOCK, &all, &x_before);
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &x_cancel_before);
  kept_out = true;
  std::atomic_signal_fence(std::memory_order_seq_cst);  // before any lock is taken
}

HostKeptOut::~HostKeptOut() {
  std::atomic_signal_fence(std::memory_order_seq_cst);
  kept_out = x_kept_out_before;
  pthread_setcancelstate(x_cancel_before, nullptr);
  pthread_sigmask(SIG_SETMASK, &x_before, nullptr);
}

OwnThread::OwnThread() : x_cache(detail::current_cache), x_kept_out_before(kept_out) {
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &x_cancel_before);
  kept_out = true;
  std::atomic_signal_fence(std::memory_order_seq_cst);  // before there is no mutator
  detail::current_cache = nullptr;
}

OwnThread::~OwnThread() {
  detail::current_cache = x_cache;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  kept_out = x_kept_out_before;
  pthread_setcancelstate(x_cancel_before, nullptr);
}

HostRefused::HostRefused() : x_before(kept_out) {
  kept_out = true;
  std::atomic_signal_fence(std::memory_order_seq_cst);  // before any lock is taken
}

HostRefused::~HostRefused() {
  std::atomic_signal_fence(std::memory_order_seq_cst);
  kept_out = x_before;
}

bool host_is_kept_out() { return kept_out; }

void forget_cpus_at_load() { cpus_at_load = {}; }

std::optional<pthread_t> start_library_thread(const char* name, void (*body)(void*),
                                              void* argument) {
  struct Start {
    const char* name;
    void (*body)(void*);
    void* argument;
    os::Cpus cpus;
  };
  std::unique_ptr<Start> start(new (std::nothrow) Start{
      name, body, argument, cpus_at_load.bytes != 0 ? cpus_at_load : cpus_of_process()});
  if (start == nullptr) return std::nullopt;
  const HostKeptOut inherited;  // the thread begins with this mask
  pthread_t thread;
  const int result = pthread_create(
      &thread, nullptr,
      [](void* data) -> void* {
        kept_out = true;

        const std::unique_ptr<Start> mine(static_cast<Start*>(data));
        os::set_cpus(mine->cpus);
        pthread_setname_np(pthread_self(), mine->name);
        mine->body(mine->argument);
        return nullptr;
      },
      start.get());
  if (result != 0) return std::nullopt;
  static_cast<void>(start.release());  // the thread's now
  return thread;
}

}  // namespace tricolor::impl
