#include "gc/options.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>

#include "alloc/base/log.h"

namespace tricolor::impl {
namespace {

using detail::kKnobs;
using detail::Knob;
using detail::KnobGrammar;
using detail::KnobPlace;

constexpr const char* kDebugVariable = "TRICOLOR_DEBUG";
constexpr const char* kGoDebugVariable = "GODEBUG";

// So much of a user's text is quoted in a message, so that the grammar behind it always fits the
// line.
constexpr std::size_t kMaxQuotedBytes = 64;

// What the user wrote for one knob, and where.
struct Setting {
  std::string_view variable;
  std::string_view value;
};

// One name=value of a debug list. `has_value` is false for a name that stands alone.
struct DebugEntry {
  std::string_view name;
  std::string_view value;
  bool has_value;
};

// Null and empty are both "not set".
std::string_view read(const Environment& environment, const char* name) {
  const char* value = environment(name);
  return value ? std::string_view(value) : std::string_view();
}

// Takes the next entry off the front of a comma-separated list.
DebugEntry take_entry(std::string_view& list) {
  const std::size_t end = std::min(list.find(','), list.size());
  const std::string_view entry = list.substr(0, end);
  list.remove_prefix(std::min(end + 1, list.size()));
  const std::size_t equals = entry.find('=');
  if (equals == std::string_view::npos) return {entry, {}, false};
  return {entry.substr(0, equals), entry.substr(equals + 1), true};
}

// The last entry of that name wins, as in Go.
std::optional<DebugEntry> find_entry(std::string_view list, std::string_view name) {
  std::optional<DebugEntry> found;
  while (!list.empty()) {
    const DebugEntry entry = take_entry(list);
    if (entry.name == name) found = entry;
  }
  return found;
}

struct DebugLists {
  std::string_view ours;  // TRICOLOR_DEBUG
  std::string_view go;    // GODEBUG
};

std::optional<Setting> find_setting(const Knob& knob, const Environment& environment,
                                    const DebugLists& lists) {
  if (knob.place == KnobPlace::kDebug) {
    if (const auto entry = find_entry(lists.ours, knob.name))
      return Setting{kDebugVariable, entry->value};
    // Go skips a name without a value; this list is Go's, and may be meant for another process.
    const auto entry = find_entry(lists.go, knob.name);
    if (entry && entry->has_value) return Setting{kGoDebugVariable, entry->value};
    return std::nullopt;
  }
  if (knob.prefixed) {
    const std::string_view value = read(environment, knob.prefixed);
    if (!value.empty()) return Setting{knob.prefixed, value};
  }
  const std::string_view value = read(environment, knob.name);
  if (!value.empty()) return Setting{knob.name, value};
  return std::nullopt;
}

// The factor a size suffix stands for, 0 if it is none. Go's spelling: case counts, no blanks, and
// K alone is none.
std::uint64_t unit_bytes(std::string_view suffix) {
  struct Unit {
    std::string_view suffix;
    std::uint64_t bytes;
  };
  constexpr Unit kUnits[] = {{"", 1},
                             {"B", 1},
                             {"KiB", 1ull << 10},
                             {"MiB", 1ull << 20},
                             {"GiB", 1ull << 30},
                             {"TiB", 1ull << 40}};
  for (const Unit& unit : kUnits) {
    if (suffix == unit.suffix) return unit.bytes;
  }
  return 0;
}

// The value in the unit of the knob's field; nothing if `text` is malformed or out of range.
std::optional<std::int64_t> parse(const Knob& knob, std::string_view text) {
  if (knob.takes_off() && text == "off") return knob.off;
  std::uint64_t number = 0;  // Unsigned: from_chars then takes no sign.
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc()) return std::nullopt;

  const std::string_view suffix(rest, static_cast<std::size_t>(end - rest));
  if (!suffix.empty() && knob.grammar != KnobGrammar::kSizeOrOff) return std::nullopt;
  const std::uint64_t unit = unit_bytes(suffix);
  if (unit == 0 || number > static_cast<std::uint64_t>(knob.highest) / unit) return std::nullopt;
  const auto value = static_cast<std::int64_t>(number * unit);
  if (value < knob.lowest) return std::nullopt;
  return value;
}

void append_quoted(Line& line, std::string_view text) {
  line.text("\"").text(text.substr(0, kMaxQuotedBytes));
  line.text(text.size() > kMaxQuotedBytes ? "...\"" : "\"");
}

void append_grammar(Line& line, const Knob& knob) {
  if (knob.grammar == KnobGrammar::kSizeOrOff) {
    line.text("a number of bytes below 8 EiB with an optional B, KiB, MiB, GiB or TiB");
  } else {
    line.text("an integer from ").number(knob.lowest).text(" to ").number(knob.highest);
  }
  if (knob.takes_off()) line.text(", or off");
}

void report_malformed(const Knob& knob, const Setting& setting, std::int64_t used,
                      const Sink& sink) {
  LineBuffer<kMaxLineBytes> line;
  line.text("tricolor: ").text(setting.variable).text(": ");
  if (knob.place == KnobPlace::kDebug) line.text(knob.name).text("=");
  append_quoted(line, setting.value);
  line.text(" is malformed; expected ");
  append_grammar(line, knob);
  line.text("; using ");
  if (knob.takes_off() && used == knob.off) {
    line.text("off");
  } else {
    line.number(used);
  }
  sink(line.view());
}

bool is_known(std::string_view name) {
  return std::any_of(kKnobs.begin(), kKnobs.end(), [&](const Knob& knob) {
    return knob.place == KnobPlace::kDebug && knob.name == name;
  });
}

// One line for all of them: what is known first, since a long list of the unknown would push it off
// the line.
void report_unknown(std::string_view list, const Sink& sink) {
  LineBuffer<kMaxLineBytes> line;
  line.text("tricolor: ").text(kDebugVariable).text(" knows");
  for (const Knob& knob : kKnobs) {
    if (knob.place == KnobPlace::kDebug) line.text(" ").text(knob.name);
  }
  line.text("; ignored:");
  bool any = false;
  while (!list.empty()) {
    const DebugEntry entry = take_entry(list);
    const bool nothing = entry.name.empty() && !entry.has_value;  // "a=1,,b=2": a spare comma
    if (nothing || is_known(entry.name)) continue;
    any = true;
    line.text(" ");
    append_quoted(line, entry.name);
  }
  if (any) sink(line.view());
}

}  // namespace

const char* process_environment(const char* name) noexcept { return std::getenv(name); }

options options_from_environment(const Environment& environment, const Sink& sink,
                                 const options& base) noexcept {
  const DebugLists lists{read(environment, kDebugVariable), read(environment, kGoDebugVariable)};
  options chosen = base;
  for (const Knob& knob : kKnobs) {
    const auto setting = find_setting(knob, environment, lists);
    if (!setting) continue;
    if (const auto value = parse(knob, setting->value)) {
      knob.field.set(chosen, *value);
    } else {
      report_malformed(knob, *setting, knob.field.get(base), sink);
    }
  }
  report_unknown(lists.ours, sink);
  return chosen;
}

}  // namespace tricolor::impl
