// Runs of pages: take, give back, coalesce. Address-ordered first fit over bitmaps with summaries,
// so that the heap stays dense at low addresses and its high end can be given back (as in Go's
// mpagealloc.go; here two levels of summaries suffice: a chunk of 512 pages and an arena).
//
//   take(n), n <= 8192    the lowest run of n free pages that lies inside one arena
//                         -> else a new arena
//   take(n), n >  8192    the lowest run across arenas that touch each other
//                         -> else a new row of arenas
//   give_back             clears the bits; coalescing is implicit in a bitmap
//
// New memory: an arena is Reserved as a whole and Prepared in steps of one chunk, from its start.
// What a row leaves of its last arena serves others; once given back, a row is free pages like any.
//
// The life of a page (states of base/os.h in capitals; `dirty` is its bit in Arena):
//   free, clean  RESERVED or PREPARED, reads as zero, costs nothing
//   in use       READY, dirty                            <- take
//   free, dirty  READY: memory behind it, old contents   <- give_back; -> free, clean by release
//
// So do records: release() gives back those of pages that are clean, as soon as they fill pages of the kernel. Without memory
// behind it a record reads as zero, which says `free`: a look-up by a stale address may come at any time.
//
// Summaries are bounds. Taking pages only shortens free runs, so it leaves "no run here is longer
// than this" true and costs no scan. A search that believed a bound and found nothing replaces it
// by the exact value; give_back raises it to the run it has just made. So each scan is paid for by
// an earlier take.
//
// Invariant [pageheap.run]: a run is given back as it was taken, once: all its pages are in use.
// Invariant [pageheap.summary]: `start` and `end` of a chunk are exact; `longest`, an arena's
//   longest run and the hints where to begin a search are bounds that never hide a free run.
// Invariant [pageheap.ready]: ready_bytes() counts the dirty pages, and those alone. Pages on their
//   way back to the kernel are no longer counted, so that who takes pages at the limit need not wait for them; until the
//   kernel has them mapped_bytes() still does.
// Invariant [pageheap.limit]: take() does not let ready_bytes() pass the hard limit.
//
// The kernel is called without the lock where pages are given back at leisure (release). It is called with it where the thread waits
// for that memory anyway: to reserve an arena (and its table), to make a chunk accessible, and to release pages at the hard limit.
//
// Thread-safe; one lock (LockRank::kPageHeap). Never throws: null means that the kernel or the hard
// limit said no, and nothing has changed.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "alloc/base/lock.h"
#include "alloc/base/units.h"
#include "alloc/page_map.h"

namespace tricolor::impl {

class PageHeap {
 public:
  explicit PageHeap(ArenaMap& map) : x_map(map) {}
  PageHeap(const PageHeap&) = delete;
  PageHeap& operator=(const PageHeap&) = delete;

  struct Run {
    PageId first;
    bool zero;        // every page of the run reads as zero; false when any may not
    PageCount fresh;  // so many of them have no memory behind them before they are touched
  };

  // Takes `count` >= 1 pages. A run of up to 8192 lies inside one arena. At the hard limit, free
  // Ready pages are released to make room. When the kernel refuses more memory, memory that is
  // accessible already still serves.
  std::optional<Run> take(PageCount count);

  // Gives back a run (whole, as it was taken; its records already say `free`).
  void give_back(PageId first, PageCount count);

  // Gives free Ready pages back to the system, highest addresses first, until `count` pages are
  // released or none is left. Returns what was released: a few more than asked where the kernel's
  // pages are larger than ours, less when the kernel refuses. The lock is dropped around each call
  // to the kernel, which covers one chunk at most; those pages cannot be taken meanwhile.
  PageCount release(PageCount count);

  // take() fails rather than let ready_bytes() pass this. 0 = no limit. A limit below what is ready
  // takes nothing away from anybody, it only fails what needs more.
  void set_hard_limit_bytes(std::size_t bytes);

  // All in bytes; each a relaxed read of one counter, so sums of several may be off while others
  // allocate.
  std::size_t in_use_bytes() const;
  std::size_t ready_bytes() const;     // in use + free with memory behind it
  std::size_t mapped_bytes() const;    // the same, and what the kernel is just taking back
  std::size_t reserved_bytes() const;  // address space of all arenas
  std::size_t prepared_bytes() const;  // of it, accessible
  std::size_t released_bytes() const;  // ever given back to the system
  // Headers, and records that have been touched. Bits of small cells come on top.
  std::size_t metadata_bytes() const;

