#include "gc/slot_check.h"

#include <algorithm>
#include <utility>

#include "alloc/base/log.h"
#include "alloc/base/os.h"
#include "gc/heap.h"

namespace tricolor::impl {

namespace {

bool is_in(const Mutator& mutator, const char* slot) {
  if (mutator.stack.contains(slot)) return true;
  return std::any_of(mutator.tls.begin(), mutator.tls.end(), [slot](const TlsBlocks::Block& block) {
    return block.begin <= slot && slot < block.end;
  });
}

}  // namespace

void SlotCheck::sample(Mutator& mutator) {
  constexpr std::uint32_t kFlushesASample = 16;
  // The slot may have been in a range that has gone since the last flush, or that goes before we look.
  const std::uint64_t gone = x_heap.roots().ranges_gone();
  const bool may_have_gone = std::exchange(mutator.ranges_gone, gone) != gone;
  // Each slot only once: what is stored by other means meanwhile does not change it.
  const auto* const slot = static_cast<const char*>(std::exchange(mutator.stored_slot, nullptr));
  if (mutator.flushes++ % kFlushesASample != 0 || may_have_gone) return;
  if (slot == nullptr || is_in(mutator, slot) ||
      x_heap.address_range().contains(reinterpret_cast<std::uintptr_t>(slot)) ||
      x_heap.roots().is_in_range(slot, &mutator) || x_heap.roots().ranges_gone() != gone)
    return;
  const Guard guard(x_lock);
  for (std::size_t i = 0; i < x_count; ++i) {
    if (x_suspects[i].stored_at == mutator.stored_at) return;
  }
  if (x_count < kMostSuspects) x_suspects[x_count++] = {slot, mutator.stored_at};
}

void SlotCheck::forget(const Mutator& mutator) {
  const Guard guard(x_lock);
  const auto end = x_suspects.begin() + static_cast<std::ptrdiff_t>(x_count);
  const auto left = std::remove_if(x_suspects.begin(), end, [&](const Suspect& suspect) {
    return is_in(mutator, static_cast<const char*>(suspect.slot));
  });
  x_count = static_cast<std::size_t>(left - x_suspects.begin());
}

void SlotCheck::look(const SegmentList& segments) {
  std::array<Suspect, kMostSuspects> suspects;
  std::size_t count = 0;
  {
    const Guard guard(x_lock);
    count = x_count;
    std::copy_n(x_suspects.begin(), count, suspects.begin());
    x_count = 0;
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (is_scanned(suspects[i].slot, segments)) continue;
    if (suspects[i].again) {
      report(suspects[i]);
    } else {
      const Guard guard(x_lock);
      suspects[i].again = true;
      if (x_count < kMostSuspects) x_suspects[x_count++] = suspects[i];
    }
  }
}

bool SlotCheck::is_scanned(const void* slot, const SegmentList& segments) {
  const auto* const address = static_cast<const char*>(slot);
  for (const Segment& segment : segments) {
    if (segment.begin <= address && address < segment.end) return true;
  }
  bool found = x_heap.roots().is_in_range(slot, nullptr);
  x_heap.handshake().for_each_in_turn([&](Mutator& m) { found |= is_in(m, address); });
  std::uintptr_t word = 0;  // memory that is gone (a library's, a thread's) is no evidence
  return found || os::read_maybe_unmapped(&word, slot, sizeof word) != sizeof word;
}

void SlotCheck::report(const Suspect& suspect) {
  const auto end = x_reported.begin() + static_cast<std::ptrdiff_t>(x_reports);
  if (x_reports == kMostReports || std::find(x_reported.begin(), end, suspect.stored_at) != end)
    return;
  x_reported[x_reports++] = suspect.stored_at;
  LineBuffer<600> line;
  line.text("tricolor: the code at ").hex(reinterpret_cast<std::uintptr_t>(suspect.stored_at));
  line.text(" stores a managed pointer to ").hex(reinterpret_cast<std::uintptr_t>(suspect.slot));
  line.text(
      ", where the collector never looks: a gc::ptr in malloc memory (a std:: container, a "
      "closure), in a thread_local of a "
      "library opened late, or on an unknown stack keeps nothing alive. Use gc::root there. "
      "(checkslot=0 turns this check "
      "off.)");
  log_line(line.view());
}

}  // namespace tricolor::impl
