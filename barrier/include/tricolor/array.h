// gc::array<T>: an 8-byte handle on a managed array, itself a barriered field like gc::ptr. It may stand in managed
// objects, globals, thread_locals, and on stacks.
//
//   gc::array<gc::ptr<Node>> nodes = gc::make_array<gc::ptr<Node>>(100);
//   nodes[3] = gc::make<Node>();   // an element that is a gc::ptr is barriered
//
// The elements live in one cell, with their number in front; the cell has at least one byte behind the last element, so a
// past-the-end iterator alone keeps the array alive. An address before that number lies in another cell: where all
// that a loop has is a pointer biased to there (as optimisers may leave), keep the handle in use until after it. An array never
// changes its size.
#pragma once

#include <cstddef>
#include <span>
#include <type_traits>

#include <tricolor/detail/write_barrier.h>

namespace tricolor {

namespace detail {

// Bytes from the cell's start to the first element: the number of elements lies in the word just before the elements.
template <class T>
inline constexpr std::size_t kArrayHeaderBytes = alignof(T) > sizeof(std::size_t)
                                                     ? alignof(T)
                                                     : sizeof(std::size_t);

}  // namespace detail

template <class T>
class array {
 public:
  using value_type = T;
  using iterator = T*;
  using const_iterator = const T*;

  constexpr array() noexcept { construct(nullptr); }
  constexpr array(std::nullptr_t) noexcept { construct(nullptr); }
  array(const array& other) noexcept { construct(other.read()); }
  array& operator=(const array& other) noexcept {
    detail::barriered_store(&x_data, other.read());
    return *this;
  }
  ~array() = default;

  // `data` is the first element of an array made by make_array (or null).
  static array from_data(T* data) noexcept {
    array a;
    __atomic_store_n(&a.x_data, data, __ATOMIC_RELAXED);  // not yet shared
    return a;
  }

  T* data() const noexcept { return detail::load_slot(x_data); }
  std::size_t size() const noexcept {
    const T* const first = data();
    return first == nullptr ? 0 : reinterpret_cast<const std::size_t*>(first)[-1];
  }
  bool empty() const noexcept { return size() == 0; }
  explicit operator bool() const noexcept { return data() != nullptr; }

  // i < size(); not checked.
  T& operator[](std::size_t i) const noexcept { return data()[i]; }

  T* begin() const noexcept { return data(); }
  T* end() const noexcept {
    T* const first = data();
    return first == nullptr ? nullptr : first + reinterpret_cast<const std::size_t*>(first)[-1];
  }
  std::span<T> span() const noexcept { return {data(), size()}; }

  friend bool operator==(const array& a, const array& b) noexcept { return a.data() == b.data(); }

 private:
  constexpr void construct(T* data) {
    if (std::is_constant_evaluated()) {
      x_data = data;
    } else {
      detail::construct_slot(&x_data, data);
    }
  }
  T* read() const noexcept {
    detail::attach_to_read();
    return data();
  }

  T* x_data;  // as in gc::ptr
};

}  // namespace tricolor
