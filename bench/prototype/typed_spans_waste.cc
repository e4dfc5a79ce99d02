// How much memory do typed spans waste with many types and many threads? A simulation (no memory is
// touched, no clock read: the result is the same on every machine): 64 threads allocate objects of
// 500 types; type popularity falls like 1 / rank, object sizes are log-normal around 56 bytes.
// Every thread uses every type, which is the worst case for spans that belong to threads.
//
// A cycle starts whenever 256 MiB of requested bytes are allocated. It frees each object with
// probability 1/2, returns empty spans, and closes all windows that threads hold. Waste is
// what the spans hold beyond the requested bytes, at the start of a cycle, in % of 256 MiB:
//   rounding   cell size above request, and headers;
//   tail       the rest of a page behind its last cell, and bitmaps in the page;
//   idle       free cells: holes nobody refilled, and windows that threads hold.
//
// The ranking of the types stays, then is drawn anew once, then at every cycle: that leaves typed
// spans behind that are half empty and fit nobody else.
//
// Usage: typed_spans_waste [cycles = 8]

#include <cmath>
#include <memory>

#include "measure.h"

namespace prototype {
namespace {

constexpr std::size_t kTypes = 500;
constexpr std::size_t kThreads = 64;
constexpr std::size_t kHeapBytes = std::size_t{256} << 20;
constexpr std::size_t kFirstWindowBytes = 512;
constexpr std::array<std::uint32_t, 33> kGoClasses = {
    8,   16,  24,  32,  48,  64,  80,  96,  112, 128, 144, 160, 176, 192, 208,  224, 240,
    256, 288, 320, 352, 384, 416, 448, 480, 512, 576, 640, 704, 768, 896, 1024, 1152};

constexpr std::size_t kLayoutsPerSizeClass = 4;  // An assumption: real programs must be counted.

enum class Key { kType, kLayout, kSizeClass };
enum class Window { kSpan, kFixed, kDoubling, kEighth, kSixteenth };
enum class Rounding { kGoClasses, kWords };

struct Policy {
  const char* name;
  Key key;
  Window window;  // What a thread takes from a span at a time; kSpan makes the span its own.
  Rounding rounding;
  std::uint32_t header_bytes;
  std::uint32_t bitmap_bytes;
};
constexpr std::array kPolicies = {
    Policy{"typed, span per thread", Key::kType, Window::kSpan, Rounding::kGoClasses, 0, 0},
    Policy{"typed, shared, 512-byte runs", Key::kType, Window::kFixed, Rounding::kGoClasses, 0, 0},
    Policy{"typed, shared, doubling", Key::kType, Window::kDoubling, Rounding::kGoClasses, 0, 0},
    Policy{"typed, shared, eighth", Key::kType, Window::kEighth, Rounding::kGoClasses, 0, 0},
    Policy{"typed, shared, eighth, exact sizes", Key::kType, Window::kEighth, Rounding::kWords, 0,
           0},
    Policy{"typed, shared, sixteenth, exact sizes", Key::kType, Window::kSixteenth,
           Rounding::kWords, 0, 0},
    Policy{"typed by layout, shared, eighth", Key::kLayout, Window::kEighth, Rounding::kGoClasses,
           0, 0},
    Policy{"header, span per thread", Key::kSizeClass, Window::kSpan, Rounding::kGoClasses, 8, 0},
    Policy{"bitmap, span per thread", Key::kSizeClass, Window::kSpan, Rounding::kGoClasses, 0, 128},
    Policy{"bitmap, shared, eighth", Key::kSizeClass, Window::kEighth, Rounding::kGoClasses, 0,
           128},
};

std::size_t class_index(std::uint32_t bytes) {
  return static_cast<std::size_t>(std::lower_bound(kGoClasses.begin(), kGoClasses.end(), bytes) -
                                  kGoClasses.begin());
}

// The program: how large its types are and which one the next object has.
class Workload {
 public:
  explicit Workload(std::uint64_t seed) : random_(seed) {
    std::iota(ranking_.begin(), ranking_.end(), 0u);
    double sum = 0;
    for (std::size_t rank = 0; rank < kTypes; ++rank)
      cumulative_[rank] = sum += 1.0 / static_cast<double>(rank + 1);
    for (std::uint32_t& bytes : object_bytes_) {
      const double normal = std::sqrt(-2 * std::log(1 - random_.unit())) *
                            std::cos(6.283185307179586 * random_.unit());
      const double words = std::clamp(std::exp(std::log(56.0) + 0.7 * normal) / 8, 2.0, 128.0);
      bytes = 8 * static_cast<std::uint32_t>(words + 0.5);
    }
  }
  std::uint32_t next_type() {
    const double at = random_.unit() * cumulative_.back();
    const auto rank = std::lower_bound(cumulative_.begin(), cumulative_.end(), at);
    return ranking_[static_cast<std::size_t>(rank - cumulative_.begin())];
  }
  std::size_t next_thread() { return random_.below(kThreads); }
  bool dies() { return random_.below(2) == 0; }
  std::uint32_t object_bytes(std::uint32_t type) const { return object_bytes_[type]; }
  void draw_ranking() {
    for (std::size_t i = kTypes - 1; i > 0; --i)
      std::swap(ranking_[i], ranking_[random_.below(i + 1)]);
  }

