// Roots that the program tells us of: slots of gc::root handles, which may be anywhere in its hands and are kept in blocks of
// ours so that the marker finds them all; and ranges of its own memory (gc::root_range).
//
// Invariant [handles.removal]: while a cycle marks, a handle that goes shades what it held. Whether one marks is known and
//   changed under the lock of the table, for a handle may go on a thread that no stop concerns (one that is not attached, or
//   inside blocking_call): it went before the cycle's snapshot, or it shades; and it has shaded before the cycle ends, or it
//   goes after it. The same holds for ranges, of which a part at a time is shaded under the lock: one that a cycle finds half
//   removed is in its snapshot like any other, and is shaded for it from the beginning.
// Invariant [ranges.one-instant]: raw ranges, with value stacks, are captured in the arming stop, with the stacks: nobody takes a
//   reference out of one unseen while it is to be read. Barriered ones are read later: what is taken out of them is shaded.
//   A range that comes while a cycle marks holds nothing that is not in the snapshot, or new.
// Invariant [ranges.in-use]: of a range that has gone nothing is read: its memory may be unmapped. Whoever reads one has tested that
//   it is in use, and goes on only while its number is the same, each under the lock.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "alloc/base/lock.h"
#include "alloc/metadata.h"
#include "barrier/shader.h"
#include "roots/stack.h"

namespace tricolor::impl {

// One handle's word: null, a managed address, or while the slot is free a link to the next free one.
using RootSlot = std::atomic<void*>;

// A registered range, or room for one (then of kind `none`, and nothing else counts). Never given back. All but `next` is
// guarded by the lock of the RootSet.
struct RootRange {
  enum class Kind : std::uint8_t { none, barriered, raw };

  const char* begin = nullptr;
  const char* end = nullptr;      // of a value stack: how far it may grow, or kUnknown
  const void* top = nullptr;      // of a value stack: where its end stands
  const void* owner = nullptr;    // of a value stack: its thread
  const char* known = nullptr;    // of a value stack: the highest end that it has been seen to have
  std::uint64_t number = 0;       // changes when it is taken, and when it is left
  std::uint64_t since_cycle = 0;  // it came while that one marked, or after it
  std::uint64_t read_cycle = 0;   // the last that has read it, or need not
  StackCapture capture{nullptr, 0};  // of a raw one, in the cycle that marks
  RootRange* next = nullptr;         // of all, in use or not
  RootRange* next_raw = nullptr;
  RootRange* previous_raw = nullptr;
  RootRange* next_free = nullptr;
  Kind kind = Kind::none;

  static constexpr std::uintptr_t kUnknown =
      UINTPTR_MAX / sizeof(std::uintptr_t) * sizeof(std::uintptr_t);

  bool is_stack() const { return top != nullptr; }
  // As it is now. Of a value stack: its owner does not run, or is the caller.
  const char* limit() const;
};

class RootSet {
 public:
  RootSet(Metadata& metadata, const ArenaMap& map, PacketPool& pool, ShadedCounts& counts)
      : x_metadata(metadata), x_pool(pool), x_shader(map, pool, counts) {}

  // A slot that holds null. Null when memory is refused.
  RootSlot* take();
  void give_back(RootSlot* slot);

  // Held by a thread that forks.
  Mutex& mutex() { return x_lock; }

  // ---- ranges

  // A buffer for captures.
  struct Words {
    std::uintptr_t* begin = nullptr;
    std::size_t capacity = 0;
    std::size_t bytes() const { return capacity * sizeof(std::uintptr_t); }
  };
  // Which one, until it has been removed; and how much of it has been shaded before that.
  struct Registration {
    RootRange* range = nullptr;
    std::uint64_t number = 0;
    std::uint64_t shaded_cycle = 0;
    std::size_t shaded_bytes = 0;
  };
  // Null when memory is refused. Of `wanted` the first six count. A raw one is captured in `words`.
  Registration add_range(const RootRange& wanted, Words words);
  // A part of the work, under the lock; true when it has gone, or had before. Then `left` may be a buffer that is the caller's.
  bool remove_part(Registration& registration, Words& left);
  Words take_words(std::size_t capacity);
  void give_back(Words words) { x_metadata.give_back(words.begin, words.bytes()); }
  // The first value stack of which is_wanted(owner) is true.
  template <class Fn>
  Registration find_stack(Fn is_wanted) {
    const Guard guard(x_lock);
    for (RootRange* range = x_raw_ranges; range != nullptr; range = range->next_raw) {
      if (range->owner != nullptr && is_wanted(range->owner)) return {range, range->number};
    }
    return {};
  }
  // Removes such. For whoever need not let a stop come in between.
  template <class Fn>
  void remove_stacks(Fn is_wanted) {
    for (;;) {
      Registration stack = find_stack(is_wanted);
      if (stack.range == nullptr) return;
      Words left;
      while (!remove_part(stack, left)) {
      }
      give_back(left);
    }
  }
  // Whether a reference stored at `p` is found, as far as ranges go. Reads the list of them. `caller` is a thread that may own
  // value stacks, or null.
  bool is_in_range(const void* p, const void* caller);
  // How many have been removed, ever. Relaxed: a hint for who has just stored to one.
  std::uint64_t ranges_gone() const { return x_ranges_gone.load(std::memory_order_relaxed); }

