// Whether the collector may ask more of the program: against the death spiral in which a heap at its limit is collected all
// the time and the program gets nothing done (after Go's runtime/mgclimit.go, gcCPULimiterState).
//
// A bucket fills with the CPU time of the collector and drains with that of the mutators. It holds one CPU-second for each
// CPU. Full, it limits: until it has drained a little, mutators do not assist and nothing is given back to the system for the
// sake of the memory limit, so the heap grows past its goal and the limit. In the long run, then, the collector takes about
// half of the CPU time at most; before that it has a second of all CPUs that it may take when it likes. The bucket is never
// less than empty: a day without cycles earns no credit.
//
// What counts: CPU time that this process has had, so that neither idle CPUs nor other processes are on anybody's side. (Go
// counts CPUs less what its scheduler knows to be idle.) The collector's are assists, with those for giving memory back; its
// own sweeping; workers up to a quarter of all CPUs while it marks; and every CPU while the world is stopped. What workers have
// beyond the quarter is on nobody's side: they had it because nobody else wanted the CPU, or for a thread that waits for them.
// The quarter is of all CPUs, idle ones included: with few threads and many CPUs the limiter comes on early, when workers are
// well ahead of the mutators and assists are not missed.
//
// Arithmetic only: no clock, no threads. Who calls sees to exclusion, drops an update() where another one runs (the next one
// brings its time along), and publishes limiting().
//
// Invariant [limiter.bucket]: fill <= capacity, and the limiter is on when and only when they are equal.
#pragma once

#include <cstdint>

namespace tricolor::impl {

class CpuLimiter {
 public:
  // Go's capacityPerProc and gcCPULimiterUpdatePeriod.
  static constexpr std::uint64_t kCapacityPerCpuNs = 1'000'000'000;
  static constexpr std::uint64_t kUpdatePeriodNs = 10'000'000;
  // While assists fill the bucket: what they take after it is full goes over, each time. (At 10 ms that was two thirds of the
  // CPU time for the collector; Go, too, tells its limiter after every assist.)
  static constexpr std::uint64_t kAssistPeriodNs = 500'000;

  enum class Marking : std::uint8_t { kOff, kOn };

  // CPU time since the last call that was given any, in nanoseconds; the caller's counts start at 0 again.
  struct Spent {
    // For marking, or releasing memory: by threads of the program. And for sweeping, by the collector.
    std::uint64_t assist_ns = 0;
    std::uint64_t worker_ns = 0;   // by the threads that mark
    std::uint64_t mutator_ns = 0;  // by the program for itself
  };

  // `now_ns` is of any one clock; where it is behind an earlier one, no time has passed. 0 CPUs are taken for 1.
  CpuLimiter(std::uint32_t cpus, std::uint64_t now_ns);

  bool limiting() const { return x_fill_ns == x_capacity_ns; }

  // When update_due().
  void update(std::uint64_t now_ns, Spent spent);
  bool update_due(std::uint64_t now_ns, std::uint64_t period_ns = kUpdatePeriodNs) const;

  // Around the stop in which marking starts, and the one in which it ends: `now_ns` when all are asked to stop, and when they
  // run again. No update() in between. (Go's startGCTransition, finishGCTransition.)
  void begin_stop(std::uint64_t now_ns, Spent spent) { update(now_ns, spent); }
  void end_stop(std::uint64_t now_ns, Marking from_now_on);

  // Not while the world is stopped.
  void set_cpus(std::uint32_t cpus, std::uint64_t now_ns, Spent spent);

  std::uint64_t fill_ns() const { return x_fill_ns; }
  std::uint64_t capacity_ns() const { return x_capacity_ns; }
  // The collector's time that went over, ever: what it took in spite of the limit.
  std::uint64_t overflow_ns() const { return x_overflow_ns; }

 private:
  std::uint64_t window_ns(std::uint64_t now_ns);
  void fill(std::uint64_t collector_ns, std::uint64_t mutator_ns);

  std::uint32_t x_cpus;
  std::uint64_t x_last_ns;
  std::uint64_t x_fill_ns = 0;
  std::uint64_t x_capacity_ns;  // > 0
  std::uint64_t x_overflow_ns = 0;
  Marking x_marking = Marking::kOff;
  // Since it began: what workers have had, a quarter of the CPUs, and what has been counted, which is the lesser.
  std::uint64_t x_workers_ns = 0;
  std::uint64_t x_quarter_ns = 0;
  std::uint64_t x_counted_ns = 0;
};

}  // namespace tricolor::impl
