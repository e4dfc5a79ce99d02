// ring [MESSAGES [PUSHES [THREADS]]]: what does a program feel of the collector at worst?
//
// THREADS threads (2) push PUSHES messages of 1 KiB (1,000,000) into one ring, which keeps the last
// MESSAGES of them (200,000): whatever falls out of the ring is garbage. Every push is timed. At the
// end the ring is looked through: every place holds the last message that was put there. Prints how
// long a push took on average and at most, and for how long the collector stopped the threads.
//
// The ring is a gc::array in a global, so a root. Each thread has its own places in it (thread t of
// n: t, t + n, t + 2n, …); threads that share places need a lock or atomics, as with any pointer.

#include <tricolor/gc.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace {

constexpr int kMaxMessages = 100'000'000;
constexpr int kMaxPushes = 1'000'000'000;
constexpr int kMaxThreads = 1024;

using Clock = std::chrono::steady_clock;
using Microseconds = std::chrono::duration<double, std::micro>;

// No references inside: the collector never reads it.
struct Message {
  std::uint64_t number;
  std::array<std::byte, 1016> text;
};

gc::array<gc::ptr<Message>> ring;

// What one thread does, and what it has seen.
struct Pusher {
  std::size_t thread, threads;
  std::uint64_t pushes;
  Clock::duration longest{};
  bool out_of_memory = false;

  void run() noexcept try {
    std::size_t place = thread;
    auto before = Clock::now();
    for (std::uint64_t number = 0; number < pushes; ++number) {
      auto* message = gc::make<Message>();
      message->number = number;
      message->text.fill(static_cast<std::byte>(number));
      ring[place] = message;
      place += threads;
      if (place >= ring.size()) place = thread;

      const auto now = Clock::now();
      longest = std::max(longest, now - before);
      before = now;
    }
  } catch (const std::bad_alloc&) {
    out_of_memory = true;
  }

  std::size_t places() const { return (ring.size() - thread + threads - 1) / threads; }

  // Whether every place of this thread holds what was put there last.
  bool holds() const {
    for (std::size_t i = 0; i < places(); ++i) {
      const Message* message = ring[thread + i * threads];
      if (i >= pushes) {  // The ring is larger than what was pushed.
        if (message != nullptr) return false;
        continue;
      }
      const std::uint64_t number = (pushes - 1 - i) / places() * places() + i;
      const auto filled = static_cast<std::byte>(number);
      if (message->number != number || message->text.front() != filled ||
          message->text.back() != filled) {
        return false;
      }
    }
    return true;
  }
};

int play(int messages, int pushes, int threads) {
  ring = gc::make_array<gc::ptr<Message>>(static_cast<std::size_t>(messages));
  std::vector<Pusher> pushers;
  for (int t = 0; t < threads; ++t) {
    pushers.push_back({.thread = static_cast<std::size_t>(t),
                       .threads = static_cast<std::size_t>(threads),
                       .pushes = static_cast<std::uint64_t>((pushes - t + threads - 1) / threads)});
  }

  const auto start = Clock::now();
  std::vector<std::jthread> running;
  for (Pusher& pusher : pushers) running.emplace_back(&Pusher::run, &pusher);
  gc::blocking_call([&] { running.clear(); });  // Joins; this thread need not be stopped meanwhile.
  const Microseconds elapsed = Clock::now() - start;

  Microseconds longest{};
  for (const Pusher& pusher : pushers) {
    if (pusher.out_of_memory) throw std::bad_alloc();
    if (!pusher.holds()) {
      std::fprintf(stderr, "ring: a message of thread %zu is not what was pushed\n", pusher.thread);
      return 1;
    }
    longest = std::max(longest, Microseconds(pusher.longest));
  }

  const gc::statistics stats = gc::stats();
  const auto cycles = static_cast<double>(stats.cycles_total);
  std::printf("%d pushes by %d threads, the last %d messages are there\n", pushes, threads,
              std::min(messages, pushes));
  std::printf("a push: %.0f ns on average, %.1f us at most\n",
              elapsed.count() * 1e3 * threads / pushes, longest.count());
  std::printf("the collector: %.0f cycles, stopped for %.1f us each, %.1f us at most\n", cycles,
              cycles == 0 ? 0 : static_cast<double>(stats.pause_ns_total) / 1e3 / cycles,
              static_cast<double>(stats.pause_ns_max) / 1e3);
  return 0;
}

// The whole of `text` as a number between 1 and `most`; false if it is anything else.
bool parse(const char* text, int most, int& value) {
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, value);
  return error == std::errc() && stop == end && 1 <= value && value <= most;
}

}  // namespace

int main(int argc, char** argv) {
  int messages = 200'000;
  int pushes = 1'000'000;
  int threads = 2;
  if (argc > 4 || (argc > 1 && !parse(argv[1], kMaxMessages, messages)) ||
      (argc > 2 && !parse(argv[2], kMaxPushes, pushes)) ||
      (argc > 3 && !parse(argv[3], kMaxThreads, threads)) || messages < threads) {
    std::fprintf(stderr,
                 "usage: ring [MESSAGES [PUSHES [THREADS]]]  (up to %d, %d and %d; a message a "
                 "thread at least)\n",
                 kMaxMessages, kMaxPushes, kMaxThreads);
    return 2;
  }
  try {
    return play(messages, pushes, threads);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "ring: out of memory with %d messages\n", messages);
  } catch (const std::system_error& error) {
    std::fprintf(stderr, "ring: cannot start %d threads: %s\n", threads, error.what());
  }
  return 1;
}
