// Who makes a stop: the collector's thread, or one of the program's, to which it offers that.
//
// Where as many threads run as there are CPUs, the collector has the CPU of one of them. That one must get one back before it can stop,
// and then the collector, with all others waiting: two changes of thread in the stop, and a signal. So the collector offers the
// stop and sleeps; its CPU goes back to the one that had it. Who comes by next, running, takes the stop: it makes it as one that
// waits in the library, wakes the collector and goes on. In Go, too, threads of the program make both stops (runtime/mgc.go: who finds
// the trigger calls gcStart, who finds nothing left to mark gcMarkDone).
//
// The kernel does not give every CPU that becomes free at once to a thread that waits for another one: after the collector has gone to
// sleep both threads of a program may be on one CPU for milliseconds, and whoever makes the stop has to wait for the other. So who comes
// by while another one waits for its CPU leaves the stop to that one: it sleeps, as one that waits in the library. Of the two only one
// could run anyway, and then one needs no stopping. (Last stops with 2000 MB, traced: 11 of 20 met such a thread, and took 20 to 60 us;
// the others 3 to 5.) One that sleeps outside of blocking_call looks the same, and does not come: where nobody took what had been left,
// the next ones are not left.
//
// For the same reason the first stop is best made by a thread that runs while the one that asked for the cycle, and gave its CPU, sleeps:
// so the collector keeps that CPU for a moment, and wakes the one that sleeps only when nobody has come by.
//
// Invariant [stop.one-maker]: a stop is made by the thread that has taken the offer, or by the one that has withdrawn it; both change the
//   same word from "offered", which one of them can. What the collector did before is visible to who takes it (released by offer(),
//   acquired by take()), and what that one did to the collector (released by end(), acquired by offer()).
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "alloc/base/os.h"
#include "alloc/base/perturb.h"
#include "gc/handshake.h"

namespace tricolor::impl {

class StopOffer {
 public:
  using Purpose = Handshake::Purpose;

  // Longer than nearly all threads that allocate take to come by, and than a CPU takes to wake up.
  static constexpr std::uint64_t kOfferedNs = 500'000;
  // Who has left it in vain soon after it was made has time left to take it.
  static constexpr std::uint64_t kLeftNs = kOfferedNs / 2;

  struct Terms {
    // For about so long the collector keeps its CPU, but for those that wait for it, and leaves asleep who waits for an offer.
    std::uint64_t looks_ns = 0;
    bool may_be_left = true;
  };
  // The collector's side. Having looked it wakes who waits, and sleeps for kOfferedNs at most. `nobody` came by: the caller is to make the
  // stop.
  enum class Maker : std::uint8_t { nobody, one_that_ran, one_that_may_have_slept };
  Maker offer(Purpose purpose, Terms terms);
  // Of the last one: has somebody left it to somebody else, and has nobody come for it in time?
  enum class Left : std::uint8_t { no, yes, in_vain };
  Left left() const {
    if (x_was_left_in_vain.load(std::memory_order_relaxed)) return Left::in_vain;
    return x_was_left.load(std::memory_order_relaxed) ? Left::yes : Left::no;
  }
  // It has been made by the caller, or there is none to be made: nobody is to wait for it any more.
  void end();

  // In the child of a fork: none is offered, nobody makes one.
  void forget() { x_word.store(kNone, std::memory_order_relaxed); }

  // The program's side. A hint.
  bool is_offered(Purpose purpose) const {
    return (x_word.load(std::memory_order_relaxed) & kStateMask) == offered(purpose);
  }
  // May the calling thread take it? If the kernel prefers the one that offers it neither to this one (which with all others waiting
  // would be kept from its CPU) nor less (it has its reasons to be quick, and gives its CPU to nobody). A hint.
  bool suits(Purpose purpose) const {
    // Acquire: x_priority. Pairs with offer (release).
    return suits(x_word.load(std::memory_order_acquire), purpose);
  }
  bool may_be_left() const { return x_may_be_left.load(std::memory_order_relaxed); }
  // Leaves what is offered to somebody else: until that is over, for kLeftNs at most.
  void leave();
  // Runs make() if such a stop is offered and suits. True when it has.
  template <class Make>
  bool take(Purpose purpose, Make make) {
    // Acquire, twice: what the collector did. Pairs with offer (release).
    std::uint32_t word = x_word.load(std::memory_order_acquire);
    if (!suits(word, purpose)) return false;
    perturb();
    if (!x_word.compare_exchange_strong(word, word - offered(purpose) + kTaken,
                                        std::memory_order_acquire, std::memory_order_relaxed))
      return false;
    make();
    x_taken[offered(purpose) - 1].fetch_add(1, std::memory_order_relaxed);
    end();
    return true;
  }
  // Changes with each offer, and with its end.
  const std::atomic<std::uint32_t>& word() const { return x_word; }

