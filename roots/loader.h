// The loader's list of the program and its libraries, read without any of the loader's locks.
//
// dl_iterate_phdr holds a lock while it calls back. Who takes it waits for whatever such a callback of the program's waits for,
// a collection, say. And in a forked child it waits for ever if another thread held the lock at the fork: the C library (glibc,
// in all of its versions up to 2.43) makes its other locks free there, but not that one.
//
// So the list is read as debuggers read it (_r_debug), and from each library's own header where it lies; all of it through the
// kernel, which reports memory that is gone. Other threads may change the list meanwhile. The loader links an entry, complete,
// at the end by one store, and unlinks it by one, then frees it. A walk that stands on an entry while that is freed may go
// astray or end early: it ends in any case, and reads nothing that is not there.
//
// Invariant [segments.current]: what a walk has found is complete if is_loader_list() finds the same, later, with every mutator
//   stopped: an entry that the walk stood on while it was freed is not linked any more. Threads that are not attached may change
//   the list even then; what they open holds no references yet.
#pragma once

#include <elf.h>
#include <link.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace tricolor::impl {

// What tells a module from any other that could be in its place. The loader's entry is not enough: it may be made where that of
// another one was freed, and say the same of a file that was closed, compiled anew and opened again.
struct ModuleMark {
  const link_map* entry;
  std::uintptr_t load_address;
  const void* dynamic;
  const void* headers;  // where they were read, if they were
  std::size_t headers_bytes;
  std::uint64_t headers_sum;
};

class LoaderWalk {
 public:
  // The program first, then libraries, those opened last at the end. False at the end. Async-signal-safe.
  bool next();

  // Of the one that next() has come to:
  bool is_program() const { return x_is_program; }
  // What is added to addresses in its file.
  std::uintptr_t load_address() const { return x_entry.l_addr; }
  // Empty when its memory is gone already. What lies at no known place in its own memory, as where a prelinked library's header
  // is not mapped, has one header for all of it, which counts as writable.
  std::span<const ElfW(Phdr)> headers() const { return {x_headers.data(), x_headers_count}; }
  // In the loader's memory, which may be gone: to be read through the kernel.
  const char* name() const { return x_entry.l_name; }
  // Does it hold no roots, whatever its headers say?
  bool is_sanitizer() const;
  // Its dynamic section. Likewise.
  const ElfW(Dyn) * dynamic() const { return x_entry.l_ld; }
  // The loader's entry; null in a static program.
  const link_map* entry() const { return x_at; }
  ModuleMark mark() const;

 private:
  // There is no such number of either. Bounds a walk that has gone astray.
  static constexpr std::size_t kMostHeaders = 64;
  static constexpr std::size_t kMostEntries = 1 << 16;

  void find_program_headers();
  void find_headers();
  bool read_headers(std::uintptr_t header);

  const link_map* x_at = nullptr;
  link_map x_entry = {};
  std::size_t x_entries = 0;
  bool x_is_program = false;
  std::array<ElfW(Phdr), kMostHeaders> x_headers;
  std::size_t x_headers_count = 0;
  const void* x_headers_at = nullptr;
};

// How many modules, from the list's beginning on, the program starts with, as far as is known; 0: nothing is. They are never closed. They
// need not all come before the loader itself: libraries that only libraries need come behind it, as liblzma does in every program that
// uses libunwind. All are loaded before anything is initialised, so they are those that are there when this library is, as long as one
// of them needs the file (DT_NEEDED). That is wrong where an earlier initialisation opens, and somebody later closes, a file of a name
// that one of them needs and has found under another name. Nothing is known where this library is not among them itself.
std::size_t modules_at_start();

// Where the loader itself lies; 0 in a static program.
std::uintptr_t loader_address();

// Which modules of the list are never closed: the first `loader` of them, at least one, are those up to the loader itself, or the
// program. Then come others that the program started with, up to `all`, as far as modules_at_start() is right.
struct StayingModules {
  std::size_t loader = 1;
  std::size_t all = 1;
};

// Does the loader's list consist of these modules now? Entries that are never unlinked have links that can change, of those up to
// the loader only the last one, and that is all that a program which opens nothing pays for. (Those behind the loader are followed link by
// link: what is read is linked then, also where one has been closed.) Takes no lock and allocates nothing.
bool is_loader_list(std::span<const ModuleMark> marks, StayingModules staying);

}  // namespace tricolor::impl
