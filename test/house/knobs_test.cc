// The README's table of knobs says what kKnobs says, row by row.
#include <tricolor/options.h>

#include <catch2/catch.hpp>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <string_view>

namespace {

using tricolor::detail::kKnobs;
using tricolor::detail::kMaxInt;
using tricolor::detail::Knob;
using tricolor::detail::KnobGrammar;
using tricolor::detail::KnobPlace;

std::string code(std::string_view text) { return "`" + std::string(text) + "`"; }

std::string values(const Knob& knob) {
  std::string text;
  if (knob.grammar == KnobGrammar::kSizeOrOff) {
    text = "a size";
  } else if (knob.highest == kMaxInt) {
    text = "from " + std::to_string(knob.lowest);
  } else {
    text = std::to_string(knob.lowest) + " to " + std::to_string(knob.highest);
  }
  return knob.takes_off() ? text + ", " + code("off") : text;
}

std::string default_value(const Knob& knob) {
  const std::int64_t value = knob.default_value();
  return code(knob.takes_off() && value == knob.off ? "off" : std::to_string(value));
}

// | name | default | values | what it does |
std::string row(const Knob& knob) {
  std::string name = code(knob.name);
  if (knob.prefixed != nullptr) name = code(knob.prefixed) + ", " + name;
  if (knob.place == KnobPlace::kDebug)
    name = code("TRICOLOR_DEBUG=" + std::string(knob.name) + "=n");
  return "| " + name + " | " + default_value(knob) + " | " + values(knob) + " | " +
         std::string(knob.sentence) + " |\n";
}

std::string table() {
  std::string text = "| name | default | values | what it does |\n|---|---|---|---|\n";
  for (const Knob& knob : kKnobs) text += row(knob);
  return text;
}

// The whole table must stand there, followed by no further row.
bool shows(const std::string& readme, const std::string& table) {
  const std::size_t at = readme.find(table);
  return at != std::string::npos && !readme.substr(at + table.size()).starts_with('|');
}

}  // namespace

TEST_CASE("the README's table of knobs is the one of options.h") {
  std::ifstream file(TRICOLOR_README);
  const std::string readme(std::istreambuf_iterator<char>(file), {});
  const bool good = shows(readme, table());
  // Not through Catch, which would break the lines.
  if (!good) std::cerr << "\nput this into README.md, in place of the table there:\n\n" << table();
  CHECK(good);
}

TEST_CASE("a README that lacks a knob, changes one or invents one does not pass") {
  const std::string good = table();
  REQUIRE(shows("before\n\n" + good + "\nafter\n", good));
  CHECK_FALSE(shows("", good));
  CHECK_FALSE(shows(good + "| `stres` | `0` | from 0 | Invented. |\n", good));
  for (const Knob& knob : kKnobs) {
    const std::string line = row(knob);
    std::string lacking = good;
    lacking.erase(lacking.find(line), line.size());
    CHECK_FALSE(shows(lacking, good));
    std::string changed = good;
    changed.replace(changed.find(line) + line.size() - 4, 1, "x");
    CHECK_FALSE(shows(changed, good));
  }
}
