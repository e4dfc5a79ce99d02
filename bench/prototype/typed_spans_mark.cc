// What does marking cost when spans are typed, when objects have headers, and when spans have a
// pointer bitmap (schemes.h)? Mark bits are in a side table of page records for all three, so only
// the way to the pointer mask and the places of the objects differ: cells with a header have 64
// bytes, not 48, and typed spans spread neighbours of different types over different pages.
//
// Usage: typed_spans_mark [objects = 1000000] [rounds = 7]

#include <atomic>
#include <cstring>
#include <memory>

#include "schemes.h"

namespace prototype {
namespace {

constexpr std::size_t kObjectWords = 6;
using Object = std::uint64_t;  // The first word of an object.

struct alignas(128) PageRecord {
  std::array<std::uint64_t, 8> marks_and_scanned;
  std::array<std::uint64_t, 4> allocated;
  std::uint64_t pointer_mask;
  std::uint64_t reciprocal;
};

// All of one scheme's objects, linked, with one side table for the page records.
template <Scheme kScheme>
class Heap {
 public:
  static constexpr std::size_t kCellBytes = cell_bytes_for(kScheme, kObjectWords * 8);
  static constexpr std::size_t kCells = usable_bytes(kScheme) / kCellBytes;

  // `order` is the order in which nodes are allocated, `types` the type of each node.
  Heap(const std::vector<Children>& children, const std::vector<std::uint32_t>& order,
       const std::vector<std::uint8_t>& types, const std::vector<Type>& all_types, Pages pages)
      : pages_(children.size() / kCells + all_types.size() + 1),
        cells_(pages_ * kPageBytes, pages),
        records_(pages_ * sizeof(PageRecord), Pages::kSmall),
        arena_map_(kArenaMapEntries * sizeof(PageRecord*), Pages::kSmall),
        arenas(arena_map_.as<PageRecord*>()) {
    struct Open {
      std::size_t page = 0;
      std::size_t next = kCells;
    };
    std::vector<Open> open(all_types.size());
    std::vector<Object*> objects(children.size());
    std::size_t used_pages = 0;
    for (const std::uint32_t node : order) {
      const Type& type = all_types[types[node]];
      Open& span = open[kScheme == Scheme::kTyped ? types[node] : 0];
      if (span.next == kCells) span = {open_page(used_pages++, type), 0};
      std::byte* cell = cells_.as<std::byte>() + span.page * kPageBytes + span.next++ * kCellBytes;
      if constexpr (kScheme == Scheme::kHeader) {
        *reinterpret_cast<const Type**>(cell) = &type;
        cell += sizeof(Type*);
      }
      if constexpr (kScheme == Scheme::kBitmap)
        write_pointer_bits(cell, kObjectWords, type.pointer_mask);
      objects[node] = reinterpret_cast<Object*>(cell);
    }
    for (std::size_t node = 0; node < children.size(); ++node) {
      std::uint64_t mask = all_types[types[node]].pointer_mask;
      for (unsigned slot = 0; slot < kSlots; ++slot, mask &= mask - 1)
        if (const std::uint32_t child = children[node][slot]; child != kNoNode)
          objects[node][__builtin_ctzll(mask)] = reinterpret_cast<Object>(objects[child]);
    }
    root = objects[0];
  }

  void clear_marks() {
    for (std::size_t page = 0; page < pages_; ++page)
      records_.as<PageRecord>()[page].marks_and_scanned = {};
  }
  PageRecord* find(const Object* object) const {
    const auto address = reinterpret_cast<std::uintptr_t>(object);
    return arenas[address >> kArenaShift] + (address >> kPageShift) % kPagesPerArena;
  }

  static std::uint64_t pointer_mask(const PageRecord* record, const Object* object) {
    if constexpr (kScheme == Scheme::kTyped) return record->pointer_mask;
    if constexpr (kScheme == Scheme::kHeader)
      return reinterpret_cast<const Type*>(object[-1])->pointer_mask;
    const std::size_t first = reinterpret_cast<std::uintptr_t>(object) % kPageBytes / 8;
    const std::uint64_t* bits = bitmap_of(object) + first / 64;
    std::uint64_t mask = bits[0] >> (first % 64);
    if (first % 64 + kObjectWords > 64) mask |= bits[1] << (64 - first % 64);
    return mask & ((std::uint64_t{1} << kObjectWords) - 1);
  }

