#include "gc/rehearsal.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "alloc/base/os.h"
#include "alloc/base/units.h"

// Where the section begins and ends; the linker's.
extern "C" {
__attribute__((visibility("hidden"))) extern const char __start_tricolor_stop_code;
__attribute__((visibility("hidden"))) extern const char __stop_tricolor_stop_code;
}

namespace tricolor::impl {

namespace {

constexpr std::size_t kLineBytes = 64;
// More than the deepest calls of a stop use, which is_loader_list does with 17 KiB.
constexpr std::size_t kStackBytes = 24 << 10;

// Others may write to what is read, and some of it may be what a sanitizer has put around a variable.
__attribute__((no_sanitize("address", "thread"))) void touch(const void* begin, std::size_t bytes,
                                                             std::size_t step) {
  const auto* const at = static_cast<const volatile char*>(begin);
  for (std::size_t i = 0; i < bytes; i += step) static_cast<void>(at[i]);
  if (bytes != 0) static_cast<void>(at[bytes - 1]);
}

}  // namespace

void touch_lines(const void* begin, std::size_t bytes) { touch(begin, bytes, kLineBytes); }

void touch_pages(const void* begin, std::size_t bytes) {
  touch(begin, bytes, os::kernel_page_bytes());
}

void touch_pages_through_kernel(const void* begin, std::size_t bytes) {
  const std::size_t page = os::kernel_page_bytes();
  const auto first = reinterpret_cast<std::uintptr_t>(begin);
  std::array<os::Piece, 32> pieces;
  std::array<char, 32> copy;
  for (std::uintptr_t at = first; at < first + bytes;) {
    std::size_t count = 0;
    for (; count < pieces.size() && at < first + bytes; at = round_up(at + 1, page))
      pieces[count++] = {reinterpret_cast<const void*>(at), 1};
    if (os::read_pieces_maybe_unmapped(copy.data(), {pieces.data(), count})) continue;
    // The kernel gives up at the first that it cannot read.
    for (std::size_t i = 0; i < count; ++i)
      os::read_pieces_maybe_unmapped(copy.data(), {&pieces[i], 1});
  }
}

void touch_lines_through_kernel(const void* begin, std::size_t bytes) {
  std::array<char, 1024> copy;
  const auto* at = static_cast<const char*>(begin);
  for (std::size_t some = 0; bytes != 0; at += some, bytes -= some) {
    some = std::min(bytes, copy.size());
    os::read_maybe_unmapped(copy.data(), at, some);
  }
}

std::span<const char> stop_code() {
  return {&__start_tricolor_stop_code, &__stop_tricolor_stop_code};
}

[[gnu::noinline]] void touch_stack() {
  std::array<char, kStackBytes> room;
  touch_pages(room.data(), room.size());
}

}  // namespace tricolor::impl
