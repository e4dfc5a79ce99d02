#include "gc/scavenger.h"

#include <algorithm>

#include "alloc/base/log.h"
#include "alloc/base/os.h"
#include "alloc/base/stop_code.h"
#include "gc/mutator.h"

namespace tricolor::impl {

namespace {

constexpr std::uint64_t kSlackParts = 64;    // of what is retained, one more
constexpr double kMostFragmentation = 2;     // more of it comes from a heap that was nearly empty
constexpr std::uint64_t kLimitPercent = 95;  // Go's reduceExtraPercent
constexpr std::uint64_t kRefusedNs =
    10'000'000;  // counts as worked when nothing could be given back: a second's rest
// A call to the kernel costs as much as a MiB or so of the pages it gives back: where page tables are the host's too, 0.1 ms.
constexpr PageCount kPiece = {512};        // of the background
constexpr PageCount kPieceAtOnce = {128};  // keeps a stop waiting
constexpr PageCount kLeastAtOnce = {64};   // is worth a call that an allocation waits for

std::uint64_t minus(std::uint64_t a, std::uint64_t b) { return a > b ? a - b : 0; }

}  // namespace

TRICOLOR_STOP_CODE std::uint64_t retained_bytes(std::uint64_t goal_bytes,
                                                std::uint64_t in_use_bytes,
                                                std::uint64_t live_bytes) {
  if (goal_bytes >= kNoGoal) return kNoGoal;
  const double factor =
      live_bytes == 0
          ? 1
          : std::clamp(static_cast<double>(in_use_bytes) / static_cast<double>(live_bytes), 1.0,
                       kMostFragmentation);
  const double pages = static_cast<double>(goal_bytes) * factor;
  const double kept = pages + pages / kSlackParts;
  return kept < static_cast<double>(kNoGoal) ? static_cast<std::uint64_t>(kept) : kNoGoal;
}

TRICOLOR_STOP_CODE void Scavenger::mark_ended(std::uint64_t live_bytes) {
  x_full_in_use_bytes.store(x_allocator.pages.in_use_bytes(), std::memory_order_relaxed);
  x_full_live_bytes.store(live_bytes, std::memory_order_relaxed);
}

TRICOLOR_STOP_CODE void Scavenger::set_goals(std::uint64_t goal_bytes, std::uint64_t limit_bytes) {
  const std::uint64_t in_use = x_full_in_use_bytes.load(std::memory_order_relaxed);
  x_retained_bytes.store(
      in_use == 0
          ? kNoGoal
          : retained_bytes(goal_bytes, in_use, x_full_live_bytes.load(std::memory_order_relaxed)),
      std::memory_order_relaxed);
  x_limit_bytes.store(limit_bytes, std::memory_order_relaxed);
}

// Read one after the other while others take and give back.
std::uint64_t Scavenger::free_bytes() const {
  const std::uint64_t in_use = x_allocator.pages.in_use_bytes();
  return minus(x_allocator.pages.ready_bytes(), in_use);
}

std::uint64_t Scavenger::over_limit_bytes(std::uint64_t limit_bytes) const {
  if (limit_bytes >= kNoGoal) return 0;
  return minus(x_allocator.mapped_bytes() + x_allocator.held_outside_bytes(), limit_bytes);
}

// ---- in the background

std::uint64_t Scavenger::surplus_bytes() const {
  const std::uint64_t limit = x_limit_bytes.load(std::memory_order_relaxed);
  const std::uint64_t over = std::max(
      minus(x_allocator.pages.ready_bytes(), x_retained_bytes.load(std::memory_order_relaxed)),
      limit >= kNoGoal ? 0 : over_limit_bytes(limit / 100 * kLimitPercent));
  return std::min(over, free_bytes());
}

bool Scavenger::has_surplus() const { return surplus_bytes() >= kPageBytes; }

std::uint64_t Scavenger::due_in_ns(std::uint64_t now_ns) const {
  return has_surplus() ? x_pace.due_in_ns(now_ns) : UINT64_MAX;
}

bool Scavenger::work() {
  const PageCount wanted = std::min(kPiece, PageCount{surplus_bytes() / kPageBytes});
  if (wanted.value == 0) return false;
  const PageCount released = x_allocator.pages.release(wanted);
  x_background_bytes.fetch_add(released.bytes(), std::memory_order_relaxed);
  x_refused = released.value == 0;
  return !x_refused;
}

void Scavenger::worked(std::uint64_t begin_ns, std::uint64_t cpu_ns) {
  x_pace.worked(begin_ns, x_refused ? kRefusedNs : cpu_ns);
  x_background_ns.fetch_add(cpu_ns, std::memory_order_relaxed);
}

// ---- at once

void Scavenger::make_room(Mutator& mutator, PageCount fresh) {
  const std::uint64_t for_goal = std::min<std::uint64_t>(
      fresh.bytes(),
      minus(x_allocator.pages.ready_bytes(), x_retained_bytes.load(std::memory_order_relaxed)));
  const std::uint64_t for_limit =
      x_for_limit.load(std::memory_order_relaxed)
          ? over_limit_bytes(x_limit_bytes.load(std::memory_order_relaxed))
          : 0;
  PageCount left = pages_for(std::max(for_goal, for_limit));
  if (left.value == 0 || free_bytes() == 0) return;
  left = std::max(left, kLeastAtOnce);
  const std::uint64_t begin_ns = os::thread_cpu_ns();
  while (left.value != 0) {
    const CriticalSection critical(mutator);
    const PageCount released = x_allocator.pages.release(std::min(left, kPieceAtOnce));
    x_at_once_bytes.fetch_add(released.bytes(), std::memory_order_relaxed);
    if (released.value == 0) break;
    left = left - std::min(left, released);
  }
  x_assist_ns.fetch_add(os::thread_cpu_ns() - begin_ns, std::memory_order_relaxed);
}

void Scavenger::release_all(Trace trace) {
  const PageCount released = x_allocator.pages.release(PageCount{SIZE_MAX});
  if (trace == Trace::kOn) print_line(0, released.bytes(), " (forced)");
}

// ---- numbers

void Scavenger::print_trace() {
  const std::uint64_t background = x_background_bytes.exchange(0, std::memory_order_relaxed);
  const std::uint64_t at_once = x_at_once_bytes.exchange(0, std::memory_order_relaxed);
  print_line(background, at_once, "");
}

// (Go's printScavTrace.)
void Scavenger::print_line(std::uint64_t background_bytes, std::uint64_t at_once_bytes,
                           std::string_view remark) const {
  const PageHeap& pages = x_allocator.pages;
  const std::uint64_t in_use = pages.in_use_bytes();
  const std::uint64_t ready = std::max<std::uint64_t>(pages.ready_bytes(), in_use);
  LineBuffer<160> line;
  line.text("scav ").count(background_bytes >> 10).text(" KiB work (bg), ");
  line.count(at_once_bytes >> 10).text(" KiB work (eager), ");
  line.count(minus(pages.prepared_bytes(), ready) >> 10).text(" KiB now, ");
  line.count(ready == 0 ? 0 : in_use * 100 / ready).text("% util").text(remark);
  log_line(line.view());
}

}  // namespace tricolor::impl
