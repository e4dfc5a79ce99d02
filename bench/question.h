// What all questions share: arguments, time, memory, chance, threads, and the line they print.
//
// Every question prints one line of key=value pairs:
//
//   question=trees contestant=boehm depth=18 threads=1 wall_ms=1738.2 peak_rss_mb=59.1 check=… …
//
// First what was asked, then the measurements, then `check`, a number that must be equal for every
// contestant, then the contestant's own pairs. report.py knows which keys are measurements.

#pragma once

#include <sys/resource.h>

#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

#include "contestant.h"

namespace question {

using Clock = std::chrono::steady_clock;

inline double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// In units of 2^20 bytes, as gctrace counts; the kernel counts in 2^10.
inline double peak_rss_mb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

// The whole of `text` as a number between `least` and `most`; false if it is anything else.
inline bool parse(const char* text, int least, int most, int& value) {
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, value);
  return error == std::errc() && stop == end && least <= value && value <= most;
}

// xorshift64*: the same numbers for every contestant.
class Random {
 public:
  // Below `bound`, which is less than 2^32.
  std::uint64_t below(std::uint64_t bound) {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return ((state_ * 0x2545F4914F6CDD1DULL >> 32) * bound) >> 32;
  }

 private:
  std::uint64_t state_ = 88172645463325252;
};

// answer(t) for t in 0 .. threads - 1, each on a thread of its own, 0 on the calling one; the sum.
template <typename Fn>
std::uint64_t on_threads(int threads, Fn answer) {
  std::vector<std::uint64_t> answers(static_cast<std::size_t>(threads));
  std::vector<std::jthread> others;
  for (int t = 1; t < threads; ++t) {
    others.emplace_back([&answer, t, to = &answers[static_cast<std::size_t>(t)]] {
      contestant::ThreadScope scope;
      *to = answer(t);
    });
  }
  answers[0] = answer(0);
  contestant::wait([&] { others.clear(); });  // Joins.
  std::uint64_t sum = 0;
  for (const std::uint64_t one : answers) sum += one;
  return sum;
}

// The end of the line.
inline void print_rest(std::uint64_t check) {
  std::printf(" peak_rss_mb=%.1f check=%llu", peak_rss_mb(),
              static_cast<unsigned long long>(check));
  contestant::print_settings(stdout);
  std::printf("\n");
}

}  // namespace question
