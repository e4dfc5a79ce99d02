#include "gc/stop_offer.h"

namespace tricolor::impl {

StopOffer::Maker StopOffer::offer(Purpose purpose, Terms terms) {
  constexpr int kLooksATurn = 32;
  x_priority.store(os::thread_priority(), std::memory_order_relaxed);
  x_may_be_left.store(terms.may_be_left, std::memory_order_relaxed);
  x_was_left.store(false, std::memory_order_relaxed);
  x_was_left_in_vain.store(false, std::memory_order_relaxed);
  const std::uint32_t none = x_word.load(std::memory_order_relaxed);
  const std::uint32_t with_offer = none + offered(purpose);
  // Release: what the collector has done. Pairs with take (acquire).
  x_word.store(with_offer, std::memory_order_release);
  const auto is_open = [&] { return x_word.load(std::memory_order_relaxed) == with_offer; };
  if (terms.looks_ns != 0) {
    for (const std::uint64_t until_ns = os::now_ns() + terms.looks_ns;
         is_open() && os::now_ns() < until_ns;) {
      for (int look = 0; look < kLooksATurn && is_open(); ++look) os::relax();
      os::yield();  // who waits for this CPU may be who comes by
    }
  }
  const Maker maker = is_open() ? Maker::one_that_may_have_slept : Maker::one_that_ran;
  if (maker == Maker::one_that_may_have_slept) {
    os::futex_wake_all(x_word);
    os::futex_wait(x_word, with_offer, kOfferedNs);
  }
  std::uint32_t word = with_offer;
  // Acquire: the stop, where it has been made. Pairs with end (release).
  if (x_word.compare_exchange_strong(word, none, std::memory_order_acquire)) return Maker::nobody;
  for (; word == none + kTaken; word = x_word.load(std::memory_order_acquire))
    os::futex_wait(x_word, word);
  return maker;
}

void StopOffer::leave() {
  const std::uint32_t offered = x_word.load(std::memory_order_relaxed);
  const std::uint32_t state = offered & kStateMask;
  if (state == kNone || state == kTaken) return;
  x_was_left.store(true, std::memory_order_relaxed);
  x_left[state - 1].fetch_add(1, std::memory_order_relaxed);
  const std::uint32_t taken = offered - state + kTaken;
  // The collector wakes who waits for an offer, too.
  const std::uint64_t until_ns = os::now_ns() + kLeftNs;
  for (std::uint32_t word = offered; word == offered || word == taken;
       word = x_word.load(std::memory_order_relaxed)) {
    const std::uint64_t now_ns = os::now_ns();
    if (now_ns >= until_ns) {
      if (word == offered) x_was_left_in_vain.store(true, std::memory_order_relaxed);
      return;
    }
    os::futex_wait(x_word, word, until_ns - now_ns);
  }
}

void StopOffer::end() {
  const std::uint32_t word = x_word.load(std::memory_order_relaxed);
  // Release: the stop. Pairs with offer (acquire).
  x_word.store((word | kStateMask) + 1, std::memory_order_release);
  os::futex_wake_all(x_word);
}

}  // namespace tricolor::impl
