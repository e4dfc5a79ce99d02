#include "gc/options.h"

#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "alloc/base/log.h"

using tricolor::no_limit;
using tricolor::options;
using tricolor::detail::kKnobs;
using tricolor::detail::Knob;
using tricolor::detail::KnobPlace;
using tricolor::impl::options_from_environment;

namespace {

struct Result {
  options chosen;
  std::vector<std::string> lines;
};

// Reads an environment of these variables and no other.
Result read(const std::map<std::string, std::string>& variables, const options& base = {}) {
  Result result;
  result.chosen = options_from_environment(
      [&](const char* name) {
        const auto found = variables.find(name);
        return found == variables.end() ? nullptr : found->second.c_str();
      },
      [&](std::string_view line) { result.lines.emplace_back(line); }, base);
  return result;
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

// All fields, by the table.
std::vector<std::int64_t> values(const options& of) {
  std::vector<std::int64_t> all;
  for (const Knob& knob : kKnobs) all.push_back(knob.field.get(of));
  return all;
}

}  // namespace

TEST_CASE("an empty environment gives the defaults and says nothing") {
  const Result result = read({});
  CHECK(values(result.chosen) == values(options{}));
  CHECK(result.lines.empty());
  CHECK(result.chosen.percent == 100);
  CHECK(result.chosen.memory_limit_bytes == no_limit);
  CHECK(result.chosen.hard_limit_bytes == no_limit);
  CHECK(result.chosen.min_heap_bytes == 0);
  CHECK(result.chosen.gctrace == 0);
  CHECK(result.chosen.gcstoptheworld == 0);
  CHECK(result.chosen.stopwarn_ms == 1000);
}

TEST_CASE("every field of options has exactly one knob") {
  // Fails to compile when a field is added: then count it here and give it a row.
  const auto [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, t] = options{};
  (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h, (void)i, (void)j, (void)k,
      (void)l, (void)m, (void)n, (void)o, (void)p, (void)q, (void)r, (void)t;
  REQUIRE(kKnobs.size() == 19);

  for (const Knob& knob : kKnobs) {
    INFO(knob.name);
    options changed;
    const std::int64_t other = knob.default_value() == knob.lowest ? knob.highest : knob.lowest;
    knob.field.set(changed, other);
    int differences = 0;
    for (const Knob& seen : kKnobs) differences += seen.field.get(changed) != seen.default_value();
    CHECK(differences == 1);
    CHECK(knob.field.get(changed) == other);
    CHECK(knob.sentence.ends_with('.'));
    int same_name = 0;
    for (const Knob& seen : kKnobs) same_name += std::strcmp(seen.name, knob.name) == 0;
    CHECK(same_name == 1);
  }
}

TEST_CASE("every knob takes both ends of its range and refuses what lies beyond") {
  for (const Knob& knob : kKnobs) {
    const auto set = [&](const std::string& value) {
      return knob.place == KnobPlace::kDebug
                 ? read({{"TRICOLOR_DEBUG", std::string(knob.name) + "=" + value}})
                 : read({{knob.name, value}});
    };
    INFO(knob.name);
    for (const std::int64_t value : {knob.lowest, knob.highest}) {
      const Result result = set(std::to_string(value));
      CHECK(knob.field.get(result.chosen) == value);
      CHECK(result.lines.empty());
    }
    std::vector<std::string> wrong = {std::to_string(static_cast<std::uint64_t>(knob.highest) + 1),
                                      "-1", "x"};
    if (knob.lowest > 0) wrong.push_back(std::to_string(knob.lowest - 1));
    for (const std::string& value : wrong) {
      INFO(value);
      const Result result = set(value);
      CHECK(values(result.chosen) == values(options{}));
      REQUIRE(result.lines.size() == 1);
      CHECK(contains(result.lines[0], knob.name));
      CHECK(contains(result.lines[0], '"' + value + '"'));
    }
  }
}

TEST_CASE("GOGC is an integer or off") {
  CHECK(read({{"GOGC", "50"}}).chosen.percent == 50);
  CHECK(read({{"GOGC", "0"}}).chosen.percent == 0);
  CHECK(read({{"GOGC", "off"}}).chosen.percent == -1);
  CHECK(read({{"GOGC", "off"}}).lines.empty());

  for (const char* wrong : {"-1", "+5", " 5", "5 ", "5%", "1e3", "OFF", "of", "offf", "5B", "0x10",
                            "2147483648", "99999999999999999999999999"}) {
    INFO(wrong);
    const Result result = read({{"GOGC", wrong}});
    CHECK(result.chosen.percent == 100);
    REQUIRE(result.lines.size() == 1);
    CHECK(result.lines[0] == std::string("tricolor: GOGC: \"") + wrong +
                                 "\" is malformed; expected an integer from 0 to 2147483647, or "
                                 "off; using 100");
  }
}

TEST_CASE("sizes have Go's grammar") {
  const auto limit = [](const char* text) {
    return read({{"GOMEMLIMIT", text}}).chosen.memory_limit_bytes;
  };
  CHECK(limit("0") == 0);
  CHECK(limit("123") == 123);
  CHECK(limit("123B") == 123);
  CHECK(limit("7KiB") == 7ull << 10);
  CHECK(limit("512MiB") == 512ull << 20);
  CHECK(limit("3GiB") == 3ull << 30);
  CHECK(limit("2TiB") == 2ull << 40);
  CHECK(limit("off") == no_limit);
  CHECK(limit("9223372036854775807") == no_limit);
  CHECK(limit("8388607TiB") == 8388607ull << 40);

  for (const char* wrong :
       {"-1", "B", "KiB", "1K", "1KB", "1kib", "1MB", "1 MiB", "1MiB ", "1.5GiB", "1iB", "1GiBB",
        "1PiB", "Off", "9223372036854775808", "8388608TiB", "18446744073709551615",
        "18446744073709551617KiB", "36028797018963968KiB"}) {
    INFO(wrong);
    const Result result = read({{"GOMEMLIMIT", wrong}});
    CHECK(result.chosen.memory_limit_bytes == no_limit);
    REQUIRE(result.lines.size() == 1);
    CHECK(result.lines[0] == std::string("tricolor: GOMEMLIMIT: \"") + wrong +
                                 "\" is malformed; expected a number of bytes below 8 EiB with an "
                                 "optional B, KiB, MiB, GiB or TiB, or off; using off");
  }
}

TEST_CASE("the hard limit and the minimum heap are read under their own names only") {
  const Result ours = read({{"TRICOLOR_HARD_LIMIT", "1GiB"}, {"TRICOLOR_MIN_HEAP", "16MiB"}});
  CHECK(ours.chosen.hard_limit_bytes == 1ull << 30);
  CHECK(ours.chosen.min_heap_bytes == 16ull << 20);
  const Result bare = read({{"HARD_LIMIT", "1GiB"}, {"MIN_HEAP", "16MiB"}});
  CHECK(values(bare.chosen) == values(options{}));
}

TEST_CASE("off means no limit for a limit and no minimum for the minimum heap") {
  options base;
  base.memory_limit_bytes = base.hard_limit_bytes = base.min_heap_bytes = 1 << 20;
  const Result result = read(
      {{"GOMEMLIMIT", "off"}, {"TRICOLOR_HARD_LIMIT", "off"}, {"TRICOLOR_MIN_HEAP", "off"}}, base);
  CHECK(result.chosen.memory_limit_bytes == no_limit);
  CHECK(result.chosen.hard_limit_bytes == no_limit);
  CHECK(result.chosen.min_heap_bytes == 0);
  CHECK(result.lines.empty());
}

TEST_CASE("the prefixed variable wins, even when it is malformed; empty is unset") {
  CHECK(read({{"GOGC", "50"}, {"TRICOLOR_GOGC", "70"}}).chosen.percent == 70);
  CHECK(read({{"TRICOLOR_GOMEMLIMIT", "1MiB"}}).chosen.memory_limit_bytes == 1 << 20);
  CHECK(read({{"GOGC", "50"}, {"TRICOLOR_GOGC", ""}}).chosen.percent == 50);
  CHECK(read({{"GOGC", ""}}).chosen.percent == 100);
  CHECK(read({{"GOGC", ""}}).lines.empty());

  const Result result = read({{"GOGC", "50"}, {"TRICOLOR_GOGC", "lots"}});
  CHECK(result.chosen.percent == 100);
  REQUIRE(result.lines.size() == 1);
  CHECK(contains(result.lines[0], "TRICOLOR_GOGC: \"lots\""));
}

TEST_CASE("debug knobs come from both lists, ours wins, the last of a name counts") {
  const Result result = read({{"GODEBUG", "gctrace=1,clobberfree=1,stress=7"},
                              {"TRICOLOR_DEBUG",
                               "stress=3,gctrace=1,gctrace=2,tinybuffers=1,"
                               "workers=3,period=77,signal=34,stopwarn=50,gcstoptheworld=2"}});
  CHECK(result.chosen.gctrace == 2);
  CHECK(result.chosen.clobberfree == 1);
  CHECK(result.chosen.stress == 3);
  CHECK(result.chosen.tinybuffers == 1);
  CHECK(result.chosen.workers == 3);
  CHECK(result.chosen.period_ms == 77);
  CHECK(result.chosen.signal == 34);
  CHECK(result.chosen.stopwarn_ms == 50);
  CHECK(result.chosen.gcstoptheworld == 2);
  CHECK(result.lines.empty());
}

TEST_CASE("a malformed debug value costs one line and leaves the default") {
  const Result result =
      read({{"TRICOLOR_DEBUG", "gctrace=yes,clobberfree=1"}, {"GODEBUG", "stress=-3"}});
  CHECK(result.chosen.gctrace == 0);
  CHECK(result.chosen.clobberfree == 1);
  CHECK(result.chosen.stress == 0);
  REQUIRE(result.lines.size() == 2);
  CHECK(result.lines[0] ==
        "tricolor: TRICOLOR_DEBUG: gctrace=\"yes\" is malformed; expected an integer from 0 to 2; "
        "using 0");
  CHECK(result.lines[1] ==
        "tricolor: GODEBUG: stress=\"-3\" is malformed; expected an integer from 0 "
        "to 2147483647; using 0");
}

TEST_CASE("a known name without a value is malformed in our list and skipped in Go's") {
  for (const char* list : {"gctrace", "gctrace=", "stress=5,gctrace"}) {
    INFO(list);
    const Result result = read({{"TRICOLOR_DEBUG", list}});
    REQUIRE(result.lines.size() == 1);
    CHECK(contains(result.lines[0], "TRICOLOR_DEBUG: gctrace=\"\""));
  }
  CHECK(read({{"GODEBUG", "gctrace"}}).lines.empty());
}

TEST_CASE("unknown names warn once for all of them in TRICOLOR_DEBUG and never in GODEBUG") {
  const Result result = read(
      {{"TRICOLOR_DEBUG", "nonsense=1,gctrace=1,GCTRACE=1,more"}, {"GODEBUG", "http2client=0,x"}});
  CHECK(result.chosen.gctrace == 1);
  REQUIRE(result.lines.size() == 1);
  CHECK(result.lines[0] ==
        "tricolor: TRICOLOR_DEBUG knows gctrace gcpacertrace scavtrace gcstoptheworld gccheckmark "
        "checkslot clobberfree stress tinybuffers workers idleworkers period seed signal stopwarn; "
        "ignored: \"nonsense\" \"GCTRACE\" "
        "\"more\"");
}

TEST_CASE("a variable's name is no debug name and spare commas are no names") {
  CHECK(read({{"TRICOLOR_DEBUG", "GOGC=50"}}).lines.size() == 1);
  CHECK(read({{"TRICOLOR_DEBUG", "GOGC=50"}}).chosen.percent == 100);
  CHECK(read({{"TRICOLOR_DEBUG", ",,gctrace=1,,"}}).lines.empty());
  CHECK(read({{"TRICOLOR_DEBUG", ",,gctrace=1,,"}}).chosen.gctrace == 1);
}

TEST_CASE("the environment wins over what the program asked for, which stands otherwise") {
  options base;
  base.percent = 30;
  base.min_heap_bytes = 1 << 20;
  base.gctrace = 1;
  const Result result = read({{"GOGC", "200"}, {"TRICOLOR_MIN_HEAP", "some"}}, base);
  CHECK(result.chosen.percent == 200);
  CHECK(result.chosen.min_heap_bytes == 1 << 20);
  CHECK(result.chosen.gctrace == 1);
  REQUIRE(result.lines.size() == 1);
  CHECK(contains(result.lines[0], "using 1048576"));
}

TEST_CASE("a huge value still gives one line with the grammar in it") {
  const std::string huge(100'000, '9');
  for (const char* name : {"GOGC", "TRICOLOR_GOMEMLIMIT"}) {
    const Result result = read({{name, huge}});
    CHECK(values(result.chosen) == values(options{}));
    REQUIRE(result.lines.size() == 1);
    CHECK(contains(result.lines[0], huge.substr(0, 64).append("...\"")));
    CHECK(contains(result.lines[0], "or off; using "));
  }
  const Result unknown = read({{"TRICOLOR_DEBUG", huge + "," + huge + "=1"}});
  CHECK(values(unknown.chosen) == values(options{}));
  REQUIRE(unknown.lines.size() == 1);

  std::string many;
  for (int i = 0; i < 10'000; ++i) many += "name" + std::to_string(i) + ",";
  const Result names = read({{"TRICOLOR_DEBUG", many + "gctrace=1"}});
  CHECK(names.chosen.gctrace == 1);
  REQUIRE(names.lines.size() == 1);
  CHECK(names.lines[0].size() <= tricolor::impl::kMaxLineBytes);
  CHECK(names.lines[0].ends_with("..."));
}

TEST_CASE("no bytes in a list crash the reader") {
  // Every list of up to six of these pieces.
  const std::vector<std::string> pieces = {",", "=", "gctrace", "1", "\n", "off"};
  std::vector<std::string> lists = {""};
  for (int length = 0; length < 6; ++length) {
    std::vector<std::string> longer;
    for (const std::string& list : lists) {
      for (const std::string& piece : pieces) longer.push_back(list + piece);
    }
    for (const std::string& list : longer) {
      const Result result = read({{"TRICOLOR_DEBUG", list}, {"GODEBUG", list}, {"GOGC", list}});
      if (result.lines.size() > 3) FAIL("more than a line a fault: " << list);
      if (result.chosen.gctrace < 0 || result.chosen.gctrace > 2) FAIL("out of range: " << list);
    }
    lists.swap(longer);
  }
}

TEST_CASE("the process's environment is the one getenv reads") {
  CHECK(tricolor::impl::process_environment("TRICOLOR_NO_SUCH_VARIABLE") == nullptr);
  const char* path = tricolor::impl::process_environment("PATH");
  CHECK((path == nullptr || path == std::getenv("PATH")));
}
