#include "gc/sweeper.h"

#include <bit>

#include "alloc/base/os.h"
#include "alloc/sweep_span.h"

namespace tricolor::impl {

void Sweeper::arm() {
  const Guard guard(x_lock);
  x_arena = x_allocator.pages.first_arena();
  x_word = 0;
  // Acquire: the span behind a head bit. Pairs with publish_span (release).
  x_bits = x_arena != nullptr ? x_arena->heads[0].load(std::memory_order_acquire) : 0;
  x_done.store(x_arena == nullptr, std::memory_order_release);
}

// Spans that are made during the walk are born swept, so it does not matter whether it meets them.
PageRecord* Sweeper::next_span() {
  const Guard guard(x_lock);
  while (x_arena != nullptr) {
    if (x_bits != 0) {
      const auto page = x_word * 64 + static_cast<std::size_t>(std::countr_zero(x_bits));
      x_bits &= x_bits - 1;
      return x_arena->records() + page;
    }
    if (++x_word == x_arena->heads.size()) {
      x_arena = x_arena->next.load(std::memory_order_acquire);
      x_word = 0;
    }
    if (x_arena != nullptr) x_bits = x_arena->heads[x_word].load(std::memory_order_acquire);
  }
  x_done.store(true, std::memory_order_release);
  return nullptr;
}

PageCount Sweeper::sweep_for(PageCount wanted, std::size_t most_spans) {
  PageCount freed;
  if (done()) return freed;
  // Sequentially consistent with finish(): it sees us counted or we see the walk at its end.
  x_sweeping.fetch_add(1, std::memory_order_seq_cst);
  for (std::size_t spans = 0; freed < wanted && spans < most_spans; ++spans) {
    PageRecord* const span = next_span();
    if (span == nullptr) break;
    freed = freed + sweep_and_free(x_allocator, span);
  }
  // Release: our sweeps. Pairs with finish (acquire).
  if (x_sweeping.fetch_sub(1, std::memory_order_release) == 1) os::futex_wake_all(x_sweeping);
  return freed;
}

void Sweeper::finish() {
  while (!done()) sweep_for(PageCount{SIZE_MAX});
  for (;;) {
    const std::uint32_t sweeping = x_sweeping.load(std::memory_order_acquire);
    if (sweeping == 0) return;
    os::futex_wait(x_sweeping, sweeping);
  }
}

}  // namespace tricolor::impl
