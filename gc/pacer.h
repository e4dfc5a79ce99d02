// When a cycle starts, who marks, and what an allocation pays: arithmetic over numbers, after Go's runtime/mgcpacer.go (1.19
// and later). No clock, no threads, no atomics: time comes in as an argument, who calls sees to exclusion (assist_ratio(),
// like everything const, may run beside itself) and publishes what comes out.
//
// The question. A cycle that starts at the trigger is to end when the heap reaches its goal, with a quarter of the CPUs and
// without help from the mutators. The goal says how much memory a user gives (percent, limits). The distance from trigger to
// goal, the runway, is what the mutators allocate while the quarter marks:
//
//      0           marked     bounds of the trigger                goal
//      |-------------|---------------[=========|========]-----------|--------> live bytes
//                                   0.70     trigger   0.95
//                                              |<----- runway ----->|
//
//   runway = cons/mark * 3 * work     3: three quarters of the CPUs allocate while one quarter marks
//   cons/mark = (bytes allocated / CPU time of mutators) / (bytes scanned / CPU time of the collector), measured in every
//     cycle. The largest of the last five counts: where it is noisy, cycles start too early rather than mutators help.
//   work = bytes to scan: what the last cycle has scanned of the heap and of stacks, and the globals
//
// When a cycle is late all the same, mutators assist. The ratio of work left to bytes left to the goal is what an allocated
// byte costs; it is worked out anew while marking goes on:
//   - more work than expected: the heap grows. The goal moves out by as much as the worst case (everything allocated turns
//     out alive) is larger, so that the ratio stays as it was; at most to what the next cycle's goal will be, and not past
//     the goal that the memory limit sets (there Go does let it pass);
//   - live bytes past the goal: for what is left, all of the worst case, there is a tenth of the goal, or a 32nd under
//     a memory limit.
//
// External memory, which the program holds through managed objects, is heap in every respect but one: it is not scanned.
// It is given back by destructors, after the cycle that found their objects dead, so what a cycle sees of it is too much: a
// goal made of that lets the garbage double with every cycle. What counts as marked is therefore the least there has been
// since. It also counts for the memory limit.
//
// The order of calls; the world may run, except where the caller needs it stopped for its own numbers:
//
//   commit()        at the start, after end_cycle(), and whenever settings or memory have changed
//     goal_bytes(), trigger_bytes()     to be published; a cycle is due when live bytes >= trigger
//   start_cycle()   once marking starts (in the first stop): who marks
//     assist_ratio()                    at once and as live bytes and work go up: each claim, each flush of work
//   end_cycle()     once nothing is grey (in the last stop), then commit()
//
// Bytes are unsigned and at most kNoGoal; larger ones are taken for it. Live bytes are those of cells handed out less those
// swept, plus external ones; they may fall at any time. Work is bytes scanned. Times are nanoseconds.
//
// Invariant [pacer.goal]: marked <= goal, whatever the settings.
// Invariant [pacer.trigger]: marked <= trigger <= goal.
// Invariant [pacer.ratio]: an assist ratio and its inverse are positive and finite.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace tricolor::impl {

inline constexpr std::uint64_t kSmallestGoalBytes = 4u << 20;  // at GOGC=100
inline constexpr std::uint64_t kNoGoal = INT64_MAX;

// Of the CPUs, while marking: what workers take, and what workers and assists are meant to take together.
inline constexpr double kCollectorShare = 0.25;

// A heap goal without a pacer around it: for a cycle that starts where the heap is to end, with the world stopped.
struct PacerInput {
  std::uint64_t marked_bytes = 0;  // M: what the last cycle found alive, external memory included
  std::uint64_t stack_bytes = 0;   // S: stacks scanned
  std::uint64_t globals_bytes =
      0;              // G: writable segments, thread-local storage and root slots scanned
  int percent = 100;  // GOGC; below 0 = off
  std::uint64_t min_heap_bytes = 0;
  std::uint64_t memory_limit_bytes = kNoGoal;  // soft
  std::uint64_t non_heap_bytes =
      0;  // ready memory that is not in cells: metadata, fragmentation; free pages are not among it
  std::uint64_t ready_bytes =
      0;  // all that counts for the limit, free pages too; by what it is over, the goal is lower
};

