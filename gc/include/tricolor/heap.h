// Control: start, collect, tune. All of it is optional; the first use of the library initialises it from the environment.
// Everything here may be called by any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include <tricolor/options.h>

namespace tricolor {

// Makes the process's heap with these options; the environment wins over them, so that a program can be debugged without
// rebuilding. False when the heap exists already (an earlier init or first use): nothing is changed then. Also false when
// the kernel refuses the first memory.
bool init(const options& wanted = {});

// Ends the collector's threads once they are idle. The heap and its objects stay; the next cycle starts the threads again.
// Not inside gc::critical or gc::blocking_call.
void shutdown();

// A complete cycle that starts after the call: on return everything not found reachable is swept. Waits for its end. Not
// inside gc::critical; and a library's constructor must not wait for a thread that is here, or in the first allocation of a
// type: they may take the loader's lock, to keep libraries with roots or types from being unloaded.
void collect();

// collect(), and then all memory that is free goes back to the system, also what the heap would soon use again. What other
// threads allocate meanwhile may keep some. Takes as long as a full cycle and a system call for every 4 MiB.
void release_memory();

// GOGC: a cycle starts when the heap has grown by this many percent over what survived; -1 = only when asked. Returns the
// old value.
int set_percent(int percent);

// The soft limit: near it cycles come more often, but no allocation fails. no_limit = off. Returns the old value.
std::uint64_t set_memory_limit(std::uint64_t bytes);

// The hard limit: an allocation that would pass it collects, asks the host (below), and then throws std::bad_alloc. Counts heap
// pages, not the collector's own structures. no_limit = off. Returns the old value.
std::uint64_t set_hard_limit(std::uint64_t bytes);

// The host's last word before an allocation of a managed object throws std::bad_alloc: called when the hard limit is reached
// or the kernel refuses memory, and a full collection has not helped. True: something has been dropped (or a limit raised),
// try again, with another full collection. False: throw. It is asked again as often as that does not help.
//
// `bytes` is what was asked for. The callback runs on the allocating thread, on several at once if several run out of memory,
// with no lock of the library held: it may allocate (such an allocation throws without asking again), collect, wait, and
// throw itself; its exception passes through the allocation, and nothing is lost. Not called inside gc::critical, where there
// is no collection either, nor when memory for the collector's own structures is refused (the first use of the library,
// handles). Null, the default: no callback. Returns the old one, which may still be running on other threads. Costs nothing
// until memory ends.
using out_of_memory_callback = bool (*)(std::size_t bytes);
out_of_memory_callback set_out_of_memory_callback(out_of_memory_callback fn);

// No cycle starts by itself below this heap size. Returns the old value.
std::uint64_t set_min_heap(std::uint64_t bytes);

// So many bytes more (or, below 0, fewer) of memory are held through managed objects: buffers in malloc memory, mappings,
// what a graphics card has for them, and goes when they die. They count as heap for the next cycle's goal and trigger and for
// the memory limit: without, a heap of small handles to large things hardly ever collects. The hard limit does not count them.
// They are given back by who added them, in the destructor or cleanup of the object.
//
// A call costs a few nanoseconds: each thread adds up to 32 KiB by itself before others see it. It may start a cycle; while one
// marks, it costs what an allocation of so many bytes does: marking, in which trace functions may run, or a wait. A thread that is not attached, or inside
// gc::blocking_call, may call it too and does not wait.
void external_memory(std::int64_t bytes) noexcept;

// The object is alive up to here, whatever the optimiser thinks. Costs nothing.
template <class T>
inline void keep_alive(T* p) noexcept {
  asm volatile("" : : "r"(p) : "memory");
}

}  // namespace tricolor
