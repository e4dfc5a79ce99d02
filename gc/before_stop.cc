// Another part of handshake.h: what is done while the world runs so that the next stop is short.
//
//   make_room_for_captures  before a stop that begins a cycle; fit_capture takes room back after it
//   rehearse                what the stop will use is used (rehearsal.h)
//   count_running, keeps_another_from_cpu  which thread had best make the stop (stop_offer.h)
//   fetch_ahead, fetch_capture  what the stop is about to use is asked for, by the thread that makes it

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "alloc/base/os.h"
#include "alloc/base/sanitizer.h"
#include "alloc/base/stop_code.h"
#include "gc/handshake.h"
#include "gc/heap.h"
#include "gc/rehearsal.h"

namespace tricolor::impl {

namespace {

constexpr std::size_t kFetchedStackBytes = 8 << 10;  // what is used of most stacks

// How many words of [begin, begin + bytes) lie in the range. That is somebody's stack, who runs, or is gone with it.
std::size_t count_words(const char* begin, std::size_t bytes, AddressRange range) {
  std::array<std::uintptr_t, 512> words;
  std::size_t count = 0;
  for (std::size_t got = 0, done = 0; done < bytes; done += got) {
    const std::size_t wanted = std::min(sizeof words, bytes - done);
    got = os::read_maybe_unmapped(words.data(), begin + done, wanted);
    for (std::size_t i = 0; i < got / sizeof words[0]; ++i)
      count += range.contains(words[i]) ? 1 : 0;
    if (got < wanted) break;
  }
  return count;
}

}  // namespace

// ---- room for captures

// [handshake.capture-once]
void Handshake::fit_capture(Mutator& mutator) {
  StackCapture& capture = mutator.capture;
  const std::size_t capacity = capture.capacity_wanted();
  // The second mark reads captures, too.
  if (capture.capacity() <= 8 * capacity || x_heap.settings().gccheckmark != 0) return;
  Metadata& metadata = x_heap.allocator().metadata;
  void* const words = metadata.take(capacity * sizeof(std::uintptr_t));
  if (words == nullptr) return;
  // The kernel maps it now, and not in the stop.
  std::memset(words, 0, capture.kept() * sizeof(std::uintptr_t));
  metadata.give_back(capture.buffer(), buffer_bytes(capture));
  capture.use_buffer(static_cast<std::uintptr_t*>(words), capacity);
}

// In the stop a page fault for each 512 words would cost more than to read the stack. What the last capture has found is taken for what
// still stands there. Stacks are read with nothing locked: of what has gone or changed meanwhile nothing is asked but speed.
void Handshake::make_room_for_captures() {
  constexpr std::size_t kMostStacks = 8;
  constexpr std::size_t kMostBytes =
      8 << 20;  // some milliseconds; what is more finds room in the stop
  if (x_heap.settings().tinybuffers != 0) return;
  struct Grown {
    const Mutator* mutator;
    const char* top;
    std::size_t bytes;
    std::size_t kept;
    std::size_t capacity;
  };
  std::array<Grown, kMostStacks> grown;
  std::size_t count = 0;
  {
    const Guard guard(x_registry);
    std::size_t left = kMostBytes;
    x_seats.for_each_not_idle([&](const Mutator& m, MutatorState state) {
      const char* const top = m.top_at_claim.load(std::memory_order_relaxed);
      if (state == MutatorState::blocked || top == nullptr || count == kMostStacks) return;
      // No cycle marks, so nobody writes captures.
      const auto used = static_cast<std::size_t>(m.stack.base - top);
      const std::size_t known = m.capture.stack_bytes();
      if (used <= known + kLargeStackBytes || used - known > left) return;
      left -= used - known;
      // Where nothing is known of the stack, what is kept is of an older capture: all of it is counted now.
      const std::size_t kept = known == 0 ? 0 : m.capture.kept();
      grown[count++] = {&m, top, used - known, kept, m.capture.capacity()};
    });
  }
  const AddressRange range = x_heap.address_range();
  for (std::size_t i = 0; i < count; ++i) {
    const Grown& one = grown[i];
    const std::size_t found = count_words(one.top, one.bytes, range);
    if (found == 0) continue;
    if (one.kept + found > one.capacity) {
      take_larger_buffer(one.mutator, one.kept + found);
    } else {
      map_buffer(one.mutator, one.kept, one.kept + found);
    }
  }
}

// Both of one that may be gone by now; then another one may have come in its place, and has the room. Who detaches waits for its turn,
// holding the registry: so pages are mapped with the turn free, or a few in each.
void Handshake::map_buffer(const Mutator* mutator, std::size_t begin, std::size_t end) {
  constexpr std::size_t kAtOnce = 64 << 10;  // words: 128 pages
  for (; begin < end; begin += kAtOnce) {
    in_turn_of(mutator, [&](Mutator& m) {
      const std::size_t from = std::max(begin, m.capture.kept());
      const std::size_t to = std::min({begin + kAtOnce, end, m.capture.capacity()});
      if (from < to)
        std::memset(m.capture.buffer() + from, 0, (to - from) * sizeof(std::uintptr_t));
    });
  }
}

void Handshake::take_larger_buffer(const Mutator* mutator, std::size_t words) {
  Metadata& metadata = x_heap.allocator().metadata;
  const std::size_t capacity = std::bit_ceil(words + words / 4);
  void* buffer = metadata.take(capacity * sizeof(std::uintptr_t));
  if (buffer == nullptr) return;
  // The kernel maps it now, and not in the stop.
  std::memset(buffer, 0, words * sizeof(std::uintptr_t));
  std::size_t bytes = capacity * sizeof(std::uintptr_t);  // of what is given back
  in_turn_of(mutator, [&](Mutator& m) {
    if (m.capture.capacity() >= capacity) return;
    void* const before = m.capture.buffer();
    const std::size_t bytes_before = buffer_bytes(m.capture);
    m.capture.use_buffer(static_cast<std::uintptr_t*>(buffer), capacity);
    buffer = before;
    bytes = bytes_before;
  });
  metadata.give_back(buffer, bytes);
}

// Once: while its turn is held the registry is free, and after that the address may be yet another one's.
template <class Fn>
void Handshake::in_turn_of(const Mutator* mutator, Fn fn) {
  lock_registry_for_walk();
  Mutator* there = nullptr;
  x_seats.for_each([&](Mutator& m) {
    if (&m == mutator) there = &m;
  });
  if (there != nullptr) in_turn(*there, fn);
  unlock_registry_for_walk();
}

// ---- what the stop will use

// A signal is delivered to the calling thread, which is no mutator that runs: the handler does nothing.
void Handshake::rehearse_signal() const {
  sigset_t ours, before;
  sigemptyset(&ours);
  sigaddset(&ours, x_signal);
  pthread_sigmask(SIG_UNBLOCK, &ours, &before);
  os::send_signal(os::thread_id(), x_signal);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Handshake::rehearse(Purpose purpose) {
  if constexpr (!kStopByPolls) rehearse_signal();
  for_each_not_idle_in_turn([&](Mutator& m) {
    touch_lines(&m, sizeof m);
    if (purpose == Purpose::end) return;
    // Captures are written in arming stops, and read in turns.
    const StackCapture& capture = m.capture;
    const std::size_t words = std::min(capture.kept(), capture.capacity());
    touch_pages(capture.buffer(), words * sizeof(std::uintptr_t));
    // Of its stack the oldest frames, which it has not used for long.
    const std::size_t used = std::min(capture.stack_bytes(), kLargeStackBytes);
    touch_pages_through_kernel(static_cast<const char*>(capture.base()) - used, used);
    const std::size_t lines = std::min(used, kFetchedStackBytes);
    touch_lines_through_kernel(static_cast<const char*>(capture.base()) - lines, lines);
  });
}

std::size_t Handshake::count_running() {
  const Guard guard(x_registry);
  std::size_t running = 0;
  x_seats.for_each_not_idle([&](const Mutator&, MutatorState state) {
    running += state == MutatorState::running ? 1 : 0;
  });
  return running;
}

bool Handshake::keeps_another_from_cpu() {
  const std::uint32_t* const own = os::cpu_word();
  if (own == nullptr) return false;
  constexpr std::size_t kMost = 32;  // of more, the others are left out
  std::array<os::Piece, kMost> words;
  std::size_t count = 0;
  words[count++] = {own, sizeof *own};
  if (!x_registry.try_lock())
    return false;  // a stop begins, or many have come by: not in their way
  x_seats.for_each_not_idle([&](const Mutator& m, MutatorState state) {
    if (state == MutatorState::running && m.cpu_word != nullptr && count < kMost)
      words[count++] = {m.cpu_word, sizeof *m.cpu_word};
  });
  x_registry.unlock();
  // Each is in its thread's memory, which may be gone by now. Then nothing is known of the others either.
  std::array<std::uint32_t, kMost> cpus;
  return os::read_pieces_maybe_unmapped(cpus.data(), {words.data(), count}) &&
         static_cast<std::int32_t>(cpus[0]) >= 0 &&
         std::find(cpus.begin() + 1, cpus.begin() + count, cpus[0]) != cpus.begin() + count;
}

// Asks for what a capture of this one will read and write. It may run, or be gone with its stack.
TRICOLOR_STOP_CODE void Handshake::fetch_capture(const Mutator& mutator) {
  constexpr std::size_t kLineBytes = 64;
  constexpr std::size_t kMostKept = 1024;  // bytes
  const auto fetch = [](const void* begin, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; i += kLineBytes)
      __builtin_prefetch(static_cast<const char*>(begin) + i);
  };
  const StackCapture& capture = mutator.capture;
  const std::size_t used = capture.stack_bytes();
  if (used > kLargeStackBytes) return;  // its owner captures it
  const std::size_t wanted = std::min(used, kFetchedStackBytes);
  fetch(mutator.stack.base - wanted, wanted);
  fetch(capture.buffer(), std::min(capture.kept() * sizeof(std::uintptr_t), kMostKept));
}

// What a stop will use of mutators, for the stopper's CPU. The registry is locked, the world runs.
void Handshake::fetch_ahead(Purpose purpose) {
  int fetched = 0;
  x_seats.for_each_not_idle([&](const Mutator& m, MutatorState state) {
    if (state == MutatorState::blocked || fetched++ >= kMostFetched) return;
    touch_lines(&m, sizeof m);
    // While a cycle marks, captures are written in turns: at its end one may be now.
    if (purpose == Purpose::arm && state == MutatorState::waiting) fetch_capture(m);
  });
}

}  // namespace tricolor::impl
