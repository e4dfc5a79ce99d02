// Disturbs the timing of threads where phases meet (the knob seed=n), so that rare orders of events become common. Each seed is
// another pattern; what the threads then do with it is up to the kernel, so a run is varied, not repeated. Async-signal-safe.
#pragma once

#include <atomic>
#include <cstdint>

namespace tricolor::impl {

// 0: nothing is disturbed. Set once, before the first thread attaches.
inline constinit std::atomic<std::uint64_t> perturbation{0};

void perturb_slow();

inline void perturb() {
  if (perturbation.load(std::memory_order_relaxed) != 0) [[unlikely]]
    perturb_slow();
}

}  // namespace tricolor::impl
