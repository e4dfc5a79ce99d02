// The slow half of an allocation: all policy is here. alloc/ says what it has, the cycle says when it is due; this file
// decides what comes next:
//
//   allocate_slow
//     0. the next run of the thread's claim, if there is one: all of the rest is skipped
//     1. a cycle is asked for, if one is due; while one marks, what has been allocated is paid for by marking (assist.h). The
//        mutator may wait: it has chosen no cell yet
//     2. what the thread owes the sweep (sweeper.h)
//        a claim from the kind's spans (sweeping at most kSweepTries of them)
//        else as many pages as a fresh span needs out of spans of any kind that are dead and near, then the span from free pages
//        or from the system, or where that has none once everything is swept; then what that is too much goes back (scavenger.h)
//     3. memory ends: a full collection, which sweeps everything, and once more from 2
//     4. the host's out-of-memory callback is asked, with nothing held; once more from 1 as long as it says so
//     5. std::bad_alloc; nothing has changed
//
// Inside gc::critical the world cannot be stopped: 5 follows 2 there. Inside the callback 5 follows 3.
//
// Large objects take their pages at step 2 directly.
#include <cstring>
#include <new>
#include <utility>

#include <tricolor/bulk.h>
#include <tricolor/heap.h>
#include <tricolor/make.h>
#include <tricolor/thread.h>

#include "alloc/base/fault.h"
#include "alloc/base/perturb.h"
#include "alloc/cell.h"
#include "alloc/span_life.h"
#include "alloc/thread_cache.h"
#include "gc/heap.h"
#include "roots/libraries.h"

