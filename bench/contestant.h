// One face for everything a comparison allocates with: tricolor, Boehm, or malloc and free by hand.
//
// A question (trees.cc, …) is written once against namespace `contestant` and built once per
// contestant, with one of CONTESTANT_TRICOLOR, CONTESTANT_BOEHM and CONTESTANT_MALLOC defined. So
// what is compared is the same code, compiled with the same options. Each contestant is used as its
// manual tells an ordinary user to:
//
//   int main() {
//     contestant::Program program(threads);       // before anything else; also (threads, markers)
//     std::jthread([] { contestant::ThreadScope scope; … });
//     T* p = contestant::make<T>();               // T's pointer fields are contestant::field<U>
//     auto t = contestant::make_table<T>(n);      // a span of n null fields
//     contestant::free_by_hand(p);                // nothing, where a collector does it
//     contestant::wait([&] { threads.clear(); }); // a join that need not be interrupted
//     contestant::print_settings(stdout);         // " key=value" pairs, with a space before each
//   }
//
// A T without references says `static constexpr bool kNoReferences = true;`. Its memory is not
// zeroed, all other memory is. One that begins with n references and has no others can say so,
// `static constexpr std::size_t kReferences = n;`: then Boehm's typed allocation is used, which
// takes its lock every time; 0, or nothing, is for types that lose by it.
//
// What stands on a thread's stack is alive for every contestant; globals hold contestant::field.
//
// Where kCollects is true there are also
//
//     contestant::Uncollected building;           // no collection while it exists
//     contestant::collect();                      // a full one
//
// and print_settings() says how many collections there were (cycles), for how long the program was
// stopped in one of them on average (pause_us_per_cycle), and the longest single stop
// (pause_us_max). And of a part of the program:
//
//     contestant::Stops stops;                    // a collection that runs meanwhile counts when it ends
//     stops.count();                              // how often the program was stopped since then
//     stops.marked_beside();                      // the share of the time that it was marking and not stopped
//     stops.end();                                // what ends from now on does not count
//     stops.print(stdout);                        // stops=, of each kind of stop the median and more, and what was marked meanwhile
//
// All of these are the contestant's own numbers. (Of Stops malloc has an empty one, and its collect() does nothing.)

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <new>
#include <span>

#include "histogram.h"

#if defined(CONTESTANT_TRICOLOR) + defined(CONTESTANT_BOEHM) + defined(CONTESTANT_MALLOC) != 1
#error "define one of CONTESTANT_TRICOLOR, CONTESTANT_BOEHM, CONTESTANT_MALLOC"
#endif

namespace contestant {

template <typename T>
concept NoReferences = requires {
  requires T::kNoReferences;
};

}  // namespace contestant

#if defined(CONTESTANT_TRICOLOR)

#include <tricolor/gc.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>

template <contestant::NoReferences T>
inline constexpr bool tricolor::pointer_free<T> = true;

namespace contestant {

inline constexpr const char* kName = "tricolor";
inline constexpr bool kCollects = true;

template <typename T>
using field = gc::ptr<T>;

// The library initialises itself and attaches threads at their first call. It marks with as many
// threads as there are processors; the environment can say otherwise.
struct Program {
  explicit Program(int /*threads*/, int markers = 0) {
    if (markers == 0) return;
    const char* list = std::getenv("TRICOLOR_DEBUG");
    const std::string ours = "workers=" + std::to_string(markers);
    setenv("TRICOLOR_DEBUG", (list == nullptr ? ours : ours + "," + list).c_str(), 1);
  }
};
struct ThreadScope {
  ThreadScope() {}
};

template <typename T>
T* make() {
  return gc::make<T>();
}

template <typename T>
std::span<field<T>> make_table(std::size_t count) {
  return gc::make_array<gc::ptr<T>>(count).span();
}

template <typename T>
void free_by_hand(T*) noexcept {}

template <typename Fn>
void wait(Fn fn) {
  gc::blocking_call(fn);
}

class Uncollected {
 public:
  Uncollected() : percent_(gc::set_percent(-1)) {}
  Uncollected(const Uncollected&) = delete;
  Uncollected& operator=(const Uncollected&) = delete;
  ~Uncollected() { gc::set_percent(percent_); }

