#include "alloc/base/perturb.h"

#include "alloc/base/os.h"

namespace tricolor::impl {

void perturb_slow() {
  // splitmix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators") over a counter that all threads share.
  std::uint64_t n = perturbation.fetch_add(0x9e3779b97f4a7c15, std::memory_order_relaxed) | 1;
  n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9;
  n = (n ^ n >> 27) * 0x94d049bb133111eb;
  n ^= n >> 31;
  static constexpr std::atomic<std::uint32_t> kNever{0};
  switch (n % 8) {
    case 0:
    case 1:
      for (std::uint64_t i = (n >> 8) % 3000; i != 0; --i) os::relax();
      return;
    case 2:
      os::futex_wait(kNever, 0, 1 + (n >> 8) % 200'000);  // gives the CPU away
      return;
    default:
      return;
  }
}

}  // namespace tricolor::impl
