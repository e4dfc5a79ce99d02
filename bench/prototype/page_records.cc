// Where should mark bits live? One thread marks the same heap of 48-byte objects with four layouts
// of the metadata (page_layouts.h) and several engines, interleaved, and prints ns per object.
//
// Engines: depth-first (mark, then push; objects wait on the stack), and a FIFO ring behind the
// stack: untested edges leave the stack, are prefetched, and meet the mark test kDepth edges later.
// In the two-stage engine the first ring prefetches the record and the second, after the test, the
// object.
// The batched engine does the same in batches and keeps unpredictable branches out of the test.
//
// Usage: page_records [objects = 1000000] [rounds = 7] [shapes = 3; 1 is the random graph only]

#include <memory>

#include "page_layouts.h"

namespace prototype {
namespace {

struct Result {
  std::uint64_t objects = 0;
  std::size_t stack_peak = 0;
};

[[gnu::always_inline]] inline void prefetch_object(const Cell* cell) {
  __builtin_prefetch(cell);
  __builtin_prefetch(&cell->words.back());  // Half of all 48-byte cells cross a line.
}

// A stack without bounds tests: no engine here ever holds more than every edge at once.
struct Stack {
  Cell** top;
  Cell** peak;
  void push_children(const Cell* cell, std::uint64_t pointer_mask) {
    for (; pointer_mask != 0; pointer_mask &= pointer_mask - 1)
      if (Cell* child = cell->words[static_cast<unsigned>(__builtin_ctzll(pointer_mask))])
        *top++ = child;
    peak = std::max(peak, top);
  }
};

template <class Layout>
Result mark_depth_first(const Heap& heap, Cell** bottom) {
  Result result;
  Stack stack{bottom, bottom};
  Layout::mark(Layout::find(heap, heap.root), heap.root);
  *stack.top++ = heap.root;
  while (stack.top != bottom) {
    const Cell* cell = *--stack.top;
    ++result.objects;
    for (std::uint64_t mask = Layout::pointer_mask(Layout::find(heap, cell)); mask;
         mask &= mask - 1) {
      Cell* child = cell->words[static_cast<unsigned>(__builtin_ctzll(mask))];
      if (child != nullptr && Layout::mark(Layout::find(heap, child), child)) *stack.top++ = child;
    }
    stack.peak = std::max(stack.peak, stack.top);
  }
  result.stack_peak = static_cast<std::size_t>(stack.peak - bottom);
  return result;
}

// A FIFO of fixed length: what goes in comes out kDepth exchanges later; null is an empty place.
template <unsigned kDepth>
class Ring {
 public:
  Cell* exchange(Cell* in) {
    Cell* out = std::exchange(places_[next_], in);
    next_ = (next_ + 1) % kDepth;
    used_ += static_cast<unsigned>(in != nullptr) - static_cast<unsigned>(out != nullptr);
    return out;
  }
  bool empty() const { return used_ == 0; }

