// One face for everything a comparison allocates with: tricolor, Boehm, or malloc and free by hand.
//
// A question (trees.cc, …) is written once against namespace `contestant` and built once per
// contestant, with one of CONTESTANT_TRICOLOR, CONTESTANT_BOEHM and CONTESTANT_MALLOC defined. So
// what is compared is the same code, compiled with the same options. Each contestant is used as its
// manual tells an ordinary user to:
//
//   int main() {
//     contestant::Program program(threads);       // before anything else
//     std::jthread([] { contestant::ThreadScope scope; … });
//     T* p = contestant::make<T>();               // T's pointer fields are contestant::field<U>
//     contestant::free_by_hand(p);                // nothing, where a collector does it
//     contestant::wait([&] { threads.clear(); }); // a join that need not be interrupted
//     contestant::print_settings(stdout);         // " key=value" pairs, with a space before each
//   }
//
// What stands on a thread's stack is alive for every contestant; globals hold contestant::field.

#pragma once

#include <cstddef>
#include <cstdio>
#include <new>

#if defined(CONTESTANT_TRICOLOR) + defined(CONTESTANT_BOEHM) + defined(CONTESTANT_MALLOC) != 1
#error "define one of CONTESTANT_TRICOLOR, CONTESTANT_BOEHM, CONTESTANT_MALLOC"
#endif

#if defined(CONTESTANT_TRICOLOR)

#include <tricolor/gc.h>

namespace contestant {

inline constexpr const char* kName = "tricolor";
inline constexpr bool kFreesByHand = false;

template <typename T>
using field = gc::ptr<T>;

// The library initialises itself and attaches threads at their first call.
struct Program {
  explicit Program(int /*threads*/) {}
};
struct ThreadScope {
  ThreadScope() {}
};

template <typename T>
T* make() {
  return gc::make<T>();
}

template <typename T>
void free_by_hand(T*) noexcept {}

template <typename Fn>
void wait(Fn fn) {
  gc::blocking_call(fn);
}

inline void print_settings(std::FILE* out) {
  const gc::statistics stats = gc::stats();
  std::fprintf(out, " cycles=%llu pause_us_max=%.1f",
               static_cast<unsigned long long>(stats.cycles_total),
               static_cast<double>(stats.pause_ns_max) / 1e3);
}

}  // namespace contestant

#elif defined(CONTESTANT_BOEHM)

// Threads are registered by ThreadScope: std::thread calls pthread_create inside libstdc++, where
// Boehm's redirection of that name does not reach.
#define GC_THREADS
#define GC_NO_THREAD_REDIRECTS
#include <gc/gc.h>

namespace contestant {

inline constexpr const char* kName = "boehm";
inline constexpr bool kFreesByHand = false;

template <typename T>
using field = T*;

// Debian builds it with parallel marking (as many markers as processors, or GC_MARKERS) and
// thread-local allocation. Its marker threads start with the first redirected pthread_create or
// with GC_allow_register_threads(); a program of one thread keeps the unlocked allocation it has
// without the latter, and asks for its markers itself.
class Program {
 public:
  explicit Program(int threads) {
    GC_INIT();
    if (threads > 1) {
      GC_allow_register_threads();
    } else {
      GC_start_mark_threads();
    }
  }
};

class ThreadScope {
 public:
  ThreadScope() {
    GC_stack_base base;
    if (GC_get_stack_base(&base) != GC_SUCCESS) throw std::bad_alloc();
    GC_register_my_thread(&base);
  }
  ThreadScope(const ThreadScope&) = delete;
  ThreadScope& operator=(const ThreadScope&) = delete;
  ~ThreadScope() { GC_unregister_my_thread(); }
};

template <typename T>
T* make() {
  void* memory = GC_MALLOC(sizeof(T));  // Zeroed.
  if (memory == nullptr) throw std::bad_alloc();
  return new (memory) T;
}

template <typename T>
void free_by_hand(T*) noexcept {}

template <typename Fn>
void wait(Fn fn) {
  const auto call = [](void* f) -> void* {
    (*static_cast<Fn*>(f))();
    return nullptr;
  };
  GC_do_blocking(call, &fn);
}

inline void print_settings(std::FILE* out) {
  const unsigned version = GC_get_version();
  std::fprintf(out, " version=%u.%u.%u markers=%d collections=%lu", version >> 16,
               version >> 8 & 0xFF, version & 0xFF, GC_get_parallel() + 1,
               static_cast<unsigned long>(GC_get_gc_no()));
}

}  // namespace contestant

#else

#include <cstdlib>

namespace contestant {

inline constexpr const char* kName = "malloc";
inline constexpr bool kFreesByHand = true;

template <typename T>
using field = T*;

struct Program {
  explicit Program(int /*threads*/) {}
};
struct ThreadScope {
  ThreadScope() {}
};

template <typename T>
T* make() {
  void* memory = std::malloc(sizeof(T));
  if (memory == nullptr) throw std::bad_alloc();
  return new (memory) T();
}

template <typename T>
void free_by_hand(T* object) noexcept {
  std::free(object);
}

template <typename Fn>
void wait(Fn fn) {
  fn();
}

inline void print_settings(std::FILE*) {}

}  // namespace contestant

#endif
