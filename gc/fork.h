// fork(): parent and child both go on allocating and collecting.
//
// The handlers of pthread_atfork are registered when the library is loaded, before those of whoever is linked against it. So
// prepare comes last, when the program's own handlers have taken their locks and do not need us any more, and is undone
// first, before they do.
//
//   prepare   waits for the stop that is under way (which may wait for gc::critical), for sections of the library that other
//             threads are in, for a sweep that has to end (a forced cycle's, or before the next cycle), and for the trace
//             function that a marker is in; otherwise for no user code. A cycle that marks is suspended: each marker rests
//             between two cells. A running mutator counts as blocked meanwhile, so that a stop does not wait for it. The world is not
//             stopped: a stopped thread could hold a lock that another prepare handler, or fork itself (malloc's), is about to
//             take.
//   parent    lets everyone go on. Threads that needed the slow half of an allocation meanwhile have waited; others have not
//             noticed.
//   child     has one thread. The other mutators are dropped, with their claims returned; their stacks and thread-local
//             storage are no roots any more, their gc::root handles and registered ranges still are, but for
//             value stacks. The threads of the library are gone; the next cycles start them again. A mark is given up, and its bits are cleared; a sweep goes on where it was. Heap pages
//             are private copies, as all memory.
//
// Invariant [fork.quiet]: between prepare and its end no cycle runs, or all of its markers rest, and none is asked for; no
//   mutator joins or leaves or is inside a critical section of the library (Mutator::fork_gate keeps it out), and of the locks
//   that others can hold outside of those the forking thread holds each. So nobody else holds any of our locks, and all that they
//   guard is whole in the child. (A thread that attaches may be waiting for the loader: it holds nothing.)
//
// What they do not guard: a thread may be in the middle of a unit, or of its attaching or detaching. The cells of such a
// unit's run stay allocated till the child's next sweep; of such an attaching or detaching a few KiB of metadata may be lost
// to the child. (Linux copies a process as at one instant: threads that would write meanwhile wait, so what the child has
// of another thread's writes is a prefix of them.)
//
// With gcstoptheworld prepare waits for the whole cycle.
//
// The C library does not free the lock of dl_iterate_phdr in a child: if another thread was inside that (or about to link or
// unlink a library in dlopen or dlclose), whoever takes it in the child waits for ever. The library does not take it there
// (roots/loader.h). The program itself can then neither open nor close a library, nor call dl_iterate_phdr.
//
// A child that was made without these handlers (vfork, posix_spawn, _Fork, a bare clone), or by a signal handler that
// interrupted the library itself or another fork on its thread (a crash handler on one of the library's own threads, too), or runs
// on an alternate stack, may do what such children may: exec or _exit. (The kernel does not tell of an alternate stack set up with
// SS_AUTODISARM: fork there is a usage error, and on one that is a part of the thread's own stack it must not be called.)
#pragma once

namespace tricolor::impl {

// Registers the handlers, once. Called when the library is loaded, and again when the heap is made; false when memory is
// refused.
bool install_fork_handlers();

// Has this process been made by a fork, since the library was loaded?
bool is_forked_child();

}  // namespace tricolor::impl