// The heap size at which the next cycle ends.
//   by GOGC: max(4 MiB * percent / 100, min_heap, M + (M + S + G) * percent / 100)
//   by limit: limit - non-heap - what is over the limit, less 3 % (at least 1 MiB) of headroom, and never below M
//   the lower of the two
// (Go's gcControllerState.commit, heapGoalInternal, memoryLimitHeapGoal.)
std::uint64_t heap_goal_bytes(const PacerInput& input);

// Why a cycle runs; it decides who marks.
enum class CycleKind : std::uint8_t {
  kHeap,  // the heap has reached its trigger
  kPeriodic,  // there has been none for long: the program is idle, and is not to be woken up on every CPU
  kForced,   // a thread waits for it: every CPU marks (Go takes a quarter here too)
  kStopped,  // the world is stopped: every CPU marks
};

// Who marks: at most as many threads as there are CPUs.
struct MarkWorkers {
  // Threads that mark from the start of the cycle to its end. 0 to cpus.
  std::uint32_t dedicated = 0;
  // What they lack to a quarter, in CPUs: 0 where rounding is good enough, else below 1. Two CPUs: 0.5.
  double fractional_cpus = 0;
  // The same as a share of each CPU, as Go spreads it: the fraction of the time since the start that a fractional worker on
  // that CPU may mark. Two CPUs: 0.25.
  double fractional_share = 0;
  // Workers that may run on CPUs nobody else wants. 0 to cpus.
  std::uint32_t idle_at_most = 0;

  // Dedicated and fractional workers together, of `cpus` > 0.
  double share(std::uint32_t cpus) const { return (dedicated + fractional_cpus) / cpus; }
};

// (Go's gcControllerState.startCycle.) 0 CPUs are taken for 1.
MarkWorkers mark_workers(std::uint32_t cpus, CycleKind kind);

// The same where the process may use `cpus` CPUs' time by a quota, in parts of a CPU: a quarter of that, to the part. Who marks
// for a forced cycle may use it up at once, on as many CPUs as it is worth.
MarkWorkers mark_workers_of_quota(double cpus, CycleKind kind);

// A fractional worker that has marked for `marked_ns` of the `elapsed_ns` since marking started: may it start, and does it
// have to leave? In between it goes on if it runs, so that it does not start and leave all the time. `share` of one CPU, so
// a single worker for all of them has fractional_cpus. (Go's findRunnableGCWorker and pollFractionalWorkerExit.)
bool fractional_may_start(double share, std::uint64_t marked_ns, std::uint64_t elapsed_ns);
bool fractional_must_leave(double share, std::uint64_t marked_ns, std::uint64_t elapsed_ns);

// What an allocation pays: so much work is left to do before the heap is at the limit.
struct AssistRatio {
  double work_per_byte = 0;   // scan work for each allocated byte
  double bytes_per_work = 0;  // its inverse
  double work_left = 0;
  std::uint64_t limit_bytes = 0;  // live

  // With so much work left, and so many live bytes by now. At the limit and past it, a byte costs all of it.
  static AssistRatio of(double work_left, std::uint64_t limit_bytes, std::uint64_t live_bytes) {
    const double bytes_left =
        limit_bytes > live_bytes ? static_cast<double>(limit_bytes - live_bytes) : 1;
    return {work_left / bytes_left, bytes_left / work_left, work_left, limit_bytes};
  }
};

// Work that `bytes` cost, and bytes that `work` pays for: at least 1 for 1, at most INT64_MAX. Nothing for less than 1.
std::int64_t work_for(AssistRatio ratio, std::int64_t bytes);
std::int64_t bytes_for(AssistRatio ratio, std::int64_t work);

enum class SweepState : std::uint8_t { kDone, kUnfinished };

struct PacerSettings {
  int percent = 100;  // GOGC; below 0 = off
  // No cycle starts below it: the goal is far enough above it for the runway.
  std::uint64_t min_heap_bytes = 0;
  std::uint64_t memory_limit_bytes = kNoGoal;  // soft
};

// Memory now. Numbers that are counted apart may contradict one another for a moment; nothing worse than an odd goal comes
// of it.
struct PacerMemory {
  std::uint64_t live_bytes = 0;
  std::uint64_t non_heap_bytes = 0;  // ready, not in cells, not free pages
  std::uint64_t ready_bytes = 0;     // all ready memory of the library's, free pages too
  std::uint64_t external_bytes = 0;
  SweepState sweep =
      SweepState::kDone;  // kUnfinished: the next cycle leaves it 1 MiB of allocation
};

