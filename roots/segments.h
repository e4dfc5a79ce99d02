// Writable segments of the program and of every loaded library, and the thread-local storage of a thread.
//
// The list of segments is made before the world is stopped. Between the listing and the stop a library may have been opened:
// may_be_outdated() sees that with the world stopped, and the stop is done again [segments.current]. Or closed: segments are
// read through the kernel, which reports unmapped memory instead of faulting (a program may also have made pages of its own
// segments inaccessible). Nothing of this takes a lock of the loader's (loader.h).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "alloc/metadata.h"
#include "roots/loader.h"

namespace tricolor::impl {

struct Segment {
  const char* begin;
  const char* end;
  bool may_go = false;  // of a library, not of the program
  bool opened_later =
      false;  // not known to be among those that the program started with: it may be closed
  bool held_roots =
      false;  // a cycle has found some here since the segment was listed; written by the collector
};

class SegmentList {
 public:
  explicit SegmentList(Metadata& metadata) : x_metadata(metadata) {}

  // Brings the list up to date. False when memory for the list was refused: it is then incomplete.
  bool update();

  // Has a library been opened or closed since? Takes no lock, also none of the library's.
  bool may_be_outdated() const;

  Segment* begin() { return x_segments; }
  Segment* end() { return x_segments + x_count; }
  const Segment* begin() const { return x_segments; }
  const Segment* end() const { return x_segments + x_count; }

 private:
  template <class T>
  bool grow(T*& entries, std::size_t& capacity, std::size_t needed);

  Metadata& x_metadata;
  Segment* x_segments = nullptr;
  std::size_t x_count = 0;
  std::size_t x_capacity = 0;
  ModuleMark* x_modules = nullptr;  // that they were found in
  std::size_t x_modules_count = 0;
  std::size_t x_modules_capacity = 0;
  StayingModules x_staying;
  bool x_complete = false;
};

// Can the lock of dl_iterate_phdr be waited for? In a forked child its holder may be a thread that the child does not have.
enum class LoaderLock : std::uint8_t { whole, may_be_lost };

// Thread-local storage of one thread, in all modules loaded when it was listed.
class TlsBlocks {
 public:
  struct Block {
    const char* begin;
    const char* end;
    bool may_vanish;  // not in the static area: read it with os::read_maybe_unmapped
  };

  // Lists the calling thread's blocks: only those that exist, so of libraries that were opened later those that the thread
  // has touched. False when memory was refused. Takes the loader's lock if that is whole. Otherwise no library that has
  // thread-local storage may be closed meanwhile by another thread: the loader is asked about an entry that it may just free.
  bool list(Metadata& metadata, LoaderLock lock);
  void free(Metadata& metadata);
  // The thread has ended.
  void forget() { x_count = 0; }

  const Block* begin() const { return x_blocks; }
  const Block* end() const { return x_blocks + x_count; }

 private:
  void add(const void* data, std::span<const ElfW(Phdr)> headers);

  Block* x_blocks = nullptr;
  std::size_t x_count = 0;
  std::size_t x_capacity = 0;
};

}  // namespace tricolor::impl
