// From an address to the record of its page: two loads, no lock, no division.
//
// The heap's address space comes in arenas of 64 MiB at multiples of 64 MiB, anywhere. The arena
// map is one flat table (2^22 entries, 32 MiB of address space of which only touched pages cost
// memory) from arena number to that arena's page records. The records live apart from the data: a
// forked child shares the data pages, madvise cannot eat marks.
//
// An arena's metadata is one block of 4 MiB of address space at a multiple of 4 MiB, so a record's
// address leads back to its arena by a mask:
//
//   +0       Arena                 (header, at most 64 KiB)
//   +64 KiB  PageRecord[8192]      1 MiB, 128 bytes a page (1.6 %)
//   +2 MiB   SmallCellBits[8192]   2 MiB, for pages of 8-, 16- and 24-byte cells; else untouched
//
// Invariant [pagemap.covers]: every page of a span in use has a record that is not `free` and leads
//   to the span's head.
// Invariant [pagemap.monotonic]: an entry of the arena map is written once (release) and never
//   removed, so a reader that holds any stale address finds either null or valid records.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "alloc/base/check.h"
#include "alloc/base/units.h"
#include "alloc/span.h"

namespace tricolor::impl {

inline constexpr std::size_t kArenaMetadataBytes = std::size_t{4} << 20;
inline constexpr std::size_t kRecordsOffset = std::size_t{64} << 10;
inline constexpr std::size_t kSmallCellBitsOffset = std::size_t{2} << 20;

// Bits of a page whose cells are smaller than 32 bytes, beyond what its record holds (see span.h).
struct SmallCellBits {
  std::array<std::atomic<std::uint64_t>, 16> alloc;
  std::array<std::atomic<std::uint64_t>, 16> more;
};
static_assert(sizeof(SmallCellBits) == 256, "8192 of them fill 2 MiB");
static_assert(kSmallCellBitsOffset + kArenaPages * sizeof(SmallCellBits) == kArenaMetadataBytes,
              "they end the block");
static_assert(kRecordsOffset + kArenaPages * sizeof(PageRecord) <= kSmallCellBitsOffset,
              "records lie before them");

// Free runs are summed up for each chunk of an arena: a search steps over 512 pages at once.
inline constexpr std::size_t kChunkPages = 512;
inline constexpr std::size_t kArenaChunks = kArenaPages / kChunkPages;

// Pages whose records come and go together, at least (page_heap.h).
inline constexpr std::size_t kRecordGroupPages = 32;

// Free runs of a chunk, in pages. `start` and `end` are exact; `longest` is an upper bound, which
// the page heap makes exact when a search trusted it in vain (page_heap.cc).
struct ChunkSummary {
  std::uint16_t start = kChunkPages;    // the run at the chunk's first page
  std::uint16_t longest = kChunkPages;  // no run in the chunk is longer
  std::uint16_t end = kChunkPages;      // the run at the chunk's last page
};

// Bitmaps of the page heap, one bit a page (page_heap.h). All but `next` and those of heads are guarded
// by its lock.
struct Arena {
  PageId first;                      // of the arena's 8192 pages
  std::uint32_t index = 0;           // place in the page heap's table of arenas, in address order
  std::uint32_t prepared_pages = 0;  // [0, prepared_pages) are accessible; the rest is Reserved
  // The next arena in address order. Written by the page heap (release: the arena behind the link
  // is ready), followed without its lock (acquire).
  std::atomic<Arena*> next = nullptr;
  std::array<ChunkSummary, kArenaChunks> chunks = {};
  // Pages that belong to a span, or that the page heap is just giving back to the kernel.
  std::array<std::uint64_t, kArenaPages / 64> in_use = {};
  // Pages that have been used since the kernel last handed them out, and so may not be zero. Every
  // page that belongs to a span is dirty.
  std::array<std::uint64_t, kArenaPages / 64> dirty = {};
  // Bit i: the records of pages 32 i to 32 i + 31, which fill 4 KiB, may have memory behind them. So they do when one of the
  // pages is in use. Without, they read as zero, as do those of free pages that have never been used.
  std::array<std::uint64_t, kArenaPages / kRecordGroupPages / 64> used_records = {};
  // First pages of spans in use: set (release) when the span is published, cleared when it is
  // freed. Read by the sweeper. The page heap neither reads nor writes them.
  std::array<std::atomic<std::uint64_t>, kArenaPages / 64> heads = {};
  // Those of them that the sweeper's walk is to pass over. Guarded by the sweeper's lock.
  std::array<std::uint64_t, kArenaPages / 64> taken_heads = {};

  PageRecord* records() {
    return reinterpret_cast<PageRecord*>(reinterpret_cast<char*>(this) + kRecordsOffset);
  }
};
static_assert(sizeof(Arena) <= kRecordsOffset, "the header ends before the records");

// The arena that owns a record.
inline Arena* arena_of(const PageRecord* record) {
  return reinterpret_cast<Arena*>(reinterpret_cast<std::uintptr_t>(record) &
                                  ~(kArenaMetadataBytes - 1));
}

// The page that a record describes.
inline PageId page_of_record(const PageRecord* record) {
  Arena* const arena = arena_of(record);
  return arena->first + PageCount{static_cast<std::size_t>(record - arena->records())};
}

inline SmallCellBits* small_cell_bits(const PageRecord* record) {
  Arena* const arena = arena_of(record);
  auto* const all =
      reinterpret_cast<SmallCellBits*>(reinterpret_cast<char*>(arena) + kSmallCellBitsOffset);
  return all + (record - arena->records());
}

class ArenaMap {
 public:
  // Reserves the table. False when the kernel refuses.
  bool create();

  // The record of the page that contains `address`, or null when the page is in no arena. Any
  // address is allowed.
  PageRecord* record_of(std::uintptr_t address) const {
    const std::uintptr_t arena = address >> kArenaShift;
    if (arena >= kEntries) [[unlikely]]
      return nullptr;
    // Acquire: an arena's records are ready before its entry is. Pairs with add() (release).
    PageRecord* const records = x_table[arena].load(std::memory_order_acquire);
    if (records == nullptr) return nullptr;
    return records + ((address >> kPageShift) & (kArenaPages - 1));
  }
  PageRecord* record_of(PageId page) const { return record_of(page.address()); }

  // Enters an arena whose metadata is ready.
  void add(Arena* arena);

 private:
  static constexpr std::size_t kEntries = std::size_t{1} << (kAddressBits - kArenaShift);

  // Written once an entry by add() (under the page heap's lock), read by everyone.
  std::atomic<PageRecord*>* x_table = nullptr;
};

}  // namespace tricolor::impl
