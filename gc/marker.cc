#include "gc/marker.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "alloc/base/fault.h"
#include "alloc/base/os.h"
#include "alloc/base/sanitizer.h"
#include "alloc/span_life.h"
#include "barrier/color.h"
#include "gc/pacer.h"

namespace tricolor::impl {

// What a type's trace function talks to.
struct Marker::Tracer : tracer {
  explicit Tracer(Marker& marker_)
      : tracer(marker_.x_traced.data(), marker_.x_traced.size(), full), marker(marker_) {}
  static void full(tracer& t, std::size_t count) {
    Marker& m = static_cast<Tracer&>(t).marker;
    // A tracer may report anything, so these words are looked up like a stack's.
    for (std::size_t i = 0; i < count; ++i)
      m.mark_word(reinterpret_cast<std::uintptr_t>(m.x_traced[i]));
  }
  Marker& marker;
};

Marker::Marker(Allocator& allocator, PacketPool& pool, Assists& assists, WorkPacket* own_packet,
               std::size_t packet_entries, CountScans count_scans)
    : x_allocator(allocator),
      x_map(allocator.map),
      x_pool(pool),
      x_assists(assists),
      x_queue(pool, own_packet, packet_entries),
      x_count_scans(count_scans) {}

void Marker::begin(Markers markers) {
  x_markers = markers;
  x_marked_bytes = 0;
  x_marked_objects = 0;
  x_conservative_cells = 0;
  x_work_bytes = 0;
  x_reported_bytes = 0;
  x_look_at_bytes = kLookBytes;
  x_share = 1;
  x_is_idle = false;
  x_cpu_ns = 0;
  x_idle_cpu_ns = 0;
  if (x_count_scans == CountScans::yes) x_scanned = {};
}

void Marker::begin_share(double cpus, SpareCpu spare) {
  x_share = cpus;
  x_spare = spare;
  x_seen_ns = x_share_begin_ns = os::now_ns();
  x_seen_cpu_ns = x_share_begin_cpu_ns = os::thread_cpu_ns();
}

// A reference from a managed word. It waits until its record has been fetched.
inline void Marker::discover(std::uintptr_t address) {
  PageRecord* const record = x_map.record_of(address);
  if (record == nullptr) return;  // null, or memory that is not the heap's
  fetch_record(record);
  if (x_candidates.full()) visit(x_candidates.pop());
  x_candidates.push({address, record});
}

// The white -> grey step for a reference whose record is at hand.
inline void Marker::visit(Candidate candidate) {
  std::uintptr_t offset = 0;
  PageRecord* const span = head_of(x_map, candidate.record, candidate.address, offset);
  if (span == nullptr) return;
  const auto index = static_cast<std::uint32_t>(offset * span->reciprocal >> 32);
  if (index >= span->cells) return;
  // A field may hold a past-the-end or a stale address, and what that leads to may be no object of the type, or not yet: asked
  // before the cell can turn grey. One that is constructed from now on is marked already [alloc.black].
  if (span->scan == detail::ScanMode::traced && !is_allocated(span, index)) [[unlikely]]
    return;
  const std::uintptr_t cell =
      candidate.address - offset +
      std::uintptr_t{index} * detail::kSizeClasses[span->size_class].cell_bytes;
  mark_cell(span, index, cell);
}

// True if the cell has turned grey.
inline bool Marker::mark_cell(PageRecord* span, std::uint32_t index, std::uintptr_t cell) {
  if (!shade(span, index, x_markers)) return false;
  ++x_marked_objects;
  const std::uint32_t bytes = detail::kSizeClasses[span->size_class].cell_bytes;
  x_marked_bytes += bytes != 0 ? bytes : PageCount{span->slot_or_pages}.bytes();
  if (span->scan == detail::ScanMode::none) return false;
  __builtin_prefetch(reinterpret_cast<const void*>(cell));
  push(cell, span->kind->id);
  return true;
}

bool Marker::mark_word(std::uintptr_t word) {
  const Cell cell = find_allocated_cell(x_map, word);
  if (!cell) return false;
  ++x_words_found;
  return mark_cell(cell.span, cell.index, cell.address());
}

inline void Marker::push(std::uintptr_t address, std::uint32_t kind) {
  if (!x_queue.push(grey_work(address, kind))) [[unlikely]]
    postpone(address);
}

void Marker::postpone(std::uintptr_t address) {
  const Cell cell = find_cell(x_map, address & ~kRestOfObject);
  x_pool.postpone(cell.span, cell.index);
}

void Marker::finish() {
  for (;;) {
    const bool left = !follow();
    report_work();
    count_worker_cpu();
    if (!x_queue.refill_or_end(left ? own_time_ns() : 0)) {
      // A short mark may not have looked around at all.
      if (x_share < 1 && x_spare == SpareCpu::yes && has_spare_cpu() && !x_pool.in_hurry())
        count_idle_cpu(x_seen_cpu_ns, os::now_ns());
      return;
    }
    x_seen_ns = os::now_ns();
  }
}

void Marker::abandon() {
  x_queue.clear();
  x_candidates.clear();
  x_greys.clear();
}

void Marker::help() {
  for (PacketPool::Stint stint; x_queue.refill_as_helper(stint);) {
    const std::uint64_t begin_ns = x_seen_cpu_ns = os::thread_cpu_ns();
    x_is_idle = stint.is_idle;
    follow();
    report_work();
    count_worker_cpu();
    (x_is_idle ? x_idle_cpu_ns : x_cpu_ns) += x_seen_cpu_ns - begin_ns;
  }
}

std::uint64_t Marker::assist(std::uint64_t work) {
  // Not reset by the collector: a thread may have borrowed this marker in an earlier cycle, and come only now.
  begin(Markers::several);
  x_is_assist = true;
  x_leave_at_bytes = work;
  x_look_at_bytes = std::min(kLookBytes, work);
  std::uint64_t done = 0;
  x_seen_cpu_ns = os::thread_cpu_ns();
  while (done < work && x_queue.refill_to_assist()) {
    const bool left = !follow();
    report_work();
    // Before the cycle can end, whose numbers these are.
    count_assist_cpu();
    count_assist_marked();
    x_pool.end_assist();
    done = x_work_bytes;
    if (left) break;
  }
  return done;
}

// Until nothing is left here, nor shared, which is true; or until it has left.
bool Marker::follow() {
  for (;;) {
    GreyWork work = 0;
    while (!x_greys.full() && x_queue.pop(work)) {
      __builtin_prefetch(reinterpret_cast<const void*>(address_of(work)));
      x_greys.push(work);
    }
    if (!x_greys.empty()) {
      x_queue.share_if_wanted();
      x_queue.rest_if_paused();
      scan(x_greys.pop());
      if (x_work_bytes >= x_look_at_bytes) [[unlikely]] {
        if (!look_around()) return false;
      }
    } else if (!x_candidates.empty()) {
      visit(x_candidates.pop());
    } else {
      return true;
    }
  }
}

// False when it has left.
[[gnu::noinline]] bool Marker::look_around() {
  report_work();
  bool left = must_leave();
  if (left && !give_all()) {
    left = false;
    if (x_is_idle) x_pool.stay_after_all();
  }
  x_look_at_bytes = x_work_bytes + kLookBytes;
  if (x_is_assist && x_leave_at_bytes > x_work_bytes)
    x_look_at_bytes = std::min(x_look_at_bytes, x_leave_at_bytes);
  return !left;
}

// CPU time since it was asked last. (A system call.)
std::uint64_t Marker::take_cpu_ns() {
  const std::uint64_t now_cpu_ns = os::thread_cpu_ns();
  return now_cpu_ns - std::exchange(x_seen_cpu_ns, now_cpu_ns);
}

void Marker::count_assist_cpu() { x_assists.count_cpu(take_cpu_ns()); }

// Returns what it was.
std::uint64_t Marker::count_worker_cpu() {
  const std::uint64_t took_ns = take_cpu_ns();
  x_assists.count_worker_cpu(took_ns);
  return took_ns;
}

void Marker::count_assist_marked() {
  x_assists.count_marked({x_marked_objects, x_marked_bytes, x_conservative_cells});
  x_marked_objects = x_marked_bytes = x_conservative_cells = 0;
  if (x_count_scans == CountScans::yes) x_assists.count_scanned(std::exchange(x_scanned, {}));
}

bool Marker::must_leave() {
  if (x_is_assist) {
    count_assist_cpu();  // so that the limiter knows of it in time
    return x_work_bytes >= x_leave_at_bytes || x_assists.forgives();
  }
  if (x_share >= 1) {
    if (++x_looks % kLooksAClock != 0) return false;
    count_worker_cpu();
    if (!x_is_idle) return false;
    const std::size_t cpus = x_assists.cpus_left();
    return x_pool.leave_if_above(cpus - std::min<std::size_t>(cpus, 1));  // the coordinator's
  }
  const std::uint64_t now_ns = os::now_ns();
  const std::uint64_t took_ns = count_worker_cpu();
  const std::uint64_t cpu_ns = x_seen_cpu_ns;
  // A CPU that is spare is all its own. (It has been away from it for as long as the one clock is behind the other.)
  const bool had_cpu = now_ns - x_seen_ns <= 2 * took_ns;
  x_seen_ns = now_ns;
  if (x_pool.in_hurry() || x_assists.anybody_waits()) {
    // What it takes while somebody waits for it is not held against it.
    x_share_begin_ns = now_ns;
    x_share_begin_cpu_ns = cpu_ns;
    return false;
  }
  if (x_spare == SpareCpu::yes && had_cpu && has_spare_cpu()) {
    count_idle_cpu(cpu_ns, now_ns);
    return false;
  }
  return fractional_must_leave(x_share, cpu_ns - x_share_begin_cpu_ns, now_ns - x_share_begin_ns);
}

// What the coordinator has taken beyond its share so far, of a spare CPU, is not held against it either.
void Marker::count_idle_cpu(std::uint64_t cpu_ns, std::uint64_t now_ns) {
  const std::uint64_t marked_ns = cpu_ns - x_share_begin_cpu_ns;
  const auto share_ns =
      static_cast<std::uint64_t>(x_share * static_cast<double>(now_ns - x_share_begin_ns));
  const std::uint64_t beyond_ns = marked_ns - std::min(marked_ns, share_ns);
  x_idle_cpu_ns += beyond_ns;
  x_share_begin_cpu_ns += beyond_ns;
}

// Beside the threads of the program, the coordinator and its helpers.
bool Marker::has_spare_cpu() const { return x_assists.cpus_left() > x_pool.most_helpers(); }

// When a coordinator that has left may go on.
std::uint64_t Marker::own_time_ns() const {
  const std::uint64_t marked_ns = os::thread_cpu_ns() - x_share_begin_cpu_ns;
  return x_share_begin_ns + static_cast<std::uint64_t>(static_cast<double>(marked_ns) / x_share);
}

bool Marker::give_all() {
  while (!x_candidates.empty()) visit(x_candidates.pop());
  while (!x_greys.empty()) {
    const GreyWork work = x_greys.pop();
    if (!x_queue.push(work)) scan(work);
  }
  if (x_is_assist && is_planted(Fault::assist_keeps_work)) x_queue.clear();
  // Scanning may have found more.
  while (!x_candidates.empty()) visit(x_candidates.pop());
  return x_queue.give_all();
}

void Marker::report_work() {
  const std::uint64_t work = x_work_bytes - x_reported_bytes;
  x_reported_bytes = x_work_bytes;
  if (work != 0)
    x_assists.count_work(work, x_is_assist ? Assists::By::debtor : Assists::By::worker);
}

inline void Marker::count_scan(const Kind& kind) {
  if (x_count_scans == CountScans::yes) [[unlikely]]
    ++x_scanned[kind.size_class];
}

inline void Marker::scan(GreyWork work) {
  const Kind& kind = x_allocator.kinds[kind_of(work)];
  char* const address = reinterpret_cast<char*>(address_of(work));
  x_work_bytes += kind.cell_bytes;  // 0 for large objects, whose pieces count
  if ((work & kWordByWord) != 0) [[unlikely]] {
    count_scan(kind);
    mark_range(address, address + find_cell(x_map, address_of(work)).bytes());
  } else if ((work & kRestOfObject) == 0) {
    scan_cell(kind, address);
  } else {
    const Cell cell = find_cell(x_map, address_of(work));
    char* const object = reinterpret_cast<char*>(cell.address());
    scan_piece(kind, object, cell.bytes(), static_cast<std::size_t>(address - object));
  }
}

inline void Marker::scan_cell(const Kind& kind, char* cell) {
  count_scan(kind);
  if (kind.word_map == 0) [[unlikely]]
    return scan_unusual(kind, cell);
  for (std::uint64_t map = kind.word_map; map != 0; map &= map - 1) {
    const char* const slot = cell + std::countr_zero(map) * 8;
    const std::uintptr_t word = load_scanned_word(slot);
    if (word != 0) discover(word);
  }
}

// Cells above 512 bytes, and those whose references are not at fixed places.
void Marker::scan_unusual(const Kind& kind, char* cell) {
  const Cell found = find_cell(x_map, reinterpret_cast<std::uintptr_t>(cell));
  // Acquire: a large object is zero before it is ready. Pairs with make_ready (release).
  if (found.span->state.load(std::memory_order_acquire) == PageState::unready) return;
  switch (kind.scan) {
    case detail::ScanMode::none:
      return;
    case detail::ScanMode::traced: {
      Tracer t(*this);
      kind.type->trace(cell, t);
      t.flush();
      return;
    }
    case detail::ScanMode::conservative:
      ++x_conservative_cells;
      break;
    case detail::ScanMode::words:
      scan_offsets(cell, kind.type->fixed);
      break;
  }
  scan_piece(kind, cell, found.bytes(), 0);
}

// References of the object's repeating part (or of all of it, when it is conservative) whose element begins in
// [from, from + kPieceBytes). What comes after is queued first.
void Marker::scan_piece(const Kind& kind, char* object, std::size_t bytes, std::size_t from) {
  const std::size_t to = bytes - from > kPieceBytes ? from + kPieceBytes : bytes;
  if (to != bytes) push(reinterpret_cast<std::uintptr_t>(object + to) | kRestOfObject, kind.id);
  if (kind.cell_bytes == 0) x_work_bytes += to - from;
  if (kind.scan == detail::ScanMode::conservative) {
    mark_range(object + from, object + to);
    return;
  }
  const detail::type_info& type = *kind.type;
  const std::size_t stride = type.tail_stride;
  if (stride == 0) return;
  std::size_t at = type.tail_offset;
  if (at < from) at += (from - at + stride - 1) / stride * stride;
  if (stride == sizeof(void*) && type.tail.count == 1) {  // an array of references
    scan_words(object + at, object + std::max(at, to));
    return;
  }
  for (; at < to && at + stride <= bytes; at += stride) scan_offsets(object + at, type.tail);
}

void Marker::scan_words(const char* begin, const char* end) {
  for (; begin + sizeof(void*) <= end; begin += sizeof(void*)) {
    const std::uintptr_t word = load_scanned_word(begin);
    if (word != 0) discover(word);
  }
}

void Marker::scan_offsets(const char* part, const detail::WordOffsets& offsets) {
  for (std::uint32_t i = 0; i < offsets.count; ++i) {
    scan_words(part + offsets.begin[i], part + offsets.begin[i] + sizeof(void*));
  }
}

// Reads whatever memory the program declares to be roots, or a cell whose layout nobody knows: sanitizers have no say.
[[gnu::noinline]] __attribute__((no_sanitize("address", "thread", "undefined"))) void
Marker::mark_range(const void* begin, const void* end) {
  const std::uintptr_t lowest = x_allocator.pages.lowest_address();
  const std::uintptr_t size = x_allocator.pages.highest_address() - lowest;
  const auto* word = static_cast<const volatile std::uintptr_t*>(begin);
  const auto* const last = static_cast<const volatile std::uintptr_t*>(end);
  for (; word < last; ++word) {
    const std::uintptr_t value = *word;
    if (value - lowest < size) mark_word(value);
  }
}

void Marker::shade_construction(const void* address) {
  const Cell cell = find_allocated_cell(x_map, reinterpret_cast<std::uintptr_t>(address));
  if (!cell || !shade(cell.span, cell.index, x_markers)) return;
  ++x_marked_objects;
  x_marked_bytes += cell.bytes();
}

void Marker::queue_construction(const void* address) {
  const Cell cell = find_allocated_cell(x_map, reinterpret_cast<std::uintptr_t>(address));
  if (!cell) return;  // its constructor has thrown, and it has been given back
  if (x_queue.push(grey_work(cell.address() | kWordByWord, cell.span->kind->id))) return;
  mark_range(address, static_cast<const char*>(address) +
                          cell.bytes());  // not to be postponed: that would trace it
}

// Scans the cells that were not queued.
void Marker::rescan() {
  for (Arena* arena = x_allocator.pages.first_arena(); arena != nullptr;
       arena = arena->next.load(std::memory_order_acquire)) {
    for (std::size_t w = 0; w < arena->heads.size(); ++w) {
      for (std::uint64_t bits = arena->heads[w].load(std::memory_order_acquire); bits != 0;
           bits &= bits - 1) {
        PageRecord* const span = arena->records() + w * 64 + std::countr_zero(bits);
        // Acquire, both: the bits of the cell that did not fit. Pair with PacketPool::postpone (release).
        if (span->rescan.load(std::memory_order_relaxed) == 0 ||
            span->rescan.exchange(0, std::memory_order_acquire) == 0)
          continue;
        for (std::uint32_t i = 0; i < bit_words(span); ++i) {
          std::uint64_t grey = grey_words(span)[i].exchange(0, std::memory_order_acquire);
          for (; grey != 0; grey &= grey - 1) {
            const Cell cell{span, i * 64 + static_cast<std::uint32_t>(std::countr_zero(grey))};
            scan_cell(*span->kind, reinterpret_cast<char*>(cell.address()));
          }
        }
      }
    }
  }
}

}  // namespace tricolor::impl