namespace tricolor::impl {

namespace {

// After so many swept spans without a free cell a fresh one is taken: bounds the time of one allocation, at most 1 % more
// space (as in Go's mcentral.go).
constexpr std::uint32_t kSweepTries = 100;

// Inline functions and variables of one type may be in several libraries.
void pin_libraries_of(Heap& heap, const detail::type_info& type) {
  Handshake& handshake = heap.handshake();
  handshake.pin_library_of(&type);
  handshake.pin_library_of(type.name);
  handshake.pin_library_of(type.fixed.begin);
  handshake.pin_library_of(type.tail.begin);
  handshake.pin_library_of(reinterpret_cast<const void*>(type.trace));
}

// The kind of a request, registered at its first use; null when memory or kinds have run out.
Kind* kind_of(Heap& heap, Mutator& mutator, const detail::cell_request& request) {
  KindTable& kinds = heap.allocator().kinds;
  if (request.type == nullptr) {
    return &kinds[request.size_class == detail::kLargeClass
                      ? kLargePointerFreeKind
                      : static_cast<std::uint32_t>(request.size_class)];
  }
  // The description is the user's side, with a lock of the C++ runtime around its making: not in a critical section. A stop may
  // come meanwhile, a fork may not: in the child that lock would stay taken. (Who waits for the lock waits for a thread that has
  // passed the gate before.)
  enter_library(mutator);
  const detail::type_info& type = request.type();
  leave_library(mutator);
  // Relaxed: in vain at worst.
  if (request.kind_slot->load(std::memory_order_relaxed) == kUnregisteredKind) {
    // [library.pinned], before the type is known to anybody. Not inside gc::critical, where the loader's lock may not be
    // waited for: then when that ends.
    if (mutator.critical_depth.load(std::memory_order_relaxed) == 0) {
      heap.handshake().while_blocked(mutator, [&] { pin_libraries_of(heap, type); });
    } else if (mutator.types_to_pin == 0) {
      mutator.types_to_pin = kinds.count();
    }
  }
  const CriticalSection critical(mutator);
  const std::uint32_t id = kinds.id_of(*request.kind_slot, type, request.size_class);
  return id == kUnregisteredKind ? nullptr : &kinds[id];
}

// A stop may come in between: only a few spans a critical section, here and below.
constexpr std::size_t kSpansAtOnce = 16;

// Sweeps along with who allocates.
void pay_for_sweep(Heap& heap, Mutator& mutator, PageCount wanted) {
  Sweeper& sweeper = heap.cycle().sweeper();
  while (sweeper.owes(wanted.bytes())) {
    const CriticalSection critical(mutator);
    sweeper.sweep_for(PageCount{SIZE_MAX}, kSpansAtOnce);
  }
}

// Before pages are taken, dead spans give as many; if they are near. Where gigabytes live on, one allocation would look at them all,
// 15 ms for each GB: the next ones go on, and until they are through the heap grows by a sixteenth at most of what they have passed.
void reclaim(Heap& heap, Mutator& mutator, PageCount wanted) {
  constexpr std::size_t kLooks = 4;        // in vain, at 512 pages each
  constexpr std::size_t kPagesALook = 32;  // that are wanted, for one more
  Sweeper& sweeper = heap.cycle().sweeper();
  if (sweeper.done()) return;
  PageCount left = sweeper.take_credit(wanted);
  const std::size_t looks = kLooks + wanted.value / kPagesALook;
  for (std::size_t in_vain = 0; left.value != 0 && in_vain < looks;) {
    const CriticalSection critical(mutator);
    const PageCount before = left;
    left = sweeper.reclaim(left);
    in_vain = left == before ? in_vain + 1 : 0;
  }
}

// All that is left to sweep, also what others are at.
void sweep_rest(Heap& heap, Mutator& mutator) {
  Sweeper& sweeper = heap.cycle().sweeper();
  for (;;) {
    const CriticalSection critical(mutator);
    if (sweeper.done()) return sweeper.finish();
    sweeper.sweep_for(PageCount{SIZE_MAX}, kSpansAtOnce);
  }
}

enum class Growth : std::uint8_t { kForbidden, kAllowed };

// `fresh` is raised by the pages that have no memory behind them yet.
bool claim_cells(Heap& heap, Mutator& mutator, Kind& kind, Growth growth, PageCount& fresh) {
  Allocator& allocator = heap.allocator();
  const std::uint32_t wanted = next_claim_cells(allocator, mutator, kind);
  perturb();
  Claim claim;
  bool found = kind.central.claim(allocator, wanted, kSweepTries, claim);
  if (!found && growth == Growth::kForbidden) return false;
  if (!found) {
    if (const auto run = allocator.pages.take(PageCount{kind.pages})) {
      fresh = fresh + run->fresh;
      found = kind.central.add_span(allocator, kind, run->first, run->zero, wanted, claim);
    }
  }
  if (!found) found = kind.central.claim(allocator, wanted, Central::kEverySpan, claim);
  if (found) accept_claim(allocator, mutator, kind, claim);
  return found;
}

// Null when there is no memory, or none in spans that are there.
char* take_small(Heap& heap, Mutator& mutator, Kind& kind, Growth growth, PageCount& fresh) {
  if (!grow_tables(heap.allocator(), mutator, kind.id)) return nullptr;
  for (;;) {
    if (char* const cell = detail::try_take(mutator, kind.id, kind.cell_bytes); cell != nullptr)
      return cell;
    if (!next_run(mutator, kind.id, kind.cell_bytes, kind.scan) &&
        !claim_cells(heap, mutator, kind, growth, fresh))
      return nullptr;
  }
}

// Null when there is no memory. When `zero` comes back true the object is still to be zeroed, outside of the critical
// section, and made ready.
char* take_large(Heap& heap, Mutator& mutator, Kind& kind, const detail::cell_request& request,
                 bool& zero, PageCount& fresh) {
  Allocator& allocator = heap.allocator();
  const PageCount pages = pages_for(request.bytes);
  if (pages.value > UINT32_MAX) return nullptr;
  const auto run = allocator.pages.take(pages);
  if (!run) return nullptr;
  fresh = run->fresh;
  zero = !run->zero && (kind.scan != detail::ScanMode::none || request.zero);
  const bool is_unready = zero && !is_planted(Fault::scanned_unready);
  PageRecord* const span = publish_span(allocator, kind, run->first, pages, run->zero,
                                        is_unready ? PageState::unready : PageState::in_use);
  // [alloc.black], as in Central::claim_from.
  if (allocator.allocate_black.load(std::memory_order_relaxed) &&
      shade(span, 0, Markers::several)) {
    allocator.count_black(1, pages.bytes());
  }
  alloc_words(span)[0].store(1, std::memory_order_release);
  allocator.count_claimed(pages.bytes(), kind.scan);
  mutator.claimed_bytes += pages.bytes();
  return run->first.data();
}

// Outside of any critical section: the thread can be stopped at any point of it, and the object is unready till its end.
void make_ready(Heap& heap, char* object, std::size_t bytes) {
  std::memset(object, 0, bytes);
  PageRecord* const record = heap.allocator().map.record_of(page_of(object));
  if (record == nullptr) __builtin_unreachable();  // of what has just been allocated; GCC 12 warns
  // Release: the object is zero. Pairs with Marker::scan_cell (acquire).
  record->state.store(PageState::in_use, std::memory_order_release);
}

// stress=n: a complete collection at every n-th allocation of the thread. Claims are n cells at most, so that one comes by
// here often enough.
void collect_under_stress(Heap& heap, Mutator& mutator) {
  const int every = heap.settings().stress;
  if (every == 0 || mutator.critical_depth.load(std::memory_order_relaxed) != 0) return;
  const std::uint64_t now = mutator.claimed_cells;
  if (now < mutator.next_stress_at) return;
  mutator.next_stress_at = now + static_cast<std::uint64_t>(every);
  heap.cycle().collect(mutator);
}

// A cell from what the thread has claimed already, or null. One unit, as the inline path.
char* take_claimed(const detail::cell_request& request, const char** listed) {
  Mutator* const mutator = current_mutator();
  if (mutator == nullptr || request.size_class == detail::kLargeClass) return nullptr;
  if (mutator->state->load(std::memory_order_relaxed) != MutatorState::running) return nullptr;
  // Relaxed: as in detail::allocate_sized.
  const std::uint32_t id = request.type == nullptr
                               ? static_cast<std::uint32_t>(request.size_class)
                               : request.kind_slot->load(std::memory_order_relaxed);
  if (id >= mutator->run_count) return nullptr;
  const std::size_t cell_bytes = detail::kSizeClasses[request.size_class].cell_bytes;
  const auto scan =
      request.type == nullptr ? detail::ScanMode::none : detail::ScanMode::conservative;
  mutator->enter_unit();
  char* cell = detail::try_take(*mutator, id, cell_bytes);
  if (cell == nullptr && next_run(*mutator, id, cell_bytes, scan))
    cell = detail::try_take(*mutator, id, cell_bytes);
  if (listed != nullptr) *listed = cell;
  mutator->leave_unit();
  return cell;
}

// Null when there is no memory.
char* try_allocate(Heap& heap, Mutator& mutator, Kind& kind, const detail::cell_request& request,
                   const char** listed) {
  char* cell = nullptr;
  bool zero = false;
  PageCount fresh;
  const bool is_large = kind.cell_bytes == 0;
  const PageCount pages = is_large ? pages_for(request.bytes) : PageCount{kind.pages};
  pay_for_sweep(heap, mutator, pages);
  const auto take = [&](Growth growth) {
    const CriticalSection critical(mutator);
    cell = is_large ? take_large(heap, mutator, kind, request, zero, fresh)
                    : take_small(heap, mutator, kind, growth, fresh);
    if (listed != nullptr) *listed = cell;
  };
  // Nothing to reclaim: no need to look twice.
  if (!is_large) take(heap.cycle().sweeper().done() ? Growth::kAllowed : Growth::kForbidden);
  if (cell == nullptr) {
    reclaim(heap, mutator, pages);
    take(Growth::kAllowed);
  }
  if (cell == nullptr) {
    sweep_rest(heap, mutator);
    take(Growth::kAllowed);
  }
  if (fresh.value != 0) {
    heap.cycle().pacing().update_limiter(mutator);
    heap.cycle().scavenger().make_room(mutator, fresh);
  }
  if (cell != nullptr && zero) make_ready(heap, cell, pages_for(request.bytes).bytes());
  return cell;
}

// Is it worth another try? The callback may do anything that a program may do in an allocation, throw too.
bool ask_host(Heap& heap, Mutator& mutator, std::size_t bytes) {
  // Acquire: what the callback reads. Pairs with set_out_of_memory_callback (release).
  const out_of_memory_callback callback =
      heap.settings().out_of_memory.load(std::memory_order_acquire);
  if (callback == nullptr || mutator.asks_host) return false;
  struct Asking {
    explicit Asking(Mutator& m) : mutator(m) { mutator.asks_host = true; }
    Asking(const Asking&) = delete;
    Asking& operator=(const Asking&) = delete;
    ~Asking() { mutator.asks_host = false; }
    Mutator& mutator;
  } const asking(mutator);
  return callback(bytes);
}

[[gnu::noinline]] char* allocate_slowest(const detail::cell_request& request, const char** listed) {
  Mutator& mutator = Heap::mutator();
  Heap& heap = mutator.heap;
  const auto* const here = static_cast<const char*>(__builtin_frame_address(0));
  if (Handshake::is_on_stack(mutator, here))
    mutator.top_at_claim.store(here, std::memory_order_relaxed);
  if (mutator.state->load(std::memory_order_relaxed) != MutatorState::running) {
    usage_error(
        "an allocation inside gc::blocking_call: fn must touch no managed memory. Move the "
        "allocation out of it.");
  }
  if (request.bytes > std::size_t{1} << kAddressBits) throw std::bad_alloc();
  do {
    heap.cycle().collect_if_due(mutator);
    // The next claim of small cells is paid for when it is used up.
    heap.assists().pay(mutator, request.size_class == detail::kLargeClass ? request.bytes : 0);
    collect_under_stress(heap, mutator);
    // Looked up each time: registering it needs memory, too.
    for (bool collected = false;; collected = true) {
      Kind* const kind = kind_of(heap, mutator, request);
      char* const cell =
          kind == nullptr ? nullptr : try_allocate(heap, mutator, *kind, request, listed);
      if (cell != nullptr) return cell;
      if (mutator.critical_depth.load(std::memory_order_relaxed) != 0) throw std::bad_alloc();
      if (collected) break;
      heap.cycle().collect(mutator);
    }
  } while (ask_host(heap, mutator, request.bytes));
  throw std::bad_alloc();
}

}  // namespace

void pin_types_since(Mutator& mutator) {
  const KindTable& kinds = mutator.heap.allocator().kinds;
  std::uint32_t id = std::exchange(mutator.types_to_pin, 0);
  mutator.heap.handshake().while_blocked(mutator, [&] {
    for (; id < kinds.count(); ++id) {
      if (kinds[id].type != nullptr) pin_libraries_of(mutator.heap, *kinds[id].type);
    }
  });
}

}  // namespace tricolor::impl

