// One stopped thread's stack and registers, as words that may be pointers.
//
// Capturing is a filter: only words that fall into the heap's address range are kept, in a buffer that was made before. It runs on
// the thread that has stopped the others, or in a stopped thread's own signal handler, and touches plain memory only. Before a stop
// the buffers of stacks that have grown are made larger (Handshake::make_room_for_captures). Where one is too small all the same,
// the stopper goes on in a larger one (go_on): system calls and a page fault for each 512 words kept, which are nothing for a
// handler. Where memory is refused the marker reads such a stack while the world is stopped: 2.6 ms for each MiB of references to
// different objects, three times as much.
//
// A word that only looks like a pointer, or a dead slot of a frame, keeps an object and all that hangs on it for as long as it
// stands there. Nothing clears dead slots and no page is kept out of use for such words: they go with their frames, what lies
// below the stack pointer is not read, and objects with a layout add none.
//
// Invariant [stack.one-instant]: no thread goes on before every capture of the same stop is complete.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace tricolor::impl {

class Metadata;

// The part of the address space that a word must fall into to be kept.
struct AddressRange {
  std::uintptr_t lowest = 0;
  std::uintptr_t end = 0;
  bool contains(std::uintptr_t word) const { return word - lowest < end - lowest; }
};

class StackCapture {
 public:
  // To begin with. 8 bytes a word; only touched pages cost memory. A stack rarely has more words into the heap than this.
  static constexpr std::size_t kCapacity = 4096;
  static constexpr std::size_t kBytes = kCapacity * sizeof(std::uintptr_t);

  // `words` has room for `capacity`.
  StackCapture(std::uintptr_t* words, std::size_t capacity) { use_buffer(words, capacity); }

  // Another buffer, with nothing in it.
  void use_buffer(std::uintptr_t* words, std::size_t capacity) {
    x_words = words;
    x_capacity = capacity;
    x_count = 0;
    x_rest = nullptr;
  }
  std::uintptr_t* buffer() const { return x_words; }
  std::size_t capacity() const { return x_capacity; }

  // Keeps the words of [top, base) that lie in `range`, until there is no room for more. `top` is rounded up to a word.
  void capture(const void* top, const void* base, AddressRange range);
  // Keeps the others, too, in a buffer of `metadata` that it takes for all that is left and trims to what it has kept. False when
  // memory is refused; it is as it was then. The buffer before must have been taken there, of capacity() words.
  bool go_on(AddressRange range, Metadata& metadata);

  // Had the last capture to?
  bool went_on() const { return x_went_on; }

  // How many words the last capture has kept.
  std::size_t kept() const { return x_kept; }
  // With some room to grow.
  std::size_t capacity_wanted() const {
    const std::size_t capacity = std::bit_ceil(x_kept + x_kept / 4);
    return capacity < kCapacity ? kCapacity : capacity;
  }

  // Nothing is kept any more.
  void clear() {
    x_count = 0;
    x_rest = nullptr;
    x_top = x_base = nullptr;
  }

  // The kept words, until the next capture. Not complete when they did not fit: then the caller goes on, or reads [top, base).
  bool complete() const { return x_rest == nullptr; }
  const std::uintptr_t* begin() const { return x_words; }
  const std::uintptr_t* end() const { return x_words + x_count; }

  const void* top() const { return x_top; }
  const void* base() const { return x_base; }
  std::size_t stack_bytes() const {
    return static_cast<std::size_t>(static_cast<const char*>(x_base) -
                                    static_cast<const char*>(x_top));
  }

 private:
  void keep_from(const volatile std::uintptr_t* word, AddressRange range);

  std::uintptr_t* x_words = nullptr;
  std::size_t x_capacity = 0;
  std::size_t x_count = 0;
  std::size_t x_kept = 0;
  bool x_went_on = false;
  const volatile std::uintptr_t* x_rest = nullptr;  // from here on there was no room
  const void* x_top = nullptr;
  const void* x_base = nullptr;
};

// The calling thread's stack: [lowest, base), growing down from base. May allocate (glibc reads /proc for the main thread):
// only for attaching. False when glibc cannot tell (no memory, no /proc): the thread cannot attach then.
struct StackBounds {
  char* lowest = nullptr;
  char* base = nullptr;
  bool contains(const void* p) const { return lowest <= p && p < base; }
};
bool current_stack_bounds(StackBounds& bounds);

}  // namespace tricolor::impl
