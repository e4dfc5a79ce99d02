// gc::atomic_ptr<T>: a gc::ptr with exchange and compare-exchange, for lock-free structures of managed objects.
//
//   gc::atomic_ptr<Node> head;
//   Node* node = gc::make<Node>();
//   Node* first = head.load();
//   do {
//     node->next = first;
//   } while (!head.compare_exchange_weak(first, node));
//
// It stands where a gc::ptr may stand. No ABA on live objects: an address is not reused while a thread holds it. Neither
// copyable nor movable, as std::atomic. Every store is a write barrier; orders are std::atomic's, and weaker ones than
// sequentially consistent may be carried out as that.
#pragma once

#include <atomic>
#include <type_traits>

#include <tricolor/detail/write_barrier.h>

namespace tricolor {

template <class T>
class atomic_ptr {
 public:
  using value_type = T*;
  static constexpr bool is_always_lock_free = true;

  constexpr atomic_ptr(T* p = nullptr) noexcept {
    if (std::is_constant_evaluated()) {
      x_word = p;
    } else {
      detail::construct_slot(&x_word, p);
    }
  }
  atomic_ptr(const atomic_ptr&) = delete;
  atomic_ptr& operator=(const atomic_ptr&) = delete;
  ~atomic_ptr() = default;

  T* load(std::memory_order order = std::memory_order_seq_cst) const noexcept {
    detail::attach_to_read();  // what is loaded here is often published elsewhere
    switch (order) {
      case std::memory_order_relaxed:
        return __atomic_load_n(&x_word, __ATOMIC_RELAXED);
      case std::memory_order_seq_cst:
        return __atomic_load_n(&x_word, __ATOMIC_SEQ_CST);
      default:
        return __atomic_load_n(&x_word, __ATOMIC_ACQUIRE);
    }
  }
  operator T*() const noexcept { return load(); }

  void store(T* p, std::memory_order order = std::memory_order_seq_cst) noexcept {
    if (order == std::memory_order_seq_cst) {
      detail::barriered_exchange(&x_word, p);
    } else {
      detail::barriered_store(&x_word, p);  // release
    }
  }
  T* operator=(T* p) noexcept {
    store(p);
    return p;
  }
  T* exchange(T* p, std::memory_order = std::memory_order_seq_cst) noexcept {
    return detail::barriered_exchange(&x_word, p);
  }

  // Stores p if the slot holds `expected`, else loads into `expected` what it holds. Never fails without a reason.
  bool compare_exchange_strong(T*& expected, T* p, std::memory_order = std::memory_order_seq_cst,
                               std::memory_order = std::memory_order_seq_cst) noexcept {
    return detail::barriered_compare_exchange(&x_word, expected, p);
  }
  bool compare_exchange_weak(T*& expected, T* p, std::memory_order = std::memory_order_seq_cst,
                             std::memory_order = std::memory_order_seq_cst) noexcept {
    return detail::barriered_compare_exchange(&x_word, expected, p);
  }

 private:
  T* x_word;  // as in gc::ptr
};

}  // namespace tricolor