 private:
  Random random_;
  std::array<std::uint32_t, kTypes> ranking_{};
  std::array<std::uint32_t, kTypes> object_bytes_{};
  std::array<double, kTypes> cumulative_{};
};

struct Waste {
  double rounding = 0;
  double tail = 0;
  double idle = 0;
};

class Heap {
 public:
  Heap(const Policy& policy, Workload& workload) : policy_(policy), workload_(workload) {
    for (std::uint32_t type = 0; type < kTypes; ++type) {
      const std::uint32_t bytes = workload.object_bytes(type) + policy.header_bytes;
      const std::size_t size_class = class_index(bytes);
      switch (policy.key) {
        case Key::kType:
          key_of_[type] = type;
          break;
        case Key::kLayout:
          key_of_[type] = size_class * kLayoutsPerSizeClass + type % kLayoutsPerSizeClass;
          break;
        case Key::kSizeClass:
          key_of_[type] = size_class;
          break;
      }
      cell_bytes_[key_of_[type]] =
          policy.rounding == Rounding::kWords ? bytes : kGoClasses[size_class];
    }
  }

  // Allocates until the heap holds 256 MiB of requested bytes.
  void fill() {
    while (requested_bytes_ < kHeapBytes) {
      const std::uint32_t type = workload_.next_type();
      objects_.push_back(allocate(workload_.next_thread(), type));
      requested_bytes_ += workload_.object_bytes(type);
    }
  }

  void collect() {
    caches_.assign(kThreads * kTypes, Cache{});
    for (KeyState& key : keys_) key = {};
    std::erase_if(objects_, [this](const Object& object) {
      if (!workload_.dies()) return false;
      Span& span = spans_[object.span];
      span.used[object.cell / 64] &= ~(std::uint64_t{1} << (object.cell % 64));
      --span.used_cells;
      requested_bytes_ -= workload_.object_bytes(object.type);
      return true;
    });
    for (std::uint32_t i = 0; i < spans_.size(); ++i) {
      Span& span = spans_[i];
      if (span.cells == 0) continue;
      if (span.used_cells == 0) {
        span.cells = 0;
        free_spans_.push_back(i);
      } else if (span.used_cells < span.cells) {
        keys_[span.key].partial.push_back(i);
      }
    }
  }

  Waste waste() const {
    double pages = 0, cells = 0, used = 0;  // In bytes.
    for (const Span& span : spans_) {
      if (span.cells == 0) continue;
      pages += kPageBytes;
      cells += static_cast<double>(span.cells) * cell_bytes_[span.key];
      used += static_cast<double>(span.used_cells) * cell_bytes_[span.key];
    }
    const double percent = 100.0 / static_cast<double>(kHeapBytes);
    return {(used - static_cast<double>(requested_bytes_)) * percent, (pages - cells) * percent,
            (cells - used) * percent};
  }

 private:
  struct Object {
    std::uint32_t span;
    std::uint16_t cell;
    std::uint16_t type;
  };
  struct Span {
    std::size_t key = 0;
    std::uint32_t cells = 0;  // 0: the page is free.
    std::uint32_t used_cells = 0;
    std::array<std::uint64_t, 8> used{};
  };
  struct KeyState {
    std::uint32_t span = 0;
    std::uint32_t next_cell = 0;
    std::uint32_t cells = 0;
    std::vector<std::uint32_t> partial;  // Spans with holes that nobody has taken yet.
  };
  struct Cache {
    std::uint32_t span = 0;
    std::uint32_t next_cell = 0;
    std::uint32_t end_cell = 0;
    std::size_t window_bytes = 0;
    std::size_t allocated_bytes = 0;  // In this cycle.
  };

  Object allocate(std::size_t thread, std::uint32_t type) {
    const std::size_t key = key_of_[type];
    Cache& cache = caches_[thread * kTypes + key];
    for (;; claim_window(cache, key)) {
      while (cache.next_cell < cache.end_cell) {
        Span& span = spans_[cache.span];
        const std::uint32_t cell = cache.next_cell++;
        const std::uint64_t bit = std::uint64_t{1} << (cell % 64);
        if (span.used[cell / 64] & bit) continue;
        span.used[cell / 64] |= bit;
        ++span.used_cells;
        cache.allocated_bytes += cell_bytes_[key];
        return {cache.span, static_cast<std::uint16_t>(cell), static_cast<std::uint16_t>(type)};
      }
    }
  }

