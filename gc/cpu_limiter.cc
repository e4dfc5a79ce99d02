#include "gc/cpu_limiter.h"

#include <algorithm>
#include <utility>

#include "alloc/base/check.h"
#include "gc/pacer.h"

namespace tricolor::impl {

namespace {

static_assert(
    kCollectorShare < 0.5,
    "a share of any time fits, and workers alone do not fill the bucket of a busy program");

constexpr std::uint64_t kForEver = UINT64_MAX;

std::uint64_t plus(std::uint64_t a, std::uint64_t b) { return a > kForEver - b ? kForEver : a + b; }

std::uint64_t minus(std::uint64_t a, std::uint64_t b) { return a > b ? a - b : 0; }

std::uint64_t capacity_of(std::uint32_t cpus) { return cpus * CpuLimiter::kCapacityPerCpuNs; }
static_assert(CpuLimiter::kCapacityPerCpuNs <= kForEver / UINT32_MAX, "any number of CPUs fits");

}  // namespace

CpuLimiter::CpuLimiter(std::uint32_t cpus, std::uint64_t now_ns)
    : x_cpus(std::max<std::uint32_t>(cpus, 1)),
      x_last_ns(now_ns),
      x_capacity_ns(capacity_of(x_cpus)) {}

void CpuLimiter::update(std::uint64_t now_ns, Spent spent) {
  const auto quarter_ns =
      static_cast<std::uint64_t>(static_cast<double>(window_ns(now_ns)) * kCollectorShare);
  std::uint64_t worker_ns = 0;
  if (x_marking == Marking::kOn) {
    // Of the whole mark: a worker that has half a CPU may have a whole one for a while, and then none.
    x_workers_ns = plus(x_workers_ns, spent.worker_ns);
    x_quarter_ns = plus(x_quarter_ns, quarter_ns);
    const std::uint64_t counted_ns = std::min(x_workers_ns, x_quarter_ns);
    worker_ns = counted_ns - std::exchange(x_counted_ns, counted_ns);
  }
  fill(plus(spent.assist_ns, worker_ns), spent.mutator_ns);
}

bool CpuLimiter::update_due(std::uint64_t now_ns, std::uint64_t period_ns) const {
  return minus(now_ns, x_last_ns) > period_ns;
}

void CpuLimiter::end_stop(std::uint64_t now_ns, Marking from_now_on) {
  fill(window_ns(now_ns), 0);
  x_marking = from_now_on;
  x_workers_ns = x_quarter_ns = x_counted_ns = 0;
}

void CpuLimiter::set_cpus(std::uint32_t cpus, std::uint64_t now_ns, Spent spent) {
  update(now_ns, spent);
  x_cpus = std::max<std::uint32_t>(cpus, 1);
  x_capacity_ns = capacity_of(x_cpus);
  x_fill_ns = std::min(x_fill_ns, x_capacity_ns);
}

// CPU time there has been since the last call, on all CPUs.
std::uint64_t CpuLimiter::window_ns(std::uint64_t now_ns) {
  const std::uint64_t wall_ns = minus(now_ns, x_last_ns);
  x_last_ns = std::max(x_last_ns, now_ns);
  return wall_ns > kForEver / x_cpus ? kForEver : wall_ns * x_cpus;
}

void CpuLimiter::fill(std::uint64_t collector_ns, std::uint64_t mutator_ns) {
  if (collector_ns > mutator_ns) {
    const std::uint64_t more = collector_ns - mutator_ns;
    const std::uint64_t room = x_capacity_ns - x_fill_ns;
    x_overflow_ns = plus(x_overflow_ns, minus(more, room));
    x_fill_ns += std::min(more, room);
  } else {
    x_fill_ns = minus(x_fill_ns, mutator_ns - collector_ns);
  }
  dcheck(x_fill_ns <= x_capacity_ns, "limiter.bucket", {x_fill_ns, x_capacity_ns});
}

}  // namespace tricolor::impl