  [[gnu::always_inline]] void prefetch(const Object* object) const {
    const PageRecord* record = find(object);
    __builtin_prefetch(&record->marks_and_scanned);
    __builtin_prefetch(&record->allocated);
    __builtin_prefetch(kScheme == Scheme::kHeader ? object - 1 : object);
    __builtin_prefetch(object + kObjectWords - 1);
    if constexpr (kScheme == Scheme::kBitmap)
      __builtin_prefetch(bitmap_of(object) +
                         reinterpret_cast<std::uintptr_t>(object) % kPageBytes / 8 / 64);
  }

 private:
  static const std::uint64_t* bitmap_of(const Object* object) {
    const std::uintptr_t end = (reinterpret_cast<std::uintptr_t>(object) | (kPageBytes - 1)) + 1;
    return reinterpret_cast<const std::uint64_t*>(end - kBitmapBytes);
  }
  std::size_t open_page(std::size_t page, const Type& type) {
    PageRecord& record = records_.as<PageRecord>()[page];
    record.reciprocal = (std::uint64_t{1} << 32) / kCellBytes + 1;
    record.pointer_mask = type.pointer_mask;
    if (page % kPagesPerArena == 0) {
      const auto base =
          reinterpret_cast<std::uintptr_t>(cells_.as<std::byte>() + page * kPageBytes);
      arena_map_.as<PageRecord*>()[base >> kArenaShift] = &record;
    }
    return page;
  }

  std::size_t pages_;
  Mapping cells_, records_, arena_map_;

