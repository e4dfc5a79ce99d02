#include "alloc/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cstdint>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <thread>

using tricolor::impl::kMaxLineBytes;
using tricolor::impl::LineBuffer;
using tricolor::impl::log_line;

namespace {

// Puts another file behind stderr while it lives. No REQUIRE in here: Catch may report on stderr.
class StderrTo {
 public:
  explicit StderrTo(int fd) : saved_(::dup(STDERR_FILENO)) { ::dup2(fd, STDERR_FILENO); }
  ~StderrTo() {
    ::dup2(saved_, STDERR_FILENO);
    ::close(saved_);
  }

 private:
  int saved_;
};

struct Ends {
  int read;
  int write;
  ~Ends() {
    ::close(read);
    ::close(write);
  }
};

// A socket that keeps the boundaries of writes: one read gives one write.
Ends packet_socket() {
  int fds[2] = {-1, -1};
  REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds) == 0);
  return {fds[0], fds[1]};
}

// What one write sent, or nothing if there was none.
std::optional<std::string> next_write(const Ends& ends) {
  char bytes[2 * kMaxLineBytes];
  const ssize_t n = ::recv(ends.read, bytes, sizeof bytes, MSG_DONTWAIT);
  if (n <= 0) return std::nullopt;
  return std::string(bytes, static_cast<std::size_t>(n));
}

std::string logged(std::string_view text) {
  const Ends ends = packet_socket();
  {
    const StderrTo redirect(ends.write);
    log_line(text);
  }
  const auto line = next_write(ends);
  REQUIRE(line.has_value());
  REQUIRE_FALSE(next_write(ends).has_value());
  return *line;
}

// How often a thread of this process has gone to sleep in the kernel.
long sleeps_of(pid_t thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/status");
  for (std::string line; std::getline(file, line);)
    if (line.rfind("voluntary_ctxt_switches:", 0) == 0) return std::stol(line.substr(24));
  return -1;
}

void do_nothing(int) {}

}  // namespace

TEST_CASE("a line goes out in one write with its newline") {
  CHECK(logged("gc 1 @0.001s") == "gc 1 @0.001s\n");
  CHECK(logged("") == "\n");
}

TEST_CASE("a line is never torn by control characters in it") {
  CHECK(logged("GOGC=\"1\n2\t\x7f\x1b[0m\" \xc3\xa9") == "GOGC=\"1?2???[0m\" \xc3\xa9\n");
}

TEST_CASE("a line that is too long is cut with an ellipsis and still one write") {
  const std::string longest(kMaxLineBytes, 'x');
  CHECK(logged(longest) == longest + "\n");

  const std::string line = logged(longest + "y");
  CHECK(line == std::string(kMaxLineBytes - 3, 'x') + "...\n");
  CHECK(line.size() == kMaxLineBytes + 1);
}

TEST_CASE("logging keeps errno, whether the write works or not") {
  const Ends ends = packet_socket();
  const int closed = ::dup(ends.write);
  const auto errno_after = [&](int fd) {
    const StderrTo redirect(fd);
    if (fd == closed) ::close(STDERR_FILENO);
    errno = ERANGE;
    log_line("x");
    return errno;
  };
  CHECK(errno_after(ends.write) == ERANGE);
  CHECK(errno_after(closed) == ERANGE);  // EBADF
  ::close(closed);
}

TEST_CASE("a line is dropped when stderr takes nothing, without waiting") {
  int fds[2];
  REQUIRE(::pipe2(fds, O_NONBLOCK) == 0);
  const Ends ends{fds[0], fds[1]};
  const std::string block(4096, 'x');
  while (::write(ends.write, block.data(), block.size()) > 0) {
  }
  const StderrTo redirect(ends.write);
  errno = 0;
  log_line("nobody reads this");
  CHECK(errno == 0);
}

