// Memory of the program's own in which the collector is to look for references: what it cannot find by itself, because malloc or
// mmap has given it out. Each registration lasts as long as its root_range.
//
//   std::vector<gc::ptr<Node>> table(1000);                            // in malloc memory: alone it keeps nothing alive
//   const gc::root_range seen = gc::add_root_range(table.data(), table.data() + table.size(), gc::barriered);
//
//   Value* volatile top = stack;                                       // an interpreter's value stack
//   const gc::root_range seen = gc::add_stack(stack, stack + 4096, &top);
//
// A word there may be anything: what is no address of an object (also inside one) is passed over. The memory, and
// that of a stack's top, is to stay readable until its root_range has gone. Nothing is stored to it.
//
// Any thread may add (that attaches it), and remove what it or another has added, attached or not. Throws std::bad_alloc when
// memory for the bookkeeping is refused. While a cycle marks, to remove a range takes as long as to read it.
// Each raw range takes 0.01 us of a stop besides what is read. In a child of fork() ranges stay, so their memory is to be there, too;
// value stacks of threads that the child does not have go.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

namespace tricolor {

// How references get into a range.
//   barriered  by gc::ptr, gc::atomic_ptr, or gc::copy and the like. Read beside the program: as large as you like
//   raw        by plain stores, or by C code, on threads that are attached and not inside gc::blocking_call. Read with the
//              world stopped: 0.1 ms for each MB, in every cycle (64 MB full of references: 0.24).
//              Takes as much memory again
enum class range_kind : std::uint8_t { barriered, raw };
inline constexpr range_kind barriered = range_kind::barriered;
inline constexpr range_kind raw = range_kind::raw;

namespace detail {

struct range_handle {
  void* range = nullptr;
  std::uint64_t number = 0;
};
range_handle add_range(const void* begin, const void* end, range_kind kind);
// `top`: where a pointer stands.
range_handle add_value_stack(const void* begin, const void* end, const void* top);
range_handle add_value_stack_without_end(const void* begin, const void* top);
void remove_range(range_handle handle) noexcept;

}  // namespace detail

// A registered range, until it is destroyed or reset. Movable.
class [[nodiscard]] root_range {
 public:
  root_range() noexcept = default;
  explicit root_range(detail::range_handle handle) noexcept : x_handle(handle) {}
  root_range(root_range&& other) noexcept : x_handle(std::exchange(other.x_handle, {})) {}
  root_range& operator=(root_range&& other) noexcept {
    if (this != &other) {
      reset();
      x_handle = std::exchange(other.x_handle, {});
    }
    return *this;
  }
  ~root_range() { reset(); }

  void reset() noexcept {
    if (x_handle.range != nullptr) detail::remove_range(std::exchange(x_handle, {}));
  }
  explicit operator bool() const noexcept { return x_handle.range != nullptr; }

 private:
  detail::range_handle x_handle;
};

// Every aligned word of [begin, end). Throws std::invalid_argument when end is below begin, or one of them is null.
inline root_range add_root_range(const void* begin, const void* end, range_kind kind) {
  return root_range(detail::add_range(begin, end, kind));
}

// A stack of the calling thread that grows upwards: every aligned word of [begin, *top), as *top is when the world is stopped; no
// word while *top is not in [begin, end]. It is raw, and goes at the latest when the thread detaches. Throws as add_root_range,
// and when `top` is null. Costs a stop what the thread's own stack costs it: 0.1 ms for each MB below the top.
//
// The thread may be stopped at any instruction, and what it finds in memory then is what counts: *top, the words below it, and what
// the thread has in registers and on its own stack. So the order of its accesses matters, to the compiler too:
//   push   raise the top, then store the word        an interpreter may as well leave the top at its frame's highest word
//   pop    load the word, then lower the top         and use what is below it freely
// Either the top is a volatile (or atomic) pointer and the words are accessed as volatile ones, or there is a
// std::atomic_signal_fence(std::memory_order_seq_cst) between the two. A top that is kept in a register is written back before it
// counts. What stands below the top and is dead is kept a while.
//
// A stack that moves to a larger buffer: copy the words, add the new buffer (with the same top), fence, store the new top, and
// remove the old one. At every instruction one of the two is read, since the top is in one of them only.
template <class T>
root_range add_stack(const T* begin, const T* end, T* const volatile* top) {
  return root_range(detail::add_value_stack(begin, end, const_cast<T* const*>(top)));
}
template <class T>
root_range add_stack(const T* begin, const T* end, const std::atomic<T*>* top) {
  static_assert(sizeof(*top) == sizeof(T*) && std::atomic<T*>::is_always_lock_free);
  return root_range(detail::add_value_stack(begin, end, top));
}

// The same where the end is not known: *top is trusted, and must never point past readable memory above `begin`. Such a stack
// cannot move: it is removed first, while nothing that only it refers to is needed.
template <class T>
root_range add_stack(const T* begin, T* const volatile* top) {
  return root_range(detail::add_value_stack_without_end(begin, const_cast<T* const*>(top)));
}
template <class T>
root_range add_stack(const T* begin, const std::atomic<T*>* top) {
  static_assert(sizeof(*top) == sizeof(T*) && std::atomic<T*>::is_always_lock_free);
  return root_range(detail::add_value_stack_without_end(begin, top));
}

}  // namespace tricolor