  // The lowest and one past the highest address of any arena: a cheap first filter for words that
  // may be pointers; an empty range while there is none. Never shrinks. Relaxed: a thread that can
  // hold a pointer into a new arena got it by a later synchronisation.
  std::uintptr_t lowest_address() const;
  std::uintptr_t highest_address() const;

  // Arenas in address order, for walks: first_arena(), then Arena::next (acquire). The list only
  // grows and may be read without lock.
  Arena* first_arena() const;

  // Recomputes every summary and counter from the bitmaps and checks them. For tests and the
  // verifier: takes the lock for about 1 µs an arena. Nobody may be inside release().
  void verify() const;

 private:
  // What the search reads of an arena, side by side for all arenas: 16 bytes instead of a cache
  // miss.
  struct Entry {
    Arena* arena;
    std::uint16_t longest;      // bound: no free run in the arena is longer
    std::uint16_t free_dirty;   // free pages with memory behind them, exact
    std::uint16_t first_chunk;  // no chunk before this one has a free page
  };

  // Some pages of one arena, [begin, end).
  struct Slice {
    Arena* arena;
    std::size_t begin;
    std::size_t end;
    std::size_t pages() const { return end - begin; }
  };

  enum class Reach : std::uint8_t { any, prepared };

  static constexpr std::size_t kHints = std::bit_width(kArenaPages);  // for 1, 2, 4 ... 8192 pages

  // All of these expect the lock to be held.
  std::optional<PageId> find(PageCount count);
  std::optional<PageId> find_prepared(PageCount count) const;
  std::optional<PageId> find_row(PageCount count) const;
  static std::optional<PageId> find_in(Entry& entry, std::size_t pages, Reach reach);
  std::optional<PageId> grow(PageCount count);
  bool make_table_room(std::size_t more);
  void enter(Arena* arena);
  std::optional<Run> take_at(PageId first, PageCount count);
  bool make_limit_room(std::size_t pages);
  bool prepare(Slice slice);

  // Calls visit(slice) for each part of a run that lies in one arena, until one says false.
  template <typename Visit>
  bool for_each_slice(PageId first, PageCount count, Visit visit) const;
  std::size_t mark_in_use(Slice slice);
  void mark_free(Slice slice);

  // The three steps of release(): take dirty pages out of circulation, drop their contents (the
  // only step without the lock), put them back.
  std::optional<Slice> detach_dirty(std::size_t pages);
  static bool discard(Slice slice);
  std::size_t attach(Slice slice, bool discarded);

  // The same for the records of clean pages around those that have just been released.
  void release_records(Slice around);
  std::optional<Slice> detach_clean(Slice within);
  static bool discard_records(Slice slice);
  void attach_records(Slice slice, bool discarded);

  ArenaMap& x_map;
  mutable Mutex x_lock{LockRank::kPageHeap};

  // Guarded by x_lock.
  Entry* x_table = nullptr;  // one entry an arena, in address order
  std::size_t x_arenas = 0;
  std::size_t x_capacity = 0;
  std::array<std::uint32_t, kHints> x_hints = {};  // [k]: no arena before it has a run of 2^k pages
  std::size_t x_free_dirty = 0;                    // sum over the table

  // Written under x_lock, read by anyone: plain counters and bounds, read relaxed but by mapped_bytes().
  std::atomic<std::size_t> x_in_use_pages{0};
  std::atomic<std::size_t> x_ready_pages{0};
  std::atomic<std::size_t> x_leaving_pages{0};  // detached, and not discarded yet
  std::atomic<std::size_t> x_released_pages{0};
  std::atomic<std::size_t> x_record_pages{0};  // whose records have been touched
  std::atomic<std::size_t> x_reserved_pages{0};
  std::atomic<std::size_t> x_prepared_pages{0};
  std::atomic<std::size_t> x_limit_pages{SIZE_MAX};
  std::atomic<std::uintptr_t> x_lowest{UINTPTR_MAX};
  std::atomic<std::uintptr_t> x_highest{0};
  std::atomic<Arena*> x_first{nullptr};  // the list's head; orders as Arena::next
};

// Which of 64 pages can be given back when the kernel's pages are `group` of ours (a power of two,
// up to 32): all of a group must be free, and one at least dirty.
constexpr std::uint64_t releasable_pages(std::uint64_t free, std::uint64_t dirty,
                                         std::size_t group) {
  dirty &= free;
  for (std::size_t s = 1; s < group; s *= 2) {  // the first page of a group comes to speak for all
    free &= free >> s;
    dirty |= dirty >> s;
  }
  const std::uint64_t whole = (std::uint64_t{1} << group) - 1;
  const std::uint64_t firsts = ~std::uint64_t{0} / whole;
  return (free & dirty & firsts) * whole;
}

}  // namespace tricolor::impl
