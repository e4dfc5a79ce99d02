// Four places for mark bits, and a heap of 48-byte cells that has all four of them:
//
//   side table   arena map -> 128-byte record of the page, by arithmetic: line 0 holds what markers
//                write (mark and scanned bits), line 1 the allocation bits and what they only read.
//   granule      the same table, but line 0 holds one mark bit per 16 bytes: no reciprocal, so a
//                test that finds its bit set never reads line 1. No room for scanned bits.
//   in span      the same record in the last 128 bytes of the page itself, as in Go's Green Tea;
//                one bit per page in the arena says that the page has it.
//   span object  arena map -> span pointer of the page -> 160-byte span -> its bitmap: classic Go.
//
// All layouts mark the very same heap: the last 128 bytes of every page are left free for the
// record in the span, so a page holds 168 cells, where the other layouts would have room for 170.

#pragma once

#include <atomic>
#include <cstring>
#include <memory>

#include "measure.h"

namespace prototype {

struct Cell {
  std::array<Cell*, 6> words;
};
constexpr std::uint32_t kReciprocal = (std::uint64_t{1} << 32) / sizeof(Cell) + 1;
constexpr std::uint64_t kPointerMask = 0b011110;  // Words 1 to 4; words 0 and 5 are plain data.

struct Metadata {
  std::array<std::uint64_t, 4> allocated;
  std::byte* span_base;
  std::uint32_t reciprocal;
  std::uint32_t cell_bytes;
  std::uint64_t pointer_mask;
  std::uint64_t sweep_generation;
};
struct alignas(128) PageRecord {
  std::array<std::uint64_t, 4> marks;
  std::array<std::uint64_t, 4> scanned;
  Metadata data;
};
static_assert(sizeof(PageRecord) == 128, "two lines: one for markers, one for allocation");
struct alignas(128) GranuleRecord {
  std::array<std::uint64_t, 8> marks;
  Metadata data;
};
static_assert(sizeof(GranuleRecord) == 128, "as large as the record it is compared with");
constexpr std::size_t kCellsPerPage = (kPageBytes - sizeof(PageRecord)) / sizeof(Cell);

struct Span {
  std::byte* base;
  std::uint64_t* marks;
  std::uint64_t pointer_mask;
  std::uint32_t reciprocal;
  std::array<std::byte, 132> other_fields;  // Go's mspan has 160 bytes.
};
static_assert(sizeof(Span) == 160, "the stride decides how many spans share a cache line");

inline std::uintptr_t address_of(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer);
}

// The heap with the metadata of every contestant, linked once and marked many times.
class Heap {
 public:
  Heap(const std::vector<Children>& children, const std::vector<std::uint32_t>& places,
       Pages heap_pages, Pages metadata_pages)
      : pages_((children.size() + kCellsPerPage - 1) / kCellsPerPage),
        cells_(pages_ * kPageBytes, heap_pages),
        records_(pages_ * sizeof(PageRecord), metadata_pages),
        granules_(pages_ * sizeof(GranuleRecord), metadata_pages),
        spans_(pages_ * sizeof(Span), metadata_pages),
        bitmaps_(pages_ * kBitmapWords * 8, metadata_pages),
        span_map_(pages_ * sizeof(Span*), metadata_pages),
        arena_map_(kArenaMapEntries * sizeof(Arena), Pages::kSmall),
        arenas(arena_map_.as<Arena>()) {
    for (std::size_t page = 0; page < pages_; ++page) prepare(page);
    for (std::size_t node = 0; node < children.size(); ++node)
      for (unsigned slot = 0; slot < kSlots; ++slot)
        if (const std::uint32_t child = children[node][slot]; child != kNoNode)
          cell(places[node])->words[1 + slot] = cell(places[child]);
    root = cell(places[0]);
  }

  void clear_marks() {
    for (std::size_t page = 0; page < pages_; ++page) {
      records_.as<PageRecord>()[page].marks = {};
      granules_.as<GranuleRecord>()[page].marks = {};
      in_span_record(page)->marks = {};
    }
    std::memset(bitmaps_.as<void>(), 0, pages_ * kBitmapWords * 8);
  }

  struct Arena {
    PageRecord* records;
    GranuleRecord* granules;
    Span** spans;
    std::uint64_t* in_span_bits;
  };

