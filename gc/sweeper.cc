#include "gc/sweeper.h"

#include <algorithm>
#include <bit>

#include "alloc/base/os.h"
#include "alloc/base/stop_code.h"
#include "alloc/cell.h"
#include "alloc/sweep_span.h"

namespace tricolor::impl {

namespace {

constexpr std::uint64_t kDoneBeforeTriggerBytes = 1 << 20;  // Go's sweepMinHeapDistance
constexpr std::size_t kWordsAhead = 8;                      // Go's pagesPerReclaimerChunk

// A guess that errs to one side: what it calls dead may have been swept meanwhile.
bool looks_dead(const Allocator& allocator, PageRecord* span) {
  if (is_swept(allocator, span)) return false;
  // Relaxed: nobody marks, and who sweeps the span meanwhile clears marks before it says so.
  for (std::uint32_t w = 0; w < bit_words(span); ++w) {
    if (mark_words(span)[w].load(std::memory_order_relaxed) != 0) return false;
  }
  return true;
}

}  // namespace

void Sweeper::Place::advance() {
  if (++word != arena->heads.size()) return;
  arena = arena->next.load(std::memory_order_acquire);
  word = 0;
}

// Arenas are in address order.
bool Sweeper::Place::is_before(const Place& other) const {
  if (arena == nullptr || other.arena == nullptr) return arena != nullptr;
  return arena != other.arena ? arena->first < other.arena->first : word < other.word;
}

TRICOLOR_STOP_CODE void Sweeper::arm() {
  const Guard guard(x_lock);
  x_walk = {x_allocator.pages.first_arena()};
  x_ahead = x_walk;
  begin_word();
  x_credit_pages.store(0, std::memory_order_relaxed);
  x_pages.store(x_allocator.pages.in_use_bytes() / kPageBytes, std::memory_order_relaxed);
  x_allocator.swept_pages.store(0, std::memory_order_relaxed);
  x_done.store(x_walk.arena == nullptr, std::memory_order_release);
}

// [sweep.once] Acquire: the span behind a head bit. Pairs with publish_span (release).
void Sweeper::begin_word() {
  if (x_walk.arena == nullptr) return;
  std::uint64_t& taken = x_walk.arena->taken_heads[x_walk.word];
  x_bits = x_walk.arena->heads[x_walk.word].load(std::memory_order_acquire) & ~taken;
  taken = 0;
}

// Spans that are made during the walk are born swept, so it does not matter whether it meets them.
PageRecord* Sweeper::next_span() {
  const Guard guard(x_lock);
  while (x_walk.arena != nullptr) {
    if (x_bits != 0) {
      const auto page = x_walk.word * 64 + static_cast<std::size_t>(std::countr_zero(x_bits));
      x_bits &= x_bits - 1;
      return x_walk.arena->records() + page;
    }
    x_walk.advance();
    begin_word();
  }
  x_done.store(true, std::memory_order_release);
  return nullptr;
}

// Spans without a mark out of the next word that has some, taken out of the walk; maybe none, when there are none in so many
// words. Nothing when no word is left.
std::optional<Sweeper::Heads> Sweeper::next_dead(std::size_t most_words) {
  const Guard guard(x_lock);
  for (; most_words != 0; --most_words) {
    if (x_ahead.is_before(x_walk)) x_ahead = x_walk;
    if (x_ahead.arena == nullptr || x_walk.arena == nullptr) {
      x_ahead = {};
      return std::nullopt;
    }
    const bool in_walk = x_ahead == x_walk;
    std::uint64_t& taken = x_ahead.arena->taken_heads[x_ahead.word];
    // Acquire: as in begin_word.
    const std::uint64_t heads =
        in_walk ? x_bits : x_ahead.arena->heads[x_ahead.word].load(std::memory_order_acquire);
    Heads dead = {x_ahead.arena->records() + x_ahead.word * 64, 0};
    for (std::uint64_t bits = in_walk ? heads : heads & ~taken; bits != 0; bits &= bits - 1) {
      if (looks_dead(x_allocator, dead.records + std::countr_zero(bits))) dead.bits |= bits & -bits;
    }
    // [sweep.once]
    if (in_walk) {
      x_bits &= ~dead.bits;
    } else {
      taken |= dead.bits;
    }
    x_ahead.advance();
    if (dead.bits != 0) return dead;
  }
  return Heads{};
}

void Sweeper::begin_sweeping() {
  // Sequentially consistent with finish(): it sees us counted or we see the walk at its end.
  x_sweeping.fetch_add(1, std::memory_order_seq_cst);
}

void Sweeper::end_sweeping() {
  // Release: our sweeps. Pairs with finish (acquire).
  if (x_sweeping.fetch_sub(1, std::memory_order_release) == 1) os::futex_wake_all(x_sweeping);
}

PageCount Sweeper::sweep_for(PageCount wanted, std::size_t most_spans) {
  PageCount freed;
  if (done()) return freed;
  begin_sweeping();
  for (std::size_t spans = 0; freed < wanted && spans < most_spans; ++spans) {
    PageRecord* const span = next_span();
    if (span == nullptr) break;
    freed = freed + sweep_and_free(x_allocator, span);
  }
  end_sweeping();
  return freed;
}

PageCount Sweeper::take_credit(PageCount wanted) {
  std::size_t credit = x_credit_pages.load(std::memory_order_relaxed);
  std::size_t taken = 0;
  do {
    taken = std::min(credit, wanted.value);
    // Relaxed, here and below: a number.
  } while (taken != 0 && !x_credit_pages.compare_exchange_weak(credit, credit - taken,
                                                               std::memory_order_relaxed));
  return {wanted.value - taken};
}

PageCount Sweeper::reclaim(PageCount wanted) {
  if (done()) return {};
  begin_sweeping();
  const std::optional<Heads> dead = next_dead(kWordsAhead);
  PageCount freed;
  for (std::uint64_t bits = dead ? dead->bits : 0; bits != 0; bits &= bits - 1) {
    freed = freed + sweep_and_free(x_allocator, dead->records + std::countr_zero(bits));
  }
  end_sweeping();
  if (!dead) return {};
  if (freed > wanted) {
    x_credit_pages.fetch_add((freed - wanted).value, std::memory_order_relaxed);
    return {};
  }
  return wanted - freed;
}

TRICOLOR_STOP_CODE void Sweeper::pace(std::uint64_t live_bytes, std::uint64_t trigger_bytes) {
  const std::size_t swept = x_allocator.swept_pages.load(std::memory_order_relaxed);
  const std::size_t pages = x_pages.load(std::memory_order_relaxed);
  const std::uint64_t soon = live_bytes + kDoneBeforeTriggerBytes;
  const std::uint64_t distance =
      std::max<std::uint64_t>(trigger_bytes > soon ? trigger_bytes - soon : 0, kPageBytes);
  x_basis_pages.store(swept, std::memory_order_relaxed);
  x_basis_bytes.store(live_bytes, std::memory_order_relaxed);
  x_pages_a_byte.store(
      pages > swept ? static_cast<double>(pages - swept) / static_cast<double>(distance) : 0,
      std::memory_order_relaxed);
}

SweepRecord Sweeper::record() const {
  const std::uint64_t live = x_allocator.heap_bytes();
  const std::uint64_t basis = x_basis_bytes.load(std::memory_order_relaxed);
  return {.heap_bytes = live,
          .allocated_bytes = live > basis ? live - basis : 0,
          .pages = x_allocator.swept_pages.load(std::memory_order_relaxed),
          .pages_a_byte = x_pages_a_byte.load(std::memory_order_relaxed)};
}

bool Sweeper::owes(std::size_t bytes) const {
  if (done()) return false;
  const double pages_a_byte = x_pages_a_byte.load(std::memory_order_relaxed);
  const std::uint64_t live = x_allocator.heap_bytes();
  const std::uint64_t basis = x_basis_bytes.load(std::memory_order_relaxed);
  const double due = pages_a_byte * static_cast<double>((live > basis ? live - basis : 0) + bytes);
  const double swept =
      static_cast<double>(x_allocator.swept_pages.load(std::memory_order_relaxed)) -
      static_cast<double>(x_basis_pages.load(std::memory_order_relaxed));
  return swept < due;
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
