// gc::ptr<T>: a pointer field. It stands in managed objects, globals and thread_locals, and it is the only way to keep a
// managed object alive from there. On stacks use plain T*: stacks are roots.
//
//   struct Node {
//     gc::ptr<Node> next;
//   };
//
// (thread_locals: of the program and the libraries it starts with; in a library that is opened later use gc::root.)
//
// 8 bytes; may be null, and may point to an object's start or into it (a member, a base, an element). Reading is a plain
// load; storing goes through the write barrier (about one nanosecond). Stores and loads of one ptr by several threads are
// atomic (release and relaxed). Trivially destructible; not trivially copyable, so that memcpy of it warns: a memcpy would
// go past the barrier.
#pragma once

#include <compare>
#include <cstddef>
#include <functional>
#include <type_traits>

#include <tricolor/detail/write_barrier.h>

namespace tricolor {

namespace detail {
class collector_owns_the_object;
}

template <class T>
class ptr {
 public:
  using element_type = T;

  constexpr ptr() noexcept { construct(nullptr); }
  constexpr ptr(std::nullptr_t) noexcept { construct(nullptr); }
  constexpr ptr(T* p) noexcept { construct(p); }
  ptr(const ptr& other) noexcept { construct(other.read()); }
  template <class U>
  requires std::is_convertible_v<U*, T*> ptr(const ptr<U>& other)
  noexcept { construct(other.read()); }

  ptr& operator=(const ptr& other) noexcept { return *this = other.read(); }
  template <class U>
  requires std::is_convertible_v<U*, T*> ptr& operator=(const ptr<U>& other) noexcept {
    return *this = static_cast<T*>(other.read());
  }
  ptr& operator=(T* p) noexcept {
    detail::barriered_store(&x_word, p);
    return *this;
  }
  ~ptr() = default;

  // Relaxed: readers that need another thread's writes to *p synchronise as for any C++ object.
  T* get() const noexcept { return detail::load_slot(x_word); }
  operator T*() const noexcept { return get(); }
  explicit operator bool() const noexcept { return get() != nullptr; }
  // Makes `delete p` ambiguous, hence an error: the collector owns the object. (gc::free_now frees early.)
  operator detail::collector_owns_the_object*() const = delete;
  T* operator->() const noexcept { return get(); }
  std::add_lvalue_reference_t<T> operator*() const noexcept { return *get(); }

  // As for T*, which the conversion above makes ambiguous.
  template <class U = T>
  U& operator[](std::ptrdiff_t i) const noexcept {
    return get()[i];
  }
  friend T* operator+(const ptr& p, std::ptrdiff_t n) noexcept { return p.get() + n; }
  friend T* operator-(const ptr& p, std::ptrdiff_t n) noexcept { return p.get() - n; }

 private:
  template <class U>
  friend class ptr;

  constexpr void construct(T* p) {
    if (std::is_constant_evaluated()) {
      x_word = p;
    } else {
      detail::construct_slot(&x_word, p);
    }
  }
  // get() of a word that goes on into another slot.
  T* read() const noexcept {
    detail::attach_to_read();
    return get();
  }

  // Written by mutators (release), read by them (relaxed) and by markers (acquire), by atomic builtins.
  T* x_word;
};

template <class T, class U>
bool operator==(const ptr<T>& a, const ptr<U>& b) noexcept {
  return a.get() == b.get();
}
template <class T, class U>
bool operator==(const ptr<T>& a, U* b) noexcept {
  return a.get() == b;
}
template <class T>
bool operator==(const ptr<T>& a, std::nullptr_t) noexcept {
  return a.get() == nullptr;
}
template <class T, class U>
std::strong_ordering operator<=>(const ptr<T>& a, const ptr<U>& b) noexcept {
  return std::compare_three_way{}(static_cast<const volatile void*>(a.get()),
                                  static_cast<const volatile void*>(b.get()));
}

}  // namespace tricolor

template <class T>
struct std::hash<tricolor::ptr<T>> {
  std::size_t operator()(const tricolor::ptr<T>& p) const noexcept {
    return std::hash<T*>{}(p.get());
  }
};
