// A work packet: a block of grey work that markers pass around as a whole.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace tricolor::impl {

// A unit of marking work, one word: what is to be scanned, and of which kind it is, so that scanning it needs no look-up.
//
//   bits 0..47   address of a grey cell (8-byte aligned)
//   bit 0        set: an address inside a grey large object; its references from there on are still to be followed
//   bit 1        set: every word of the cell may be a reference, whatever its kind
//   bits 48..63  id of its kind (alloc/kind.h)
using GreyWork = std::uint64_t;

inline constexpr GreyWork kRestOfObject = 1;
inline constexpr GreyWork kWordByWord = 2;
inline constexpr unsigned kKindShift = 48;

constexpr GreyWork grey_work(std::uintptr_t address, std::uint32_t kind) {
  return address | std::uint64_t{kind} << kKindShift;
}
constexpr std::uintptr_t address_of(GreyWork work) {
  return work & ((std::uint64_t{1} << kKindShift) - 1) & ~(kRestOfObject | kWordByWord);
}
constexpr std::uint32_t kind_of(GreyWork work) {
  return static_cast<std::uint32_t>(work >> kKindShift);
}

// 4 KiB: large enough that the shared lists are touched once for 500 cells, small enough that work spreads early (Go
// uses 2 KiB, runtime/mgcwork.go).
struct WorkPacket {
  static constexpr std::size_t kEntries = 510;

  WorkPacket* next = nullptr;  // in a list of PacketPool
  std::size_t count = 0;
  std::array<GreyWork, kEntries> entries;
};
static_assert(sizeof(WorkPacket) == 4096, "a metadata block");

}  // namespace tricolor::impl
