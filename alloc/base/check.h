// The three ways to fail, each with the label of the rule that was broken:
//   check        always on: protocol and phase moves. A failure is a bug of ours (or heap corruption).
//   dcheck       debug builds only: pre- and post-conditions, no side effects.
//   usage_error  the caller broke a rule of the public API: the message says which and what to do.
// All three print one report (label, place, values, backtrace when a hook is registered) and abort. None is used when
// memory runs out: that is std::bad_alloc.
#pragma once

#include <cstdint>

namespace tricolor::impl {

#ifdef NDEBUG
inline constexpr bool kDebugChecks = false;
#else
inline constexpr bool kDebugChecks = true;
#endif

// Where a check stands: the caller's line, through default arguments. (std::source_location is not to be had with clang 14
// on libstdc++ 12.)
struct Place {
  const char* file;
  int line;
  const char* function;

  static constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE(),
                              const char* function = __builtin_FUNCTION()) {
    return {file, line, function};
  }
};

// Values that explain a failure; printed in hexadecimal and decimal.
struct Evidence {
  std::uint64_t a = 0;
  std::uint64_t b = 0;
};

[[noreturn, gnu::cold, gnu::noinline]] void check_failed(const char* label, Evidence evidence,
                                                         Place where);
[[noreturn, gnu::cold, gnu::noinline]] void usage_error(const char* rule_and_remedy);

inline void check(bool condition, const char* label, Evidence evidence = {},
                  Place where = Place::here()) {
  if (!condition) [[unlikely]]
    check_failed(label, evidence, where);
}

inline void dcheck(bool condition, const char* label, Evidence evidence = {},
                   Place where = Place::here()) {
  if constexpr (kDebugChecks) {
    if (!condition) [[unlikely]]
      check_failed(label, evidence, where);
  }
}

// Called once by a fatal report, after the message: prints a backtrace. Must not allocate. Set by roots/unwind.cc, since
// this layer knows no unwinder.
void set_report_hook(void (*hook)() noexcept);

}  // namespace tricolor::impl
