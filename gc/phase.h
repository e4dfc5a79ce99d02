// The phase of the collector: what it is doing, and who may change it.
//
//   phase       world     marks      new cells                         leaves when
//   kOff        runs      none       white, in swept spans             a trigger, gc::collect()
//   kStopping   stopping  none       white, in swept spans             every mutator is stopped
//   kMark       stopped   being set  none                              no cell is grey
//   kSweep      runs      of the     white, in swept spans             the last span is swept: in allocation on demand,
//                         last cycle                                   or before the next cycle
//
// Invariant [phase.moves]: kOff -> kStopping -> kMark -> kSweep -> kOff and nothing else (but back from kStopping to kOff when
//   memory for the cycle is refused), by PhaseMachine::advance only.
// Invariant [phase.sweep-ends-first]: all sweeping of a cycle ends before the first mark bit of the next is set, for
//   allocation bits are the last cycle's mark bits.
//
// With marking concurrent, kMark will be entered with the world running and the barrier on; the moves stay.
#pragma once

#include <atomic>
#include <cstdint>

#include "alloc/base/check.h"

namespace tricolor::impl {

enum class Phase : std::uint8_t { kOff, kStopping, kMark, kSweep };

class PhaseMachine {
 public:
  Phase now() const { return x_phase.load(std::memory_order_acquire); }

  // The one writer. Only the thread that runs the cycle calls it.
  void advance(Phase from, Phase to) {
    constexpr Phase kNext[] = {Phase::kStopping, Phase::kMark, Phase::kSweep, Phase::kOff};
    const bool gives_up = from == Phase::kStopping && to == Phase::kOff;
    check(now() == from, "phase.moves",
          {static_cast<std::uint64_t>(now()), static_cast<std::uint64_t>(from)});
    check(kNext[static_cast<int>(from)] == to || gives_up, "phase.moves",
          {static_cast<std::uint64_t>(from), static_cast<std::uint64_t>(to)});
    // Release: what was done in the phase that ends. Pairs with now() (acquire).
    x_phase.store(to, std::memory_order_release);
  }

 private:
  std::atomic<Phase> x_phase{Phase::kOff};  // written by the collector, read by anyone
};

}  // namespace tricolor::impl
