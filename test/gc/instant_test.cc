// [handshake.one-instant]: a reference that one thread writes into another one's frame is never between two captures.
#include <tricolor/gc.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

#include "test/gc/support.h"

namespace {

struct Mark {
  gc::ptr<Mark> next;
  unsigned long value = 0;
};

constexpr unsigned long kAlive = 0x1234;

// Runs fn on top of `kb` KiB of frames.
template <class F>
[[gnu::noinline]] void on_frames(int kb, F& fn) {
  if (kb == 0) return fn();
  volatile char bytes[1000];
  bytes[0] = 1;
  on_frames(kb - 1, fn);
  bytes[1] = bytes[0];  // so the frame is still there when the call returns
}

void move_between_frames(int kb) {
  std::atomic<bool> stop_sender{false};
  std::atomic<bool> stop_receiver{false};  // later: its frame outlives the sender's use of it
  std::atomic<std::atomic<Mark*>*> frame{nullptr};
  std::atomic<long> moved{0};
  std::atomic<long> lost{0};
  auto receive = [&] {
    std::atomic<Mark*> slot{
        nullptr};  // in this frame; the other thread writes here, past every barrier
    frame = &slot;
    while (!stop_receiver) {
      if (Mark* const mark = slot.load(); mark != nullptr) {
        if (mark->value != kAlive) ++lost;
        slot = nullptr;
        ++moved;
      }
      gc::safepoint();
    }
  };
  auto send = [&] {
    while (frame.load() == nullptr) gc::safepoint();
    while (!stop_sender) {
      std::atomic<Mark*>& slot = *frame.load();
      if (slot.load() == nullptr) {
        Mark* const mark = gc::make<Mark>();
        mark->value = kAlive;
        slot = mark;
      }
      gc::safepoint();
    }
  };
  std::thread receiver([&] {
    const gc::thread_scope attached;
    on_frames(kb, receive);
  });
  std::thread sender([&] {
    const gc::thread_scope attached;
    on_frames(kb, send);
  });
  const int cycles = static_cast<int>(tricolor::test::many(4000));
  for (int cycle = 0; cycle < cycles || moved < cycles / 4; ++cycle) {
    gc::collect();
    for (int i = 0; i < 200; ++i)
      gc::make<Mark>()->value = ~kAlive;  // takes the cells of what was lost
  }
  gc::blocking_call([&] {
    stop_sender = true;
    sender.join();
    stop_receiver = true;
    receiver.join();
  });
  CHECK(lost == 0);
}

}  // namespace

// With each thread captured as it stopped, one move in a thousand was lost here.
TEST_CASE("an object whose only reference moves to another thread's frame survives") {
  move_between_frames(0);
}

// Which their owners capture.
TEST_CASE("an object whose only reference moves between large stacks survives") {
  move_between_frames(200);
}
