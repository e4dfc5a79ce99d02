// Writable segments of the program and of every loaded library, and the static thread-local storage of a thread.
//
// The list is made before the world is stopped (dl_iterate_phdr takes the loader's lock, which a stopped thread may hold)
// and only when the loader's counters say that it has changed. Between the listing and the stop a library may have been
// opened: may_be_outdated() sees that with the world stopped, and the stop is done again. Or closed: segments are read
// through the kernel, which reports unmapped memory instead of faulting (a program may also have made pages of its own
// segments inaccessible).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "alloc/metadata.h"

namespace tricolor::impl {

struct Segment {
  const char* begin;
  const char* end;
  bool may_go = false;        // of a library, not of the program
  bool opened_later = false;  // not among those that the program started with: it may be closed
  bool held_roots =
      false;  // a cycle has found some here since the segment was listed; written by the collector
};

class SegmentList {
 public:
  explicit SegmentList(Metadata& metadata) : x_metadata(metadata) {}

  // Brings the list up to date. Takes the loader's lock: no thread may be stopped. False when memory for the list was
  // refused: it is then incomplete.
  bool update();

  // Has a library been opened since? Takes no lock; may say so wrongly when one was closed.
  bool may_be_outdated() const;

  Segment* begin() { return x_segments; }
  Segment* end() { return x_segments + x_count; }
  const Segment* begin() const { return x_segments; }
  const Segment* end() const { return x_segments + x_count; }

 private:
  Metadata& x_metadata;
  Segment* x_segments = nullptr;
  std::size_t x_count = 0;
  std::size_t x_capacity = 0;
  std::uint64_t x_loads = 0;  // the loader's counters at the last update
  std::uint64_t x_unloads = 0;
  bool x_complete = false;
  const void* x_last_library = nullptr;  // the loader's record of the one opened last
};

// Thread-local storage of one thread, in all modules loaded when it was listed.
class TlsBlocks {
 public:
  struct Block {
    const char* begin;
    const char* end;
    bool may_vanish;  // not in the static area: read it with os::read_maybe_unmapped
  };

  // Lists the calling thread's blocks: only those that exist, so of libraries that were opened later those that the thread
  // has touched. Takes the loader's lock. False when memory was refused.
  bool list(Metadata& metadata);
  void free(Metadata& metadata);
  // The thread has ended.
  void forget() { x_count = 0; }

  const Block* begin() const { return x_blocks; }
  const Block* end() const { return x_blocks + x_count; }

 private:
  Block* x_blocks = nullptr;
  std::size_t x_count = 0;
  std::size_t x_capacity = 0;
};

}  // namespace tricolor::impl
