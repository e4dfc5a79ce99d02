#include "gc/phase.h"

#include <catch2/catch.hpp>

#include "test/alloc/child.h"

using tricolor::impl::Phase;
using tricolor::impl::PhaseMachine;

namespace {

constexpr Phase kAll[] = {Phase::kOff, Phase::kSweepTermination, Phase::kMark,
                          Phase::kMarkTermination, Phase::kSweep};

}  // namespace

TEST_CASE("a cycle goes through its phases in order") {
  PhaseMachine machine;
  for (int cycle = 0; cycle < 3; ++cycle) {
    for (int i = 0; i < 5; ++i) {
      CHECK(machine.now() == kAll[i]);
      machine.advance(kAll[i], kAll[(i + 1) % 5]);
    }
  }
  CHECK(machine.now() == Phase::kOff);
}

TEST_CASE("every other move is a fatal report that names the rule", "[process]") {
  for (int at = 0; at < 5; ++at) {
    for (const Phase from : kAll) {
      for (const Phase to : kAll) {
        if (from != kAll[at] && to != kAll[(at + 1) % 5]) continue;  // wrong twice
        if (from == Phase::kSweepTermination && to == Phase::kOff)
          continue;  // a cycle that is given up
        const bool legal = from == kAll[at] && to == kAll[(at + 1) % 5];
        const auto end = tricolor::test::in_child([&] {
          PhaseMachine machine;
          for (int i = 0; i < at; ++i) machine.advance(kAll[i], kAll[i + 1]);
          machine.advance(from, to);
          return machine.now() == to ? 0 : 1;
        });
        INFO(at << ": " << static_cast<int>(from) << " -> " << static_cast<int>(to));
        if (legal) {
          CHECK(end.exit_code == 0);
        } else {
          CHECK(end.signal == SIGABRT);
          CHECK(end.errors.find("phase.moves") != std::string::npos);
        }
      }
    }
  }
}
