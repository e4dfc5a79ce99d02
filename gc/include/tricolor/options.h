// What can be tuned, in one struct and one table.
//
//   gc::options o;             // the defaults
//   o.percent = 50;
//   o.memory_limit_bytes = 512ull << 20;
//   gc::init(o);               // or nothing: the first use initialises from the environment
//
// The struct is the home of the defaults; the table kKnobs gives every field its name in the
// environment, its grammar, its range and one sentence. Nothing else in the library reads the
// environment.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string_view>

namespace tricolor {

// A limit that is never reached, `off` in the environment. Go's value: it leaves room for signed
// differences.
inline constexpr std::uint64_t no_limit = std::numeric_limits<std::int64_t>::max();

struct options {
  // How far the heap may grow over what survived; -1 never collects by itself.
  int percent = 100;
  // Soft: more collections near it, and no allocation fails.
  std::uint64_t memory_limit_bytes = no_limit;
  // Beyond it an allocation throws std::bad_alloc.
  std::uint64_t hard_limit_bytes = no_limit;
  // No cycle starts by itself below it; 0 leaves Go's own minimum, 4 MiB * percent / 100.
  std::uint64_t min_heap_bytes = 0;

  // Watching and debugging, named as in TRICOLOR_DEBUG; kKnobs says what each does.
  int gctrace = 0;
  int gcpacertrace = 0;
  int scavtrace = 0;
  int gcstoptheworld = 0;
  int gccheckmark = 0;
  int checkslot = 1;
  int clobberfree = 0;
  int stress = 0;
  int tinybuffers = 0;
  int workers = 0;
  int idleworkers = 2;
  int period_ms = 120'000;
  int seed = 0;
  int signal = 0;
  int stopwarn_ms = 1000;
};

// Hands off: for the reader of the environment, its tests, and the test of the README's table.
namespace detail {

enum class KnobPlace : std::uint8_t {
  kVariable,  // an environment variable of its own
  kDebug,     // a name=value in TRICOLOR_DEBUG or GODEBUG; the first wins
};

enum class KnobGrammar : std::uint8_t {
  kInteger,       // decimal digits
  kIntegerOrOff,  // decimal digits, or "off"
  kSizeOrOff,     // decimal digits, then nothing or B, KiB, MiB, GiB, TiB; or "off"
};

// The field of `options` a knob sets. Every value of every field fits a signed 64-bit integer.
class KnobField {
 public:
  constexpr KnobField(int options::*number) : number_(number) {}
  constexpr KnobField(std::uint64_t options::*bytes) : bytes_(bytes) {}

  constexpr bool is_bytes() const { return bytes_ != nullptr; }
  constexpr std::int64_t highest() const {
    return is_bytes() ? static_cast<std::int64_t>(no_limit) : std::numeric_limits<int>::max();
  }
  constexpr std::int64_t get(const options& from) const {
    if (!is_bytes()) return from.*number_;
    return static_cast<std::int64_t>(from.*bytes_ < no_limit ? from.*bytes_ : no_limit);
  }
  constexpr void set(options& to, std::int64_t value) const {
    if (is_bytes()) {
      to.*bytes_ = static_cast<std::uint64_t>(value);
    } else {
      to.*number_ = static_cast<int>(value);
    }
  }

 private:
  int options::*number_ = nullptr;
  std::uint64_t options::*bytes_ = nullptr;
};

struct Knob {
  const char* name;      // the variable, or the name inside TRICOLOR_DEBUG
  const char* prefixed;  // a second variable that wins over `name`, or null
  KnobPlace place;
  KnobGrammar grammar;
  KnobField field;
  std::int64_t lowest;   // the numbers the environment may give, both ends included,
  std::int64_t highest;  // in the field's unit
  std::int64_t off;      // what "off" stores, where the grammar has it
  std::string_view sentence;

