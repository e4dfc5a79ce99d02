// Who makes a stop: the collector's thread, or one of the program's, to which it offers that.
//
// Where as many threads run as there are CPUs, the collector has the CPU of one of them. That one must get one back before it can stop,
// and then the collector, with all others waiting: two changes of thread in the stop, and a signal. So the collector offers the
// stop and sleeps; its CPU goes back to the one that had it. Who comes by next, running, takes the stop: it makes it as one that
// waits in the library, wakes the collector and goes on. In Go, too, threads of the program make both stops (runtime/mgc.go: who finds
// the trigger calls gcStart, who finds nothing left to mark gcMarkDone).
//
// Invariant [stop.one-maker]: a stop is made by the thread that has taken the offer, or by the one that has withdrawn it; both change the
//   same word from "offered", which one of them can. What the collector did before is visible to who takes it (released by offer(),
//   acquired by take()), and what that one did to the collector (released by end(), acquired by offer()).
#pragma once

#include <atomic>
#include <cstdint>

#include "alloc/base/os.h"
#include "alloc/base/perturb.h"
#include "gc/handshake.h"

namespace tricolor::impl {

class StopOffer {
 public:
  using Purpose = Handshake::Purpose;

  // The collector's side. True when a thread of the program has made the stop; false when none came by, for kOfferedNs, and the caller
  // is to make it.
  bool offer(Purpose purpose);
  // It has been made by the caller, or there is none to be made: nobody is to wait for it any more.
  void end();

  // In the child of a fork: none is offered, nobody makes one.
  void forget() { x_word.store(kNone, std::memory_order_relaxed); }

  // The program's side. A hint.
  bool is_offered(Purpose purpose) const {
    return (x_word.load(std::memory_order_relaxed) & kStateMask) == offered(purpose);
  }
  // Runs make() if such a stop is offered, and by a thread that the kernel prefers neither to this one (with all others waiting, it
  // would be kept from its CPU) nor less (it has its reasons to be quick, and gives its CPU to nobody). True when it has.
  template <class Make>
  bool take(Purpose purpose, Make make) {
    // Acquire, twice: what the collector did. Pairs with offer (release).
    std::uint32_t word = x_word.load(std::memory_order_acquire);
    if ((word & kStateMask) != offered(purpose) ||
        os::thread_priority() != x_priority.load(std::memory_order_relaxed))
      return false;
    perturb();
    if (!x_word.compare_exchange_strong(word, word - offered(purpose) + kTaken,
                                        std::memory_order_acquire, std::memory_order_relaxed))
      return false;
    make();
    x_taken_count.fetch_add(1, std::memory_order_relaxed);
    end();
    return true;
  }
  // Changes with each offer, and with its end.
  const std::atomic<std::uint32_t>& word() const { return x_word; }

  // Ever. For tests.
  std::uint64_t taken_count() const { return x_taken_count.load(std::memory_order_relaxed); }

 private:
  // The two low bits; the others count stops.
  static constexpr std::uint32_t kNone = 0;
  static constexpr std::uint32_t kTaken = 3;
  static constexpr std::uint32_t kStateMask = 3;
  static constexpr std::uint32_t offered(Purpose purpose) {
    return purpose == Purpose::arm ? 1 : 2;
  }

  // Written by the collector; while a stop is offered or taken, as said above.
  std::atomic<std::uint32_t> x_word{kNone};
  std::atomic<int> x_priority{0};  // of the thread that offers. Written by it before the word
  std::atomic<std::uint64_t> x_taken_count{0};
};

}  // namespace tricolor::impl
