// For how long does the machine keep threads waiting after a large process has ended? A child touches GIB gibibytes and ends; then two threads
// look at the clock for SECONDS. Prints the longest time, in milliseconds, for which one of them did not get to, for each second: with
// no child, then after it.
//
// Usage: freed_pages [gibibytes = 10] [seconds = 40]

#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "measure.h"

namespace prototype {
namespace {

void touch_in_child(std::size_t gibibytes) {
  const pid_t child = fork();
  if (child == 0) {
    const Mapping memory(gibibytes << 30, Pages::kSmall);
    for (std::size_t i = 0; i < gibibytes << 30; i += 4096) memory.as<volatile char>()[i] = 1;
    _exit(0);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
    std::fprintf(stderr, "freed_pages: the child did not get its memory\n");
    std::exit(1);
  }
}

std::vector<double> longest_of_each_second(std::size_t seconds) {
  std::vector<double> longest(seconds, 0);
  const double begin = now_ns();
  double before = begin;
  for (;;) {
    const double now = now_ns();
    const auto second = static_cast<std::size_t>((now - begin) / 1e9);
    if (second >= seconds) return longest;
    longest[second] = std::max(longest[second], now - before);
    before = now;
  }
}

void print(const char* when, std::size_t seconds) {
  std::vector<double> one, other;
  std::thread thread([&] { one = longest_of_each_second(seconds); });
  other = longest_of_each_second(seconds);
  thread.join();
  std::printf("%s:", when);
  for (std::size_t i = 0; i < seconds; ++i) std::printf(" %.0f", std::max(one[i], other[i]) / 1e6);
  std::printf("\n");
}

}  // namespace
}  // namespace prototype

int main(int argc, char** argv) {
  const std::size_t gibibytes = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 10;
  const std::size_t seconds = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 40;
  prototype::print("before", seconds);
  prototype::touch_in_child(gibibytes);
  prototype::print("after", seconds);
}
