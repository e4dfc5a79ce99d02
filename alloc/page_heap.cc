#include "alloc/page_heap.h"

#include <algorithm>
#include <new>

#include "alloc/base/check.h"
#include "alloc/base/os.h"

namespace tricolor::impl {
namespace {

constexpr std::size_t kWordBits = 64;
constexpr std::size_t kChunkWords = kChunkPages / kWordBits;
constexpr PageCount kWholeArena = {kArenaPages};

// No run can be larger than the address space. Below this, byte counts do not overflow.
constexpr PageCount kMaxRun = {std::size_t{1} << (kAddressBits - kPageShift)};

// What is released at least when room must be made under the hard limit: a call to the kernel costs
// much more than a page, and the next take would have to do it again.
constexpr std::size_t kReleaseBatchPages = 64;

// Entries of the first table: one kernel page on x86-64, 16 GiB of heap.
constexpr std::size_t kFirstTableEntries = 256;

// Counters have one writer at a time, under the lock; their readers want a number, not an order.
void add(std::atomic<std::size_t>& counter, std::size_t delta) {
  // Release: the counters that were changed before. Pairs with PageHeap::mapped_bytes (acquire).
  counter.store(counter.load(std::memory_order_relaxed) + delta, std::memory_order_release);
}
void subtract(std::atomic<std::size_t>& counter, std::size_t delta) { add(counter, 0 - delta); }

// --- Bits
// -----------------------------------------------------------------------------------------

// Calls visit(word index, mask) for each word that bits [begin, end) touch.
template <typename Visit>
void for_each_word(std::size_t begin, std::size_t end, Visit visit) {
  while (begin < end) {
    const std::size_t bit = begin % kWordBits;
    const std::size_t count = std::min(end - begin, kWordBits - bit);
    visit(begin / kWordBits, ~std::uint64_t{0} >> (kWordBits - count) << bit);
    begin += count;
  }
}

// How many of bits [begin, end) are clear. Nearly always none or all: then no ones are counted,
// which is a library call on plain x86-64.
template <std::size_t N>
std::size_t count_clear(const std::array<std::uint64_t, N>& bits, std::size_t begin,
                        std::size_t end) {
  std::size_t clear = 0;
  for_each_word(begin, end, [&](std::size_t w, std::uint64_t mask) {
    const std::uint64_t here = ~bits[w] & mask;
    if (here == ~std::uint64_t{0}) {
      clear += kWordBits;
    } else if ((here & (here - 1)) != 0) {
      clear += static_cast<std::size_t>(std::popcount(here));
    } else {
      clear += here != 0;
    }
  });
  return clear;
}

template <std::size_t N>
std::size_t count_set(const std::array<std::uint64_t, N>& bits, std::size_t begin,
                      std::size_t end) {
  return end - begin - count_clear(bits, begin, end);
}

template <std::size_t N>
void set_range(std::array<std::uint64_t, N>& bits, std::size_t begin, std::size_t end) {
  for_each_word(begin, end, [&](std::size_t w, std::uint64_t mask) { bits[w] |= mask; });
}

template <std::size_t N>
void clear_range(std::array<std::uint64_t, N>& bits, std::size_t begin, std::size_t end) {
  for_each_word(begin, end, [&](std::size_t w, std::uint64_t mask) { bits[w] &= ~mask; });
}

// The first of the lowest `length` < 64 consecutive ones, as a one with possibly more above it; 0
// if there are none. Each round ands the word with itself so that a one stands for twice as many.
std::uint64_t starts_of_ones(std::uint64_t word, std::size_t length) {
  while (length > 1) {
    const std::size_t shift = length / 2;
    word &= word >> shift;
    length -= shift;
  }
  return word;
}

// The lowest run of `pages` <= 512 free pages in a chunk's words.
std::optional<std::size_t> find_run(const std::uint64_t* in_use, std::size_t pages) {
  std::size_t run = 0;  // free pages that end where word w begins
  for (std::size_t w = 0; w < kChunkWords; ++w) {
    const std::uint64_t free = ~in_use[w];
    if (run + static_cast<std::size_t>(std::countr_one(free)) >= pages) return w * kWordBits - run;
    if (pages < kWordBits) {
      if (const std::uint64_t starts = starts_of_ones(free, pages); starts != 0) {
        return w * kWordBits + static_cast<std::size_t>(std::countr_zero(starts));
      }
    }
    const auto tail = static_cast<std::size_t>(std::countl_one(free));
    run = tail == kWordBits ? run + kWordBits : tail;
  }
  return std::nullopt;
}

// The length of the longest run of free pages in a chunk's words.
std::size_t longest_run(const std::uint64_t* in_use) {
  std::size_t longest = 0;
  std::size_t run = 0;
  for (std::size_t w = 0; w < kChunkWords; ++w) {
    std::uint64_t free = ~in_use[w];
    longest = std::max(longest, run + static_cast<std::size_t>(std::countr_one(free)));
    const auto tail = static_cast<std::size_t>(std::countl_one(free));
    run = tail == kWordBits ? run + kWordBits : tail;
    std::size_t inside = 0;
    for (; free != 0 && tail != kWordBits; free &= free >> 1) ++inside;
    longest = std::max(longest, inside);
  }
  return std::max(longest, run);
}

// Free pages directly below and above a place in a chunk.
std::size_t free_before(const std::uint64_t* in_use, std::size_t place) {
  std::size_t w = place / kWordBits;
  std::size_t count = place % kWordBits;
  if (count != 0) {
    const std::uint64_t below = in_use[w] << (kWordBits - count);
    if (below != 0) return static_cast<std::size_t>(std::countl_zero(below));
  }
  while (w-- != 0) {
    if (in_use[w] != 0) return count + static_cast<std::size_t>(std::countl_zero(in_use[w]));
    count += kWordBits;
  }
  return count;
}

std::size_t free_after(const std::uint64_t* in_use, std::size_t place) {
  std::size_t w = place / kWordBits;
  std::size_t count = 0;
  if (const std::size_t bit = place % kWordBits; bit != 0) {
    const std::uint64_t above = in_use[w] >> bit;
    if (above != 0) return static_cast<std::size_t>(std::countr_zero(above));
    count = kWordBits - bit;
    ++w;
  }
  for (; w < kChunkWords; ++w) {
    if (in_use[w] != 0) return count + static_cast<std::size_t>(std::countr_zero(in_use[w]));
    count += kWordBits;
  }
  return count;
}

// --- Summaries
// ------------------------------------------------------------------------------------

const std::uint64_t* words_of_chunk(const Arena& arena, std::size_t chunk) {
  return &arena.in_use[chunk * kChunkWords];
}

// Calls visit(chunk, begin, end) for each chunk that pages [begin, end) of an arena touch, with the
// pages counted from the chunk's first.
template <typename Visit>
void for_each_chunk(std::size_t begin, std::size_t end, Visit visit) {
  while (begin < end) {
    const std::size_t chunk = begin / kChunkPages;
    const std::size_t stop = std::min(end, (chunk + 1) * kChunkPages);
    visit(chunk, begin - chunk * kChunkPages, stop - chunk * kChunkPages);
    begin = stop;
  }
}

void shorten_runs(Arena& arena, std::size_t begin, std::size_t end) {
  for_each_chunk(begin, end, [&](std::size_t chunk, std::size_t from, std::size_t to) {
    ChunkSummary& summary = arena.chunks[chunk];
    if (from < summary.start) summary.start = static_cast<std::uint16_t>(from);
    if (kChunkPages - to < summary.end) {
      summary.end = static_cast<std::uint16_t>(kChunkPages - to);
    }
    if (to - from == kChunkPages) summary.longest = 0;
  });
}

// Free pages at the arena's start and at its end.
std::size_t free_at_start(const Arena& arena, std::size_t chunk = 0) {
  std::size_t pages = 0;
  for (; chunk < kArenaChunks; ++chunk) {
    pages += arena.chunks[chunk].start;
    if (arena.chunks[chunk].start != kChunkPages) break;
  }
  return pages;
}

std::size_t free_at_end(const Arena& arena, std::size_t chunks = kArenaChunks) {
  std::size_t pages = 0;
  while (chunks-- != 0) {
    pages += arena.chunks[chunks].end;
    if (arena.chunks[chunks].end != kChunkPages) break;
  }
  return pages;
}

// Enters pages that have just become free, and returns the length of the run they are now part of.
std::size_t lengthen_runs(Arena& arena, std::size_t begin, std::size_t end) {
  std::size_t length = end - begin;
  for_each_chunk(begin, end, [&](std::size_t chunk, std::size_t from, std::size_t to) {
    const std::uint64_t* const words = words_of_chunk(arena, chunk);
    const std::size_t before = free_before(words, from);
    const std::size_t after = free_after(words, to);
    // What is not the run's own end is another slice of it: nothing lies before or after there.
    length += before + after;
    from -= before;
    to += after;
    ChunkSummary& summary = arena.chunks[chunk];
    if (from == 0) summary.start = static_cast<std::uint16_t>(to);
    if (to == kChunkPages) summary.end = static_cast<std::uint16_t>(kChunkPages - from);
    summary.longest = std::max(summary.longest, static_cast<std::uint16_t>(to - from));
    // Beyond the chunk's ends, the neighbours' summaries say how far the run goes.
    if (from == 0 && chunk == begin / kChunkPages) length += free_at_end(arena, chunk);
    if (to == kChunkPages && chunk == (end - 1) / kChunkPages) {
      length += free_at_start(arena, chunk + 1);
    }
  });
  return length;
}

// A run of so many pages is one of 2^k pages or more: which hint bounds the search for it.
std::size_t hint_of(PageCount count) {
  return static_cast<std::size_t>(std::bit_width(count.value)) - 1;
}

// Notes that the records of pages [begin, end) are about to be touched. Returns of how many pages that is new.
std::size_t use_records(Arena& arena, std::size_t begin, std::size_t end) {
  std::size_t more = 0;
  for_each_word(begin / kRecordGroupPages, (end - 1) / kRecordGroupPages + 1,
                [&](std::size_t w, std::uint64_t mask) {
                  more += static_cast<std::size_t>(std::popcount(mask & ~arena.used_records[w]));
                  arena.used_records[w] |= mask;
                });
  return more * kRecordGroupPages;
}

// How many pages have records that fill one page of the kernel.
std::size_t record_group() {
  return std::max(kRecordGroupPages, os::kernel_page_bytes() / sizeof(PageRecord));
}

// How many of our pages make one of the kernel's.
std::size_t kernel_page_group() {
  return std::max<std::size_t>(1, os::kernel_page_bytes() / kPageBytes);
}

}  // namespace

// --- Take
// -----------------------------------------------------------------------------------------

std::optional<PageHeap::Run> PageHeap::take(PageCount count) {
  dcheck(count.value >= 1, "pageheap.run");
  if (count > kMaxRun) return std::nullopt;
  const Guard guard(x_lock);
  if (const auto first = count <= kWholeArena ? find(count) : find_row(count)) {
    if (const auto run = take_at(*first, count)) return run;
    // No memory for that one: is there one that needs none?
    const auto prepared = find_prepared(count);
    return prepared ? take_at(*prepared, count) : std::nullopt;
  }
  if (!make_limit_room(count.value)) return std::nullopt;
  const auto first = grow(count);
  return first ? take_at(*first, count) : std::nullopt;
}

// The lowest run of up to one arena, prepared or not.
std::optional<PageId> PageHeap::find(PageCount count) {
  const std::size_t k = hint_of(count);
  bool nothing_yet = true;  // no run of 2^k pages in the arenas seen so far
  for (std::size_t i = x_hints[k]; i < x_arenas; ++i) {
    Entry& entry = x_table[i];
    if (entry.longest >= count.value) {
      if (const auto first = find_in(entry, count.value, Reach::any)) return first;
    }
    nothing_yet = nothing_yet && entry.longest < std::size_t{1} << k;
    if (nothing_yet) x_hints[k] = static_cast<std::uint32_t>(i + 1);
  }
  return std::nullopt;
}

std::optional<PageId> PageHeap::find_prepared(PageCount count) const {
  if (count > kWholeArena) {
    const auto first = find_row(count);
    const auto is_prepared = [](Slice slice) { return slice.end <= slice.arena->prepared_pages; };
    return first && for_each_slice(*first, count, is_prepared) ? first : std::nullopt;
  }
  for (std::size_t i = x_hints[hint_of(count)]; i < x_arenas; ++i) {
    if (x_table[i].longest < count.value) continue;
    if (const auto first = find_in(x_table[i], count.value, Reach::prepared)) return first;
  }
  return std::nullopt;
}

std::optional<PageId> PageHeap::find_in(Entry& entry, std::size_t pages, Reach reach) {
  Arena& arena = *entry.arena;
  while (entry.first_chunk < kArenaChunks && arena.chunks[entry.first_chunk].longest == 0) {
    ++entry.first_chunk;
  }
  const std::size_t end = reach == Reach::any ? kArenaChunks : arena.prepared_pages / kChunkPages;
  std::size_t longest = 0;
  std::size_t run = 0;  // free pages that end where the chunk begins
  for (std::size_t chunk = entry.first_chunk; chunk < end; ++chunk) {
    ChunkSummary& summary = arena.chunks[chunk];
    const std::size_t first_page = chunk * kChunkPages;
    if (run + summary.start >= pages) return arena.first + PageCount{first_page - run};
    longest = std::max(longest, run + summary.start);
    if (summary.longest >= pages) {
      const std::uint64_t* const words = words_of_chunk(arena, chunk);
      if (const auto place = find_run(words, pages)) {
        return arena.first + PageCount{first_page + *place};
      }
      summary.longest = static_cast<std::uint16_t>(longest_run(words));
    }
    longest = std::max<std::size_t>(longest, summary.longest);
    run = summary.start == kChunkPages ? run + kChunkPages : summary.end;
  }
  if (reach == Reach::any) entry.longest = static_cast<std::uint16_t>(longest);
  return std::nullopt;
}

// The lowest run of more than one arena: the end of one, whole ones, the start of another.
std::optional<PageId> PageHeap::find_row(PageCount count) const {
  std::size_t row = 0;  // free pages that end where the arena begins
  PageId end = {};      // of the arena before
  for (std::size_t i = 0; i < x_arenas; ++i) {
    const Arena& arena = *x_table[i].arena;
    if (arena.first != end) row = 0;
    end = arena.first + kWholeArena;
    const std::size_t start = free_at_start(arena);
    if (row + start >= count.value) return PageId{arena.first.value - row};
    row = start == kArenaPages ? row + kArenaPages : free_at_end(arena);
  }
  return std::nullopt;
}

// Takes a run that is free. Everything that can fail comes before anything that shows.
std::optional<PageHeap::Run> PageHeap::take_at(PageId first, PageCount count) {
  std::size_t dirty = 0;
  for_each_slice(first, count, [&](const Slice& slice) {
    // In use from here on, so that making room below does not release these very pages.
    dirty += mark_in_use(slice);
    return true;
  });
  const std::size_t clean = count.value - dirty;
  if (!make_limit_room(clean) ||
      !for_each_slice(first, count, [this](const Slice& slice) { return prepare(slice); })) {
    for_each_slice(first, count, [&](const Slice& slice) {
      mark_free(slice);
      return true;
    });
    return std::nullopt;
  }
  for_each_slice(first, count, [&](const Slice& slice) {
    set_range(slice.arena->dirty, slice.begin, slice.end);
    add(x_record_pages, use_records(*slice.arena, slice.begin, slice.end));
    return true;
  });
  add(x_in_use_pages, count.value);
  add(x_ready_pages, clean);
  return Run{first, dirty == 0, {clean}};
}

// Makes room for so many more Ready pages under the hard limit, at the cost of free ones. Here the
// kernel is called with the lock held: who allocates at the hard limit waits anyway.
bool PageHeap::make_limit_room(std::size_t pages) {
  const std::size_t limit = x_limit_pages.load(std::memory_order_relaxed);
  for (;;) {  // each round releases at least one page, or ends
    const std::size_t wanted = x_ready_pages.load(std::memory_order_relaxed) + pages;
    if (wanted <= limit) return true;
    if (wanted - limit > x_free_dirty) return false;
    const auto slice = detach_dirty(std::max(wanted - limit, kReleaseBatchPages));
    if (!slice) return false;
    const bool discarded = discard(*slice);
    attach(*slice, discarded);
    if (!discarded) return false;
  }
}

// Makes the slice accessible, with the rest of its last chunk and all that lies before it.
bool PageHeap::prepare(Slice slice) {
  Arena& arena = *slice.arena;
  if (slice.end <= arena.prepared_pages) return true;
  const std::size_t end = round_up(slice.end, kChunkPages);
  const PageId first = arena.first + PageCount{arena.prepared_pages};
  const PageCount count = {end - arena.prepared_pages};
  if (!os::prepare(first.data(), count.bytes(), "tricolor heap")) return false;
  add(x_prepared_pages, count.value);
  arena.prepared_pages = static_cast<std::uint32_t>(end);
  return true;
}

// --- Grow
// -----------------------------------------------------------------------------------------

// Reserves as many arenas in a row as the run needs, with the run at their start prepared. They
// enter the heap only when nothing can fail any more, since an arena never leaves it
// [pagemap.monotonic].
std::optional<PageId> PageHeap::grow(PageCount count) {
  const std::size_t arenas = (count.value + kArenaPages - 1) / kArenaPages;
  if (!make_table_room(arenas)) return std::nullopt;
  const PageCount prepared = {round_up(count.value, kChunkPages)};
  char* const data =
      static_cast<char*>(os::reserve(arenas * kArenaBytes, kArenaBytes, "tricolor heap"));
  if (data == nullptr) return std::nullopt;
  char* const metadata = static_cast<char*>(
      os::map(arenas * kArenaMetadataBytes, kArenaMetadataBytes, "tricolor page records"));
  if (metadata == nullptr || !os::prepare(data, prepared.bytes(), "tricolor heap")) {
    if (metadata != nullptr) os::unreserve(metadata, arenas * kArenaMetadataBytes);
    os::unreserve(data, arenas * kArenaBytes);
    return std::nullopt;
  }
  for (std::size_t i = 0; i < arenas; ++i) {
    auto* const arena = new (metadata + i * kArenaMetadataBytes) Arena;
    arena->first = page_of(data + i * kArenaBytes);
    arena->prepared_pages = static_cast<std::uint32_t>(
        std::min(prepared.value - std::min(prepared.value, i * kArenaPages), kArenaPages));
    add(x_prepared_pages, arena->prepared_pages);
    enter(arena);
  }
  return page_of(data);
}

// Makes room in the table of arenas for so many more.
bool PageHeap::make_table_room(std::size_t more) {
  if (x_arenas + more <= x_capacity) return true;
  const std::size_t capacity = std::max(kFirstTableEntries, std::bit_ceil(x_arenas + more));
  const std::size_t page = os::kernel_page_bytes();
  void* const table =
      os::map(round_up(capacity * sizeof(Entry), page), page, "tricolor arena table");
  if (table == nullptr) return false;
  Entry* const old = x_table;
  x_table = new (table) Entry[capacity];
  std::copy(old, old + x_arenas, x_table);
  if (old != nullptr) os::unreserve(old, round_up(x_capacity * sizeof(Entry), page));
  x_capacity = capacity;
  return true;
}

// Enters a new arena everywhere, with its pages free.
void PageHeap::enter(Arena* arena) {
  const PageId first = arena->first;
  std::size_t place = x_arenas;
  for (; place > 0 && x_table[place - 1].arena->first > first; --place) {
    x_table[place] = x_table[place - 1];
    x_table[place].arena->index = static_cast<std::uint32_t>(place);
  }
  x_table[place] = {arena, kArenaPages, 0, 0};
  arena->index = static_cast<std::uint32_t>(place);
  ++x_arenas;
  for (std::uint32_t& hint : x_hints) hint = std::min(hint, arena->index);

  x_map.add(arena);
  add(x_reserved_pages, kArenaPages);
  const std::uintptr_t begin = first.address();
  if (begin < lowest_address()) x_lowest.store(begin, std::memory_order_relaxed);
  if (begin + kArenaBytes > highest_address()) {
    x_highest.store(begin + kArenaBytes, std::memory_order_relaxed);
  }
  // Into the list. Relaxed: not linked yet, and links are written under the lock only.
  std::atomic<Arena*>& link = place == 0 ? x_first : x_table[place - 1].arena->next;
  arena->next.store(link.load(std::memory_order_relaxed), std::memory_order_relaxed);
  // Release: the header is ready. Pairs with first_arena() and whoever follows `next` (acquire).
  link.store(arena, std::memory_order_release);
}

// --- Give back, release
// ---------------------------------------------------------------------------

void PageHeap::give_back(PageId first, PageCount count) {
  dcheck(count.value >= 1, "pageheap.run");
  const Guard guard(x_lock);
  for_each_slice(first, count, [&](const Slice& slice) {
    mark_free(slice);
    return true;
  });
  subtract(x_in_use_pages, count.value);
}

template <typename Visit>
bool PageHeap::for_each_slice(PageId first, PageCount count, Visit visit) const {
  while (count.value != 0) {
    const PageRecord* const record = x_map.record_of(first);
    check(record != nullptr, "pageheap.run", {first.address(), count.value});
    Arena* const arena = arena_of(record);
    const std::size_t begin = (first - arena->first).value;
    const PageCount here = {std::min(count.value, kArenaPages - begin)};
    if (!visit(Slice{arena, begin, begin + here.value})) return false;
    first = first + here;
    count = count - here;
  }
  return true;
}

// Returns how many of the pages are dirty.
std::size_t PageHeap::mark_in_use(Slice slice) {
  Arena& arena = *slice.arena;
  dcheck(count_set(arena.in_use, slice.begin, slice.end) == 0, "pageheap.summary",
         {arena.first.address(), slice.begin});
  set_range(arena.in_use, slice.begin, slice.end);
  shorten_runs(arena, slice.begin, slice.end);
  const std::size_t dirty = count_set(arena.dirty, slice.begin, slice.end);
  Entry& entry = x_table[arena.index];
  entry.free_dirty = static_cast<std::uint16_t>(entry.free_dirty - dirty);
  x_free_dirty -= dirty;
  return dirty;
}

void PageHeap::mark_free(Slice slice) {
  Arena& arena = *slice.arena;
  check(count_clear(arena.in_use, slice.begin, slice.end) == 0, "pageheap.run",
        {(arena.first + PageCount{slice.begin}).address(), slice.pages()});
  clear_range(arena.in_use, slice.begin, slice.end);
  const std::size_t run = lengthen_runs(arena, slice.begin, slice.end);
  const std::size_t dirty = count_set(arena.dirty, slice.begin, slice.end);
  Entry& entry = x_table[arena.index];
  entry.free_dirty = static_cast<std::uint16_t>(entry.free_dirty + dirty);
  x_free_dirty += dirty;

  const auto chunk = static_cast<std::uint16_t>(slice.begin / kChunkPages);
  entry.first_chunk = std::min(entry.first_chunk, chunk);
  entry.longest = std::max(entry.longest, static_cast<std::uint16_t>(run));
  const auto hints = static_cast<std::size_t>(std::bit_width(run));
  for (std::size_t k = 0; k < hints; ++k) x_hints[k] = std::min(x_hints[k], arena.index);
}

PageCount PageHeap::release(PageCount count) {
  std::size_t released = 0;
  while (released < count.value) {
    std::optional<Slice> slice;
    {
      const Guard guard(x_lock);
      slice = detach_dirty(count.value - released);
    }
    if (!slice) break;
    const bool discarded = discard(*slice);
    {
      const Guard guard(x_lock);
      released += attach(*slice, discarded);
    }
    if (!discarded) break;
    release_records(*slice);
  }
  return {released};
}

// Takes the highest dirty free pages that the kernel can have out of circulation: at most `pages`,
// rounded up to the kernel's pages, and at most a chunk.
std::optional<PageHeap::Slice> PageHeap::detach_dirty(std::size_t pages) {
  const std::size_t group = kernel_page_group();
  const std::size_t most = round_up(std::min(pages, kChunkPages), group);
  for (std::size_t i = x_arenas; i-- != 0;) {
    if (x_table[i].free_dirty == 0) continue;
    Arena& arena = *x_table[i].arena;
    std::size_t begin = 0;
    std::size_t end = 0;  // 0 until the run's last page is found
    for (std::size_t w = arena.in_use.size(); w-- != 0 && end - begin < most;) {
      const std::uint64_t pages_here = releasable_pages(~arena.in_use[w], arena.dirty[w], group);
      const auto above = end == 0 ? static_cast<std::size_t>(std::countl_zero(pages_here)) : 0;
      if (above == kWordBits) continue;
      const std::size_t top = (w + 1) * kWordBits - above;
      if (end == 0) begin = end = top;
      const auto length = static_cast<std::size_t>(std::countl_one(pages_here << above));
      begin -= length;
      if (above + length != kWordBits) break;
    }
    if (end == 0) continue;
    const Slice slice = {&arena, std::max(begin, end - std::min(end, most)), end};
    const std::size_t dirty = mark_in_use(slice);
    add(x_leaving_pages, dirty);
    subtract(x_ready_pages, dirty);
    return slice;
  }
  return std::nullopt;
}

bool PageHeap::discard(Slice slice) {
  const PageId first = slice.arena->first + PageCount{slice.begin};
  return os::discard(first.data(), PageCount{slice.pages()}.bytes());
}

// Returns how many dirty pages have become clean.
std::size_t PageHeap::attach(Slice slice, bool discarded) {
  const std::size_t dirty = count_set(slice.arena->dirty, slice.begin, slice.end);
  if (discarded) {
    clear_range(slice.arena->dirty, slice.begin, slice.end);
    add(x_released_pages, dirty);
  } else {
    add(x_ready_pages, dirty);
  }
  subtract(x_leaving_pages, dirty);
  mark_free(slice);
  return discarded ? dirty : 0;
}

void PageHeap::release_records(Slice around) {
  const std::size_t group = record_group();
  Slice left = {around.arena, around.begin / group * group, round_up(around.end, group)};
  for (;;) {  // each time round, less is left
    std::optional<Slice> slice;
    {
      const Guard guard(x_lock);
      slice = detach_clean(left);
    }
    if (!slice) return;
    const bool discarded = discard_records(*slice);
    const Guard guard(x_lock);
    attach_records(*slice, discarded);
    left.begin = slice->end;
  }
}

// Takes the first pages out of circulation that are clean, and whose records fill pages of the kernel and have memory behind
// them. So nobody publishes a span in any of these records.
std::optional<PageHeap::Slice> PageHeap::detach_clean(Slice within) {
  Arena& arena = *within.arena;
  const std::size_t group = record_group();
  Slice slice = {&arena, within.begin, within.begin};
  for (; slice.end != within.end; slice.end += group) {
    const std::size_t end = slice.end + group;
    const bool clean =
        count_set(arena.in_use, slice.end, end) == 0 &&
        count_set(arena.dirty, slice.end, end) == 0 &&
        count_set(arena.used_records, slice.end / kRecordGroupPages, end / kRecordGroupPages) != 0;
    if (!clean && slice.pages() != 0) break;
    if (!clean) slice.begin = end;
  }
  if (slice.pages() == 0) return std::nullopt;
  mark_in_use(slice);
  return slice;
}

bool PageHeap::discard_records(Slice slice) {
  PageRecord* const records = slice.arena->records() + slice.begin;
  // Both: which of the spans had small cells is not known any more.
  return os::discard(small_cell_bits(records), slice.pages() * sizeof(SmallCellBits)) &&
         os::discard(records, slice.pages() * sizeof(PageRecord));
}

void PageHeap::attach_records(Slice slice, bool discarded) {
  auto& used = slice.arena->used_records;
  const std::size_t begin = slice.begin / kRecordGroupPages;
  const std::size_t end = slice.end / kRecordGroupPages;
  if (discarded) {
    subtract(x_record_pages, count_set(used, begin, end) * kRecordGroupPages);
    clear_range(used, begin, end);
  }
  mark_free(slice);
}

// --- Settings and numbers
// -------------------------------------------------------------------------

void PageHeap::set_hard_limit_bytes(std::size_t bytes) {
  x_limit_pages.store(bytes == 0 ? SIZE_MAX : bytes / kPageBytes, std::memory_order_relaxed);
}

std::size_t PageHeap::in_use_bytes() const {
  return PageCount{x_in_use_pages.load(std::memory_order_relaxed)}.bytes();
}

std::size_t PageHeap::ready_bytes() const {
  return PageCount{x_ready_pages.load(std::memory_order_relaxed)}.bytes();
}

// Pages that go from one number to the other meanwhile would be missed, or counted twice. Acquire, both: in this order.
std::size_t PageHeap::mapped_bytes() const {
  for (;;) {
    const std::size_t leaving = x_leaving_pages.load(std::memory_order_acquire);
    const std::size_t ready = x_ready_pages.load(std::memory_order_acquire);
    if (x_leaving_pages.load(std::memory_order_relaxed) == leaving)
      return PageCount{ready + leaving}.bytes();
  }
}

std::size_t PageHeap::reserved_bytes() const {
  return PageCount{x_reserved_pages.load(std::memory_order_relaxed)}.bytes();
}

std::size_t PageHeap::prepared_bytes() const {
  return PageCount{x_prepared_pages.load(std::memory_order_relaxed)}.bytes();
}

std::size_t PageHeap::released_bytes() const {
  return PageCount{x_released_pages.load(std::memory_order_relaxed)}.bytes();
}

std::size_t PageHeap::metadata_bytes() const {
  const std::size_t headers =
      reserved_bytes() / kArenaBytes * round_up(sizeof(Arena), os::kernel_page_bytes());
  return headers + x_record_pages.load(std::memory_order_relaxed) * sizeof(PageRecord);
}

std::uintptr_t PageHeap::lowest_address() const { return x_lowest.load(std::memory_order_relaxed); }

std::uintptr_t PageHeap::highest_address() const {
  return x_highest.load(std::memory_order_relaxed);
}

Arena* PageHeap::first_arena() const {
  // Acquire: the first header is ready. Pairs with enter() (release).
  return x_first.load(std::memory_order_acquire);
}

void PageHeap::verify() const {
  const Guard guard(x_lock);
  std::size_t in_use = 0;
  std::size_t ready = 0;
  std::size_t prepared = 0;
  std::size_t records = 0;
  std::size_t all_free_dirty = 0;
  for (std::size_t i = 0; i < x_arenas; ++i) {
    const Entry& entry = x_table[i];
    const Arena& arena = *entry.arena;
    const std::uint64_t at = arena.first.address();
    check(arena.index == i, "pageheap.summary", {at, i});
    prepared += arena.prepared_pages;
    records += count_set(arena.used_records, 0, kArenaPages / kRecordGroupPages);
    for (std::size_t page = 0; page < kArenaPages; page += kRecordGroupPages) {
      const std::size_t g = page / kRecordGroupPages;
      check(count_set(arena.in_use, page, page + kRecordGroupPages) == 0 ||
                count_set(arena.used_records, g, g + 1) == 1,
            "pageheap.ready", {at, page});
    }
    std::size_t free_dirty = 0;
    for (std::size_t w = 0; w < arena.in_use.size(); ++w) {
      check((arena.in_use[w] & ~arena.dirty[w]) == 0, "pageheap.ready", {at, w});
      in_use += static_cast<std::size_t>(std::popcount(arena.in_use[w]));
      ready += static_cast<std::size_t>(std::popcount(arena.dirty[w]));
      free_dirty += static_cast<std::size_t>(std::popcount(arena.dirty[w] & ~arena.in_use[w]));
    }
    check(free_dirty == entry.free_dirty, "pageheap.summary", {at, free_dirty});
    all_free_dirty += free_dirty;
    check(count_set(arena.dirty, arena.prepared_pages, kArenaPages) == 0, "pageheap.ready", {at});

    std::size_t longest = 0;
    std::size_t run = 0;  // free pages that end where the chunk begins
    for (std::size_t chunk = 0; chunk < kArenaChunks; ++chunk) {
      const ChunkSummary& summary = arena.chunks[chunk];
      const std::uint64_t* const words = words_of_chunk(arena, chunk);
      const std::size_t inside = longest_run(words);
      check(summary.start == free_after(words, 0), "pageheap.summary", {at, chunk});
      check(summary.end == free_before(words, kChunkPages), "pageheap.summary", {at, chunk});
      check(summary.longest >= inside, "pageheap.summary", {at, chunk});
      check(inside == 0 || chunk >= entry.first_chunk, "pageheap.summary", {at, chunk});
      longest = std::max({longest, run + summary.start, inside});
      run = summary.start == kChunkPages ? run + kChunkPages : summary.end;
    }
    check(entry.longest >= longest, "pageheap.summary", {at, longest});
    for (std::size_t k = 0; k < kHints; ++k) {
      check(longest < std::size_t{1} << k || x_hints[k] <= i, "pageheap.summary", {at, k});
    }
  }
  check(all_free_dirty == x_free_dirty, "pageheap.summary", {all_free_dirty, x_free_dirty});
  check(PageCount{in_use}.bytes() == in_use_bytes(), "pageheap.ready", {in_use});
  check(PageCount{ready}.bytes() == ready_bytes(), "pageheap.ready", {ready});
  check(records * kRecordGroupPages == x_record_pages.load(std::memory_order_relaxed),
        "pageheap.ready", {records});
  check(PageCount{prepared}.bytes() == prepared_bytes(), "pageheap.ready", {prepared});
}

}  // namespace tricolor::impl
