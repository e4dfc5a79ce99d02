#include "gc/verify.h"

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <string_view>

#include <tricolor/tracer.h>

#include "alloc/base/check.h"
#include "alloc/base/log.h"
#include "alloc/base/os.h"
#include "alloc/cell.h"
#include "barrier/color.h"
#include "gc/heap.h"

namespace tricolor::impl {

namespace {

std::string_view name_of(const Kind& kind) {
  if (kind.type == nullptr) return "memory without references";
  return {kind.type->name, kind.type->name_size};
}

class Verifier {
 public:
  explicit Verifier(Heap& heap) : x_heap(heap), x_map(heap.allocator().map) {}

  void look_at_cells() {
    Allocator& allocator = x_heap.allocator();
    for (Arena* arena = allocator.pages.first_arena(); arena != nullptr;
         arena = arena->next.load(std::memory_order_acquire)) {
      for (std::size_t w = 0; w < arena->heads.size(); ++w) {
        for (std::uint64_t bits = arena->heads[w].load(std::memory_order_acquire); bits != 0;
             bits &= bits - 1) {
          look_at_span(arena->records() + w * 64 +
                       static_cast<std::size_t>(std::countr_zero(bits)));
        }
      }
    }
  }

  // Memory that may be gone in part.
  void look_at_root_memory(const char* what, const char* begin, const char* end) {
    for (const char* at = begin; at < end;) {
      std::array<std::uintptr_t, 512> words;
      const auto wanted = std::min(sizeof words, static_cast<std::size_t>(end - at));
      const std::size_t got = os::read_maybe_unmapped(words.data(), at, wanted);
      for (std::size_t i = 0; i < got / sizeof words[0]; ++i)
        look_at_root(what, at + 8 * i, words[i]);
      at += std::max(got, sizeof words[0]);
      if (got < wanted) {
        const std::size_t page = os::kernel_page_bytes();
        at = reinterpret_cast<const char*>(round_up(reinterpret_cast<std::uintptr_t>(at), page));
      }
    }
  }

  void look_at_root(const char* what, const void* place, std::uintptr_t word) {
    const Cell child = missed(word);
    if (!child) return;
    LineBuffer<600> line;
    line.text("tricolor: gccheckmark: ")
        .text(what)
        .text(" at ")
        .hex(reinterpret_cast<std::uintptr_t>(place));
    fail(line, word, child);
  }

 private:
  // The cell, if it is allocated and not marked.
  Cell missed(std::uintptr_t word) const {
    const Cell cell = find_allocated_cell(x_map, word);
    return !cell || is_marked(cell) ? Cell{} : cell;
  }

  template <class Line>
  [[noreturn]] static void fail(Line& line, std::uintptr_t word, const Cell& child) {
    line.text(" holds ")
        .hex(word)
        .text(", in an object (")
        .text(name_of(*child.span->kind))
        .text(" at ");
    line.hex(child.address())
        .text(
            ") that this cycle has not marked: it would be freed. Either a pointer was stored "
            "there past the barrier, or this is "
            "a bug of tricolor");
    log_line(line.view());
    check_failed("verify.no-hidden-white", {word, child.address()}, Place::here());
  }

  void look_at_word(const Cell& parent, std::size_t offset) {
    const std::uintptr_t word = __atomic_load_n(
        reinterpret_cast<const std::uintptr_t*>(parent.address() + offset), __ATOMIC_RELAXED);
    if (missed(word)) fail_in(parent, offset, word);
  }

  // Without an offset where a trace function has reported the word: it does not say from which of its fields.
  [[noreturn]] void fail_in(const Cell& parent, std::optional<std::size_t> offset,
                            std::uintptr_t word) const {
    LineBuffer<600> line;
    line.text("tricolor: gccheckmark: an object (").text(name_of(*parent.span->kind)).text(" at ");
    line.hex(parent.address());
    if (offset) line.text(", at offset ").count(*offset);
    line.text(")");
    fail(line, word, missed(word));
  }

