// The three answers to "who says where the pointers of an object are?" that the typed_spans
// programs race against each other:
//
//   typed    a span holds cells of one layout, which lies in the page's record.
//   header   a span holds cells of one size class; 8 bytes before each object name its type, and
//            push 16, 32, 48 and 128 bytes into the classes of 24, 48, 64 and 144.
//   bitmap   a span holds cells of one size class; allocation writes one bit per word into the last
//            128 bytes of the page, as Go does up to 512 bytes.

#pragma once

#include "measure.h"

namespace prototype {

enum class Scheme { kTyped, kHeader, kBitmap };

inline const char* name_of(Scheme scheme) {
  constexpr std::array kNames = {"typed", "header", "bitmap"};
  return kNames[static_cast<std::size_t>(scheme)];
}

struct Type {
  std::uint64_t pointer_mask;
};

constexpr std::size_t kBitmapBytes = kPageBytes / 64;

constexpr std::size_t usable_bytes(Scheme scheme) {
  return scheme == Scheme::kBitmap ? kPageBytes - kBitmapBytes : kPageBytes;
}

constexpr std::size_t cell_bytes_for(Scheme scheme, std::size_t object_bytes) {
  constexpr std::array<std::size_t, 10> kGoClasses = {16, 24, 32, 48, 64, 80, 96, 112, 128, 144};
  const std::size_t bytes = object_bytes + (scheme == Scheme::kHeader ? sizeof(Type*) : 0);
  for (const std::size_t size : kGoClasses)
    if (size >= bytes) return size;
  return 0;
}

// Writes the pointer bits of an object of `words` words; those of its neighbours stay.
[[gnu::always_inline]] inline void write_pointer_bits(std::byte* object, std::size_t words,
                                                      std::uint64_t pointer_mask) {
  const auto address = reinterpret_cast<std::uintptr_t>(object);
  auto* bits = reinterpret_cast<std::uint64_t*>((address | (kPageBytes - 1)) + 1 - kBitmapBytes);
  const std::size_t first = address % kPageBytes / 8;
  const std::size_t shift = first % 64;
  const std::uint64_t field = (std::uint64_t{1} << words) - 1;
  std::uint64_t& low = bits[first / 64];
  low = (low & ~(field << shift)) | pointer_mask << shift;
  if (shift + words <= 64) return;
  std::uint64_t& high = bits[first / 64 + 1];
  high = (high & ~(field >> (64 - shift))) | pointer_mask >> (64 - shift);
}

}  // namespace prototype