  // Ever. For tests.
  std::uint64_t taken_count(Purpose purpose) const {
    return x_taken[offered(purpose) - 1].load(std::memory_order_relaxed);
  }
  std::uint64_t left_count(Purpose purpose) const {
    return x_left[offered(purpose) - 1].load(std::memory_order_relaxed);
  }

 private:
  // The two low bits; the others count stops.
  static constexpr std::uint32_t kNone = 0;
  static constexpr std::uint32_t kTaken = 3;
  static constexpr std::uint32_t kStateMask = 3;
  static constexpr std::uint32_t offered(Purpose purpose) {
    return purpose == Purpose::arm ? 1 : 2;
  }
  bool suits(std::uint32_t word, Purpose purpose) const {
    return (word & kStateMask) == offered(purpose) &&
           os::thread_priority() == x_priority.load(std::memory_order_relaxed);
  }

  // Written by the collector; while a stop is offered or taken, as said above.
  std::atomic<std::uint32_t> x_word{kNone};
  std::atomic<int> x_priority{0};  // of the thread that offers. Written by it before the word
  std::atomic<bool> x_may_be_left{true};  // likewise
  // Cleared by it, set by the others; hints.
  std::atomic<bool> x_was_left{false};
  std::atomic<bool> x_was_left_in_vain{false};
  std::array<std::atomic<std::uint64_t>, 2> x_taken = {};
  std::array<std::atomic<std::uint64_t>, 2> x_left = {};
};

// What has been in vain is left out: once, then 3, 7, ... 63 times, until it works again. Not thread-safe.
class Patience {
 public:
  bool tries() {
    if (x_left == 0) return true;
    --x_left;
    return false;
  }
  void note(bool worked) {
    constexpr std::uint32_t kMost = 63;
    x_leaves_out = worked ? 0 : std::min(2 * x_leaves_out + 1, kMost);
    x_left = x_leaves_out;
  }

 private:
  std::uint32_t x_leaves_out = 0;
  std::uint32_t x_left = 0;
};

// Whom a stop is offered to: the one that has asked for the cycle and sleeps until then, or whoever comes by.
enum class OfferedTo : std::uint8_t { nobody, who_comes_by, who_waits };

// How to offer the next stop, by what has come of the last ones. Not thread-safe.
class OfferPatience {
 public:
  struct Way {
    bool looks;        // for one that runs, before those that sleep are woken
    bool may_be_left;  // by one that comes by to one that has no CPU
  };

  // Will somebody come by?
  bool expects_comers() { return x_with_comers.tries(); }
  Way choose(OfferedTo to, bool may_look) {
    const bool looks = to == OfferedTo::who_waits && may_look && x_with_looking.tries();
    return {.looks = looks, .may_be_left = x_with_leaving.tries()};
  }
  void note(OfferedTo to, Way way, StopOffer::Maker maker, StopOffer::Left left) {
    const bool ran = maker == StopOffer::Maker::one_that_ran;
    const bool is_made = maker != StopOffer::Maker::nobody;
    if (way.looks) x_with_looking.note(ran);
    if (left == StopOffer::Left::no) {
      if (to == OfferedTo::who_comes_by) x_with_comers.note(is_made);
    } else if (left == StopOffer::Left::in_vain || !is_made) {
      x_with_leaving.note(false);
    } else if (to == OfferedTo::who_comes_by) {
      x_with_leaving.note(true);
    } else if (way.looks) {
      // Of those that sleep until a stop is offered, nobody has left it to them. (Where nobody looked they were woken at once: it says
      // nothing that one of them has made it.)
      x_with_leaving.note(ran);
    }
  }

 private:
  Patience x_with_comers;   // with threads that come by
  Patience x_with_looking;  // with looking for them before others are woken
  Patience x_with_leaving;  // with leaving a stop to another one
};

}  // namespace tricolor::impl
