// Gives free pages back to the system: in the background what is more than the heap will need, and at once, by the thread
// that allocates, what would bring the process past its memory limit (after Go's runtime/mgcscavenge.go).
//
// How much is kept. Free pages that the heap takes again before its next cycle ends are worth keeping: to get one back costs
// thirty times what it costs to give it away. So the background stops at the pages that the heap fills at its goal:
//
//   retained = goal * (pages in use / live bytes, when the last mark ended) * 65/64
//
// The middle factor is what fragmentation made of the last goal, at most 2. (Go adds a tenth at the end. Of less, a heap that
// has shrunk stays within 5 % of its goal, records of pages included.) There is no such bound before the first cycle, and none
// with GOGC=off. Under a memory limit there is the other one: 95 % of it, of all that is mapped.
//
// The background works on the collector's thread, when that has neither a cycle to run nor a span to sweep. (So not while a
// cycle marks, when what is free will soon be used; nor before the first cycle, nor between shutdown() and the next one.) It
// takes 1 % of one CPU, by the thread's CPU clock: after work of t it rests for 99 t. It gives back 4 MiB at a time, highest
// addresses first, since allocation takes the lowest; who asks for a cycle or forks waits for one such piece at most.
//
// At once: a thread that has taken pages with no memory behind them (PageHeap::Run::fresh) gives back other free pages before it
// touches them: as much as all that is mapped, external memory included, is above the limit; and, above what is retained, as
// much as it has taken, since the free pages are then too scattered to serve. In pieces of a critical section each, so that a
// large object keeps no stop waiting. The CPU time is assist time (cpu_limiter.h); while the limiter is on, nothing is given
// back for the limit's sake.
//
// Thread-safe: numbers are relaxed atomics, each of which stands alone; the page heap guards its pages.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

#include "alloc/allocator.h"
#include "gc/pacer.h"

namespace tricolor::impl {

struct Mutator;

// The bytes of pages that a heap with this goal keeps; kNoGoal when there is none. When it was last full, pages of
// `in_use_bytes` held cells of `live_bytes` (0: it has never been).
std::uint64_t retained_bytes(std::uint64_t goal_bytes, std::uint64_t in_use_bytes,
                             std::uint64_t live_bytes);

// When the background may work. Arithmetic; time comes in.
class ScavengePace {
 public:
  static constexpr std::uint64_t kParts = 100;         // one of so many is work
  static constexpr std::uint64_t kWorkNs = 1'000'000;  // CPU time of a stretch of work

  std::uint64_t due_in_ns(std::uint64_t now_ns) const {
    return x_due_ns > now_ns ? x_due_ns - now_ns : 0;
  }
  // A stretch began at `begin_ns` and took so much CPU time.
  void worked(std::uint64_t begin_ns, std::uint64_t cpu_ns) {
    x_due_ns = begin_ns + cpu_ns * kParts;
  }

 private:
  std::uint64_t x_due_ns = 0;
};

class Scavenger {
 public:
  enum class Trace : std::uint8_t { kOff, kOn };  // scavtrace

  explicit Scavenger(Allocator& allocator) : x_allocator(allocator) {}

  // The heap is as full as it gets in this cycle: before what is dead is taken off. World stopped.
  void mark_ended(std::uint64_t live_bytes);
  // The goal of the next cycle, and the memory limit.
  void set_goals(std::uint64_t goal_bytes, std::uint64_t limit_bytes);

  // ---- in the background. One thread at a time.

  bool has_surplus() const;
  // When there is something to do, in nanoseconds from now: UINT64_MAX if goals change first.
  std::uint64_t due_in_ns(std::uint64_t now_ns) const;
  // Gives back one piece. False when there is no more to give. Where nobody forks meanwhile [fork.quiet].
  bool work();
  // The end of a stretch of that.
  void worked(std::uint64_t begin_ns, std::uint64_t cpu_ns);

  // ---- at once

  // So many pages have been taken that have no memory behind them, and are not touched yet. Not in a critical section.
  void make_room(Mutator& mutator, PageCount fresh);
  // Everything that is free. Where nobody forks meanwhile.
  void release_all(Trace trace);
  // What the CPU limiter says.
  void allow_for_limit(bool allow) { x_for_limit.store(allow, std::memory_order_relaxed); }

  // ---- numbers: CPU time, ever, of the background, and of threads of the program

  std::uint64_t background_ns() const { return x_background_ns.load(std::memory_order_relaxed); }
  std::uint64_t assist_ns() const { return x_assist_ns.load(std::memory_order_relaxed); }

  // What has been given back since the last such line, in Go's grammar.
  void print_trace();

 private:
  std::uint64_t surplus_bytes() const;
  std::uint64_t over_limit_bytes(std::uint64_t limit_bytes) const;
  std::uint64_t free_bytes() const;
  void print_line(std::uint64_t background_bytes, std::uint64_t at_once_bytes,
                  std::string_view remark) const;

  Allocator& x_allocator;
  ScavengePace x_pace;     // of the background, as
  bool x_refused = false;  // the kernel did not take the last piece

  // Written when a mark ends; then by set_goals.
  std::atomic<std::uint64_t> x_full_in_use_bytes{0};
  std::atomic<std::uint64_t> x_full_live_bytes{0};
  std::atomic<std::uint64_t> x_retained_bytes{kNoGoal};
  std::atomic<std::uint64_t> x_limit_bytes{kNoGoal};

  std::atomic<bool> x_for_limit{true};
  std::atomic<std::uint64_t> x_background_ns{0};
  std::atomic<std::uint64_t> x_assist_ns{0};
  // Given back since the last line.
  std::atomic<std::uint64_t> x_background_bytes{0};
  std::atomic<std::uint64_t> x_at_once_bytes{0};
};

}  // namespace tricolor::impl
