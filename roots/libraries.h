// Libraries that the collector depends on must stay: what it knows of a type (the description, the trace function) and the
// roots in a library's statics would go with it.
//
// Invariant [library.pinned]: a library that describes a type is pinned before the first object of it is allocated (when
//   that is inside gc::critical: as soon as it ends), and one in whose writable segments a cycle has found a reference to
//   an object before gc::collect() returns, or by a thread of its own soon after any other cycle. dlclose of it succeeds and
//   leaves it mapped, as if it had been opened with RTLD_NODELETE. All others are unloaded as ever.
#pragma once

#include <limits.h>

#include <array>

namespace tricolor::impl {

// The name that the loader knows a library by; empty for none.
using LibraryName = std::array<char, PATH_MAX + 1>;

// The library that `address` lies in; none for the program itself and for what is in no library. Takes no lock.
void find_library_of(const void* address, LibraryName& name);

// Pins it; false when there is none of this name. Takes the lock of the loader's that a thread holds while constructors of a
// library that it opens run (not that of dl_iterate_phdr): not while a thread is stopped, not with a lock of ours held. Such a
// constructor that waits for the caller waits for ever. Allocates from malloc; keeps errno.
bool pin_library(const LibraryName& name);

}  // namespace tricolor::impl
