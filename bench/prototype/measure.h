// What both prototypes share: a clock, a random source, mapped memory, samples with their median,
// and the object graphs they mark. It depends on nothing but Linux and the standard library, and
// nothing in the library may include it.

#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace prototype {

constexpr std::size_t kPageBytes = 8192;
constexpr unsigned kPageShift = 13;
constexpr std::size_t kArenaBytes = std::size_t{64} << 20;
constexpr unsigned kArenaShift = 26;
constexpr std::size_t kPagesPerArena = kArenaBytes / kPageBytes;
constexpr std::size_t kArenaMapEntries = std::size_t{1} << (47 - kArenaShift);

inline double now_ns() {
  const auto since_epoch = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::nano>(since_epoch).count();
}

// Splitmix64: every run sees the same graphs, so contestants can be compared across runs.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  std::uint64_t below(std::uint64_t bound) {
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(next()) * bound) >> 64);
  }
  double unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  std::uint64_t state_;
};

enum class Pages { kSmall, kHuge };

// Zeroed memory aligned to an arena; lives as long as the object.
class Mapping {
 public:
  Mapping(std::size_t bytes, Pages pages) : reserved_(bytes + kArenaBytes) {
    raw_ = mmap(nullptr, reserved_, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw_ == MAP_FAILED) {
      std::perror("mmap");
      std::exit(1);
    }
    const auto address = reinterpret_cast<std::uintptr_t>(raw_);
    base_ = reinterpret_cast<std::byte*>((address + kArenaBytes - 1) & ~(kArenaBytes - 1));
    madvise(base_, bytes, pages == Pages::kHuge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { munmap(raw_, reserved_); }

  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(base_);
  }

 private:
  std::size_t reserved_;
  void* raw_;
  std::byte* base_;
};

// Pushes what the last contestant left out of the private caches, so that all start equally cold.
inline void cool_caches() {
  static std::vector<std::uint64_t> buffer(std::size_t{8} << 17, 1);
  volatile std::uint64_t sum = std::accumulate(buffer.begin(), buffer.end(), std::uint64_t{0});
  static_cast<void>(sum);
}

class Samples {
 public:
  void add(double value) { values_.push_back(value); }
  std::string text() const {
    if (values_.empty()) return "—";
    std::vector<double> sorted = values_;
    std::sort(sorted.begin(), sorted.end());
    std::array<char, 64> out{};
    const char* format = sorted[sorted.size() / 2] < 20 ? "%.1f (%.1f–%.1f)" : "%.0f (%.0f–%.0f)";
    std::snprintf(out.data(), out.size(), format, sorted[sorted.size() / 2], sorted.front(),
                  sorted.back());
    return out.data();
  }

 private:
  std::vector<double> values_;
};

enum class Shape { kRandomGraph, kShuffledTree, kAllocationOrder };
inline constexpr std::array kShapes = {Shape::kRandomGraph, Shape::kShuffledTree,
                                       Shape::kAllocationOrder};

inline const char* name_of(Shape shape) {
  switch (shape) {
    case Shape::kRandomGraph:
      return "random graph";
    case Shape::kShuffledTree:
      return "shuffled tree";
    case Shape::kAllocationOrder:
      return "allocation order";
  }
  return "?";
}

constexpr unsigned kSlots = 4;
constexpr std::uint32_t kNoNode = ~std::uint32_t{0};
using Children = std::array<std::uint32_t, kSlots>;

// Node 0 is the root. The random graph has three edges from every node (94 % of it is reachable);
// the trees are binary and balanced, numbered depth-first, as a recursive builder allocates them.
inline std::vector<Children> make_children(Shape shape, std::uint32_t nodes) {
  std::vector<Children> children(nodes, Children{kNoNode, kNoNode, kNoNode, kNoNode});
  if (shape == Shape::kRandomGraph) {
    Random random(42);
    for (Children& c : children)
      for (unsigned slot = 0; slot < 3; ++slot)
        c[slot] = static_cast<std::uint32_t>(random.below(nodes));
    return children;
  }
  std::vector<std::pair<std::uint32_t, std::uint32_t>> subtrees{{0, nodes}};  // Root and size.
  while (!subtrees.empty()) {
    const auto [root, size] = subtrees.back();
    subtrees.pop_back();
    const std::uint32_t left = size / 2;
    const std::uint32_t right = size - 1 - left;
    if (left > 0) {
      children[root][0] = root + 1;
      subtrees.emplace_back(root + 1, left);
    }
    if (right > 0) {
      children[root][1] = root + 1 + left;
      subtrees.emplace_back(root + 1 + left, right);
    }
  }
  return children;
}

// The cell in which each node lies: in order of its number, or shuffled.
inline std::vector<std::uint32_t> make_places(Shape shape, std::uint32_t nodes) {
  std::vector<std::uint32_t> places(nodes);
  std::iota(places.begin(), places.end(), 0u);
  if (shape != Shape::kShuffledTree) return places;
  Random random(7);
  for (std::uint32_t i = nodes - 1; i > 0; --i) std::swap(places[i], places[random.below(i + 1)]);
  return places;
}

}  // namespace prototype
