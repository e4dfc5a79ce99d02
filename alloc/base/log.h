// The one way words leave the library: one line, one write(2), to stderr.
//
// Place in the flow: everything that speaks to the user (a trace line, a warning, the report of a
// failed check) builds its text in a LineBuffer and hands it to log_line(). Both may be called
// anywhere, also while every other thread is stopped and from a signal handler: no malloc and no
// stdio, because a stopped thread may hold the lock of either, and no lock of our own. fmt stays in
// log.cc.
//
//   LineBuffer<160> line;
//   line.text("tricolor: thread ").number(id).text(" has not stopped for ").number(ms).text(" ms");
//   log_line(line.view());
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tricolor::impl {

// The longest text that log_line() writes whole. With its newline not above PIPE_BUF, so that the
// lines of many processes that share one pipe do not mix, and small enough for the stack of a
// signal handler.
inline constexpr std::size_t kMaxLineBytes = 1023;

// Writes `text` and a newline to stderr. Control characters become '?', so that a hostile value
// stays on its own line; what does not fit is cut and ends in "...". A signal that interrupts the
// write is waited out. Any other error drops the line: there is nobody left to tell. Keeps errno.
void log_line(std::string_view text) noexcept;

// Appends text to somebody else's array of `capacity` bytes. Never writes past it and never
// allocates: once something did not fit, the text ends in "..." and takes nothing more. The text is
// not NUL-terminated.
class Line {
 public:
  Line(char* out, std::size_t capacity) noexcept : out_(out), capacity_(capacity) {}
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;

  Line& text(std::string_view part) noexcept;
  Line& number(std::int64_t value) noexcept;  // -7
  Line& count(std::uint64_t value) noexcept;  // 18446744073709551615
  Line& hex(std::uint64_t value) noexcept;    // 0x7f00
  // value / 10^places with exactly `places` decimals, places in 1..3: decimal(18, 3) is 0.018.
  Line& decimal(std::uint64_t value, int places) noexcept;

  Line& scientific(double value) noexcept;  // +1.220703e-04

  std::string_view view() const noexcept { return {out_, used_}; }
  std::size_t size() const noexcept { return used_; }

 private:
  char* out_;
  std::size_t capacity_;
  std::size_t used_ = 0;
  bool cut_ = false;
};

// A Line with its own N bytes.
template <std::size_t N>
class LineBuffer : public Line {
 public:
  LineBuffer() noexcept : Line(bytes_, N) {}  // cppcheck-suppress uninitMemberVar

 private:
  char bytes_[N];
};

}  // namespace tricolor::impl
