#include "alloc/base/log.h"

#include <errno.h>
#include <fmt/compile.h>
#include <limits.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

namespace tricolor::impl {
namespace {

static_assert(kMaxLineBytes + 1 <= PIPE_BUF,
              "a longer line could be torn apart by another writer of the same pipe");

constexpr std::string_view kEllipsis = "...";

// The longest text of one number: 20 digits of 2^64 - 1, a sign, a point, a leading zero.
constexpr std::size_t kMaxNumberBytes = 24;

// Formats `values` and appends them. The format is compiled: that is all inline, so it neither
// throws nor allocates, and it links under clang too, which mangles libfmt's vformat_to differently
// from the g++ 12 that Debian built the library with.
template <typename Format, typename... Values>
Line& append(Line& line, const Format& format, Values... values) noexcept {
  char digits[kMaxNumberBytes];
  const auto result = fmt::format_to_n(digits, sizeof digits, format, values...);
  return line.text({digits, std::min(result.size, sizeof digits)});
}

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

}  // namespace

void log_line(std::string_view text) noexcept {
  const int saved_errno = errno;
  char bytes[kMaxLineBytes + 1];
  Line line(bytes, kMaxLineBytes);
  line.text(text);
  std::replace_if(bytes, bytes + line.size(), is_control, '?');
  bytes[line.size()] = '\n';

  // One write, unless the kernel itself splits it (a full terminal): then the rest follows. Each
  // round either shortens the rest or was interrupted by a signal.
  std::string_view rest(bytes, line.size() + 1);
  while (!rest.empty()) {
    // The raw call: write() is a cancellation point, and our caller may hold locks.
    const long written = syscall(SYS_write, STDERR_FILENO, rest.data(), rest.size());
    if (written > 0) {
      rest.remove_prefix(static_cast<std::size_t>(written));
    } else if (written == 0 || errno != EINTR) {
      break;
    }
  }
  errno = saved_errno;
}

Line& Line::text(std::string_view part) noexcept {
  if (cut_) return *this;
  const std::size_t fits = std::min(part.size(), capacity_ - used_);
  std::copy_n(part.data(), fits, out_ + used_);
  used_ += fits;
  if (fits < part.size()) {
    cut_ = true;
    const std::size_t dots = std::min(kEllipsis.size(), used_);
    std::copy_n(kEllipsis.data(), dots, out_ + used_ - dots);
  }
  return *this;
}

Line& Line::number(std::int64_t value) noexcept { return append(*this, FMT_COMPILE("{}"), value); }

Line& Line::count(std::uint64_t value) noexcept { return append(*this, FMT_COMPILE("{}"), value); }

Line& Line::hex(std::uint64_t value) noexcept { return append(*this, FMT_COMPILE("{:#x}"), value); }

Line& Line::decimal(std::uint64_t value, int places) noexcept {
  std::uint64_t unit = 1;
  for (int i = 0; i < places; ++i) unit *= 10;
  return append(*this, FMT_COMPILE("{}.{:0{}}"), value / unit, value % unit, places);
}

// Not by fmt, which may throw for a double: to_chars does not, and takes no memory.
Line& Line::scientific(double value) noexcept {
  char digits[kMaxNumberBytes];
  const auto end =
      std::to_chars(digits, digits + sizeof digits, value, std::chars_format::scientific, 6).ptr;
  if (digits[0] != '-') text("+");
  return text({digits, static_cast<std::size_t>(end - digits)});
}

}  // namespace tricolor::impl
