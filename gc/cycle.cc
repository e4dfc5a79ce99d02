#include "gc/cycle.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "alloc/base/fault.h"
#include "alloc/base/os.h"
#include "alloc/base/perturb.h"
#include "alloc/base/stop_code.h"
#include "gc/cgroup.h"
#include "gc/heap.h"
#include "gc/library_thread.h"
#include "gc/rehearsal.h"
#include "gc/verify.h"

namespace tricolor::impl {

namespace {

// Of memory that is not used for so long, little goes cold.
constexpr std::uint64_t kStaysWarmNs = 10'000'000;
// For about how long the collector waits for one that runs to make the first stop, before it wakes the one that sleeps: a CPU that has
// gone to sleep takes as long to wake up. (One that waits for its CPU may keep it for longer.)
constexpr std::uint64_t kLooksNs = 100'000;

}  // namespace

Cycle::Cycle(Heap& heap)
    : x_heap(heap),
      x_segments(heap.allocator().metadata),
      x_sweeper(heap.allocator()),
      x_scavenger(heap.allocator()),
      x_crew(heap.allocator(), heap.packets(), heap.assists()),
      x_pins(heap),
      x_pacing(heap) {}

bool Cycle::create() {
  Metadata& metadata = x_heap.allocator().metadata;
  x_copy = static_cast<char*>(metadata.take(kCopyBytes));
  if (x_copy == nullptr ||
      !x_crew.create(
          x_heap.settings().tinybuffers != 0 ? 4 : WorkPacket::kEntries,
          x_heap.settings().gctrace > 1 ? Marker::CountScans::yes : Marker::CountScans::no)) {
    return false;
  }
  x_last_end_ns.store(os::now_ns(), std::memory_order_relaxed);
  x_pacing.commit();
  return true;
}

// ---- the cycle

void Cycle::run(Why why) {
  finish_previous_sweep();
  open(why);
  if (!make_stop(Handshake::Purpose::arm)) return give_up();
  begin_share();
  mark_roots();
  mark_until_nothing_is_grey();
  close();
}

void Cycle::finish_previous_sweep() {
  const CountCpu count(x_numbers.sweep_cpu_ns);
  x_sweeper.finish();
  if (x_phase.now() != Phase::kSweep) return;
  x_phase.advance(Phase::kSweep, Phase::kOff);
  if (x_heap.settings().gcpacertrace != 0) print_sweep_trace(x_sweeper.record());
  x_pacing.commit();
  if (x_heap.settings().scavtrace != 0) x_scavenger.print_trace();
}

void Cycle::open(Why why) {
  Allocator& allocator = x_heap.allocator();
  x_record = {};
  x_record.number = x_numbers.cycles.load(std::memory_order_relaxed) + 1;
  x_why = why;
  x_record.forced = why.forced;
  x_beside_the_program = x_heap.settings().gcstoptheworld == 0;
  plan_workers();
  x_heap.shaded().objects.store(0, std::memory_order_relaxed);
  x_heap.shaded().bytes.store(0, std::memory_order_relaxed);
  allocator.black_objects.store(0, std::memory_order_relaxed);
  allocator.black_bytes.store(0, std::memory_order_relaxed);
  x_stack_bytes = 0;
  x_globals_bytes = 0;
  x_coordinator_cpu_ns = 0;
  x_longest_pause_ns = 0;
  x_pins.begin_cycle();
}

void Cycle::plan_workers() {
  if (x_quota_cpus < 0) x_quota_cpus = cgroup_limits().cpus;
  const Settings& settings = x_heap.settings();
  const std::uint32_t cpus = os::cpu_count();
  const bool has_quota = x_quota_cpus > 0 && x_quota_cpus < cpus;
  x_record.processors_count =
      has_quota ? static_cast<std::uint32_t>(std::ceil(x_quota_cpus)) : cpus;
  x_cpus.store(x_record.processors_count, std::memory_order_relaxed);
  MarkWorkers& workers = x_record.workers;
  workers = has_quota ? mark_workers_of_quota(x_quota_cpus, kind())
                      : mark_workers(x_record.processors_count, kind());
  if (settings.workers != 0) workers = {.dedicated = static_cast<std::uint32_t>(settings.workers)};
  x_may_use_spare = workers.idle_at_most != 0 && settings.idleworkers != 0 &&
                    (settings.idleworkers == 1 || !has_quota);
  // The coordinator is the fractional worker, if there is one, unless the heap is worth one marker only.
  const std::size_t most = most_markers();
  const std::size_t markers =
      std::clamp<std::size_t>(workers.dedicated + (workers.fractional_cpus > 0 ? 1 : 0), 1, most);
  x_share =
      workers.fractional_cpus > 0 && markers > workers.dedicated ? workers.fractional_cpus : 1;
  // A coordinator that is the fractional worker is the first to use a CPU that is spare.
  const std::size_t busy = x_heap.handshake().mutator_count() + markers;
  std::size_t idle = 0;
  if (x_may_use_spare && busy < x_record.processors_count) {
    idle = std::min({std::size_t{workers.idle_at_most} - (x_share < 1 ? 1 : 0), most - markers,
                     x_record.processors_count - busy});
  }
  x_crew.begin(markers, idle, most, x_beside_the_program ? Markers::several : Markers::one,
               x_record.processors_count);
}

// How many markers the heap is worth: less than kBytesAMarker is marked in the time that a thread takes to wake up.
std::size_t Cycle::most_markers() const {
  constexpr std::int64_t kBytesAMarker = 2 << 20;
  const std::int64_t live = x_heap.allocator().live_bytes.load(std::memory_order_relaxed);
  const int given = x_heap.settings().workers;
  return std::min<std::size_t>(
      given != 0 ? static_cast<std::size_t>(given) : x_record.processors_count,
      static_cast<std::size_t>(1 + std::max<std::int64_t>(0, live) / kBytesAMarker));
}

TRICOLOR_STOP_CODE CycleKind Cycle::kind() const {
  if (!x_beside_the_program) return CycleKind::kStopped;
  if (x_why.forced) return CycleKind::kForced;
  return x_why.timer ? CycleKind::kPeriodic : CycleKind::kHeap;
}

// Ends with a complete list of segments in use and the world stopped, the time it took to stop; or with nothing, when memory
// for the list is refused.
TRICOLOR_STOP_CODE std::optional<std::uint64_t> Cycle::stop_with_all_segments() {
  for (;;) {
    if (!x_segments.update()) return std::nullopt;
    x_pacing.begin_stop(x_record.processors_count, x_record.number);
    const Handshake::Stopped stopped = x_heap.handshake().stop(Handshake::Purpose::arm);
    x_begin_ns = stopped.asked_ns;
    const std::uint64_t stop_ns = stopped.all_ns - stopped.asked_ns;
    // A library opened since the list was made may hold roots. It stays open or another one comes: each time round a
    // thread has opened one, so this ends when the program stops doing that.
    if (!x_segments.may_be_outdated()) return stop_ns;
    const std::uint64_t end_ns = x_heap.handshake().start();
    count_stop(stop_ns);
    count_pause_in_vain(x_numbers.first_pauses, end_ns - x_begin_ns);
  }
}

// By the collector, as far as it may take long.
void Cycle::rehearse(Handshake::Purpose purpose) {
  std::uint64_t& last_ns = x_rehearsed_ns[static_cast<std::size_t>(purpose)];
  if (os::now_ns() - last_ns < kStaysWarmNs) return;
  if (x_on == On::own_thread) touch_stack();  // one of the program may have little
  touch_pages(&x_heap, sizeof x_heap);
  if (purpose == Handshake::Purpose::arm) {
    for (const Segment& segment : x_segments) {
      if (may_be_closed(segment))
        touch_pages_through_kernel(segment.begin,
                                   static_cast<std::size_t>(segment.end - segment.begin));
    }
  }
  x_heap.handshake().rehearse(purpose);
  last_ns = os::now_ns();
}

// By the thread that makes the stop, for its CPU: some microseconds.
void Cycle::fetch(Handshake::Purpose purpose) {
  const std::span<const char> code = stop_code();
  touch_lines(code.data(), code.size());
  touch_lines(&x_heap, sizeof x_heap);
  if (purpose == Handshake::Purpose::arm) {
    x_pacing.rehearse(start_of_cycle());
    touch_lines(x_segments.begin(),
                sizeof(Segment) * static_cast<std::size_t>(x_segments.end() - x_segments.begin()));
  } else {
    x_pacing.rehearse(end_of_cycle());
  }
}

// Makes the stop, or has a thread of the program make it (stop_offer.h). What it comes to, see arm() and end().
bool Cycle::make_stop(Handshake::Purpose purpose) {
  // To list segments anew may take long: not what another thread is to do, nor are pages that have to come back.
  const bool is_listed = purpose == Handshake::Purpose::end || x_segments.update();
  // With the world stopped buffers do not grow.
  if (purpose == Handshake::Purpose::arm && x_beside_the_program)
    x_heap.handshake().make_room_for_captures();
  rehearse(purpose);
  const OfferedTo to = is_listed ? offers(purpose) : OfferedTo::nobody;
  if (to != OfferedTo::nobody) {
    const OfferPatience::Way way = x_offer_patience.choose(to, x_record.processors_count > 1);
    const StopOffer::Maker maker = x_stop_offer.offer(
        purpose, {.looks_ns = way.looks ? kLooksNs : 0, .may_be_left = way.may_be_left});
    x_offer_patience.note(to, way, maker, x_stop_offer.left());
    if (maker != StopOffer::Maker::nobody) return x_stop_result;
  }
  make_stop_here(purpose);
  x_stop_offer.end();
  return x_stop_result;
}

// The first stop to whoever waits to make it; that, and the last one, to whoever comes by. Threads come by as long as the heap is past
// its trigger, unless they wait in line for the end of marking.
OfferedTo Cycle::offers(Handshake::Purpose purpose) {
  if (!x_beside_the_program) return OfferedTo::nobody;
  if (purpose == Handshake::Purpose::arm && x_waits_to_arm.load(std::memory_order_relaxed) != 0)
    return OfferedTo::who_waits;
  if (!x_pacing.at_trigger() || x_heap.assists().anybody_waits() ||
      x_heap.handshake().count_running() < x_record.processors_count)
    return OfferedTo::nobody;
  // Some that count as running may sleep, or compute, or must not make stops.
  return x_offer_patience.expects_comers() ? OfferedTo::who_comes_by : OfferedTo::nobody;
}

void Cycle::make_stop_here(Handshake::Purpose purpose) {
  fetch(purpose);
  x_stop_result = purpose == Handshake::Purpose::arm ? arm() : end();
}

// The program's side. True when the thread has made the stop. It waits in the library. A large stack is captured by its owner in the
// first stop, beside others, but for those that wait: so they do not leave that.
bool Cycle::take_stop(Mutator& mutator, Handshake::Purpose purpose, Leaves leaves) {
  if (!x_stop_offer.suits(purpose)) return false;
  if (leaves == Leaves::where_another_lacks_cpu && x_stop_offer.may_be_left() &&
      (purpose == Handshake::Purpose::end || !Handshake::has_large_stack(mutator)) &&
      x_heap.handshake().keeps_another_from_cpu())
    x_stop_offer.leave();
  const HostKeptOut host_kept_out;
  return x_stop_offer.take(purpose, [&] {
    // Rather now than with the world stopped.
    if (purpose == Handshake::Purpose::arm) x_heap.handshake().return_claims(mutator);
    const OwnThread own;  // a trace function may run here (gccheckmark)
    touch_stack();
    make_stop_here(purpose);
  });
}

// The coordinator, on its own thread, begins to mark or goes on to.
void Cycle::begin_share() {
  x_share_begin_cpu_ns = os::thread_cpu_ns();
  x_crew.coordinator().begin_share(x_share,
                                   x_may_use_spare ? Marker::SpareCpu::yes : Marker::SpareCpu::no);
}

void Cycle::end_share() { x_coordinator_cpu_ns += os::thread_cpu_ns() - x_share_begin_cpu_ns; }

// The first stop. False when memory is refused, and the cycle is to be given up.
TRICOLOR_STOP_CODE bool Cycle::arm() {
  Handshake& handshake = x_heap.handshake();
  x_phase.advance(Phase::kOff, Phase::kSweepTermination);
  const std::optional<std::uint64_t> stop_ns = stop_with_all_segments();
  if (!stop_ns) {
    tell_armed();  // nobody is to wait for this cycle
    return false;
  }
  count_stop(*stop_ns);
  x_record.heap_start_bytes = static_cast<std::uint64_t>(
      std::max<std::int64_t>(0, x_heap.allocator().live_bytes.load(std::memory_order_relaxed)));
  if (x_beside_the_program) {
    x_heap.allocator().allocate_black.store(!is_planted(Fault::white_allocation),
                                            std::memory_order_relaxed);
  }
  handshake.next_epoch();
  x_phase.advance(Phase::kSweepTermination, Phase::kMark);
  start_pacing();  // before anything is grey: helpers come then
  keep_constructions();
  const bool may_grow = x_beside_the_program && x_heap.settings().tinybuffers == 0;
  x_stack_bytes += x_heap.roots().capture_ranges(
      x_heap.address_range(), may_grow ? RootSet::Grow::yes : RootSet::Grow::no,
      [this](const void* begin, const void* end) { x_crew.coordinator().mark_range(begin, end); });
  // Not before constructions have been kept: a handle that goes on a thread which is not stopped makes grey what it held. And
  // after ranges have been captured: one that goes before that was never in this snapshot.
  if (x_beside_the_program) x_heap.roots().begin_marking();
  // Captures that did not fit. Where memory is refused such a stack can be read only now.
  handshake.for_each_in_stop([&](Mutator& m) {
    if (m.epoch.load(std::memory_order_relaxed) != handshake.epoch() || m.capture.complete())
      return;
    if (may_grow && m.capture.go_on(x_heap.address_range(), x_heap.allocator().metadata)) return;
    x_stack_bytes += m.capture.stack_bytes();
    x_crew.coordinator().mark_range(
        reinterpret_cast<const void*>(
            round_up(reinterpret_cast<std::uintptr_t>(m.capture.top()), sizeof(void*))),
        m.capture.base());
    m.capture.clear();
  });
  // What is unmapped by dlclose takes references with it that no barrier sees; so do libraries that may be closed before they
  // are pinned. Those that the program started with stay, and so do those that are pinned already.
  for (Segment& segment : x_segments) {
    if (may_be_closed(segment)) mark_segment(segment);
  }
  x_stopped_bytes = x_crew.coordinator().marked_bytes();  // helpers may be at work
  x_armed_ns = x_beside_the_program ? handshake.start() : os::now_ns();
  if (x_beside_the_program) x_pacing.end_stop(CpuLimiter::Marking::kOn);
  tell_armed();
  return true;
}

void Cycle::tell_armed() {
  // Release: nothing but the number. Pairs with request_and_wait (acquire).
  x_armed.store(x_started.load(std::memory_order_relaxed), std::memory_order_release);
  os::futex_wake_all(x_armed);
}

// Memory for the first stop has been refused.
void Cycle::give_up() {
  x_crew.finish();
  x_crew.close();
  x_pacing.abandon_stop();
  x_last_end_ns.store(os::now_ns(), std::memory_order_relaxed);  // the timer tries again, later
  x_phase.advance(Phase::kSweepTermination, Phase::kOff);
}

TRICOLOR_STOP_CODE CycleStart Cycle::start_of_cycle() const {
  const Allocator& allocator = x_heap.allocator();
  CycleStart start;
  start.now_ns = os::now_ns();
  start.live_bytes = x_record.heap_start_bytes + allocator.held_outside_bytes();
  start.heap_scan_bytes = x_numbers.heap_work_bytes.load(std::memory_order_relaxed) +
                          allocator.new_scan_bytes.load(std::memory_order_relaxed);
  // Of the last cycle, as far as this one does not know better yet.
  start.stack_bytes = x_numbers.stack_bytes.load(std::memory_order_relaxed);
  start.globals_bytes = x_numbers.globals_bytes.load(std::memory_order_relaxed);
  if (start.globals_bytes == 0) {
    for (const Segment& segment : x_segments)
      start.globals_bytes += static_cast<std::size_t>(segment.end - segment.begin);
  }
  start.cpus = x_record.processors_count;
  start.kind = kind();
  return start;
}

// World stopped.
TRICOLOR_STOP_CODE void Cycle::start_pacing() {
  Assists& assists = x_heap.assists();
  assists.begin_cycle();
  x_assist_cpu_ns_before = assists.cpu_ns();
  x_reported_root_bytes = 0;
  const CycleStart start = start_of_cycle();
  const Pacing::Begun begun = x_pacing.start_cycle(start);
  x_record.cons_mark_before = begun.cons_mark_before;
  x_record.first_assist_ratio = begun.ratio.work_per_byte;
  x_record.first_goal_bytes = begun.goal_bytes;
  x_record.scannable_bytes = start.heap_scan_bytes;
  if (x_beside_the_program) assists.begin_marking();
}

// Roots that have been read are work that has been done.
void Cycle::report_root_work() {
  const std::uint64_t now = x_stack_bytes + x_globals_bytes;
  if (now == x_reported_root_bytes) return;
  x_heap.assists().count_work(now - x_reported_root_bytes, Assists::By::worker);
  x_reported_root_bytes = now;
}

// Invariant [cell.construction]: a cell whose constructor has not returned when a cycle begins, of a type with a trace function,
// is marked before anything else can find it, and read word by word: its trace function is not called. (One that is
// allocated later is black.) What the constructor overwrites meanwhile it shades [color.construction].
//
// All are marked before the first is queued: one may lead to another (a child to its parent, whose constructor makes it), and
// what is queued is read by helpers at once.
TRICOLOR_STOP_CODE void Cycle::keep_constructions() {
  Marker& marker = x_crew.coordinator();
  const auto for_each_construction = [this](auto fn) {
    x_heap.handshake().for_each_in_stop([&](Mutator& m) {
      for (const detail::construction* c = m.constructing; c != nullptr; c = c->outer) {
        if (c->cell != nullptr) fn(c->cell);
      }
    });
  };
  for_each_construction([&](const void* cell) { marker.shade_construction(cell); });
  for_each_construction([&](const void* cell) { marker.queue_construction(cell); });
}

void Cycle::mark_roots() {
  perturb();
  x_heap.handshake().for_each_in_turn([this](Mutator& m) { mark_mutator(m); });
  report_root_work();
  if (x_beside_the_program) x_heap.slot_check().look(x_segments);
  for (Segment& segment : x_segments) {
    if (!may_be_closed(segment)) mark_segment(segment);
    report_root_work();
  }
  if (!is_planted(Fault::no_range_roots)) mark_ranges();
  if (is_planted(Fault::no_handle_roots)) return;
  x_heap.roots().for_each([this](const void*, void* word) {
    x_globals_bytes += sizeof word;
    x_crew.coordinator().mark_word(reinterpret_cast<std::uintptr_t>(word));
  });
  report_root_work();
}

void Cycle::mark_ranges() {
  Marker& marker = x_crew.coordinator();
  x_heap.roots().scan_ranges(
      [&](const char* begin, const char* end) {
        x_globals_bytes += static_cast<std::size_t>(end - begin);
        marker.mark_range(begin, end);
      },
      [&](std::uintptr_t word) { marker.mark_word(word); },
      [&] {
        report_root_work();
        if (x_heap.packets().is_paused()) x_heap.packets().rest();  // a thread forks
      });
  report_root_work();
}

// [handshake.visit]. Its turn is held.
void Cycle::mark_mutator(Mutator& mutator) {
  Marker& marker = x_crew.coordinator();
  Handshake& handshake = x_heap.handshake();
  if (mutator.visited == handshake.epoch()) return;
  mutator.visited = handshake.epoch();
  perturb();
  handshake.visit_frames(mutator, [&](const void* begin, const void* end) {
    x_stack_bytes +=
        static_cast<std::size_t>(static_cast<const char*>(end) - static_cast<const char*>(begin));
    if (!is_planted(Fault::no_late_stack_roots)) marker.mark_range(begin, end);
  });
  x_stack_bytes += mutator.capture.stack_bytes();
  if (!is_planted(Fault::no_stack_roots)) {
    for (const std::uintptr_t word : mutator.capture) marker.mark_word(word);
  }
  if (x_beside_the_program) handshake.fit_capture(mutator);
  if (is_planted(Fault::no_thread_local_roots)) return;
  for (const TlsBlocks::Block& block : mutator.tls) mark_through_kernel(block.begin, block.end);
}

// What held roots when the cycle began, and nothing has been left to pin since, is pinned.
bool Cycle::may_be_closed(const Segment& segment) const {
  return segment.opened_later && !(segment.held_roots && x_pins.all_pinned());
}

void Cycle::mark_segment(Segment& segment) {
  if (is_planted(Fault::no_global_roots)) return;
  const std::uint64_t before = x_crew.coordinator().words_found();
  mark_through_kernel(segment.begin, segment.end);
  if (!segment.may_go || segment.held_roots || x_crew.coordinator().words_found() == before) return;
  segment.held_roots = x_pins.add(segment.begin);
}

// Memory that may be gone, or of which pages may be inaccessible: the kernel reads it for us, a piece at a time. A word that
// the program changes meanwhile may come out torn: both of its values are shaded by the barrier.
void Cycle::mark_through_kernel(const char* begin, const char* end) {
  x_globals_bytes += static_cast<std::size_t>(end - begin);
  const std::size_t page = os::kernel_page_bytes();
  while (begin < end) {
    const std::size_t wanted = std::min(kCopyBytes, static_cast<std::size_t>(end - begin));
    const std::size_t got =
        os::read_maybe_unmapped(x_copy, begin, wanted) / sizeof(void*) * sizeof(void*);
    x_crew.coordinator().mark_range(x_copy, x_copy + got);
    begin += got;
    if (got + sizeof(void*) <= wanted) {  // the page after it cannot be read: go on behind it
      begin = reinterpret_cast<const char*>(
          round_up(reinterpret_cast<std::uintptr_t>(begin) + 1, page));
    } else if (got < wanted) {
      return;  // less than a word is left
    }
  }
}

// [cycle.end]. And what comes with it: sweeping begins in that stop.
void Cycle::mark_until_nothing_is_grey() {
  for (;; x_crew.begin_again()) {
    x_crew.finish();
    if (!x_beside_the_program) break;
    if (flushes_first() && shade_logs()) continue;
    end_share();
    if (make_stop(Handshake::Purpose::end)) return;
    begin_share();
  }
  end_share();
  x_marked_ns = os::now_ns();
  x_stopped_bytes = x_crew.marked_bytes();
  start_sweeping();
}

// The last stop. False when something is grey, and the world runs.
TRICOLOR_STOP_CODE bool Cycle::end() {
  // Once more: what has been logged since would be shaded in the stop.
  if (flushes_first() && shade_logs()) return false;
  perturb();
  x_pacing.begin_stop(x_record.processors_count, x_record.number);
  const Handshake::Stopped stopped = x_heap.handshake().stop(Handshake::Purpose::end);
  x_marked_ns = stopped.asked_ns;
  count_stop(stopped.all_ns - stopped.asked_ns);
  const std::uint64_t before = x_crew.coordinator().marked_bytes();
  const bool ended = end_marking();
  x_stopped_bytes += x_crew.coordinator().marked_bytes() - before;
  if (ended) {
    start_sweeping();
    return true;
  }
  const std::uint64_t pause_ns = x_heap.handshake().start() - x_marked_ns;
  x_pacing.end_stop(CpuLimiter::Marking::kOn);
  count_pause_in_vain(x_numbers.last_pauses, pause_ns);
  return false;
}

bool Cycle::flushes_first() {
  return !is_planted(Fault::no_last_test) && !is_planted(Fault::no_ragged_flush);
}

// What the write barriers have logged so far. True when something has become grey.
TRICOLOR_STOP_CODE bool Cycle::shade_logs() {
  bool grey = false;
  if (is_planted(Fault::no_log_flush)) return false;
  x_heap.handshake().for_each_not_idle_in_turn([&](Mutator& m) {
    m.log.shade_new(x_heap.allocator().map,
                    [&](std::uintptr_t word) { grey |= x_crew.coordinator().mark_word(word); });
  });
  x_heap.roots().share();
  return grey || x_heap.packets().has_shared() || x_heap.packets().has_postponed();
}

// World stopped: false when something is grey.
TRICOLOR_STOP_CODE bool Cycle::end_marking() {
  const bool is_forced = is_planted(Fault::no_log_flush) || is_planted(Fault::no_last_test);
  const bool grey = shade_logs();
  x_heap.handshake().for_each_in_stop([this](Mutator& m) { x_heap.handshake().settle(m); });
  if (grey && !is_forced) return false;
  return x_heap.roots().end_marking() || is_forced;
}

TRICOLOR_STOP_CODE void Cycle::start_sweeping() {
  Allocator& allocator = x_heap.allocator();
  x_phase.advance(Phase::kMark, Phase::kMarkTermination);
  if (x_heap.settings().gccheckmark != 0) verify_marks(x_heap, x_segments);
  perturb();
  x_heap.handshake().next_epoch();
  allocator.allocate_black.store(false, std::memory_order_relaxed);
  x_heap.assists().end_marking();
  const std::uint64_t marked_bytes = x_crew.marked_bytes() +
                                     x_heap.shaded().bytes.load(std::memory_order_relaxed) +
                                     allocator.black_bytes.load(std::memory_order_relaxed);
  const std::uint64_t marked_objects = x_crew.marked_objects() +
                                       x_heap.shaded().objects.load(std::memory_order_relaxed) +
                                       allocator.black_objects.load(std::memory_order_relaxed);
  x_record.heap_end_bytes = static_cast<std::uint64_t>(
      std::max<std::int64_t>(0, allocator.live_bytes.load(std::memory_order_relaxed)));
  x_record.heap_marked_bytes = marked_bytes;
  x_record.stacks_bytes = x_stack_bytes;
  x_record.globals_bytes = x_globals_bytes;
  x_numbers.marked_bytes.store(marked_bytes, std::memory_order_relaxed);
  x_numbers.marked_objects.store(marked_objects, std::memory_order_relaxed);
  x_numbers.marked_bytes_total.fetch_add(
      x_crew.marked_bytes() + x_heap.shaded().bytes.load(std::memory_order_relaxed),
      std::memory_order_relaxed);
  x_numbers.stopped_bytes_total.fetch_add(x_stopped_bytes, std::memory_order_relaxed);
  x_numbers.conservative_cells.store(
      x_crew.conservative_cells() + x_heap.assists().conservative_cells(),
      std::memory_order_relaxed);
  x_numbers.stack_bytes.store(x_stack_bytes, std::memory_order_relaxed);
  x_numbers.globals_bytes.store(x_globals_bytes, std::memory_order_relaxed);

  x_scavenger.mark_ended(x_record.heap_end_bytes);
  end_pacing();
  allocator.live_bytes.store(static_cast<std::int64_t>(marked_bytes), std::memory_order_relaxed);
  allocator.new_scan_bytes.store(0, std::memory_order_relaxed);
  // Relaxed: start() publishes it to the mutators.
  allocator.sweep_epoch.fetch_add(1, std::memory_order_relaxed);
  x_sweeper.arm();
  x_pacing.commit();
  x_phase.advance(Phase::kMarkTermination, Phase::kSweep);
  if (x_heap.settings().gcstoptheworld == 2) x_sweeper.finish();
  // Before the world runs again: who looks for the end of a cycle, to give back what it holds outside for objects that are dead
  // by now, is not to go on without having seen it.
  x_numbers.cycles.fetch_add(1, std::memory_order_relaxed);
  x_last_end_ns.store(x_heap.handshake().start(), std::memory_order_relaxed);
  x_pacing.end_stop(CpuLimiter::Marking::kOff);
  x_heap.assists().forgive();  // not in the stop: each is a system call
}

// World stopped.
TRICOLOR_STOP_CODE void Cycle::end_pacing() {
  const Assists& assists = x_heap.assists();
  const std::uint64_t helpers_ns = x_crew.helpers_cpu_ns();
  const std::uint64_t share_ns =
      x_coordinator_cpu_ns - std::min(x_coordinator_cpu_ns, x_crew.coordinator().idle_cpu_ns());
  x_record.idle_cpu_ns = x_crew.idle_cpu_ns();
  x_record.worker_cpu_ns = share_ns + helpers_ns;
  (x_share < 1 ? x_numbers.fractional_cpu_ns : x_numbers.dedicated_cpu_ns)
      .fetch_add(share_ns, std::memory_order_relaxed);
  x_numbers.dedicated_cpu_ns.fetch_add(helpers_ns, std::memory_order_relaxed);
  x_numbers.idle_cpu_ns.fetch_add(x_record.idle_cpu_ns, std::memory_order_relaxed);
  x_record.assist_cpu_ns = assists.cpu_ns() - x_assist_cpu_ns_before;
  const CycleEnd end = end_of_cycle();
  x_record.outcome = x_pacing.end_cycle(end);
  x_record.goal_bytes = x_record.outcome.goal_bytes;
  x_record.heap_work_bytes = end.heap_work_bytes;
  x_numbers.heap_work_bytes.store(end.heap_work_bytes, std::memory_order_relaxed);
}

TRICOLOR_STOP_CODE CycleEnd Cycle::end_of_cycle() const {
  CycleEnd end;
  end.now_ns = x_marked_ns;
  end.external_bytes = x_heap.allocator().held_outside_bytes();
  end.live_bytes = x_record.heap_end_bytes + end.external_bytes;
  end.marked_bytes = x_record.heap_marked_bytes;
  end.stack_work_bytes = x_stack_bytes;
  end.globals_work_bytes = x_globals_bytes;
  end.heap_work_bytes = x_heap.assists().work_bytes() - x_reported_root_bytes;
  end.background_ns = x_record.worker_cpu_ns;
  end.assist_ns = x_record.assist_cpu_ns;
  end.idle_ns = x_record.idle_cpu_ns;
  return end;
}

namespace {

void raise(std::atomic<std::uint64_t>& to, std::uint64_t n) {
  if (n > to.load(std::memory_order_relaxed)) to.store(n, std::memory_order_relaxed);
}

}  // namespace

TRICOLOR_STOP_CODE void Cycle::count_stop(std::uint64_t stop_ns) {
  x_numbers.stops.count(stop_ns);
  x_numbers.stop_ns_last.store(stop_ns, std::memory_order_relaxed);
  raise(x_numbers.stop_ns_max, stop_ns);
}

void Cycle::count_pause(Histogram& which, std::uint64_t pause_ns) {
  which.count(pause_ns);
  x_numbers.pauses.count(pause_ns);
  x_numbers.pause_ns_total.fetch_add(pause_ns, std::memory_order_relaxed);
  x_longest_pause_ns = std::max(x_longest_pause_ns, pause_ns);
  raise(x_numbers.pause_ns_max, pause_ns);
}

// Of a stop that is done again later.
void Cycle::count_pause_in_vain(Histogram& which, std::uint64_t pause_ns) {
  count_pause(which, pause_ns);
  x_numbers.pause_cpu_ns.fetch_add(pause_ns * x_record.processors_count, std::memory_order_relaxed);
}

void Cycle::close() {
  const std::uint64_t end_ns = x_last_end_ns.load(std::memory_order_relaxed);  // of the last stop
  if (x_beside_the_program) {
    count_pause(x_numbers.first_pauses, x_armed_ns - x_begin_ns);
    count_pause(x_numbers.last_pauses, end_ns - x_marked_ns);
  } else {
    count_pause(x_numbers.first_pauses, end_ns - x_begin_ns);
  }
  x_numbers.pause_ns_last.store(x_longest_pause_ns, std::memory_order_relaxed);
  if (x_record.forced) finish_previous_sweep();
  x_crew.close();

  x_record.first_stop_clock_ns = x_armed_ns - x_begin_ns;
  x_record.mark_clock_ns = x_marked_ns - x_armed_ns;
  x_record.last_stop_clock_ns = end_ns - x_marked_ns;
  x_record.first_stop_cpu_ns = x_record.first_stop_clock_ns * x_record.processors_count;
  x_record.last_stop_cpu_ns = x_record.last_stop_clock_ns * x_record.processors_count;
  if (x_record.forced) x_numbers.forced.fetch_add(1, std::memory_order_relaxed);
  x_numbers.mark_ns_last.store(x_record.mark_clock_ns, std::memory_order_relaxed);
  x_numbers.mark_ns_total.fetch_add(x_record.mark_clock_ns, std::memory_order_relaxed);
  x_numbers.pause_cpu_ns.fetch_add(x_record.first_stop_cpu_ns + x_record.last_stop_cpu_ns,
                                   std::memory_order_relaxed);
  if (x_heap.settings().gctrace == 0 && x_heap.settings().gcpacertrace == 0) return;

  const std::uint64_t since_init_ns = end_ns - x_heap.begin_ns();
  x_record.start_ns = x_begin_ns - x_heap.begin_ns();
  x_record.gc_cpu_percent = static_cast<std::uint32_t>(
      100 * (gc_cpu_ns() - x_numbers.idle_cpu_ns.load(std::memory_order_relaxed)) /
      std::max<std::uint64_t>(1, since_init_ns * x_record.processors_count));
  if (x_heap.settings().gctrace != 0) print_trace(x_record);
  if (x_heap.settings().gctrace > 1) {
    ScanCounts scanned = {};
    x_crew.add_scanned(scanned);
    x_heap.assists().add_scanned(scanned);
    print_scan_trace(scanned);
  }
  if (x_heap.settings().gcpacertrace != 0) print_pacer_trace(x_record);
}

void Cycle::settings_changed() {
  follow_change();
  wake_thread();  // the timer may be due
}

void Cycle::less_held_outside() {
  const bool had_surplus = x_scavenger.has_surplus();
  follow_change();
  if (!had_surplus && x_scavenger.has_surplus()) wake_thread();
}

void Cycle::follow_change() {
  if (Mutator* const mutator = current_mutator(); mutator != nullptr) {
    const CriticalSection critical(*mutator);
    x_pacing.commit();
  } else {
    const HostRefused refused;  // a lock is taken without a mutator
    x_pacing.commit();
  }
}

TRICOLOR_STOP_CODE SweepState Cycle::sweep_state() const {
  const Phase phase = x_phase.now();
  return phase == Phase::kMarkTermination || phase == Phase::kSweep ? SweepState::kUnfinished
                                                                    : SweepState::kDone;
}

std::uint64_t Cycle::gc_cpu_ns() const {
  statistics numbers;
  add_to(numbers);
  return numbers.gc_cpu_ns_total;
}

void Cycle::add_to(statistics& out) const {
  const auto read = [](const std::atomic<std::uint64_t>& n) {
    return n.load(std::memory_order_relaxed);
  };
  out.cycles_total = read(x_numbers.cycles);
  out.cycles_forced = read(x_numbers.forced);
  out.heap_marked_bytes = read(x_numbers.marked_bytes);
  out.heap_goal_bytes = x_pacing.goal_bytes();
  out.marked_objects_count = read(x_numbers.marked_objects);
  out.conservative_cells_count = read(x_numbers.conservative_cells);
  out.stacks_scanned_bytes = read(x_numbers.stack_bytes);
  out.globals_scanned_bytes = read(x_numbers.globals_bytes);
  out.pause_ns_last = read(x_numbers.pause_ns_last);
  out.pause_ns_max = read(x_numbers.pause_ns_max);
  out.pause_ns_total = read(x_numbers.pause_ns_total);
  out.stop_ns_last = read(x_numbers.stop_ns_last);
  out.stop_ns_max = read(x_numbers.stop_ns_max);
  out.mark_ns_last = read(x_numbers.mark_ns_last);
  out.mark_ns_total = read(x_numbers.mark_ns_total);
  out.dedicated_cpu_ns_total = read(x_numbers.dedicated_cpu_ns);
  out.fractional_cpu_ns_total = read(x_numbers.fractional_cpu_ns);
  out.idle_cpu_ns_total = read(x_numbers.idle_cpu_ns);
  out.assist_cpu_ns_total = x_heap.assists().cpu_ns();
  out.pause_cpu_ns_total = read(x_numbers.pause_cpu_ns);
  out.sweep_cpu_ns_total = read(x_numbers.sweep_cpu_ns);
  out.gc_cpu_ns_total = out.dedicated_cpu_ns_total + out.fractional_cpu_ns_total +
                        out.idle_cpu_ns_total + out.assist_cpu_ns_total + out.pause_cpu_ns_total +
                        out.sweep_cpu_ns_total;
  out.limited_cycle_last = x_pacing.limited_cycle();
  x_heap.assists().read_times(out.assists);
  out.marked_bytes_total = read(x_numbers.marked_bytes_total);
  out.stopped_marked_bytes_total = read(x_numbers.stopped_bytes_total);
  out.scavenge_background_cpu_ns_total = x_scavenger.background_ns();
  out.scavenge_assist_cpu_ns_total = x_scavenger.assist_ns();
  x_numbers.first_pauses.read(out.first_pauses);
  x_numbers.last_pauses.read(out.last_pauses);
  x_numbers.pauses.read(out.pauses);
  x_numbers.stops.read(out.stops);
}

}  // namespace tricolor::impl