 private:
  static constexpr std::size_t kBitmapWords = 3;  // 168 bits.

  Cell* cell(std::size_t place) const {
    std::byte* page = cells_.as<std::byte>() + place / kCellsPerPage * kPageBytes;
    return reinterpret_cast<Cell*>(page) + place % kCellsPerPage;
  }
  PageRecord* in_span_record(std::size_t page) const {
    return reinterpret_cast<PageRecord*>(cells_.as<std::byte>() + (page + 1) * kPageBytes) - 1;
  }

  void prepare(std::size_t page) {
    std::byte* base = cells_.as<std::byte>() + page * kPageBytes;
    const Metadata data{{}, base, kReciprocal, sizeof(Cell), kPointerMask, 0};
    records_.as<PageRecord>()[page].data = data;
    granules_.as<GranuleRecord>()[page].data = data;
    in_span_record(page)->data = data;
    std::uint64_t* marks = bitmaps_.as<std::uint64_t>() + page * kBitmapWords;
    spans_.as<Span>()[page] = {base, marks, kPointerMask, kReciprocal, {}};
    span_map_.as<Span*>()[page] = spans_.as<Span>() + page;

    Arena& arena = arena_map_.as<Arena>()[address_of(base) >> kArenaShift];
    const std::size_t in_arena = page % kPagesPerArena;
    if (in_arena == 0) {
      in_span_bits_.push_back(std::make_unique<std::uint64_t[]>(kPagesPerArena / 64));
      arena = {records_.as<PageRecord>() + page, granules_.as<GranuleRecord>() + page,
               span_map_.as<Span*>() + page, in_span_bits_.back().get()};
    }
    arena.in_span_bits[in_arena / 64] |= std::uint64_t{1} << (in_arena % 64);
  }

  std::size_t pages_;
  Mapping cells_, records_, granules_, spans_, bitmaps_, span_map_, arena_map_;
  std::vector<std::unique_ptr<std::uint64_t[]>> in_span_bits_;

 public:
  const Arena* arenas;
  Cell* root = nullptr;
};

// --- Layouts: find() a cell's metadata, mark() it there, prefetch() what mark() will read. ------
//
// GCC 12 (its ipa-modref pass) finds that a function which only prefetches has no effect and deletes
// calls to it, unless it is inlined early. So every prefetch here is always_inline, at every level.

// Compare-exchange is the default. GCC makes `lock bts` with a memory operand of a fetch_or whose
// result is used; it costs the same. What atomicity costs at all, plain bits tell.
enum class Bits { kFetchOr, kExchange, kPlain };

// Test first, as the library does: most edges lead to a cell that is marked, and a read does not
// take the line away from other markers. True if this call set the bit.
template <Bits kBits>
[[gnu::always_inline]] inline bool set_bit(std::uint64_t* words, std::size_t index) {
  std::uint64_t& word = words[index / 64];
  const std::uint64_t bit = std::uint64_t{1} << (index % 64);
  if constexpr (kBits == Bits::kPlain) {
    if (word & bit) return false;
    word |= bit;
    return true;
  } else {
    // Relaxed: one thread marks here; the atomic is in the race for what it costs.
    std::atomic_ref<std::uint64_t> shared(word);
    std::uint64_t seen = shared.load(std::memory_order_relaxed);
    if (seen & bit) return false;
    if constexpr (kBits == Bits::kExchange) {
      while (!shared.compare_exchange_weak(seen, seen | bit, std::memory_order_relaxed))
        if (seen & bit) return false;
      return true;
    }
    return !(shared.fetch_or(bit, std::memory_order_relaxed) & bit);
  }
}

inline bool test_bit(const std::uint64_t* words, std::size_t index) {
  return (words[index / 64] >> (index % 64) & 1) != 0;
}

template <class Info>
std::size_t index_in_span(const Info& info, std::byte* base, const Cell* cell) {
  return ((address_of(cell) - address_of(base)) * info.reciprocal) >> 32;
}

inline std::size_t page_in_arena(const Cell* cell) {
  return (address_of(cell) >> kPageShift) % kPagesPerArena;
}

