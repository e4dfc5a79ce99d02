// Size classes: hands off. The 67 classes of Go's allocator (reference: runtime/sizeclasses.go) plus class 0 for large
// objects. Waste: at most 16.7 % of a span, the slack inside its cells (the smallest request of the
// class) and its end together.
//
// Cells have no headers: what the heap knows of an object is in its span's record. So cells lie at multiples of their size from the
// start of a page, and are aligned to every power of two that divides it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace tricolor::detail {

struct size_class_row {
  std::uint32_t cell_bytes;
  std::uint32_t span_pages;  // of 8 KiB
};

// clang-format off
inline constexpr std::array<size_class_row, 68> kSizeClasses = {{
    {0, 0},  // large: a span of its own
    {8, 1}, {16, 1}, {24, 1}, {32, 1}, {48, 1}, {64, 1}, {80, 1}, {96, 1}, {112, 1}, {128, 1}, {144, 1}, {160, 1},
    {176, 1}, {192, 1}, {208, 1}, {224, 1}, {240, 1}, {256, 1}, {288, 1}, {320, 1}, {352, 1}, {384, 1}, {416, 1},
    {448, 1}, {480, 1}, {512, 1}, {576, 1}, {640, 1}, {704, 1}, {768, 1}, {896, 1}, {1024, 1}, {1152, 1}, {1280, 1},
    {1408, 2}, {1536, 1}, {1792, 2}, {2048, 1}, {2304, 2}, {2688, 1}, {3072, 3}, {3200, 2}, {3456, 3}, {4096, 1},
    {4864, 3}, {5376, 2}, {6144, 3}, {6528, 4}, {6784, 5}, {6912, 6}, {8192, 1}, {9472, 7}, {9728, 6}, {10240, 5},
    {10880, 4}, {12288, 3}, {13568, 5}, {14336, 7}, {16384, 2}, {18432, 9}, {19072, 7}, {20480, 5}, {21760, 8},
    {24576, 3}, {27264, 10}, {28672, 7}, {32768, 4},
}};
// clang-format on

inline constexpr std::size_t kClassCount = kSizeClasses.size();
inline constexpr std::size_t kLargeClass = 0;
inline constexpr std::size_t kMaxSmallBytes = 32768;
inline constexpr std::size_t kMaxAlign = 8192;  // a page

// The smallest class whose cells hold `bytes` and all lie at multiples of `align`; kLargeClass when none does.
constexpr std::size_t size_class_for(std::size_t bytes, std::size_t align) {
  for (std::size_t c = 1; c < kClassCount; ++c) {
    if (kSizeClasses[c].cell_bytes >= bytes && kSizeClasses[c].cell_bytes % align == 0) return c;
  }
  return kLargeClass;
}

// The same at run time in constant time, for arrays and trailing storage (alignment up to 16 is met by one step or two).
struct SizeClassIndex {
  std::array<std::uint8_t, 129> by_8 = {};    // ceil(bytes / 8) up to 1024
  std::array<std::uint8_t, 249> by_128 = {};  // ceil((bytes - 1024) / 128) above
};

constexpr SizeClassIndex make_size_class_index() {
  SizeClassIndex index;
  for (std::size_t i = 0; i < index.by_8.size(); ++i) {
    index.by_8[i] = static_cast<std::uint8_t>(size_class_for(i == 0 ? 1 : i * 8, 1));
  }
  for (std::size_t i = 0; i < index.by_128.size(); ++i) {
    index.by_128[i] = static_cast<std::uint8_t>(size_class_for(1024 + i * 128, 1));
  }
  return index;
}

inline constexpr SizeClassIndex kSizeClassIndex = make_size_class_index();

inline std::size_t size_class_at_run_time(std::size_t bytes, std::size_t align) {
  if (bytes > kMaxSmallBytes) return kLargeClass;
  std::size_t c = bytes <= 1024 ? kSizeClassIndex.by_8[(bytes + 7) / 8]
                                : kSizeClassIndex.by_128[(bytes - 1024 + 127) / 128];
  while (kSizeClasses[c].cell_bytes % align != 0) {
    if (++c == kClassCount) return kLargeClass;
  }
  return c;
}

static_assert(kSizeClasses[kClassCount - 1].cell_bytes == kMaxSmallBytes,
              "the largest small object is the last class");
static_assert(size_class_for(48, 16) != kLargeClass &&
                  kSizeClasses[size_class_for(24, 16)].cell_bytes == 32,
              "requests aligned to 16 never land in the 24-byte class");

}  // namespace tricolor::detail