  // A cycle begins. Captures raw ranges; those that do not fit in a larger buffer (only value stacks: others have room for all from
  // the beginning). With Grow::no, or where memory is refused, they are given to scan(begin, end) at once. World stopped; bytes read.
  enum class Grow : std::uint8_t { no, yes };
  template <class Scan>
  std::size_t capture_ranges(AddressRange heap, Grow grow, Scan scan) {
    const Guard guard(x_lock);
    ++x_cycle;
    std::size_t bytes = 0;
    for (RootRange* range = x_raw_ranges; range != nullptr; range = range->next_raw) {
      range->capture.capture(range->begin, range->limit(), heap);
      note_limit(*range);
      bytes += range->capture.stack_bytes();
      if (range->capture.complete() ||
          (grow == Grow::yes && range->capture.go_on(heap, x_metadata)))
        continue;
      scan(range->capture.top(), range->capture.base());
      range->capture.clear();
    }
    return bytes;
  }
  // What ranges held when the cycle began: scan(begin, end) for parts of barriered ones, word(word) for captured ones; each part
  // under the lock, and between() after it without.
  template <class Scan, class Word, class Between>
  void scan_ranges(Scan scan, Word word, Between between) {
    x_lock.lock();
    RootRange* range = x_ranges;  // newer ones come before it
    x_lock.unlock();
    for (; range != nullptr; range = range->next) {
      std::uint64_t number = 0;
      for (std::size_t part = 0; scan_part(*range, number, part, scan, word); ++part) between();
    }
  }
  // fn(range) for every range that the cycle which marks has in its snapshot.
  template <class Fn>
  void for_each_range_in_snapshot(Fn fn) {
    const Guard guard(x_lock);
    for (const RootRange* range = x_ranges; range != nullptr; range = range->next) {
      if (range->kind != RootRange::Kind::none && range->since_cycle != x_cycle) fn(*range);
    }
  }

  // ---- phases

  // Handles and ranges that go shade from now on. World stopped.
  void begin_marking();
  // False when something has become grey that is not marked yet: the markers have it now. World stopped.
  bool end_marking();
  // Hands what has become grey to the markers.
  void share();
  // In a forked child, with the lock held: no cycle marks any more. The work that is left, or null.
  WorkPacket* abandon_marking() {
    x_marking = false;
    return x_shader.take_packet();
  }

  // Calls fn(const void* place, void* word) for every slot in use that is not null, a block at a time under the lock. Handles
  // that are made meanwhile may be missed: their first store is barriered.
  template <class Fn>
  void for_each(Fn fn) {
    x_lock.lock();
    const Block* block = x_blocks;  // newer ones come before it
    x_lock.unlock();
    for (; block != nullptr; block = block->next) {
      const Guard guard(x_lock);
      for (const RootSlot& slot : block->slots) {
        // Relaxed: what is stored there is shaded, before or by us.
        void* const word = slot.load(std::memory_order_relaxed);
        if (word != nullptr && !is_free_link(word)) fn(&slot, word);
      }
    }
  }

 private:
  // How much is shaded or marked under the lock at once: handles and forks wait for that.
  static constexpr std::size_t kPartBytes = 2 << 10;

  // False when there are no more parts. `number`: of the first.
  template <class Scan, class Word>
  bool scan_part(RootRange& range, std::uint64_t& number, std::size_t part, Scan scan, Word word) {
    const Guard guard(x_lock);
    if (part == 0) number = range.number;
    // Not in use, or read, or gone and shaded.
    if (range.kind == RootRange::Kind::none || range.read_cycle == x_cycle ||
        range.number != number)
      return false;
    if (for_part(range, part * kPartBytes, scan, word)) return true;
    range.read_cycle = x_cycle;
    return false;
  }
  // The part of what it held that begins at `at`. False when it is the last. The lock is held.
  template <class Scan, class Word>
  static bool for_part(const RootRange& range, std::size_t at, Scan scan, Word word) {
    dcheck(range.kind != RootRange::Kind::none, "ranges.in-use");
    if (range.kind == RootRange::Kind::raw) {
      const auto words = static_cast<std::size_t>(range.capture.end() - range.capture.begin());
      const std::size_t first = std::min(words, at / sizeof(std::uintptr_t));
      const std::size_t last = std::min(words, first + kPartBytes / sizeof(std::uintptr_t));
      std::for_each(range.capture.begin() + first, range.capture.begin() + last, word);
      return last < words;
    }
    const auto bytes = static_cast<std::size_t>(range.end - range.begin);
    const std::size_t first = std::min(bytes, at);
    const std::size_t last = std::min(bytes, first + kPartBytes);
    if (first < last) scan(range.begin + first, range.begin + last);
    return last < bytes;
  }
  static void note_limit(RootRange& range);

  struct Block {
    Block* next;
    std::array<RootSlot, 511> slots;
  };
  static_assert(sizeof(Block) == 4096, "a metadata block");

  // Links of the free list carry bit 63, which no address of a user process has (bit 0 may be set in a handle on a byte).
  static constexpr std::uintptr_t kFreeLink = std::uintptr_t{1} << 63;
  static bool is_free_link(const void* word) {
    return (reinterpret_cast<std::uintptr_t>(word) & kFreeLink) != 0;
  }

  Metadata& x_metadata;
  PacketPool& x_pool;
  Mutex x_lock{LockRank::kRootTable};
  Block* x_blocks =
      nullptr;  // guarded by x_lock; blocks are never given back, and keep their `next`
  // Guarded by x_lock, all of these.
  RootSlot* x_free = nullptr;
  RootRange* x_ranges = nullptr;
  RootRange* x_raw_ranges = nullptr;
  RootRange* x_free_ranges = nullptr;
  std::uint64_t x_cycle = 0;
  bool x_marking = false;
  Shader x_shader;
  std::atomic<std::uint64_t> x_ranges_gone{0};
};

}  // namespace tricolor::impl
