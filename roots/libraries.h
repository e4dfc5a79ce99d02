// Libraries that the collector depends on must stay: what it knows of a type (the description, the trace function) and the
// roots in a library's statics would go with it.
//
// Invariant [library.pinned]: a library that describes a type which has been allocated is never unloaded, and neither is one
//   in whose writable segments a cycle has found a reference to an object. dlclose of it succeeds and leaves it mapped, as
//   if it had been opened with RTLD_NODELETE. All others are unloaded as ever.
#pragma once

namespace tricolor::impl {

// Pins the library that `address` lies in; nothing happens for the program itself and for what is in no library. Takes the
// loader's lock, which a thread holds while constructors of a library that it opens run: not while a thread is stopped, not
// with a lock of ours held, and not where such a constructor may wait for the caller. Allocates from malloc.
void pin_library_of(const void* address);

}  // namespace tricolor::impl
