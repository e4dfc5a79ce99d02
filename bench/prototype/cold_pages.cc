// Does the machine take memory away that nobody uses for a while, and what does it cost to get it back? Reads one byte of each of
// PAGES pages after pauses of 0.1 to 10 s, each read timed, and once more at once. Prints, for each pause, how many first and
// second reads took longer than 20 us, and the median of the first. Hardly any faults: the program's page table knows them all.
//
// Usage: cold_pages [pages = 400] [rounds = 3]

#include <sys/resource.h>

#include <ctime>

#include "measure.h"

namespace prototype {
namespace {

constexpr double kSlowNs = 20'000;

std::vector<double> slow_reads(volatile char* pages, std::size_t count) {
  std::vector<double> slow;
  for (std::size_t i = 0; i < count; ++i) {
    const double begin = now_ns();
    static_cast<void>(pages[i * 4096 + i % 64 * 64]);
    const double ns = now_ns() - begin;
    if (ns > kSlowNs) slow.push_back(ns);
  }
  std::sort(slow.begin(), slow.end());
  return slow;
}

long faults() {
  rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_minflt + usage.ru_majflt;
}

void run(std::size_t count, int rounds) {
  std::vector<char> memory(count * 4096, 1);
  for (const double pause_s : {0.1, 0.3, 1.0, 3.0, 10.0}) {
    std::printf("%4.1f s:", pause_s);
    for (int round = 0; round < rounds; ++round) {
      const auto whole = static_cast<time_t>(pause_s);
      const timespec pause = {whole,
                              static_cast<long>((pause_s - static_cast<double>(whole)) * 1e9)};
      nanosleep(&pause, nullptr);
      const long before = faults();
      const std::vector<double> first = slow_reads(memory.data(), count);
      const std::vector<double> second = slow_reads(memory.data(), count);
      std::printf("  %zu (%.0f us), then %zu, %ld faults", first.size(),
                  first.empty() ? 0.0 : first[first.size() / 2] / 1e3, second.size(),
                  faults() - before);
    }
    std::printf("\n");
  }
}

}  // namespace
}  // namespace prototype

int main(int argc, char** argv) {
  const std::size_t pages = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 400;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 3;
  prototype::run(pages, rounds);
}
