// The pacer and the CPU limiter at work: what they are told of the heap and of the clocks, and what they say, published for
// everybody. The arithmetic is theirs (pacer.h, cpu_limiter.h).
//
// When. The pacer says at which heap size a cycle is due, its trigger, so that it is done when the heap reaches its goal:
// workers take a quarter of the CPUs, and what a thread allocates while a cycle marks it pays for (assist.h). Pacer and settings
// are read again after every cycle, when a sweep is done, and when a setting changes.
//
// The lock is a leaf. No stop waits for who holds it: a worker holds it while it works, a mutator in a critical section. Who finds
// it taken while marking leaves it: somebody else brings the numbers up to date, or the next piece of work does.
#pragma once

#include <atomic>
#include <cstdint>

#include "alloc/base/lock.h"
#include "gc/cpu_limiter.h"
#include "gc/pacer.h"

namespace tricolor::impl {

class Heap;
struct Mutator;

class Pacing {
 public:
  explicit Pacing(Heap& heap) : x_heap(heap) {}

  // ---- by anyone; relaxed: numbers that others act on a little later

  bool at_trigger() const { return reached(x_trigger_bytes); }
  bool at_goal() const { return reached(x_goal_bytes); }
  std::uint64_t goal_bytes() const { return x_goal_bytes.load(std::memory_order_relaxed); }
  // The collector has taken too much of the CPUs: nothing more is asked of the program for now.
  bool limits_cpu() const { return x_limits_cpu.load(std::memory_order_relaxed); }
  // The number of the last cycle in which that was so; 0: none.
  std::uint64_t limited_cycle() const { return x_limited_cycle.load(std::memory_order_relaxed); }

  // The heap, the settings or the memory held outside have changed.
  void commit();

  // While a cycle marks: the assist ratio follows what has been marked and allocated. By a worker while it works, or by a
  // mutator that runs; nobody waits for anything.
  void revise_assist_ratio();
  void revise_assist_ratio(Mutator& mutator);
  // By a thread that assists: its CPU time has been counted.
  void note_assist();

  // ---- the cycle's side

  struct Begun {
    double cons_mark_before;
    AssistRatio ratio;
    std::uint64_t goal_bytes;
  };
  // Uses what that will use (rehearsal.h); nothing comes of it.
  void rehearse(const CycleStart& start);
  void rehearse(const CycleEnd& end);
  // World stopped.
  Begun start_cycle(const CycleStart& start);
  CycleOutcome end_cycle(const CycleEnd& end);
  // Around each stop in which marking begins or may end: when all are asked to stop, and when they run again. Begun twice, it is
  // begun anew. `cycle`: the number of the one that comes or runs.
  void begin_stop(std::uint32_t cpus, std::uint64_t cycle);
  void end_stop(CpuLimiter::Marking from_now_on);
  // A mutator that runs gives memory back: between cycles nobody else sees that the limiter is on no longer.
  void update_limiter(Mutator& mutator);
  // A stop that has been begun has come to nothing.
  void abandon_stop() {
    if (x_limiter_stopped) end_stop(CpuLimiter::Marking::kOff);
  }

  // fork.h. In the child its CPU clock begins anew, and a cycle that was marking is given up.
  Mutex& mutex() { return x_lock; }
  void forget_clocks();
  void abandon_cycle() { x_pacer.abandon_cycle(); }

 private:
  bool reached(const std::atomic<std::uint64_t>& bytes) const;
  void publish();
  struct Told {
    std::uint64_t at_ns = 0, assist_ns = 0, worker_ns = 0;
  };
  Told clocks(std::uint64_t now_ns) const;
  enum class Clock : std::uint8_t { kMayRead, kLeave };  // the process's
  void revise_assist_ratio(Clock clock);
  CpuLimiter::Spent spent(std::uint64_t now_ns, Clock clock);
  bool update_limiter(std::uint64_t period_ns, Clock clock);
  bool note_limit();

  Heap& x_heap;
  Mutex x_lock{LockRank::kPacer};
  // Guarded by x_lock, all.
  Pacer x_pacer;
  CpuLimiter x_limiter{1, 0};
  bool x_limiter_stopped = false;  // between begin_stop and end_stop
  Told x_told;                     // what the limiter knows
  struct Had {
    std::uint64_t at_ns = 0, cpu_ns = 0;  // the clocks when the process's was read last
    std::int64_t told_ns = 0;             // what it has been taken to have had since
    double cpus = 0;                      // that it had on average before
  };
  Had x_had;
  std::int64_t x_mutator_ns = 0;  // below 0: what the mutators have been told to have had too much
  std::uint32_t x_cpus = 1;
  std::uint64_t x_cycle = 0;

  // Written under x_lock.
  std::atomic<bool> x_limits_cpu{false};
  std::atomic<std::uint64_t> x_limited_cycle{0};
  std::atomic<std::uint64_t> x_revised_live_bytes{0};  // when the assist ratio was worked out last
  // Read by every slow allocation.
  std::atomic<std::uint64_t> x_goal_bytes{kNoGoal};
  std::atomic<std::uint64_t> x_trigger_bytes{kNoGoal};  // at most the goal
};

}  // namespace tricolor::impl