TEST_CASE("a signal that interrupts the write does not lose the line") {
  int fds[2];
  REQUIRE(::pipe2(fds, O_NONBLOCK) == 0);
  const Ends ends{fds[0], fds[1]};
  const std::string block(4096, 'x');
  while (::write(ends.write, block.data(), block.size()) > 0) {
  }
  REQUIRE(::fcntl(ends.write, F_SETFL, 0) == 0);  // The writing end waits from here on.

  struct sigaction action = {};
  action.sa_handler = do_nothing;  // No SA_RESTART: the write fails with EINTR.
  struct sigaction old_action;
  REQUIRE(::sigaction(SIGALRM, &action, &old_action) == 0);

  // Makes room only after the write has been interrupted five times: it has each time gone back to sleep. Whether the
  // handler ran says nothing, ThreadSanitizer runs it later.
  const pthread_t writer = ::pthread_self();
  const pid_t writer_id = ::gettid();
  std::atomic<bool> written = false;
  std::atomic<int> interruptions = 0;
  const long sleeps_before = sleeps_of(writer_id);
  REQUIRE(sleeps_before >= 0);
  std::thread reader([&] {
    long seen = sleeps_before;
    while (interruptions < 5 && !written) {
      const long sleeps = sleeps_of(writer_id);
      if (sleeps > seen) {
        seen = sleeps;
        ++interruptions;
        ::pthread_kill(writer, SIGALRM);
      }
      std::this_thread::yield();
    }
    std::string room(block.size(), ' ');
    if (::read(ends.read, room.data(), room.size()) < 0) interruptions = -1;
  });
  {
    const StderrTo redirect(ends.write);
    log_line("at last");
  }
  written = true;
  reader.join();
  ::sigaction(SIGALRM, &old_action, nullptr);
  CHECK(interruptions == 5);

  std::string all;
  char bytes[4096];
  for (ssize_t n; (n = ::read(ends.read, bytes, sizeof bytes)) > 0;)
    all.append(bytes, static_cast<std::size_t>(n));
  REQUIRE(all.size() > 8);
  CHECK(all.substr(all.size() - 8) == "at last\n");
}

TEST_CASE("a line is built from words and numbers") {
  LineBuffer<128> line;
  line.text("a ").number(-7).text(" b ").count(std::numeric_limits<std::uint64_t>::max());
  line.text(" c ").hex(0x7f00).text(" d ").number(std::numeric_limits<std::int64_t>::min());
  CHECK(line.view() == "a -7 b 18446744073709551615 c 0x7f00 d -9223372036854775808");
}

TEST_CASE("a ratio of any size is six decimals and a power of ten") {
  const auto scientific = [](double value) {
    LineBuffer<64> line;
    line.scientific(value);
    return std::string(line.view());
  };
  CHECK(scientific(0) == "+0.000000e+00");
  CHECK(scientific(1.0 / 8192) == "+1.220703e-04");
  CHECK(scientific(-2.5) == "-2.500000e+00");
  CHECK(scientific(std::numeric_limits<double>::max()) == "+1.797693e+308");
  CHECK(scientific(std::numeric_limits<double>::infinity()) == "+inf");
}

TEST_CASE("a decimal keeps its places") {
  const auto decimal = [](std::uint64_t value, int places) {
    LineBuffer<32> line;
    line.decimal(value, places);
    return std::string(line.view());
  };
  CHECK(decimal(0, 3) == "0.000");
  CHECK(decimal(18, 3) == "0.018");
  CHECK(decimal(12, 1) == "1.2");
  CHECK(decimal(100, 2) == "1.00");
  CHECK(decimal(std::numeric_limits<std::uint64_t>::max(), 3) == "18446744073709551.615");
}

TEST_CASE("a line that is full ends in an ellipsis and takes nothing more") {
  LineBuffer<8> line;
  line.text("1234").text("5678");
  CHECK(line.view() == "12345678");
  line.text("");
  CHECK(line.view() == "12345678");
  line.number(9);
  CHECK(line.view() == "12345...");
  line.text("x");
  CHECK(line.view() == "12345...");
}

TEST_CASE("a line never writes past the array it was given") {
  for (std::size_t capacity = 0; capacity < 6; ++capacity) {
    char bytes[] = "######";
    tricolor::impl::Line line(bytes, capacity);
    line.text("abcdefgh");
    CHECK(line.size() == capacity);
    CHECK(std::string(bytes + capacity) == std::string(6 - capacity, '#'));
  }
}
