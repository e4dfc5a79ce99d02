// gc::root<T>: a strong handle that may live anywhere: in malloc memory, in a std::vector, in another thread's closure.
//
//   std::vector<gc::root<Node>> kept;      // a vector of gc::ptr would be a bug: the collector does not see malloc memory
//   kept.emplace_back(gc::make<Node>());
//
// Null or a managed address (also inside an object). Movable and copyable; a copy is a handle of its own. 8 bytes, plus a
// word in a table of the library. Making, copying and destroying take a short lock (tens of nanoseconds); get() is one load.
// Different handles may be used by different threads at once; one handle by one thread at a time.
// Inside gc::blocking_call handles may be destroyed, not assigned.
// Making a handle throws std::bad_alloc when memory for the table is refused. An empty handle needs no memory.
#pragma once

#include <atomic>
#include <cstddef>
#include <type_traits>
#include <utility>

#include <tricolor/detail/write_barrier.h>

namespace tricolor {

namespace detail {

// A slot that holds null; throws std::bad_alloc. And its end.
std::atomic<void*>* take_root_slot();
void give_back_root_slot(std::atomic<void*>* slot) noexcept;

}  // namespace detail

template <class T>
class root {
 public:
  using element_type = T;

  constexpr root() noexcept = default;
  constexpr root(std::nullptr_t) noexcept {}
  root(T* p) { set(p); }
  root(const root& other) { set(other.read()); }
  root(root&& other) noexcept : x_slot(std::exchange(other.x_slot, nullptr)) {}
  template <class U>
  requires std::is_convertible_v<U*, T*> root(const root<U>& other) { set(other.read()); }
  ~root() {
    if (x_slot != nullptr) detail::give_back_root_slot(x_slot);
  }

  root& operator=(const root& other) {
    set(other.read());
    return *this;
  }
  root& operator=(root&& other) noexcept {
    if (this != &other) {
      reset();
      x_slot = std::exchange(other.x_slot, nullptr);
    }
    return *this;
  }
  root& operator=(T* p) {
    set(p);
    return *this;
  }
  void reset() noexcept {
    if (x_slot != nullptr) detail::give_back_root_slot(std::exchange(x_slot, nullptr));
  }

  T* get() const noexcept {
    return x_slot == nullptr ? nullptr : static_cast<T*>(x_slot->load(std::memory_order_relaxed));
  }
  operator T*() const noexcept { return get(); }
  explicit operator bool() const noexcept { return get() != nullptr; }
  T* operator->() const noexcept { return get(); }
  std::add_lvalue_reference_t<T> operator*() const noexcept { return *get(); }

 private:
  template <class U>
  friend class root;

  T* read() const {
    detail::attach_to_read();
    return get();
  }
  void set(T* p) {
    if (x_slot == nullptr) {
      if (p == nullptr) return;
      x_slot = detail::take_root_slot();
    }
    // The library's word is read and written as any other slot.
    detail::barriered_store(reinterpret_cast<void**>(x_slot),
                            static_cast<void*>(const_cast<std::remove_cv_t<T>*>(p)),
                            detail::slot_owner::library);
  }

  std::atomic<void*>* x_slot = nullptr;
};

}  // namespace tricolor
