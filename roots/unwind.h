// libunwind: the only place that uses it. Names the frames of a backtrace for fatal reports.
#pragma once

namespace tricolor::impl {

// Prints the calling thread's backtrace to stderr, a line a frame: number, address, function + offset. Best effort; never
// called while a thread is stopped or from the stop handler (libunwind may take the loader's lock), with the exception of
// a report that is about to abort the process.
void print_backtrace() noexcept;

// Makes every fatal report (alloc/base/check.h) end with a backtrace.
void install_report_backtrace();

}  // namespace tricolor::impl
