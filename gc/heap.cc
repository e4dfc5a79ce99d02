#include "gc/heap.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

#include <tricolor/heap.h>
#include <tricolor/root.h>
#include <tricolor/root_range.h>
#include <tricolor/thread.h>

#include "alloc/base/check.h"
#include "alloc/base/log.h"
#include "alloc/base/os.h"
#include "alloc/base/perturb.h"
#include "gc/cgroup.h"
#include "gc/fork.h"
#include "gc/library_thread.h"
#include "gc/options.h"
#include "roots/registers.h"
#include "roots/unwind.h"

namespace tricolor::impl {

std::atomic<Heap*> Heap::x_default{nullptr};

namespace {

Mutex creation{LockRank::kInit};

constexpr std::uint8_t kMostCriticalSections =
    200;  // leaves room for the library's own in the counter

// The page heap's 0 means no limit; a limit of 0 bytes is a limit.
std::size_t page_limit(std::uint64_t bytes) {
  return bytes == no_limit ? 0 : std::max<std::uint64_t>(bytes, 1);
}

// Where the kernel ends the process; once, for who reads the trace.
void report_cgroup_limit(std::uint64_t bytes, const options& chosen) {
  LineBuffer<200> line;
  line.text("tricolor: the control group allows ").count(bytes >> 20).text(" MiB");
  if (chosen.memory_limit_bytes >= bytes)
    line.text(
        "; GOMEMLIMIT is not below that, so nothing keeps the process from being killed there");
  log_line(line.view());
}

}  // namespace

Mutex& Heap::creation_mutex() { return creation; }

Heap* Heap::get() {
  // Acquire: the heap is complete. Pairs with make (release).
  if (Heap* const heap = existing(); heap != nullptr) return heap;
  make(options{});
  return existing();
}

bool Heap::make(const options& wanted) {
  if (existing() != nullptr)
    return false;  // so that no running mutator takes the lock [lock.critical]
  const HostRefused refused;
  const Guard guard(creation);
  if (existing() != nullptr || !install_fork_handlers()) return false;
  // Not in the program's segments, which are scanned, and never destroyed: threads may outlive main. Nothing of the library runs at
  // exit, so exit, _exit and abort wait for no cycle, also inside a stop.
  void* const memory = os::map(round_up(sizeof(Heap), os::kernel_page_bytes()),
                               os::kernel_page_bytes(), "tricolor metadata");
  if (memory == nullptr) return false;
  Heap* const heap = ::new (memory) Heap;
  if (!heap->create(wanted)) return false;
  static constexpr HeapHooks hooks = {
      // Not on threads of the library: a trace function that copies a gc::ptr runs there.
      .attach = []() -> detail::thread_cache* {
        return host_is_kept_out() ? nullptr : &Heap::mutator();
      },
      .is_in_heap =
          [](std::uintptr_t word) {
            const Heap* const made = existing();
            if (made == nullptr) return false;
            const AddressRange range = made->address_range();
            return word - range.lowest < range.end - range.lowest;
          }};
  set_heap_hooks(&hooks);  // first: who sees the heap may need them
  x_default.store(heap, std::memory_order_release);
  return true;
}

bool Heap::create(const options& wanted) {
  const options o = options_from_environment(process_environment, log_line, wanted);
  x_begin_ns = os::now_ns();
  x_settings.percent = o.percent;
  x_settings.memory_limit_bytes = o.memory_limit_bytes;
  x_settings.hard_limit_bytes = o.hard_limit_bytes;
  x_settings.min_heap_bytes = o.min_heap_bytes;
  x_settings.gctrace = o.gctrace;
  x_settings.gcpacertrace = o.gcpacertrace;
  x_settings.scavtrace = o.scavtrace;
  x_settings.gcstoptheworld = o.gcstoptheworld;
  x_settings.gccheckmark = o.gccheckmark;
  x_settings.checkslot = o.checkslot;
  x_settings.stress = o.stress;
  x_settings.tinybuffers = o.tinybuffers;
  x_settings.workers = o.workers;
  x_settings.idleworkers = o.idleworkers;
  x_settings.period_ns = static_cast<std::uint64_t>(o.period_ms) * 1'000'000;
  x_cgroup_limit_bytes = cgroup_limits().memory_bytes;
  if (o.gctrace != 0 && x_cgroup_limit_bytes != no_limit)
    report_cgroup_limit(x_cgroup_limit_bytes, o);
  perturbation.store(static_cast<std::uint64_t>(o.seed), std::memory_order_relaxed);
  x_allocator.clobber_free = o.clobberfree != 0;
  if (o.stress != 0) x_allocator.most_cells_a_claim = static_cast<std::uint32_t>(o.stress);
  if (o.hard_limit_bytes != no_limit)
    x_allocator.pages.set_hard_limit_bytes(page_limit(o.hard_limit_bytes));
  install_report_backtrace();
  // Invariant [lock.critical]: a running mutator takes a lock only inside a critical section, or the world could be stopped
  //   with it held.
  set_lock_check([] {
    const Mutator* const mutator = current_mutator();
    check(mutator == nullptr ||
              mutator->state->load(std::memory_order_relaxed) != MutatorState::running ||
              mutator->critical_depth.load(std::memory_order_relaxed) != 0,
          "lock.critical");
  });
  if (!os::prepare_to_read_own_memory()) {
    usage_error(
        "the process cannot read its own memory through the kernel: allow process_vm_readv, or let "
        "/proc be mounted and a "
        "file descriptor be free at the first use of gc::");
  }
  if (!x_allocator.create()) return false;
  if (!x_handshake.create(o.signal, static_cast<std::uint64_t>(o.stopwarn_ms) * 1'000'000)) {
    usage_error(
        "the signal that stops threads cannot be used: choose a free real-time signal with "
        "signal=n in TRICOLOR_DEBUG "
        "or in gc::options");
  }
  return x_cycle.create();
}

Mutator& Heap::mutator() {
  if (Mutator* const mutator = current_mutator(); mutator != nullptr) return *mutator;
  // Recursive entry. To attach, glibc may allocate: a malloc of the host's that uses gc:: comes here, too, and is refused as well.
  if (host_is_kept_out()) {
    usage_error(
        "an allocation, or another use of gc::, in a trace function, which may only report, or in "
        "a signal handler that has interrupted the library.");
  }
  const HostRefused refused;  // locks are taken without a mutator
  Heap* const heap = get();
  Mutator* const mutator = heap == nullptr ? nullptr : heap->x_handshake.attach();
  if (mutator == nullptr) throw std::bad_alloc();
  return *mutator;
}

statistics Heap::stats() const {
  const PageHeap& pages = x_allocator.pages;
  statistics out;
  x_cycle.add_to(out);
  const std::uint64_t freed = x_allocator.freed_bytes.load(std::memory_order_relaxed);
  const std::uint64_t allocated = x_allocator.allocated_bytes.load(std::memory_order_relaxed);
  out.heap_live_bytes = allocated > freed ? allocated - freed : 0;
  out.allocated_bytes_total = allocated;
  out.freed_bytes_total = freed;
  const std::uint64_t ready = pages.mapped_bytes();
  const std::uint64_t in_use = pages.in_use_bytes();
  // Read one after another while others sweep and allocate: the outer number bounds the inner one, so that they add up.
  const std::uint64_t spans = in_use < ready ? in_use : ready;
  if (out.heap_live_bytes > spans) out.heap_live_bytes = spans;
  out.heap_unused_bytes = spans - out.heap_live_bytes;
  out.heap_free_bytes = ready - spans;
  out.heap_mapped_bytes = ready;
  out.page_record_bytes = x_allocator.page_record_bytes();
  out.structure_bytes = x_allocator.metadata.mapped_bytes();
  out.metadata_bytes = out.page_record_bytes + out.structure_bytes;
  out.mapped_bytes = out.heap_mapped_bytes + out.metadata_bytes;
  out.released_bytes_total = pages.released_bytes();
  out.reserved_bytes = pages.reserved_bytes();
  out.external_bytes = x_allocator.held_outside_bytes();
  out.cgroup_limit_bytes = x_cgroup_limit_bytes;
  out.spans_count = x_allocator.span_count.load(std::memory_order_relaxed);
  out.types_count = x_allocator.kinds.count() - kFirstTypedKind;
  out.threads_count = x_handshake.mutator_count();
  return out;
}

// Slow where it is large, and so not for a critical section. (Large blocks are mappings.)
static void empty(RootSet::Words words) {
  constexpr std::size_t kLarge = 1 << 20;
  if (words.bytes() >= kLarge) os::discard(words.begin, words.bytes() / kLarge * kLarge);
}

void remove_range(Mutator& mutator, RootSet::Registration registration) {
  RootSet& roots = mutator.heap.roots();
  RootSet::Words left;
  for (bool has_gone = false; !has_gone;) {
    const CriticalSection critical(mutator);
    has_gone = roots.remove_part(registration, left);
  }
  if (left.begin == nullptr) return;
  empty(left);
  const CriticalSection critical(mutator);
  roots.give_back(left);
}

}  // namespace tricolor::impl

