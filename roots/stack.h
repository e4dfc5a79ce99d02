// One stopped thread's stack and registers, as words that may be pointers.
//
// Capturing is a filter: only words that fall into the heap's address range are kept, in a buffer that was made when the
// thread attached. It runs on the thread that has stopped the others, or in a stopped thread's own signal handler, and touches
// plain memory only. Where the buffer is too small it maps one that is large enough for all that is left, and goes on in that:
// a system call and a page fault for each 512 words kept, 25 us for each MiB of a stack in which every 8th word refers to an object.
// (To mark from the stack in the stop instead takes 0.4 ms for each MiB.)
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
  }
  std::uintptr_t* buffer() const { return x_words; }
  std::size_t capacity() const { return x_capacity; }

  // Keeps the words of [top, base) that lie in `range`. `top` is rounded up to a word. Those that do not fit go into a larger buffer
  // of `more`; they are only counted when there is none, when memory is refused, or when the last buffer that it has outgrown is
  // still there.
  void capture(const void* top, const void* base, AddressRange range, Metadata* more = nullptr);

  // The buffer before the one that a capture has gone on in. It stays until the world runs: to unmap memory interrupts the CPUs of
  // all threads.
  bool has_outgrown() const { return x_outgrown != nullptr; }
  void give_back_outgrown(Metadata& metadata);

  // How many words the last capture would have kept with room for all.
  std::size_t wanted() const { return x_wanted; }
  // With some room to grow.
  std::size_t capacity_wanted() const {
    const std::size_t capacity = std::bit_ceil(x_wanted + x_wanted / 4);
    return capacity < kCapacity ? kCapacity : capacity;
  }

  // Nothing is kept any more.
  void clear() {
    x_count = 0;
    x_complete = true;
    x_top = x_base = nullptr;
  }

  // The kept words, until the next capture. False when they did not fit: then the caller reads [top, base).
  bool complete() const { return x_complete; }
  const std::uintptr_t* begin() const { return x_words; }
  const std::uintptr_t* end() const { return x_words + x_count; }

  const void* top() const { return x_top; }
  const void* base() const { return x_base; }
  std::size_t stack_bytes() const {
    return static_cast<std::size_t>(static_cast<const char*>(x_base) -
                                    static_cast<const char*>(x_top));
  }

 private:
  bool grow(std::size_t count, std::size_t room, Metadata* more);

  std::uintptr_t* x_words = nullptr;
  std::size_t x_capacity = 0;
  std::uintptr_t* x_outgrown = nullptr;
  std::size_t x_outgrown_capacity = 0;
  std::size_t x_count = 0;
  std::size_t x_wanted = 0;
  bool x_complete = true;
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
