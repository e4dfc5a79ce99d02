// Writable segments of the program and of every loaded library, and the static thread-local storage of a thread.
//
// The list is made before the world is stopped (dl_iterate_phdr takes the loader's lock, which a stopped thread may hold)
// and only when the loader's counters say that it has changed. Between the listing and the scan a library may have been
// unloaded: the program itself stays, every library is read through the kernel, which reports unmapped memory instead of
// faulting.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "alloc/metadata.h"

namespace tricolor::impl {

struct Segment {
  const char* begin;
  const char* end;
  bool may_vanish;  // of a library: read it with os::read_maybe_unmapped
};

class SegmentList {
 public:
  explicit SegmentList(Metadata& metadata) : x_metadata(metadata) {}

  // Brings the list up to date. Takes the loader's lock: no thread may be stopped. False when memory for the list was
  // refused; the old list is then kept.
  bool update();

  const Segment* begin() const { return x_segments; }
  const Segment* end() const { return x_segments + x_count; }

 private:
  Metadata& x_metadata;
  Segment* x_segments = nullptr;
  std::size_t x_count = 0;
  std::size_t x_capacity = 0;
  std::uint64_t x_loads = 0;    // the loader's counters at the last update
  std::uint64_t x_unloads = 0;
};

// Static thread-local storage of one thread, in all modules loaded when it was listed.
class TlsBlocks {
 public:
  struct Block {
    const char* begin;
    const char* end;
  };

  // Lists the calling thread's blocks: only those that exist, so of libraries that were opened later those that the thread
  // has touched. Takes the loader's lock. False when memory was refused.
  bool list(Metadata& metadata);
  void free(Metadata& metadata);

  const Block* begin() const { return x_blocks; }
  const Block* end() const { return x_blocks + x_count; }

 private:
  Block* x_blocks = nullptr;
  std::size_t x_count = 0;
  std::size_t x_capacity = 0;
};

}  // namespace tricolor::impl
