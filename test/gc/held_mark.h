// A mark held in its middle: a trace function that waits, on the collector's thread.
#pragma once

#include <tricolor/gc.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

#include "test/gc/support.h"

namespace tricolor::test {

// While `is_held` is set, a mark that has come to it waits, and says so.
struct Gate {
  inline static std::atomic<bool> is_held{false};
  inline static std::atomic<bool> is_reached{false};

  gc::ptr<Node> node;
  void trace(gc::tracer& t) const noexcept {
    if (is_held) {
      is_reached = true;
      while (is_held) std::this_thread::yield();
    }
    t(node);
  }
};

inline gc::ptr<Gate> gate;

// A cycle on a thread of its own, whose mark waits as long as this lives, or until end(). Nobody must wait for it meanwhile: no
// heap goal is reached; for the rest see can_hold_a_mark().
class HeldMark {
 public:
  HeldMark() : x_percent(gc::set_percent(-1)) {
    if (gate == nullptr) gate = gc::make<Gate>();
    Gate::is_held = true;
    Gate::is_reached = false;
    x_thread = start_thread([] { gc::collect(); });
    while (!Gate::is_reached) gc::safepoint();
  }
  HeldMark(const HeldMark&) = delete;
  HeldMark& operator=(const HeldMark&) = delete;
  ~HeldMark() {
    end();
    gate = nullptr;
    gc::set_percent(x_percent);
  }

  // Lets the mark go on and waits for the end of its cycle.
  void end() {
    Gate::is_held = false;
    if (x_thread.joinable()) join(x_thread);
  }

 private:
  const int x_percent;
  std::thread x_thread;
};

inline bool can_hold_a_mark() {
  if (!stressed() && marks_beside_the_program()) return true;
  WARN(
      "skipped: with stress=n allocations wait for a mark that waits for the test, and with "
      "gcstoptheworld=n the test is stopped while it is marked");
  return false;
}

}  // namespace tricolor::test
