#include "gc/stop_offer.h"

namespace tricolor::impl {

namespace {

// A thread that allocates comes by with each claim that it takes. Where none does, the collector waits for so long before the stop, with a
// CPU left to the program.
constexpr std::uint64_t kOfferedNs = 200'000;

}  // namespace

bool StopOffer::offer(Purpose purpose) {
  x_priority.store(os::thread_priority(), std::memory_order_relaxed);
  const std::uint32_t none = x_word.load(std::memory_order_relaxed);
  const std::uint32_t with_offer = none + offered(purpose);
  // Release: what the collector has done. Pairs with take (acquire).
  x_word.store(with_offer, std::memory_order_release);
  os::futex_wake_all(x_word);
  os::futex_wait(x_word, with_offer, kOfferedNs);
  std::uint32_t word = with_offer;
  // Acquire: the stop, where it has been made. Pairs with end (release).
  if (x_word.compare_exchange_strong(word, none, std::memory_order_acquire)) return false;
  for (; word == none + kTaken; word = x_word.load(std::memory_order_acquire))
    os::futex_wait(x_word, word);
  return true;
}

void StopOffer::end() {
  const std::uint32_t word = x_word.load(std::memory_order_relaxed);
  // Release: the stop. Pairs with offer (acquire).
  x_word.store((word | kStateMask) + 1, std::memory_order_release);
  os::futex_wake_all(x_word);
}

}  // namespace tricolor::impl
