// ring MESSAGES PUSHES: how long does one push take at worst?
//
// A ring holds the last MESSAGES messages of 1 KiB. A push makes a message, fills it, and puts it
// in the place of the oldest. The ring is filled first; then PUSHES pushes are timed one by one, by
// one reading of the clock each: mean_ns, two percentiles, and the longest. `histogram` says how
// many pushes took as long: `least ns:pushes` for every bucket that is not empty, eight buckets for
// each power of two. Percentiles are the upper end of their bucket.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "histogram.h"
#include "question.h"

namespace {

constexpr int kMaxMessages = 100'000'000;
constexpr int kMaxPushes = 1'000'000'000;

struct Message {
  [[maybe_unused]] static constexpr bool kNoReferences = true;
  Message() {}  // push() fills it.
  std::byte bytes[1024];
};

class Ring {
 public:
  explicit Ring(std::size_t messages) : slots_(contestant::make_table<Message>(messages)) {}

  void push(int value) {
    auto* message = contestant::make<Message>();
    std::memset(message->bytes, value, sizeof(message->bytes));
    contestant::free_by_hand<Message>(slots_[next_]);
    slots_[next_] = message;
    if (++next_ == slots_.size()) next_ = 0;
  }

  std::uint64_t sum() const {
    std::uint64_t total = 0;
    for (const Message* message : slots_) total += std::to_integer<unsigned>(message->bytes[1023]);
    return total;
  }

 private:
  std::span<contestant::field<Message>> slots_;
  std::size_t next_ = 0;
};

std::uint64_t ns_between(question::Clock::time_point begin, question::Clock::time_point end) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(end - begin).count());
}

}  // namespace

int main(int argc, char** argv) {
  int messages = 0;
  int pushes = 0;
  if (argc != 3 || !question::parse(argv[1], 1, kMaxMessages, messages) ||
      !question::parse(argv[2], 1, kMaxPushes, pushes)) {
    std::fprintf(stderr, "usage: ring MESSAGES PUSHES  (MESSAGES 1 to %d, PUSHES 1 to %d)\n",
                 kMaxMessages, kMaxPushes);
    return 2;
  }
  contestant::Program program(1);
  Ring ring(static_cast<std::size_t>(messages));
  for (int i = 0; i < messages; ++i) ring.push(i);

  question::Histogram times;
  const auto start = question::Clock::now();
  auto before = start;
  for (int i = 0; i < pushes; ++i) {
    ring.push(i);
    const auto now = question::Clock::now();
    times.add(ns_between(before, now));
    before = now;
  }
  std::printf(
      "question=ring contestant=%s messages=%d pushes=%d mean_ns=%.1f p99_ns=%llu p999_ns=%llu "
      "longest_us=%.1f histogram=",
      contestant::kName, messages, pushes,
      static_cast<double>(ns_between(start, before)) / static_cast<double>(pushes),
      static_cast<unsigned long long>(times.percentile(0.99)),
      static_cast<unsigned long long>(times.percentile(0.999)),
      static_cast<double>(times.longest()) / 1e3);
  times.print(stdout);
  question::print_rest(ring.sum());
}
