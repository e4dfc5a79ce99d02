// The environment, read once when the heap is built: the README's variables -> options.
//
// Bad input never stops a program: each malformed value costs one line that names the variable, the
// value and the grammar, and leaves the default. An empty variable counts as unset, as in Go.
#pragma once

#include <tricolor/options.h>

#include <functional>
#include <string_view>

namespace tricolor::impl {

// The value of a variable or null; the text must live until options_from_environment returns.
using Environment = std::function<const char*(const char* name)>;

// Takes one line, without its newline.
using Sink = std::function<void(std::string_view line)>;

// The process's own environment. Not safe against a setenv on another thread, like getenv itself.
const char* process_environment(const char* name) noexcept;

// `base` is what the program asked for: what the environment sets wins over it, so that a user can
// bisect a program that configures its heap in code. In the library:
// options_from_environment(process_environment, log_line, base).
options options_from_environment(const Environment& environment, const Sink& sink,
                                 const options& base = {}) noexcept;

}  // namespace tricolor::impl