 private:
  int percent_;
};

inline void collect() { gc::collect(); }

class Stops {
 public:
  std::uint64_t count() const {
    return gc::stats().pauses.total_count() - before_.pauses.total_count();
  }
  void end() { after_ = gc::stats(); }
  void print(std::FILE* out) const {
    const std::uint64_t stops = after_.pauses.total_count() - before_.pauses.total_count();
    std::fprintf(out, " stops=%llu", static_cast<unsigned long long>(stops));
    // A line for each kind of stop.
    print_kind(out, "stop", before_.pauses, after_.pauses, after_.pause_ns_max);
    print_kind(out, "first", before_.first_pauses, after_.first_pauses, after_.pause_ns_max);
    print_kind(out, "last", before_.last_pauses, after_.last_pauses, after_.pause_ns_max);
    const auto marked = static_cast<double>(after_.marked_bytes_total - before_.marked_bytes_total);
    const auto stopped =
        static_cast<double>(after_.stopped_marked_bytes_total - before_.stopped_marked_bytes_total);
    std::fprintf(out, " concurrent_percent=%.3f", marked == 0 ? 0 : 100 - 100 * stopped / marked);
  }
  // Marking is counted at the end of a cycle, whether the world was stopped or not.
  double marked_beside() const {
    const gc::statistics now = gc::stats();
    const std::chrono::duration<double, std::nano> wall = std::chrono::steady_clock::now() - begin_;
    const auto marked = static_cast<double>(now.mark_ns_total - before_.mark_ns_total);
    const auto stopped = static_cast<double>(now.pause_ns_total - before_.pause_ns_total);
    return std::max(0.0, marked - stopped) / wall.count();
  }

 private:
  // As if the times of each bucket, which is a quarter as wide as they are long at most, lay evenly in it.
  static double quantile_ns(const gc::histogram& times, double share) {
    const double wanted = share * static_cast<double>(times.total_count());
    double seen = 0;
    for (std::size_t i = 0; i < times.counts.size(); ++i) {
      const auto here = static_cast<double>(times.counts[i]);
      if (here != 0 && seen + here >= wanted) {
        const auto begin = static_cast<double>(gc::histogram::begin_ns(i));
        const auto end = static_cast<double>(gc::histogram::begin_ns(i + 1));
        return begin + (end - begin) * (wanted - seen) / here;
      }
      seen += here;
    }
    return 0;
  }

  // Of `after` without `before`; nothing was longer than `longest_ns`.
  static void print_kind(std::FILE* out, const char* kind, const gc::histogram& before,
                         gc::histogram after, std::uint64_t longest_ns) {
    for (std::size_t i = 0; i < after.counts.size(); ++i) after.counts[i] -= before.counts[i];
    const auto us = [&](double share) {
      return std::min(quantile_ns(after, share), static_cast<double>(longest_ns)) / 1e3;
    };
    std::fprintf(out, " %s_us_median=%.1f %s_us_p99=%.1f %s_us_max=%.1f", kind, us(0.5), kind,
                 us(0.99), kind, us(1));
  }

