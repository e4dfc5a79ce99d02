// How often something took how long.
//
// Eight buckets for each power of two of nanoseconds, so a time is known to an eighth; the longest exactly. print() writes
// `least ns:times` for every bucket that is not empty.

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdio>

namespace question {

class Histogram {
 public:
  void add(std::uint64_t ns) {
    ++counts_[bucket_of(ns)];
    longest_ = std::max(longest_, ns);
  }

  void add(const Histogram& other) {
    for (std::size_t bucket = 0; bucket < counts_.size(); ++bucket)
      counts_[bucket] += other.counts_[bucket];
    longest_ = std::max(longest_, other.longest_);
  }

  std::uint64_t longest() const { return longest_; }
  std::uint64_t count() const {
    std::uint64_t total = 0;
    for (const std::uint64_t one : counts_) total += one;
    return total;
  }

  // The time that `share` of them did not exceed, as the upper end of its bucket; 0 when there are none.
  std::uint64_t percentile(double share) const {
    const double wanted = share * static_cast<double>(count());
    std::uint64_t seen = 0;
    for (std::size_t bucket = 0; bucket < counts_.size(); ++bucket) {
      seen += counts_[bucket];
      if (static_cast<double>(seen) >= wanted) return std::min(least(bucket + 1) - 1, longest_);
    }
    return longest_;
  }

  void print(std::FILE* out) const {
    const char* between = "";
    for (std::size_t bucket = 0; bucket < counts_.size(); ++bucket) {
      if (counts_[bucket] == 0) continue;
      std::fprintf(out, "%s%llu:%llu", between, static_cast<unsigned long long>(least(bucket)),
                   static_cast<unsigned long long>(counts_[bucket]));
      between = ",";
    }
  }

 private:
  // Three bits below the leading one tell the buckets of a power of two apart.
  static std::size_t bucket_of(std::uint64_t ns) {
    if (ns < 8) return ns;
    const auto shift = static_cast<std::size_t>(std::bit_width(ns)) - 4;
    return shift * 8 + (ns >> shift);
  }
  static std::uint64_t least(std::size_t bucket) {
    if (bucket < 8) return bucket;
    return (8 + bucket % 8) << (bucket / 8 - 1);
  }

  std::array<std::uint64_t, 496> counts_{};  // up to 2^64 ns
  std::uint64_t longest_ = 0;
};

}  // namespace question