template <Bits kBits = Bits::kExchange>
struct SideTable {
  [[gnu::always_inline]] static PageRecord* find(const Heap& heap, const Cell* cell) {
    return heap.arenas[address_of(cell) >> kArenaShift].records + page_in_arena(cell);
  }
  [[gnu::always_inline]] static bool mark(PageRecord* record, const Cell* cell) {
    const Metadata& data = record->data;
    return set_bit<kBits>(record->marks.data(), index_in_span(data, data.span_base, cell));
  }
  [[gnu::always_inline]] static std::uint64_t pointer_mask(const PageRecord* record) {
    return record->data.pointer_mask;
  }
  // Only a read: no atomic operation, no unpredictable branch.
  [[gnu::always_inline]] static bool is_marked(const PageRecord* record, const Cell* cell) {
    const Metadata& data = record->data;
    return test_bit(record->marks.data(), index_in_span(data, data.span_base, cell));
  }
  [[gnu::always_inline]] static void prefetch(const Heap& heap, const Cell* cell) {
    prefetch(find(heap, cell));
  }
  [[gnu::always_inline]] static void prefetch(const PageRecord* record) {
    __builtin_prefetch(&record->marks);
    __builtin_prefetch(&record->data);
  }
};

struct InSpan : SideTable<> {
  [[gnu::always_inline]] static PageRecord* find(const Heap& heap, const Cell* cell) {
    const std::size_t page = page_in_arena(cell);
    const std::uint64_t* bits = heap.arenas[address_of(cell) >> kArenaShift].in_span_bits;
    if (!(bits[page / 64] >> (page % 64) & 1)) std::abort();  // Go looks the span up instead.
    return reinterpret_cast<PageRecord*>((address_of(cell) | (kPageBytes - 1)) + 1) - 1;
  }
  // Pure arithmetic: a prefetch of a page that turns out to have no record does no harm.
  [[gnu::always_inline]] static void prefetch(const Heap&, const Cell* cell) {
    SideTable::prefetch(
        reinterpret_cast<const PageRecord*>((address_of(cell) | (kPageBytes - 1)) + 1) - 1);
  }
  [[gnu::always_inline]] static void prefetch(const PageRecord* record) {
    SideTable::prefetch(record);
  }
};

struct Granule {
  [[gnu::always_inline]] static GranuleRecord* find(const Heap& heap, const Cell* cell) {
    return heap.arenas[address_of(cell) >> kArenaShift].granules + page_in_arena(cell);
  }
  [[gnu::always_inline]] static bool mark(GranuleRecord* record, const Cell* cell) {
    return set_bit<Bits::kExchange>(record->marks.data(), address_of(cell) % kPageBytes / 16);
  }
  [[gnu::always_inline]] static std::uint64_t pointer_mask(const GranuleRecord* r) {
    return r->data.pointer_mask;
  }
  [[gnu::always_inline]] static bool is_marked(const GranuleRecord* record, const Cell* cell) {
    return test_bit(record->marks.data(), address_of(cell) % kPageBytes / 16);
  }
  [[gnu::always_inline]] static void prefetch(const Heap& heap, const Cell* cell) {
    prefetch(find(heap, cell));
  }
  [[gnu::always_inline]] static void prefetch(const GranuleRecord* record) {
    __builtin_prefetch(&record->marks);
    __builtin_prefetch(&record->data);
  }
};

struct SpanObject {
  [[gnu::always_inline]] static Span* find(const Heap& heap, const Cell* cell) {
    return heap.arenas[address_of(cell) >> kArenaShift].spans[page_in_arena(cell)];
  }
  [[gnu::always_inline]] static bool mark(Span* span, const Cell* cell) {
    return set_bit<Bits::kExchange>(span->marks, index_in_span(*span, span->base, cell));
  }
  [[gnu::always_inline]] static std::uint64_t pointer_mask(const Span* span) {
    return span->pointer_mask;
  }
  // The bitmap cannot be prefetched: its address is in the span, which is still on its way.
  [[gnu::always_inline]] static bool is_marked(const Span* span, const Cell* cell) {
    return test_bit(span->marks, index_in_span(*span, span->base, cell));
  }
  [[gnu::always_inline]] static void prefetch(const Heap& heap, const Cell* cell) {
    prefetch(find(heap, cell));
  }
  [[gnu::always_inline]] static void prefetch(const Span* span) {
    __builtin_prefetch(span);
    __builtin_prefetch(&span->reciprocal);
  }
};

}  // namespace prototype
