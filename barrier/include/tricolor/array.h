// gc::array<T>: an 8-byte handle on a managed array, itself a barriered field like gc::ptr. It may stand in managed
// objects, globals, thread_locals, and on stacks.
//
//   gc::array<gc::ptr<Node>> nodes = gc::make_array<gc::ptr<Node>>(100);
//   nodes[3] = gc::make<Node>();   // an element that is a gc::ptr is barriered
//
// The elements live in one cell, with their number in front; the cell has at least one byte behind the last element, so a
// past-the-end iterator alone keeps the array alive. An array never changes its size.
#pragma once

#include <atomic>
#include <cstddef>
#include <span>

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

  constexpr array() noexcept : x_data(nullptr) {}
  constexpr array(std::nullptr_t) noexcept : x_data(nullptr) {}
  array(const array& other) noexcept : x_data(other.data()) {}
  array& operator=(const array& other) noexcept {
    detail::barriered_store(x_data, other.data());
    return *this;
  }
  ~array() = default;

  // `data` is the first element of an array made by make_array (or null).
  static array from_data(T* data) noexcept {
    array a;
    a.x_data.store(data, std::memory_order_relaxed);  // not yet shared
    return a;
  }

  T* data() const noexcept { return x_data.load(std::memory_order_relaxed); }
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
  std::atomic<T*> x_data;  // as in gc::ptr
};

}  // namespace tricolor