  void claim_window(Cache& cache, std::size_t key) {
    KeyState& shared = keys_[key];
    if (shared.next_cell == shared.cells) {
      shared.span = take_span(key);
      shared.next_cell = 0;
      shared.cells = spans_[shared.span].cells;
    }
    switch (policy_.window) {
      case Window::kSpan:
        cache.window_bytes = kPageBytes;
        break;
      case Window::kFixed:
        cache.window_bytes = kFirstWindowBytes;
        break;
      case Window::kDoubling:
        cache.window_bytes = std::clamp(2 * cache.window_bytes, kFirstWindowBytes, kPageBytes);
        break;
      case Window::kEighth:
        cache.window_bytes = std::clamp(cache.allocated_bytes / 8, kFirstWindowBytes, kPageBytes);
        break;
      case Window::kSixteenth:
        cache.window_bytes = std::clamp(cache.allocated_bytes / 16, kFirstWindowBytes, kPageBytes);
        break;
    }
    const auto cells = std::max<std::size_t>(1, cache.window_bytes / cell_bytes_[key]);
    cache.span = shared.span;
    cache.next_cell = shared.next_cell;
    shared.next_cell = cache.end_cell =
        static_cast<std::uint32_t>(std::min<std::size_t>(shared.cells, shared.next_cell + cells));
  }

  std::uint32_t take_span(std::size_t key) {
    KeyState& shared = keys_[key];
    if (!shared.partial.empty()) {
      const std::uint32_t span = shared.partial.back();
      shared.partial.pop_back();
      return span;
    }
    if (free_spans_.empty()) {
      free_spans_.push_back(static_cast<std::uint32_t>(spans_.size()));
      spans_.emplace_back();
    }
    const std::uint32_t span = free_spans_.back();
    free_spans_.pop_back();
    const std::size_t bytes = kPageBytes - policy_.bitmap_bytes;
    spans_[span] = {key, static_cast<std::uint32_t>(bytes / cell_bytes_[key]), 0, {}};
    return span;
  }

  const Policy& policy_;
  Workload& workload_;
  std::size_t requested_bytes_ = 0;
  std::array<std::size_t, kTypes> key_of_{};
  std::array<std::uint32_t, kTypes> cell_bytes_{};
  std::vector<Span> spans_;
  std::vector<std::uint32_t> free_spans_;
  std::vector<Object> objects_;
  std::array<KeyState, kTypes> keys_{};
  std::vector<Cache> caches_ = std::vector<Cache>(kThreads * kTypes);
};

double total(const Waste& waste) { return waste.rounding + waste.tail + waste.idle; }

void print(const Waste& waste) {
  std::printf(" %.1f (%.1f + %.1f + %.1f) |", total(waste), waste.rounding, waste.tail, waste.idle);
}

void simulate(const Policy& policy, int cycles) {
  std::printf("| %s |", policy.name);
  Workload workload(1);
  const auto heap = std::make_unique<Heap>(policy, workload);
  const auto next_cycle = [&] {
    heap->collect();
    heap->fill();
    return heap->waste();
  };
  heap->fill();
  print(heap->waste());
  Waste last;
  for (int cycle = 0; cycle < cycles; ++cycle) last = next_cycle();
  print(last);
  workload.draw_ranking();
  Waste worst;
  for (int cycle = 0; cycle < cycles; ++cycle) {
    last = next_cycle();
    if (total(last) > total(worst)) worst = last;
  }
  print(worst);
  print(last);
  for (int cycle = 0; cycle < cycles; ++cycle) {
    workload.draw_ranking();
    last = next_cycle();
  }
  print(last);
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace
}  // namespace prototype

int main(int argc, char** argv) {
  const int cycles = argc > 1 ? std::atoi(argv[1]) : 8;
  std::printf(
      "\n%zu types, %zu threads: waste in %% of the heap (256 MiB requested): total "
      "(rounding + tail + idle)\n\n",
      prototype::kTypes, prototype::kThreads);
  std::printf(
      "| spans | first fill | %d cycles later | worst after one new ranking | %d cycles after it | "
      "new ranking at each of %d cycles |\n|---|--:|--:|--:|--:|--:|\n",
      cycles, cycles, cycles);
  for (const prototype::Policy& policy : prototype::kPolicies) prototype::simulate(policy, cycles);
}