 private:
  std::array<Cell*, kDepth> places_{};
  unsigned next_ = 0;
  unsigned used_ = 0;
};

enum class Prefetch { kNothing, kRecord, kObject, kBoth };

template <class Layout, unsigned kDepth, Prefetch kPrefetch = Prefetch::kBoth>
Result mark_fifo(const Heap& heap, Cell** bottom) {
  Result result;
  Stack stack{bottom, bottom};
  Ring<kDepth> ring;
  *stack.top++ = heap.root;
  while (stack.top != bottom || !ring.empty()) {
    Cell* edge = stack.top != bottom ? *--stack.top : nullptr;
    if (edge != nullptr) {
      if constexpr (kPrefetch == Prefetch::kRecord || kPrefetch == Prefetch::kBoth)
        Layout::prefetch(heap, edge);
      if constexpr (kPrefetch == Prefetch::kObject || kPrefetch == Prefetch::kBoth)
        prefetch_object(edge);
    }
    const Cell* cell = ring.exchange(edge);
    if (cell == nullptr) continue;
    const auto info = Layout::find(heap, cell);
    if (!Layout::mark(info, cell)) continue;
    ++result.objects;
    stack.push_children(cell, Layout::pointer_mask(info));
  }
  result.stack_peak = static_cast<std::size_t>(stack.peak - bottom);
  return result;
}

template <class Layout, unsigned kDepth>
Result mark_two_stage(const Heap& heap, Cell** bottom) {
  Result result;
  Stack stack{bottom, bottom};
  Ring<kDepth> untested;
  Ring<kDepth> grey;
  *stack.top++ = heap.root;
  while (stack.top != bottom || !untested.empty() || !grey.empty()) {
    Cell* edge = stack.top != bottom ? *--stack.top : nullptr;
    if (edge != nullptr) Layout::prefetch(heap, edge);
    Cell* tested = untested.exchange(edge);
    const bool drained = stack.top == bottom && untested.empty();
    if (tested != nullptr && Layout::mark(Layout::find(heap, tested), tested)) {
      prefetch_object(tested);
    } else if (!drained) {
      continue;  // The second ring turns only for new objects: they keep their distance.
    } else {
      tested = nullptr;
    }
    const Cell* cell = grey.exchange(tested);
    if (cell == nullptr) continue;
    ++result.objects;
    stack.push_children(cell, Layout::pointer_mask(Layout::find(heap, cell)));
  }
  result.stack_peak = static_cast<std::size_t>(stack.peak - bottom);
  return result;
}

// Three stages in batches: prefetch the records of one batch of edges, test the batch before it and
// prefetch the objects that look new, mark and scan the batch before that. Whether an edge leads to
// a marked object is a coin toss no predictor learns, and a ring meets it as a branch behind the
// whole look-up; here the test only moves an index. The look-up is done once and kept.
template <class Layout, unsigned kBatch>
Result mark_batched(const Heap& heap, Cell** bottom) {
  using Info = decltype(Layout::find(heap, heap.root));
  struct Edge {
    Cell* cell;
    Info info;
  };
  Result result;
  Cell** top = bottom;
  Cell** peak = bottom;
  std::array<std::array<Edge, kBatch>, 2> untested;
  std::array<std::array<Edge, kBatch>, 2> grey;
  std::array<unsigned, 2> untested_count{};
  std::array<unsigned, 2> grey_count{};
  *top++ = heap.root;
  for (unsigned now = 0;; now ^= 1) {
    const unsigned before = now ^ 1;
    const unsigned popped = static_cast<unsigned>(std::min<std::ptrdiff_t>(top - bottom, kBatch));
    untested_count[now] = popped;
    for (unsigned i = 0; i < popped; ++i) {
      Cell* cell = *--top;
      untested[now][i] = {cell, Layout::find(heap, cell)};
      Layout::prefetch(untested[now][i].info);
    }
    unsigned found = 0;
    for (unsigned i = 0; i < untested_count[before]; ++i) {
      const Edge edge = untested[before][i];
      grey[now][found] = edge;
      found += static_cast<unsigned>(!Layout::is_marked(edge.info, edge.cell));
    }
    grey_count[now] = found;
    for (unsigned i = 0; i < found; ++i) prefetch_object(grey[now][i].cell);
    for (unsigned i = 0; i < grey_count[before]; ++i) {
      const Edge edge = grey[before][i];
      if (!Layout::mark(edge.info, edge.cell)) continue;  // Rare: twice in flight at once.
      ++result.objects;
      for (std::uint64_t mask = Layout::pointer_mask(edge.info); mask != 0; mask &= mask - 1) {
        *top = edge.cell->words[static_cast<unsigned>(__builtin_ctzll(mask))];
        top += *top != nullptr;
      }
    }
    peak = std::max(peak, top);
    if (popped + untested_count[before] + found == 0 && top == bottom) break;
  }
  result.stack_peak = static_cast<std::size_t>(peak - bottom);
  return result;
}

// --- The race -----------------------------------------------------------------------------------

struct Contestant {
  const char* layout;
  const char* engine;
  Result (*mark)(const Heap&, Cell**);
};

using Table = SideTable<>;
constexpr std::array kContestants = {
    Contestant{"side table", "depth-first", mark_depth_first<Table>},
    Contestant{"granule", "depth-first", mark_depth_first<Granule>},
    Contestant{"in span", "depth-first", mark_depth_first<InSpan>},
    Contestant{"span object", "depth-first", mark_depth_first<SpanObject>},
    Contestant{"side table", "FIFO 16", mark_fifo<Table, 16>},
    Contestant{"granule", "FIFO 16", mark_fifo<Granule, 16>},
    Contestant{"in span", "FIFO 16", mark_fifo<InSpan, 16>},
    Contestant{"span object", "FIFO 16", mark_fifo<SpanObject, 16>},
    Contestant{"side table", "two-stage 16", mark_two_stage<Table, 16>},
    Contestant{"granule", "two-stage 16", mark_two_stage<Granule, 16>},
    Contestant{"in span", "two-stage 16", mark_two_stage<InSpan, 16>},
    Contestant{"span object", "two-stage 16", mark_two_stage<SpanObject, 16>},
    Contestant{"side table", "batched 32", mark_batched<Table, 32>},
    Contestant{"granule", "batched 32", mark_batched<Granule, 32>},
    Contestant{"in span", "batched 32", mark_batched<InSpan, 32>},
    Contestant{"span object", "batched 32", mark_batched<SpanObject, 32>},
    Contestant{"side table", "batched 16", mark_batched<Table, 16>},
    Contestant{"side table", "batched 64", mark_batched<Table, 64>},
    Contestant{"side table", "FIFO 8", mark_fifo<Table, 8>},
    Contestant{"side table", "FIFO 32", mark_fifo<Table, 32>},
    Contestant{"side table", "FIFO 64", mark_fifo<Table, 64>},
    Contestant{"side table", "two-stage 8", mark_two_stage<Table, 8>},
    Contestant{"side table", "two-stage 32", mark_two_stage<Table, 32>},
    Contestant{"side table", "FIFO 16, no prefetch", mark_fifo<Table, 16, Prefetch::kNothing>},
    Contestant{"side table", "FIFO 16, record only", mark_fifo<Table, 16, Prefetch::kRecord>},
    Contestant{"side table", "FIFO 16, object only", mark_fifo<Table, 16, Prefetch::kObject>},
    Contestant{"side table", "FIFO 16, fetch_or", mark_fifo<SideTable<Bits::kFetchOr>, 16>},
    Contestant{"side table", "FIFO 16, plain bits", mark_fifo<SideTable<Bits::kPlain>, 16>},
    Contestant{"side table", "depth-first, plain bits", mark_depth_first<SideTable<Bits::kPlain>>},
};
constexpr std::array kColumns = {"4 KiB pages", "huge heap", "huge heap and metadata"};

void race(Shape shape, std::uint32_t objects, int rounds) {
  const std::vector<Children> children = make_children(shape, objects);
  const std::vector<std::uint32_t> places = make_places(shape, objects);
  const std::array<std::unique_ptr<Heap>, 3> heaps = {
      std::make_unique<Heap>(children, places, Pages::kSmall, Pages::kSmall),
      std::make_unique<Heap>(children, places, Pages::kHuge, Pages::kSmall),
      std::make_unique<Heap>(children, places, Pages::kHuge, Pages::kHuge)};
  const Mapping stack(std::size_t{objects} * kSlots * sizeof(Cell*), Pages::kSmall);
  std::array<std::array<Samples, kColumns.size()>, kContestants.size()> ns;
  std::array<Result, kContestants.size()> results;

  // First touch of the stack is not what we measure; untested edges need the most of it.
  mark_fifo<Table, 16>(*heaps[0], stack.as<Cell*>());
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t column = 0; column < heaps.size(); ++column) {
      for (std::size_t i = 0; i < kContestants.size(); ++i) {
        heaps[column]->clear_marks();
        cool_caches();
        const double start = now_ns();
        results[i] = kContestants[i].mark(*heaps[column], stack.as<Cell*>());
        const double elapsed = now_ns() - start;
        if (results[i].objects != results[0].objects) std::abort();  // An engine lost an object.
        ns[i][column].add(elapsed / static_cast<double>(results[i].objects));
      }
    }
  }
  std::printf("\n%s, %u objects, %llu reached, ns per object, median (min–max) of %d\n\n",
              name_of(shape), objects, static_cast<unsigned long long>(results[0].objects), rounds);
  std::printf(
      "| layout | engine | %s | %s | %s | stack peak, entries |\n|---|---|--:|--:|--:|--:|\n",
      kColumns[0], kColumns[1], kColumns[2]);
  for (std::size_t i = 0; i < kContestants.size(); ++i)
    std::printf("| %s | %s | %s | %s | %s | %zu |\n", kContestants[i].layout,
                kContestants[i].engine, ns[i][0].text().c_str(), ns[i][1].text().c_str(),
                ns[i][2].text().c_str(), results[i].stack_peak);
  std::fflush(stdout);
}

}  // namespace
}  // namespace prototype

int main(int argc, char** argv) {
  const auto objects = static_cast<std::uint32_t>(argc > 1 ? std::atoll(argv[1]) : 1'000'000);
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 7;
  const std::size_t shapes = argc > 3 ? static_cast<std::size_t>(std::atoi(argv[3])) : 3;
  for (std::size_t i = 0; i < std::min(shapes, prototype::kShapes.size()); ++i)
    prototype::race(prototype::kShapes[i], objects, rounds);
}
