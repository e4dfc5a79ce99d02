// The names users describe their types with; <tricolor/layout.h> says how.
#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>

namespace tricolor {

namespace detail {

// What `fields` returns.
template <class... F>
struct FieldList {
  std::tuple<F...> fields;
};

template <class F>
inline constexpr bool is_field_list = false;
template <class... F>
inline constexpr bool is_field_list<FieldList<F...>> = true;

// True where the collector finds no reference in a T without being told. Defined in scan.h.
template <class T>
constexpr bool is_plainly_pointer_free();

}  // namespace detail

// In `fields`: the object is made with make_extra, and its trailing storage is an array of E. The
// storage comes zeroed, and zeroes must be an E.
template <class E>
struct trailing {};

namespace detail {

template <class F>
inline constexpr bool is_trailing = false;
template <class E>
inline constexpr bool is_trailing<trailing<E>> = true;

}  // namespace detail

// The fields of a class: pointers to data members, trailing<E>{}, and the lists of its bases.
template <class... F>
constexpr detail::FieldList<F...> fields(F... f) {
  static_assert(((std::is_member_object_pointer_v<F> || detail::is_trailing<F> ||
                  detail::is_field_list<F>)&&...),
                "tricolor: gc::fields takes pointers to data members (&T::a), gc::trailing<E>{}, "
                "and the gc_fields "
                "of bases");
  return {std::tuple<F...>(f...)};
}

// To be specialised for a class that cannot be edited, with a `static constexpr auto fields`.
template <class T>
struct layout_of {};

// Nothing in a T refers to managed objects. Deduced for arithmetic types, enums, and aggregates of
// them; to be specialised as true for classes whose inside is hidden.
template <class T>
inline constexpr bool pointer_free = detail::is_plainly_pointer_free<T>();

// To be specialised as true: every aligned word of a T is scanned.
template <class T>
inline constexpr bool conservative = false;

// To be specialised as true: the destructor of a managed T need not run.
template <class T>
inline constexpr bool no_destructor = false;

// A plain pointer that says: what I point to is none of the collector's.
template <class U>
class unmanaged {
 public:
  using element_type = U;

  constexpr unmanaged() noexcept = default;
  constexpr unmanaged(U* p) noexcept : x_pointer(p) {}

  constexpr U* get() const noexcept { return x_pointer; }
  constexpr operator U*() const noexcept { return x_pointer; }
  constexpr U* operator->() const noexcept { return x_pointer; }
  constexpr std::add_lvalue_reference_t<U> operator*() const noexcept { return *x_pointer; }

 private:
  U* x_pointer = nullptr;
};

}  // namespace tricolor
