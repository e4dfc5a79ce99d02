// Strong types for pages and the constants every layer shares. A page is ours (8 KiB), not the kernel's.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace tricolor::impl {

inline constexpr std::size_t kPageShift = 13;
inline constexpr std::size_t kPageBytes = std::size_t{1} << kPageShift;
inline constexpr std::size_t kArenaShift = 26;
inline constexpr std::size_t kArenaBytes = std::size_t{1} << kArenaShift;
inline constexpr std::size_t kArenaPages = kArenaBytes / kPageBytes;

// User-space addresses on Linux x86-64 and aarch64 (48-bit) lie below this.
inline constexpr std::size_t kAddressBits = 48;

// A number of pages.
struct PageCount {
  std::size_t value = 0;
  constexpr std::size_t bytes() const { return value << kPageShift; }
  friend constexpr auto operator<=>(PageCount, PageCount) = default;
  friend constexpr PageCount operator+(PageCount a, PageCount b) { return {a.value + b.value}; }
  friend constexpr PageCount operator-(PageCount a, PageCount b) { return {a.value - b.value}; }
};

// The smallest number of pages that holds `bytes`.
constexpr PageCount pages_for(std::size_t bytes) {
  return {(bytes >> kPageShift) + ((bytes & (kPageBytes - 1)) != 0)};
}

// The number of a page in the address space: its address divided by the page size.
struct PageId {
  std::uintptr_t value = 0;
  constexpr std::uintptr_t address() const { return value << kPageShift; }
  char* data() const { return reinterpret_cast<char*>(address()); }
  friend constexpr auto operator<=>(PageId, PageId) = default;
  friend constexpr PageId operator+(PageId p, PageCount n) { return {p.value + n.value}; }
  friend constexpr PageCount operator-(PageId a, PageId b) { return {a.value - b.value}; }
};

constexpr PageId page_of(std::uintptr_t address) { return {address >> kPageShift}; }
inline PageId page_of(const void* p) { return page_of(reinterpret_cast<std::uintptr_t>(p)); }

constexpr std::size_t round_up(std::size_t n, std::size_t power_of_two) {
  return (n + power_of_two - 1) & ~(power_of_two - 1);
}

}  // namespace tricolor::impl
