// Threads: attaching, blocking, polling. Most programs need none of it: a thread attaches itself at its first allocation or
// pointer store and detaches at its exit. It is to be attached before its first read of a managed pointer, also one that it
// only copies: thread_scope does that.
//
// A collection stops every attached thread for a moment, by a signal. Calls that are interrupted go on (SA_RESTART), except
// those that the kernel never restarts: epoll_wait, poll, select, nanosleep, sem_timedwait, ... then return EINTR. After a
// stop that interrupts one of those no cycle begins for 0.5 ms, so that a sleep which goes on with what was left gets on also where
// cycles follow each other at once. Wrapped in blocking_call they need no signal.
//
// pthread_cancel: with deferred cancellation, the default, a thread may be cancelled wherever it is; it goes at its next
// cancellation point (none is in the library while it holds anything) and detaches. With PTHREAD_CANCEL_ASYNCHRONOUS nothing
// of the library may be called: as for nearly every function of the C library, an end at any instruction would leave its
// structures half changed.
//
// longjmp over a frame that has one of these objects, is in blocking_call, or constructs for gc::make, is undefined, as C++ says of
// all frames with destructors: the thread would stay blocked or critical.
//
// A new thread's argument is nobody's root until the thread attaches. Hand managed objects over in a gc::root (the closure of a
// std::thread lies in malloc memory), or keep them in the creator's frame until the new thread is attached.
#pragma once

#include <exception>
#include <optional>
#include <type_traits>
#include <utility>

#include <tricolor/detail/thread_cache.h>

namespace tricolor {

namespace detail {

void blocking_call(void (*fn)(void*), void* argument);
void safepoint_slow(thread_cache& cache);

}  // namespace detail

// Attaches the calling thread for a scope, if it is not attached. For a thread that only reads managed memory: without
// it the collector does not know its stack. When the scope ends, neither its stack nor its thread_local gc::ptr keep
// anything alive any more. Throws std::bad_alloc when memory is refused.
class thread_scope {
 public:
  thread_scope();
  ~thread_scope();
  thread_scope(const thread_scope&) = delete;
  thread_scope& operator=(const thread_scope&) = delete;

 private:
  bool x_attached;
};

// Runs fn() while this thread need not be stopped: for calls that wait (locks, condition variables, sockets, sleep). fn
// touches no managed memory; managed pointers in the frames above stay alive. Other threads may read the pointers in such a
// frame and add some; nobody takes one out before fn has returned, not fn either. Returns what fn returns; exceptions and
// cancellation pass through. Costs two atomic stores; on return it waits while the world is stopped, and when a cycle marks and
// has not looked at this stack yet, looks at it itself (0.1 ms per MB).
template <class F>
std::invoke_result_t<F&> blocking_call(F&& fn) {
  using Result = std::invoke_result_t<F&>;
  if constexpr (std::is_void_v<Result>) {
    auto call = [&fn] { fn(); };  // an object even where fn is a function
    detail::blocking_call([](void* c) { (*static_cast<decltype(call)*>(c))(); }, &call);
  } else if constexpr (std::is_reference_v<Result>) {
    std::remove_reference_t<Result>* result = nullptr;
    blocking_call([&] {
      auto&& object = fn();
      result = std::addressof(object);
    });
    return static_cast<Result>(*result);
  } else {
    std::optional<Result> result;
    blocking_call([&] { result.emplace(fn()); });
    return std::move(*result);
  }
}

// Lets the thread be stopped here, for loops that neither allocate nor store pointers. Only needed in builds that stop
// threads by polls (ThreadSanitizer), and cheaper than a signal elsewhere. One load and a branch.
inline void safepoint() {
  detail::thread_cache* const cache = detail::current_cache;
  if (cache != nullptr && cache->stop_note.load(std::memory_order_relaxed) != 0) [[unlikely]]
    detail::safepoint_slow(*cache);
}

// While the object exists, this thread does no marking for what it allocates, and does not wait for others to do it: for a thread
// that must not be late. The mark workers and the other threads pay for it: who allocates a lot this way can take the heap past
// its goal. Nests. Throws std::bad_alloc when the thread is not attached and memory for that is refused.
class never_assist {
 public:
  never_assist();
  ~never_assist();
  never_assist(const never_assist&) = delete;
  never_assist& operator=(const never_assist&) = delete;
};

// This thread is not stopped while the object exists: for a few instructions that must not be split. Short, and without
// taking a lock that another thread may hold while it is stopped. Nests.
class critical {
 public:
  critical();
  ~critical();
  critical(const critical&) = delete;
  critical& operator=(const critical&) = delete;

 private:
  void* x_critical;
};

}  // namespace tricolor
