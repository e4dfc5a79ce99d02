// A marker: follows references from roots until nothing is grey.
//
// A reference found is not looked up at once: its page record is prefetched and it waits in a small ring (first in, first
// out), so that the record is in the cache when its turn comes; a cell that turned grey waits in a second ring while its
// own lines arrive. Everything else grey waits in the mark queue. No recursion; the rings and a packet are all the memory a
// marker needs to finish (barrier/mark_queue.h).
//
// Several markers run side by side, each on a thread of its own, with a queue of its own (gc/mark_crew.h), and beside the
// program.
//
// Work is bytes of cells with references that have been scanned. A marker counts it, and every kLookBytes of it looks around:
// it tells the assists what it has done (gc/assist.h), and may have to leave: a coordinator that has had its share of the
// CPU, a thread of the program that has paid, an idle worker whose CPU somebody else wants. Who leaves has given all that was
// grey in its hands to the pool; when there is no packet to do so with, it goes on.
//
// Idle workers use CPUs that are spare: those that neither the program's threads, as far as they are attached, nor other markers
// have. (A thread that is scheduled only when nothing else runs would need no count of them; but then a cycle could not end
// while the last packet is with a thread that gets no CPU.) They are helpers, and the coordinator beyond its share; what they
// take of the CPUs is counted apart, since it is nobody's loss.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <tricolor/tracer.h>

#include "alloc/allocator.h"
#include "alloc/cell.h"
#include "barrier/color.h"
#include "barrier/mark_queue.h"
#include "gc/assist.h"

namespace tricolor::impl {

class Marker {
 public:
  // With CountScans::yes also by size class what is scanned (gctrace=2).
  enum class CountScans : std::uint8_t { no, yes };
  Marker(Allocator& allocator, PacketPool& pool, Assists& assists, WorkPacket* own_packet,
         std::size_t packet_entries, CountScans count_scans);

  // Forgets the counts of the last cycle. `markers`: whether others may mark beside this one.
  void begin(Markers markers);
  // The coordinator: takes `cpus` of a CPU from now on, 1 at most, by the clock of the calling thread; what that is ahead of
  // its share it waits for. With SpareCpu::yes only as soon as others want the CPU.
  enum class SpareCpu : std::uint8_t { no, yes };
  void begin_share(double cpus, SpareCpu spare);

  // A word that may be anything (stack, register, global): what it refers to must be allocated. True if that has
  // turned grey (not if it was white and has no references: then it is black).
  bool mark_word(std::uintptr_t word);
  // How often it has been called for an object, ever.
  std::uint64_t words_found() const { return x_words_found; }
  // Every aligned word of [begin, end).
  void mark_range(const void* begin, const void* end);

  // A cell under construction is kept, and read word by word instead of being traced [cell.construction]: first all of them are
  // shaded, before any other root of the cycle, so that none is found white; then each is queued.
  void shade_construction(const void* cell);
  void queue_construction(const void* cell);

  // The coordinator: follows references until no marker has any left. What did not fit into queues may still be grey: then it has
  // been postponed.
  void finish();
  // By the coordinator, when finish() has returned and something has been postponed.
  void rescan();
  // In a forked child: forgets what it was about to do.
  void abandon();

  // A helper: follows references that others share until its end.
  void help();

  // A thread of the program: scans about `work` bytes, and less only when there is nothing to take or nothing is owed any more.
  // Returns how many.
  std::uint64_t assist(std::uint64_t work);

  std::uint64_t marked_bytes() const { return x_marked_bytes; }
  std::uint64_t marked_objects() const { return x_marked_objects; }
  std::uint64_t conservative_cells() const { return x_conservative_cells; }
  std::uint64_t work_bytes() const { return x_work_bytes; }
  const ScanCounts& scanned() const { return x_scanned; }
  // Of a helper's thread, while it was a dedicated one.
  std::uint64_t cpu_ns() const { return x_cpu_ns; }
  // On spare CPUs: of a helper's thread, while it was an idle one; of the coordinator's, beyond its share.
  std::uint64_t idle_cpu_ns() const { return x_idle_cpu_ns; }