  constexpr std::int64_t default_value() const { return field.get(options{}); }
  constexpr bool takes_off() const { return grammar != KnobGrammar::kInteger; }
};

inline constexpr std::int64_t kMaxInt = std::numeric_limits<int>::max();
inline constexpr std::int64_t kNoLimit = static_cast<std::int64_t>(no_limit);

// One row a knob, in the order of `options`. HARD_LIMIT and MIN_HEAP are too common as names to be
// read unprefixed.
inline constexpr std::array kKnobs = {
    Knob{"GOGC", "TRICOLOR_GOGC", KnobPlace::kVariable, KnobGrammar::kIntegerOrOff,
         &options::percent, 0, kMaxInt, -1,
         "Heap growth in percent over what survived the last cycle; off never collects by itself."},
    Knob{"GOMEMLIMIT", "TRICOLOR_GOMEMLIMIT", KnobPlace::kVariable, KnobGrammar::kSizeOrOff,
         &options::memory_limit_bytes, 0, kNoLimit, kNoLimit,
         "Soft limit on the memory in use: cycles come earlier near it, no allocation fails."},
    Knob{"TRICOLOR_HARD_LIMIT", nullptr, KnobPlace::kVariable, KnobGrammar::kSizeOrOff,
         &options::hard_limit_bytes, 0, kNoLimit, kNoLimit,
         "Hard limit on the memory in use: an allocation beyond it throws std::bad_alloc."},
    Knob{"TRICOLOR_MIN_HEAP", nullptr, KnobPlace::kVariable, KnobGrammar::kSizeOrOff,
         &options::min_heap_bytes, 0, kNoLimit, 0,
         "No cycle starts by itself while the heap is smaller than this."},
    Knob{"gctrace", nullptr, KnobPlace::kDebug, KnobGrammar::kInteger, &options::gctrace, 0, 2, 0,
         "Print one line a cycle on stderr in Go's format; with 2 also how many objects were "
         "scanned, "
         "in all and by size class."},
    Knob{"gcpacertrace", nullptr, KnobPlace::kDebug, KnobGrammar::kInteger, &options::gcpacertrace,
         0, 1, 0,
         "Print three lines a cycle on stderr: what the pacer has planned, what came of it, and "
         "what "
         "sweeping took."},
    Knob{"scavtrace", nullptr, KnobPlace::kDebug, KnobGrammar::kInteger, &options::scavtrace, 0, 1,
         0,
         "Print a line on stderr, in Go's format, of the memory given back to the system since the "
         "last cycle was swept."},
    Knob{"gcstoptheworld", nullptr, KnobPlace::kDebug, KnobGrammar::kInteger,
         &options::gcstoptheworld, 0, 2, 0,
         "1 marks with the world stopped, 2 also sweeps in the same stop; 0 marks beside the "
         "program."},
    Knob{"gccheckmark", nullptr, KnobPlace::kDebug, KnobGrammar::kInteger, &options::gccheckmark, 0,
         1, 0,
         "Check at the end of each mark, with the world stopped, that no live object has been "
         "missed."},
    Knob{"checkslot", nullptr, KnobPlace::kDebug, KnobGrammar::kInteger, &options::checkslot, 0, 1,
         0,
         "Look at samples of pointer stores for a gc::ptr in memory that the collector never "
         "scans, and report it."},
    Knob{"clobberfree", nullptr, KnobPlace::kDebug, KnobGrammar::kInteger, &options::clobberfree, 0,
         1, 0, "Fill freed cells with 0xdeadbeef, so that a use after free shows."},
    Knob{"stress", nullptr, KnobPlace::kDebug, KnobGrammar::kInteger, &options::stress, 0, kMaxInt,
         0, "Run a complete collection at every n-th allocation; 0 never."},
    Knob{"tinybuffers", nullptr, KnobPlace::kDebug, KnobGrammar::kInteger, &options::tinybuffers, 0,
         1, 0,
         "Make every buffer and packet as small as it can be, so that full ones are met often."},
    Knob{"workers", nullptr, KnobPlace::kDebug, KnobGrammar::kInteger, &options::workers, 0, 64, 0,
         "Threads that mark together, in every cycle; 0 takes a quarter of the CPUs that the "
         "process may use, and all of "
         "them when somebody waits."},
    Knob{
        "idleworkers", nullptr, KnobPlace::kDebug, KnobGrammar::kInteger, &options::idleworkers, 0,
        2, 0,
        "Mark on CPUs that no thread of the program can use: 1 does, 0 does not, 2 does unless the "
        "process has a CPU quota."},
    Knob{"period", nullptr, KnobPlace::kDebug, KnobGrammar::kInteger, &options::period_ms, 1,
         kMaxInt, 0,
         "Milliseconds without a cycle after which one runs by itself, unless GOGC is off."},
    Knob{"seed", nullptr, KnobPlace::kDebug, KnobGrammar::kInteger, &options::seed, 0, kMaxInt, 0,
         "Disturb the timing of threads where the collector's phases meet, differently for each "
         "seed; 0 does not."},
    Knob{"signal", nullptr, KnobPlace::kDebug, KnobGrammar::kInteger, &options::signal, 0, 64, 0,
         "Number of the signal that stops threads; 0 lets the library choose."},
    Knob{"stopwarn", nullptr, KnobPlace::kDebug, KnobGrammar::kInteger, &options::stopwarn_ms, 1,
         86'400'000, 0, "Milliseconds a thread may refuse to stop before it is named on stderr."},
};

consteval bool every_knob(bool (*rule)(const Knob&)) {
  for (const Knob& knob : kKnobs) {
    if (!rule(knob)) return false;
  }
  return true;
}

static_assert(every_knob([](const Knob& k) { return 0 <= k.lowest && k.lowest <= k.highest; }),
              "a range has a first and a last value, and the grammars have no minus sign");
static_assert(every_knob([](const Knob& k) { return k.highest <= k.field.highest(); }),
              "every value of the range fits the field");
static_assert(every_knob([](const Knob& k) {
                return k.lowest <= k.default_value() && k.default_value() <= k.highest;
              }),
              "the default is a value the user could have given");
static_assert(every_knob([](const Knob& k) {
                return k.field.is_bytes() == (k.grammar == KnobGrammar::kSizeOrOff);
              }),
              "sizes and only sizes are kept in bytes");
static_assert(every_knob([](const Knob& k) {
                return k.place == KnobPlace::kVariable || !k.prefixed;
              }),
              "a debug knob is prefixed by the variable it stands in");

}  // namespace detail
}  // namespace tricolor