namespace tricolor::detail {

using namespace tricolor::impl;

char* allocate_slow(const cell_request& request, const char** listed) {
  char* cell = take_claimed(request, listed);
  if (cell == nullptr) cell = allocate_slowest(request, listed);
  if (request.zero && request.size_class != kLargeClass) std::memset(cell, 0, request.bytes);
  return cell;
}

thread_cache& attach_for_allocation() { return Heap::mutator(); }

void give_back_cell(char* cell) noexcept {
  Mutator& mutator = *current_mutator();
  // What the constructor has stored goes: through the barrier, while a cycle marks [color.deletion].
  const Cell found =
      find_cell(mutator.heap.allocator().map, reinterpret_cast<std::uintptr_t>(cell));
  if (mutator.armed.load(std::memory_order_relaxed) != 0 && found.span->scan != ScanMode::none) {
    fill_words(reinterpret_cast<managed_word*>(cell), found.bytes() / sizeof(managed_word), 0);
  }
  // One critical section: before it the cell is under construction, after it it may be somebody else's.
  const CriticalSection critical(mutator);
  if (mutator.constructing != nullptr && mutator.constructing->cell == cell) {
    mutator.constructing->cell = nullptr;
  }
  return_cell(mutator.heap.allocator(), mutator, cell);
}

}  // namespace tricolor::detail