  void look_at_span(PageRecord* span) {
    if (span->scan == detail::ScanMode::none ||
        span->state.load(std::memory_order_acquire) != PageState::in_use)
      return;
    for (std::uint32_t i = 0; i < span->cells; ++i) {
      const Cell cell{span, i};
      if (is_allocated(span, i) && is_marked(cell)) look_at_cell(*span->kind, cell);
    }
  }

  void look_at_cell(const Kind& kind, const Cell& cell) {
    switch (kind.scan) {
      case detail::ScanMode::none:
        return;
      case detail::ScanMode::conservative:
        for (std::size_t at = 0; at + 8 <= cell.bytes(); at += 8) look_at_word(cell, at);
        return;
      case detail::ScanMode::words:
        return look_at_words(*kind.type, cell);
      case detail::ScanMode::traced:
        return look_at_traced(*kind.type, cell);
    }
  }

  void look_at_words(const detail::type_info& type, const Cell& cell) {
    for (std::uint32_t i = 0; i < type.fixed.count; ++i) look_at_word(cell, type.fixed.begin[i]);
    if (type.tail_stride == 0) return;
    for (std::size_t at = type.tail_offset; at + type.tail_stride <= cell.bytes();
         at += type.tail_stride) {
      for (std::uint32_t i = 0; i < type.tail.count; ++i)
        look_at_word(cell, at + type.tail.begin[i]);
    }
  }

  struct Tracer : tracer {
    Tracer(Verifier& verifier_, const Cell& parent_)
        : tracer(verifier_.x_words.data(), verifier_.x_words.size(), full),
          verifier(verifier_),
          parent(parent_) {}
    static void full(tracer& t, std::size_t count) {
      auto& self = static_cast<Tracer&>(t);
      for (std::size_t i = 0; i < count; ++i) {
        const auto word = reinterpret_cast<std::uintptr_t>(self.verifier.x_words[i]);
        if (self.verifier.missed(word)) self.verifier.fail_in(self.parent, std::nullopt, word);
      }
    }
    Verifier& verifier;
    const Cell& parent;
  };

  void look_at_traced(const detail::type_info& type, const Cell& cell) {
    bool under_construction = false;
    x_heap.handshake().for_each_mutator([&](Mutator& m) {
      for (const detail::construction* c = m.constructing; c != nullptr; c = c->outer)
        under_construction |= reinterpret_cast<std::uintptr_t>(c->cell) == cell.address();
    });
    if (under_construction) return;
    Tracer t(*this, cell);
    type.trace(reinterpret_cast<const void*>(cell.address()), t);
    t.flush();
  }

  Heap& x_heap;
  const ArenaMap& x_map;
  std::array<const void*, 64> x_words = {};  // what a trace function has reported
};

}  // namespace

void verify_marks(Heap& heap, const SegmentList& segments) {
  // Cells that are claimed and not used are marked [alloc.black], and hold what their last owners left.
  heap.handshake().for_each_mutator([&](Mutator& m) { return_all(heap.allocator(), m); });
  Verifier verifier(heap);
  verifier.look_at_cells();
  heap.roots().for_each([&](const void* place, void* word) {
    verifier.look_at_root("a gc::root", place, reinterpret_cast<std::uintptr_t>(word));
  });
  heap.roots().for_each_range_in_snapshot([&](const RootRange& range) {
    if (range.kind == RootRange::Kind::barriered)
      return verifier.look_at_root_memory("a barriered root range", range.begin, range.end);
    for (const std::uintptr_t& word : range.capture)
      verifier.look_at_root("a raw root range, when the cycle began,", &word, word);
  });
  for (const Segment& segment : segments)
    verifier.look_at_root_memory("a global", segment.begin, segment.end);
  heap.handshake().for_each_mutator([&](Mutator& m) {
    for (const std::uintptr_t& word : m.capture)
      verifier.look_at_root("a stack, when the cycle began,", &word, word);
    for (const TlsBlocks::Block& block : m.tls)
      verifier.look_at_root_memory("a thread_local", block.begin, block.end);
  });
}

}  // namespace tricolor::impl