  const gc::statistics before_ = gc::stats();
  gc::statistics after_{};
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

inline void print_settings(std::FILE* out) {
  const gc::statistics stats = gc::stats();
  const auto cycles = static_cast<double>(stats.cycles_total);
  std::fprintf(out, " cycles=%.0f pause_us_per_cycle=%.1f pause_us_max=%.1f mark_ms_last=%.1f",
               cycles, cycles == 0 ? 0 : static_cast<double>(stats.pause_ns_total) / 1e3 / cycles,
               static_cast<double>(stats.pause_ns_max) / 1e3,
               static_cast<double>(stats.mark_ns_last) / 1e6);
}

}  // namespace contestant

#elif defined(CONTESTANT_BOEHM)

// Threads are registered by ThreadScope: std::thread calls pthread_create inside libstdc++, where
// Boehm's redirection of that name does not reach.
#define GC_THREADS
#define GC_NO_THREAD_REDIRECTS
#include <gc/gc.h>
#include <gc/gc_typed.h>

#include <algorithm>
#include <chrono>

namespace contestant {

inline constexpr const char* kName = "boehm";
inline constexpr bool kCollects = true;

template <typename T>
using field = T*;

// How long the world was stopped, as its events tell; they come one at a time, under its lock.
struct Pauses {
  std::chrono::steady_clock::time_point begin;
  std::chrono::duration<double, std::micro> longest{}, total{};
  question::Histogram all;
};
inline Pauses pauses;

inline void on_event(GC_EventType event) {
  if (event == GC_EVENT_PRE_STOP_WORLD) pauses.begin = std::chrono::steady_clock::now();
  if (event != GC_EVENT_POST_START_WORLD) return;
  const std::chrono::duration<double, std::micro> pause =
      std::chrono::steady_clock::now() - pauses.begin;
  pauses.longest = std::max(pauses.longest, pause);
  pauses.total += pause;
  pauses.all.add(static_cast<std::uint64_t>(pause.count() * 1e3));
}

// Debian builds it with parallel marking (as many markers as processors, or GC_MARKERS) and
// thread-local allocation. Its marker threads start with the first redirected pthread_create or
// with GC_allow_register_threads(); a program of one thread keeps the unlocked allocation it has
// without the latter, and asks for its markers itself.
class Program {
 public:
  explicit Program(int threads, int markers = 0) {
    if (markers > 0) GC_set_markers_count(static_cast<unsigned>(markers));
    GC_INIT();
    GC_set_on_collection_event(on_event);
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
concept Typed = requires {
  requires(T::kReferences > 0);
};

template <typename T>
T* make() {
  void* memory = nullptr;
  if constexpr (NoReferences<T>) {
    memory = GC_MALLOC_ATOMIC(sizeof(T));
  } else if constexpr (Typed<T>) {
    static const GC_descr descriptor = [] {
      const GC_word references = (GC_word{1} << T::kReferences) - 1;
      return GC_make_descriptor(&references, T::kReferences);
    }();
    memory = GC_MALLOC_EXPLICITLY_TYPED(sizeof(T), descriptor);
  } else {
    memory = GC_MALLOC(sizeof(T));
  }
  if (memory == nullptr) throw std::bad_alloc();
  return new (memory) T;  // The last two are zeroed.
}

template <typename T>
std::span<field<T>> make_table(std::size_t count) {
  void* memory = GC_MALLOC(count * sizeof(T*));
  if (memory == nullptr) throw std::bad_alloc();
  return {static_cast<T**>(memory), count};
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

struct Uncollected {
  Uncollected() { GC_disable(); }
  Uncollected(const Uncollected&) = delete;
  Uncollected& operator=(const Uncollected&) = delete;
  ~Uncollected() { GC_enable(); }
};

inline void collect() { GC_gcollect(); }

class Stops {
 public:
  Stops() { pauses.all = {}; }
  std::uint64_t count() const { return GC_get_gc_no() - before_; }
  void end() {
    stops_ = count();
    all_ = pauses.all;
  }
  void print(std::FILE* out) const {
    const auto us = [&](double share) { return static_cast<double>(all_.percentile(share)) / 1e3; };
    std::fprintf(out,
                 " stops=%llu stop_us_median=%.1f stop_us_p99=%.1f stop_us_max=%.1f "
                 "concurrent_percent=0",
                 static_cast<unsigned long long>(stops_), us(0.5), us(0.99), us(1));
  }

  double marked_beside() const { return 0; }  // not unless it is asked to be incremental

 private:
  const std::uint64_t before_ = GC_get_gc_no();
  std::uint64_t stops_ = 0;
  question::Histogram all_;
};

inline void print_settings(std::FILE* out) {
  const unsigned version = GC_get_version();
  const auto cycles = static_cast<double>(GC_get_gc_no());
  std::fprintf(out,
               " cycles=%.0f pause_us_per_cycle=%.1f pause_us_max=%.1f version=%u.%u.%u markers=%d",
               cycles, cycles == 0 ? 0 : pauses.total.count() / cycles, pauses.longest.count(),
               version >> 16, version >> 8 & 0xFF, version & 0xFF, GC_get_parallel() + 1);
}

}  // namespace contestant

#else

#include <cstdlib>

namespace contestant {

inline constexpr const char* kName = "malloc";
inline constexpr bool kCollects = false;

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
std::span<field<T>> make_table(std::size_t count) {
  void* memory = std::calloc(count, sizeof(T*));
  if (memory == nullptr) throw std::bad_alloc();
  return {static_cast<T**>(memory), count};
}

template <typename T>
void free_by_hand(T* object) noexcept {
  std::free(object);
}

template <typename Fn>
void wait(Fn fn) {
  fn();
}

inline void collect() {}

struct Stops {
  Stops() {}
  std::uint64_t count() const { return UINT64_MAX; }
  void end() {}
  void print(std::FILE*) const {}
};

inline void print_settings(std::FILE*) {}

}  // namespace contestant

#endif
