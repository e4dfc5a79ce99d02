// The phase of the collector: what it is doing, and who may change it.
//
//   phase              world    barrier, new cells       marks        leaves when
//   kOff               runs     off, white               none         a trigger, gc::collect(), the timer
//   kSweepTermination  stops    go on                    none         every running mutator is stopped and captured
//   kMark              runs     on, black                being set    nothing is grey, tested in a stop [cycle.end]
//   kMarkTermination   stopped  go off                   complete     at once
//   kSweep             runs     off, white, in swept     of the last  the last span is swept: in allocation on demand, in the
//                               spans                    cycle        background, before the next cycle
//
// With gcstoptheworld the world is stopped from kSweepTermination to the end of kMarkTermination.
//
// Invariant [phase.moves]: in this order and round again, and nothing else (but back from kSweepTermination to kOff when memory
//   for the cycle is refused, and to kOff in a forked child), by PhaseMachine only.
// Invariant [phase.sweep-ends-first]: all sweeping of a cycle ends before the first mark bit of the next is set, for
//   allocation bits are the last cycle's mark bits.
#pragma once

#include <atomic>
#include <cstdint>

#include "alloc/base/check.h"

namespace tricolor::impl {

enum class Phase : std::uint8_t { kOff, kSweepTermination, kMark, kMarkTermination, kSweep };

class PhaseMachine {
 public:
  Phase now() const { return x_phase.load(std::memory_order_acquire); }

  // The one writer. Only the thread that runs the cycle calls it.
  void advance(Phase from, Phase to) {
    constexpr Phase kNext[] = {Phase::kSweepTermination, Phase::kMark, Phase::kMarkTermination,
                               Phase::kSweep, Phase::kOff};
    const bool gives_up = from == Phase::kSweepTermination && to == Phase::kOff;
    check(now() == from, "phase.moves",
          {static_cast<std::uint64_t>(now()), static_cast<std::uint64_t>(from)});
    check(kNext[static_cast<int>(from)] == to || gives_up, "phase.moves",
          {static_cast<std::uint64_t>(from), static_cast<std::uint64_t>(to)});
    // Release: what was done in the phase that ends. Pairs with now() (acquire).
    x_phase.store(to, std::memory_order_release);
  }

  // In a forked child, which does not go on with its parent's mark.
  void abandon() { x_phase.store(Phase::kOff, std::memory_order_release); }

 private:
  std::atomic<Phase> x_phase{Phase::kOff};  // written by the collector, read by anyone
};

}  // namespace tricolor::impl