 public:
  PageRecord* const* arenas;
  Object* root = nullptr;
};

// True if this call marked the object. The compare-exchange is what several markers would need.
[[gnu::always_inline]] inline bool mark(PageRecord* record, const Object* object) {
  const std::size_t offset = reinterpret_cast<std::uintptr_t>(object) % kPageBytes;
  const std::size_t index = (offset * record->reciprocal) >> 32;
  const std::uint64_t bit = std::uint64_t{1} << (index % 64);
  // Relaxed: one thread marks here.
  std::atomic_ref<std::uint64_t> word(record->marks_and_scanned[index / 64]);
  std::uint64_t seen = word.load(std::memory_order_relaxed);
  do {
    if (seen & bit) return false;
  } while (!word.compare_exchange_weak(seen, seen | bit, std::memory_order_relaxed));
  return true;
}

template <Scheme kScheme>
std::uint64_t mark_depth_first(const Heap<kScheme>& heap, const Object** const bottom) {
  std::uint64_t count = 0;
  const Object** top = bottom;
  mark(heap.find(heap.root), heap.root);
  *top++ = heap.root;
  while (top != bottom) {
    const Object* object = *--top;
    ++count;
    for (std::uint64_t m = heap.pointer_mask(heap.find(object), object); m != 0; m &= m - 1) {
      const auto* child = reinterpret_cast<const Object*>(object[__builtin_ctzll(m)]);
      if (child != nullptr && mark(heap.find(child), child)) *top++ = child;
    }
  }
  return count;
}

// The ring of page_records.cc at the depth that did best there.
template <Scheme kScheme>
std::uint64_t mark_fifo(const Heap<kScheme>& heap, const Object** const bottom) {
  std::array<const Object*, 32> ring{};
  std::uint64_t count = 0;
  std::size_t next = 0;
  std::size_t waiting = 0;
  const Object** top = bottom;
  *top++ = heap.root;
  while (top != bottom || waiting != 0) {
    const Object* edge = top != bottom ? *--top : nullptr;
    if (edge != nullptr) {
      heap.prefetch(edge);
      ++waiting;
    }
    const Object* object = std::exchange(ring[next], edge);
    next = (next + 1) % ring.size();
    if (object == nullptr) continue;
    --waiting;
    PageRecord* record = heap.find(object);
    if (!mark(record, object)) continue;
    ++count;
    for (std::uint64_t m = heap.pointer_mask(record, object); m != 0; m &= m - 1)
      if (const auto* child = reinterpret_cast<const Object*>(object[__builtin_ctzll(m)]))
        *top++ = child;
  }
  return count;
}

constexpr std::array kMarkRows = {"depth-first", "FIFO 32"};
constexpr std::array<std::size_t, 2> kTypeCounts = {1, 15};
using MarkSamples = std::array<std::array<Samples, 2>, kMarkRows.size()>;  // [engine][pages]

template <Scheme kScheme>
struct MarkContestant {
  std::array<std::unique_ptr<Heap<kScheme>>, 2> heaps;  // With small and with huge pages.
  MarkSamples ns;
  std::uint64_t run(const Object** stack) {
    std::uint64_t count = 0;
    for (std::size_t pages = 0; pages < heaps.size(); ++pages)
      for (std::size_t engine = 0; engine < kMarkRows.size(); ++engine) {
        heaps[pages]->clear_marks();
        cool_caches();
        const double start = now_ns();
        count =
            engine == 0 ? mark_depth_first(*heaps[pages], stack) : mark_fifo(*heaps[pages], stack);
        ns[engine][pages].add((now_ns() - start) / static_cast<double>(count));
      }
    return count;
  }
};

void race_marking(Shape shape, std::uint32_t objects, std::size_t type_count, int rounds) {
  const std::vector<Children> children = make_children(shape, objects);
  const std::vector<std::uint32_t> order = make_places(shape, objects);
  std::vector<Type> all_types;
  for (std::uint64_t mask = 0b001111; all_types.size() < type_count; ++mask)
    if (__builtin_popcountll(mask) == kSlots) all_types.push_back({mask});
  Random random(3);
  std::vector<std::uint8_t> types(objects);
  for (std::uint8_t& type : types) type = static_cast<std::uint8_t>(random.below(type_count));

  MarkContestant<Scheme::kTyped> typed;
  MarkContestant<Scheme::kHeader> header;
  MarkContestant<Scheme::kBitmap> bitmap;
  const auto build = [&]<Scheme kScheme>(MarkContestant<kScheme>& contestant) {
    for (const Pages pages : {Pages::kSmall, Pages::kHuge})
      contestant.heaps[static_cast<std::size_t>(pages)] =
          std::make_unique<Heap<kScheme>>(children, order, types, all_types, pages);
  };
  build(typed);
  build(header);
  build(bitmap);
  const Mapping stack(std::size_t{objects} * kSlots * sizeof(Object*), Pages::kSmall);
  std::memset(stack.as<void>(), 1, std::size_t{objects} * sizeof(Object*));  // Touch it once.
  for (int round = 0; round < rounds; ++round) {
    const std::uint64_t count = typed.run(stack.as<const Object*>());
    if (header.run(stack.as<const Object*>()) != count) std::abort();
    if (bitmap.run(stack.as<const Object*>()) != count) std::abort();
  }
  const auto print = [&](Scheme scheme, const MarkSamples& ns) {
    for (std::size_t engine = 0; engine < kMarkRows.size(); ++engine)
      std::printf("| %s | %zu | %s | %s | %s | %s |\n", name_of(shape), type_count, name_of(scheme),
                  kMarkRows[engine], ns[engine][0].text().c_str(), ns[engine][1].text().c_str());
  };
  print(Scheme::kTyped, typed.ns);
  print(Scheme::kHeader, header.ns);
  print(Scheme::kBitmap, bitmap.ns);
  std::fflush(stdout);
}

}  // namespace
}  // namespace prototype

int main(int argc, char** argv) {
  const auto objects = static_cast<std::uint32_t>(argc > 1 ? std::atoll(argv[1]) : 1'000'000);
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 7;
  std::printf("\nmark %u objects of 48 bytes, ns per object, median (min–max) of %d\n\n", objects,
              rounds);
  std::printf("| shape | types | scheme | engine | 4 KiB pages | huge heap |\n");
  std::printf("|---|--:|---|---|--:|--:|\n");
  for (const prototype::Shape shape : prototype::kShapes)
    for (const std::size_t types : prototype::kTypeCounts)
      prototype::race_marking(shape, objects, types, rounds);
}