struct CycleStart {
  std::uint64_t now_ns = 0;
  std::uint64_t live_bytes = 0;
  // The worst case of work: cells that are not pointer-free, stacks, globals.
  std::uint64_t heap_scan_bytes = 0;
  std::uint64_t stack_bytes = 0;
  std::uint64_t globals_bytes = 0;
  std::uint32_t cpus = 1;  // that the process may use, now
  CycleKind kind = CycleKind::kHeap;
};

struct CycleEnd {
  std::uint64_t now_ns = 0;
  std::uint64_t live_bytes = 0;      // before it is set to what was marked
  std::uint64_t marked_bytes = 0;    // without external memory
  std::uint64_t external_bytes = 0;  // now
  // Work done, by workers and assists.
  std::uint64_t heap_work_bytes = 0;
  std::uint64_t stack_work_bytes = 0;
  std::uint64_t globals_work_bytes = 0;
  // CPU time, by the threads' own clocks: threads times wall time is more where they share CPUs with others.
  std::uint64_t background_ns = 0;  // dedicated and fractional workers; 0 if nobody has measured it
  std::uint64_t assist_ns = 0;
  std::uint64_t idle_ns = 0;  // idle workers
};

// For the trace line, and for who is curious.
struct CycleOutcome {
  double collector_share = 0;  // of the CPUs while marking: background and assists, as measured
  double idle_share = 0;
  double cons_mark = 0;          // the estimate from now on
  std::uint64_t goal_bytes = 0;  // at its end
  std::uint64_t work_bytes = 0;
  std::uint64_t expected_work_bytes = 0;
};

class Pacer {
 public:
  // At any time; while marking, assist_ratio() follows. Where a limit is set, often: goals are made of the memory of the last
  // call. (Go's commit.)
  void commit(const PacerSettings& settings, const PacerMemory& memory);

  // Where the cycle that comes or runs is to end. While one runs and the limit does not say otherwise, at least 64 KiB
  // from where it started.
  std::uint64_t goal_bytes() const { return goal().bytes; }
  // Where the next cycle starts; kNoGoal: nowhere. (Go's trigger.)
  std::uint64_t trigger_bytes() const;
  std::uint64_t runway_bytes() const;

  // The workers of the cycle. (Go's startCycle.)
  MarkWorkers start_cycle(const CycleStart& start);
  // Only while a cycle runs. `work_bytes`: all that has been done in it. (Go's revise.)
  AssistRatio assist_ratio(std::uint64_t live_bytes, std::uint64_t work_bytes) const;
  // The cycle has been given up: nothing of it counts.
  void abandon_cycle() { x_running = false; }
  // (Go's endCycle and resetLive.)
  CycleOutcome end_cycle(const CycleEnd& end);

  double cons_mark() const;
  // What the cycle that comes or runs has to scan if nothing changes.
  std::uint64_t expected_work_bytes() const;
  std::uint64_t sweep_end_bytes() const;
  // What the last cycle found alive, with the external memory that is not known to be garbage.
  std::uint64_t marked_bytes() const;

 private:
  struct Goal {
    std::uint64_t bytes;
    std::uint64_t least_trigger_bytes;  // <= bytes
  };

  PacerInput input() const;
  Goal goal() const;
  std::uint64_t worst_goal_bytes(std::uint64_t goal_bytes, std::uint64_t expected_work,
                                 std::uint64_t worst_work) const;

  static constexpr std::size_t kConsMarksKept = 5;

  PacerSettings x_settings;
  PacerMemory x_memory;
  // The sweep has until then, without what is held outside; 0 when it is done.
  std::uint64_t x_sweep_end_bytes = 0;

  // What the last cycle has found, and the globals that the one that runs has found.
  std::uint64_t x_marked_bytes = 0;    // external memory apart
  std::uint64_t x_external_bytes = 0;  // least since the last cycle
  std::uint64_t x_heap_work_bytes = 0;
  std::uint64_t x_stack_work_bytes = 0;
  std::uint64_t x_globals_bytes = 0;
  std::array<double, kConsMarksKept> x_cons_marks = {};  // the last cycle's is the last one; >= 0

  // The cycle that runs.
  bool x_running = false;
  std::uint64_t x_start_ns = 0;
  std::uint64_t x_triggered_bytes = 0;  // live bytes when it started
  std::uint64_t x_worst_work_bytes = 0;
  std::uint32_t x_cpus = 1;
};

}  // namespace tricolor::impl
