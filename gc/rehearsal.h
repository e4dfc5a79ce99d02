// Before a stop, what it will use is used once, while the program still runs.
//
// A stop is some microseconds of work on some hundred lines of memory, which nobody has used since the last one. Where stops are
// seconds apart those lines are in no cache any more. And a virtual machine's pages may be gone, too, without the program or its
// kernel having a part in it: on the one that the numbers of bench/README come from, 4 to 7 of 10 pages that nobody had read for 3 s
// came back in 0.13 ms each (bench/prototype/cold_pages.cc). A stop met several of them. The kernel's own memory goes the
// same way, so it is made to deliver a signal before it has to.
//
// It is a matter of speed only. Nothing is kept of what is read, and a page may go again before the stop. Only reading is
// rehearsed: in a forked child a stop still copies pages that it shares with its parent.
//
// Medians of first and last stops with 2000 MB and GOGC=25, in turns: 8.1 and 5.2 us with all of the library's code read before, 15.8
// and 6.9 without; with the stop's alone, 22 of 300 KB, 8.6 and 5.9 in another run. (Of a small heap with one cycle in five seconds, without any
// rehearsal: first stops of 155 us.)
#pragma once

#include <cstddef>
#include <span>

namespace tricolor::impl {

// Reads a byte of each line of the cache, or of each page. Others may write meanwhile.
void touch_lines(const void* begin, std::size_t bytes);
void touch_pages(const void* begin, std::size_t bytes);
// The same of memory of which some may be gone, or may not be read.
void touch_pages_through_kernel(const void* begin, std::size_t bytes);
// Lines, of a few pages.
void touch_lines_through_kernel(const void* begin, std::size_t bytes);
// The code of a stop (alloc/base/stop_code.h), to be read.
std::span<const char> stop_code();
// Of the calling thread's stack, what a stop's calls will use.
void touch_stack();

}  // namespace tricolor::impl