namespace tricolor {

using impl::Heap;
using impl::Mutator;

bool init(const options& wanted) { return Heap::make(wanted); }

void shutdown() {
  if (Heap::existing() == nullptr) return;
  Mutator& mutator = Heap::mutator();
  if (mutator.critical_depth.load(std::memory_order_relaxed) != 0 ||
      mutator.state->load(std::memory_order_relaxed) != impl::MutatorState::running) {
    impl::usage_error("gc::shutdown() inside gc::critical or gc::blocking_call. Leave that first.");
  }
  mutator.heap.cycle().shut_down(mutator);
}

void collect() {
  Mutator& mutator = Heap::mutator();
  if (mutator.critical_depth.load(std::memory_order_relaxed) != 0) {
    impl::usage_error(
        "gc::collect() inside gc::critical: the world cannot be stopped there. Leave the critical "
        "section first.");
  }
  mutator.heap.cycle().collect(mutator);
}

void release_memory() {
  collect();
  Mutator& mutator = Heap::mutator();
  mutator.heap.cycle().release_all(mutator);
}

statistics stats() {
  const Heap* const heap = Heap::existing();
  return heap == nullptr ? statistics{} : heap->stats();
}

namespace {

template <class T>
T change(std::atomic<T> impl::Settings::*setting, T value) {
  Heap* const heap = Heap::get();
  if (heap == nullptr) throw std::bad_alloc();
  const T old = (heap->settings().*setting).exchange(value, std::memory_order_relaxed);
  heap->cycle().settings_changed();
  return old;
}

}  // namespace

int set_percent(int percent) {
  return change(&impl::Settings::percent, percent < 0 ? -1 : percent);
}

std::uint64_t set_memory_limit(std::uint64_t bytes) {
  return change(&impl::Settings::memory_limit_bytes, bytes);
}

std::uint64_t set_min_heap(std::uint64_t bytes) {
  return change(&impl::Settings::min_heap_bytes, bytes);
}

std::uint64_t set_hard_limit(std::uint64_t bytes) {
  const std::uint64_t old = change(&impl::Settings::hard_limit_bytes, bytes);
  Heap::get()->allocator().pages.set_hard_limit_bytes(impl::page_limit(bytes));
  return old;
}

void external_memory(std::int64_t bytes) noexcept {
  constexpr std::int64_t kOwnBytes = 32 << 10;
  Heap* const heap = Heap::get();
  if (heap == nullptr) return;  // the first allocation will say so
  // More than there are addresses is nonsense, and is not to overflow anything.
  constexpr std::int64_t kMost = std::int64_t{1} << 48;
  bytes = std::clamp(bytes, -kMost, kMost);
  std::atomic<std::int64_t>& total = heap->allocator().external_bytes;
  Mutator* const mutator = impl::current_mutator();
  if (mutator == nullptr ||
      mutator->state->load(std::memory_order_relaxed) != impl::MutatorState::running) {
    total.fetch_add(bytes, std::memory_order_relaxed);
    return;
  }
  mutator->external_bytes += bytes;
  if (mutator->external_bytes < kOwnBytes && mutator->external_bytes > -kOwnBytes) return;
  bytes = std::exchange(mutator->external_bytes, 0);
  total.fetch_add(bytes, std::memory_order_relaxed);
  heap->assists().owe(*mutator, bytes);
  if (bytes > 0) {
    heap->cycle().collect_if_due(*mutator);
    heap->assists().pay(*mutator, 0);
  } else {
    heap->cycle().less_held_outside();
  }
}

out_of_memory_callback set_out_of_memory_callback(out_of_memory_callback fn) {
  Heap* const heap = Heap::get();
  if (heap == nullptr) throw std::bad_alloc();
  // Release: what fn reads is ready. Pairs with ask_host (acquire).
  return heap->settings().out_of_memory.exchange(fn, std::memory_order_acq_rel);
}

thread_scope::thread_scope() : x_attached(impl::current_mutator() == nullptr) { Heap::mutator(); }

thread_scope::~thread_scope() {
  Mutator* const mutator = impl::current_mutator();
  if (!x_attached || mutator == nullptr) return;
  if (mutator->critical_depth.load(std::memory_order_relaxed) != 0 ||
      mutator->state->load(std::memory_order_relaxed) != impl::MutatorState::running) {
    impl::usage_error(
        "a gc::thread_scope ends inside gc::critical or gc::blocking_call that began outside of "
        "it.");
  }
  mutator->heap.handshake().detach(*mutator);
}

never_assist::never_assist() { ++Heap::mutator().never_assist; }

never_assist::~never_assist() {
  // Not the one it began with when the thread has detached in between, and then there is nothing to undo.
  Mutator* const mutator = impl::current_mutator();
  if (mutator != nullptr && mutator->never_assist != 0) --mutator->never_assist;
}

critical::critical() : x_critical(&Heap::mutator()) {
  auto& mutator = *static_cast<Mutator*>(x_critical);
  const auto depth = mutator.critical_depth.load(std::memory_order_relaxed);
  if (depth >= impl::kMostCriticalSections)
    impl::usage_error("gc::critical sections nest too deeply (200).");
  mutator.critical_depth.store(static_cast<std::uint8_t>(depth + 1), std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

critical::~critical() {
  auto& mutator = *static_cast<Mutator*>(x_critical);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  const auto depth =
      static_cast<std::uint8_t>(mutator.critical_depth.load(std::memory_order_relaxed) - 1);
  mutator.critical_depth.store(depth, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (depth == 0 && mutator.stop_note.load(std::memory_order_relaxed) != 0) mutator.park(mutator);
  if (depth == 0 && mutator.types_to_pin != 0) [[unlikely]]
    impl::pin_types_since(mutator);
}

namespace detail {

void safepoint_slow(thread_cache& cache) { cache.park(cache); }

void blocking_call(void (*fn)(void*), void* argument) {
  Mutator* const mutator = impl::current_mutator();
  // A thread that is not attached, or already blocked, is not stopped anyway.
  if (mutator == nullptr ||
      mutator->state->load(std::memory_order_relaxed) != impl::MutatorState::running)
    return fn(argument);
  if (mutator->critical_depth.load(std::memory_order_relaxed) != 0) {
    impl::usage_error(
        "gc::blocking_call inside gc::critical: the collector would wait for it. Leave the "
        "critical section first.");
  }
  struct Call {
    Mutator& mutator;
    void (*fn)(void*);
    void* argument;
  } call{*mutator, fn, argument};
  impl::with_spilled_registers(
      [](void* top, void* data) {
        Call& c = *static_cast<Call*>(data);
        impl::Handshake& handshake = c.mutator.heap.handshake();
        struct Leave {  // also when fn throws or the thread is cancelled
          impl::Handshake& handshake;
          Mutator& mutator;
          ~Leave() { handshake.leave_blocked(mutator); }
        } const leave{handshake, c.mutator};
        handshake.enter_blocked(c.mutator, top, impl::MutatorState::blocked);
        c.fn(c.argument);
      },
      &call);
}

std::atomic<void*>* take_root_slot() {
  Mutator& mutator = Heap::mutator();
  std::atomic<void*>* slot = nullptr;
  {
    const impl::CriticalSection critical(mutator);
    slot = mutator.heap.roots().take();
  }
  if (slot == nullptr) throw std::bad_alloc();  // outside: it takes locks of the C++ runtime
  return slot;
}

void give_back_root_slot(std::atomic<void*>* slot) noexcept {
  // A handle may die on a thread that has nothing else to do with us: only an attached one can be stopped.
  Mutator* const mutator = impl::current_mutator();
  if (mutator == nullptr) {
    const impl::HostRefused refused;
    return Heap::existing()->roots().give_back(slot);
  }
  const impl::CriticalSection critical(*mutator);
  mutator->heap.roots().give_back(slot);
}

namespace {

// No address of a program's is as high.
constexpr std::uintptr_t kHighestEnd = std::uintptr_t{1} << 57;

std::uintptr_t address_in_words(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) / sizeof(void*) * sizeof(void*);
}

void check_ends(const void* begin, const void* end) {
  if (begin == nullptr || end == nullptr || end < begin ||
      reinterpret_cast<std::uintptr_t>(end) > kHighestEnd) {
    throw std::invalid_argument(
        "gc::add_root_range, gc::add_stack: begin and end must be addresses, and end must not be "
        "below begin");
  }
}

void check_top(const void* top) {
  if (top == nullptr)
    throw std::invalid_argument("gc::add_stack: the place where the top is kept must be given");
}

// `capacity`: of the buffer for captures, in words; 0 for a range that is not raw.
range_handle add(impl::RootRange wanted, std::size_t capacity) {
  Mutator& mutator = Heap::mutator();
  impl::RootSet& roots = mutator.heap.roots();
  if (wanted.is_stack()) {
    wanted.owner = &mutator;
    mutator.has_value_stacks = true;
  }
  if (capacity != 0 && mutator.heap.settings().tinybuffers != 0) capacity = 1;
  impl::RootSet::Words words;
  impl::RootSet::Registration registration;
  if (capacity != 0) {
    const impl::CriticalSection critical(mutator);
    words = roots.take_words(capacity);
  }
  if (capacity == 0 || words.begin != nullptr) {
    // All of it may be in use in the next stop: the kernel maps it now, and outside of a critical section.
    if (capacity != 0 && !wanted.is_stack()) std::memset(words.begin, 0, words.bytes());
    const impl::CriticalSection critical(mutator);
    registration = roots.add_range(wanted, words);
    if (registration.range == nullptr && capacity != 0) roots.give_back(words);
  }
  // Outside: it takes locks of the C++ runtime.
  if (registration.range == nullptr) throw std::bad_alloc();
  return {registration.range, registration.number};
}

// The words that lie in [begin, end) whole.
impl::RootRange words_of(const void* begin, const void* end) {
  const auto first = impl::round_up(reinterpret_cast<std::uintptr_t>(begin), sizeof(void*));
  impl::RootRange range;
  range.begin = reinterpret_cast<const char*>(first);
  range.end = reinterpret_cast<const char*>(std::max(first, address_in_words(end)));
  return range;
}

}  // namespace

range_handle add_range(const void* begin, const void* end, range_kind kind) {
  check_ends(begin, end);
  impl::RootRange range = words_of(begin, end);
  const bool is_raw = kind == range_kind::raw;
  range.kind = is_raw ? impl::RootRange::Kind::raw : impl::RootRange::Kind::barriered;
  const auto count = static_cast<std::size_t>(range.end - range.begin) / sizeof(void*);
  return add(range, is_raw ? std::max<std::size_t>(count, 1) : 0);
}

range_handle add_value_stack(const void* begin, const void* end, const void* top) {
  check_ends(begin, end);
  check_top(top);
  impl::RootRange range = words_of(begin, end);
  range.kind = impl::RootRange::Kind::raw;
  range.top = top;
  return add(range, impl::StackCapture::kCapacity);
}

range_handle add_value_stack_without_end(const void* begin, const void* top) {
  check_ends(begin, begin);
  check_top(top);
  impl::RootRange range = words_of(begin, begin);
  range.end = reinterpret_cast<const char*>(impl::RootRange::kUnknown);
  range.kind = impl::RootRange::Kind::raw;
  range.top = top;
  return add(range, impl::StackCapture::kCapacity);
}

void remove_range(range_handle handle) noexcept {
  impl::RootSet::Registration registration;
  registration.range = static_cast<impl::RootRange*>(handle.range);
  registration.number = handle.number;
  if (Mutator* const mutator = impl::current_mutator(); mutator != nullptr)
    return impl::remove_range(*mutator, registration);
  const impl::HostRefused refused;  // as in give_back_root_slot
  impl::RootSet& roots = Heap::existing()->roots();
  impl::RootSet::Words left;
  while (!roots.remove_part(registration, left)) {
  }
  impl::empty(left);
  roots.give_back(left);
}

}  // namespace detail
}  // namespace tricolor