 private:
  // Objects above this are scanned in pieces of it, so that the queue stays small.
  static constexpr std::size_t kPieceBytes = 128 << 10;
  // Some 20 microseconds.
  static constexpr std::uint64_t kLookBytes = 16 << 10;
  static constexpr std::uint32_t kLooksAClock = 8;  // where nothing depends on it sooner
  static constexpr std::size_t kCandidates = 16;
  static constexpr std::size_t kGreys = 8;

  struct Candidate {
    std::uintptr_t address;
    PageRecord* record;
  };

  // First in, first out; kSize a power of two.
  template <class T, std::size_t kSize>
  class Ring {
   public:
    bool empty() const { return x_first == x_end; }
    bool full() const { return x_end - x_first == kSize; }
    void push(T item) { x_items[x_end++ % kSize] = item; }
    T pop() { return x_items[x_first++ % kSize]; }
    void clear() { x_first = x_end; }

   private:
    std::array<T, kSize> x_items;
    std::uint32_t x_first = 0;
    std::uint32_t x_end = 0;
  };

  void discover(std::uintptr_t address);
  void visit(Candidate candidate);
  bool mark_cell(PageRecord* span, std::uint32_t index, std::uintptr_t cell);
  void scan(GreyWork work);
  void count_scan(const Kind& kind);
  void scan_cell(const Kind& kind, char* cell);
  void scan_unusual(const Kind& kind, char* cell);
  void scan_piece(const Kind& kind, char* object, std::size_t bytes, std::size_t from);
  void scan_words(const char* begin, const char* end);
  void scan_offsets(const char* part, const detail::WordOffsets& offsets);
  void push(std::uintptr_t address, std::uint32_t kind);
  [[gnu::cold]] void postpone(std::uintptr_t address);
  bool follow();
  bool look_around();
  bool must_leave();
  bool has_spare_cpu() const;
  void count_idle_cpu(std::uint64_t cpu_ns, std::uint64_t now_ns);
  std::uint64_t take_cpu_ns();
  void count_assist_cpu();
  std::uint64_t count_worker_cpu();
  void count_assist_marked();
  bool give_all();
  void report_work();
  std::uint64_t own_time_ns() const;

  Allocator& x_allocator;
  ArenaMap& x_map;
  PacketPool& x_pool;
  Assists& x_assists;
  MarkQueue x_queue;
  Ring<Candidate, kCandidates> x_candidates;
  Ring<GreyWork, kGreys> x_greys;
  Markers x_markers = Markers::one;
  const CountScans x_count_scans;
  std::uint64_t x_words_found = 0;
  std::uint64_t x_marked_bytes = 0;
  std::uint64_t x_marked_objects = 0;
  std::uint64_t x_conservative_cells = 0;
  std::uint64_t x_work_bytes = 0;
  std::uint64_t x_reported_bytes = 0;  // of them
  std::uint64_t x_look_at_bytes = kLookBytes;
  std::uint64_t x_leave_at_bytes = UINT64_MAX;  // of an assist
  bool x_is_assist = false;
  bool x_is_idle = false;  // a helper that is an idle worker
  SpareCpu x_spare = SpareCpu::no;
  std::uint32_t x_looks = 0;
  std::uint64_t x_seen_ns = 0;  // the clocks when it looked around last
  std::uint64_t x_seen_cpu_ns = 0;
  double x_share = 1;  // of a CPU; its clocks when that began:
  std::uint64_t x_share_begin_ns = 0;
  std::uint64_t x_share_begin_cpu_ns = 0;
  std::uint64_t x_cpu_ns = 0;
  std::uint64_t x_idle_cpu_ns = 0;
  ScanCounts x_scanned = {};
  std::array<const void*, 128> x_traced;
  struct Tracer;
};

}  // namespace tricolor::impl
