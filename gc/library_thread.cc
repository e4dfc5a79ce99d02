#include "gc/library_thread.h"

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>

namespace tricolor::impl {

namespace {

[[gnu::tls_model("initial-exec")]] constinit thread_local bool kept_out = false;

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

bool host_is_kept_out() { return kept_out; }

std::optional<pthread_t> start_library_thread(const char* name, void (*body)(void*),
                                              void* argument) {
  struct Start {
    const char* name;
    void (*body)(void*);
    void* argument;
  };
  std::unique_ptr<Start> start(new (std::nothrow) Start{name, body, argument});
  if (start == nullptr) return std::nullopt;
  const HostKeptOut inherited;  // the thread begins with this mask
  pthread_t thread;
  const int result = pthread_create(
      &thread, nullptr,
      [](void* data) -> void* {
        kept_out = true;
        const std::unique_ptr<Start> mine(static_cast<Start*>(data));
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
