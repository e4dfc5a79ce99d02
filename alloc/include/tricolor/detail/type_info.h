// What the heap knows of a type: hands off, made by <tricolor/layout.h>. One static description a type, no word in the
// object.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tricolor {

class tracer;

namespace detail {

// How the collector finds the references in a cell.
enum class ScanMode : std::uint8_t {
  none,          // pointer-free
  words,         // at fixed places: `fixed` and, after it, the repeating `tail`
  traced,        // by the type's trace function
  conservative,  // every aligned word
};

// Places of managed words (gc::ptr and the like): offsets in bytes from the start of the part, ascending.
struct WordOffsets {
  const std::uint32_t* begin = nullptr;
  std::uint32_t count = 0;
};

struct type_info {
  const char* name;         // as the compiler spells it; static storage
  std::uint32_t name_size;  // name is not null-terminated at its end
  std::uint32_t align;      // of the cell, a power of two up to 8192
  ScanMode scan;
  // One part at the start of the cell (for arrays: none), then a part that repeats to the cell's end. What lies beyond
  // the last element is zero, so scanning to the end is exact.
  WordOffsets fixed;
  std::uint32_t tail_offset = 0;  // bytes from the start of the cell to the first repetition
  std::uint32_t tail_stride = 0;  // bytes; 0 = no repeating part
  WordOffsets tail;
  // For ScanMode::traced: reports every reference in the object at `cell` (whose construction has finished).
  void (*trace)(const void* cell, tracer& t) noexcept = nullptr;
};

}  // namespace detail
}  // namespace tricolor
