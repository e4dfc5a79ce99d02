// How the collector finds the references in a T: hands off. scan_of<T> follows from T's shape and
// from its parts: the mode, how many managed words there are, and the first thing that is wrong.
#pragma once

#include <tricolor/detail/shape.h>
#include <tricolor/detail/type_info.h>

#include <array>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

namespace tricolor::detail {

// ---------------------------------------------------------------------------------- what is wrong

// Member number kMember (from 0) of Class is a Member, which is at fault. Class is void for a fault
// of Member itself.
template <Fault kFault, class Class, std::size_t kMember, class Member>
struct Finding {
  static constexpr Fault fault = kFault;
};
using NoFinding = Finding<Fault::none, void, 0, void>;

// A fault of a member itself becomes one of the class it is in.
template <class Class, std::size_t kMember, class F>
struct FindingIn {
  using type = F;
};
template <class Class, std::size_t kMember, Fault kFault, class Member>
struct FindingIn<Class, kMember, Finding<kFault, void, 0, Member>> {
  using type = Finding<kFault, Class, kMember, Member>;
};

// The first that is one.
template <class... F>
struct FirstFinding {
  using type = NoFinding;
};
template <class First, class... Rest>
struct FirstFinding<First, Rest...>
    : std::conditional_t<First::fault != Fault::none, std::type_identity<First>,
                         FirstFinding<Rest...>> {};

// -------------------------------------------------------------------------------- parts of a type

template <class T>
struct Scan;
// Of T without const and volatile.
template <class T>
using scan_of = Scan<std::remove_cv_t<T>>;

// A word that only trace() understands outdoes one that every word is scanned for, and so on down.
constexpr ScanMode combine(ScanMode a, ScanMode b) {
  for (const ScanMode mode : {ScanMode::traced, ScanMode::conservative, ScanMode::words}) {
    if (a == mode || b == mode) return mode;
  }
  return ScanMode::none;
}

template <ScanMode kMode, std::size_t kWords = 0, class F = NoFinding>
struct ScanResult {
  static constexpr ScanMode mode = kMode;
  static constexpr std::size_t words = kWords;  // managed words in the places that are known
  using finding = F;
};
template <Fault kFault, class T>
using FaultyScan = ScanResult<ScanMode::conservative, 0, Finding<kFault, void, 0, T>>;

// A class that is made of the parts P.
template <class Class, class Parts, class Indices>
struct ScanOfParts;
template <class Class, class... P, std::size_t... I>
struct ScanOfParts<Class, TypeList<P...>, std::index_sequence<I...>> {
  static constexpr ScanMode mode = [] {
    ScanMode all = ScanMode::none;
    ((all = combine(all, scan_of<P>::mode)), ...);
    return all;
  }();
  static constexpr std::size_t words = (std::size_t{0} + ... + scan_of<P>::words);
  using finding = typename FirstFinding<
      typename FindingIn<Class, I, typename scan_of<P>::finding>::type...>::type;
};
template <class Class, class... P>
constexpr auto scan_parts(TypeList<P...>) {
  return ScanOfParts<Class, TypeList<P...>, std::index_sequence_for<P...>>{};
}

template <class E, std::size_t kSize>
constexpr auto scan_array() {
  if constexpr (kSize == 0) {
    return ScanResult<ScanMode::none>{};
  } else {
    return ScanResult<scan_of<E>::mode, kSize * scan_of<E>::words, typename scan_of<E>::finding>{};
  }
}

// A tuple's, a pair's, a variant's, an optional's types.
template <template <class...> class Template, class... A>
TypeList<A...> list_arguments(std::type_identity<Template<A...>>);
template <class T>
using arguments_of = decltype(list_arguments(std::type_identity<T>{}));

// Storage of an optional is scanned whether engaged or not: reset() leaves the words as they are.
template <class T>
constexpr auto scan_optional() {
  using Value = scan_of<typename T::value_type>;
  if constexpr (Value::mode == ScanMode::traced) {
    return FaultyScan<Fault::optional_of_traced, T>{};
  } else {
    return Value{};
  }
}

// Do an A and a B have the same managed words, and an A at least one?
template <class A, class B>
inline constexpr bool same_words = std::is_same_v<A, B> ||
                                   (is_managed_word<A> && is_managed_word<B>);

// The alternative of a variant that has the words of all others: all but empty ones are like it.
// void when there is none.
template <class... A>
struct LikeAll {
  using type = void;
};
template <class First, class... Rest>
struct LikeAll<First, Rest...>
    : std::conditional_t<
          std::is_empty_v<First>, LikeAll<Rest...>,
          std::conditional_t<((same_words<First, Rest> || std::is_empty_v<Rest>)&&...),
                             std::type_identity<First>, LikeAll<>>> {};
template <class T>
struct VariantWords;
template <class... A>
struct VariantWords<std::variant<A...>> : LikeAll<std::remove_cv_t<A>...> {};

// A variant whose alternatives have the same words is exact, whichever is active. Where a number
// may overwrite a reference the barrier would not be told: that is for the user to solve.
template <class T>
constexpr auto scan_variant() {
  using All = decltype(scan_parts<T>(arguments_of<T>{}));
  using Words = typename VariantWords<T>::type;
  if constexpr (All::finding::fault != Fault::none || All::mode == ScanMode::none) {
    return All{};
  } else if constexpr (All::mode == ScanMode::words && !std::is_void_v<Words>) {
    return scan_of<Words>{};
  } else {
    return FaultyScan<Fault::variant_of_different_words, T>{};
  }
}

// The types of a field list, those of nested lists in their place. Trailing storage is no part of
// the object.
template <class... T, class... U>
TypeList<T..., U...> operator+(TypeList<T...>, TypeList<U...>);
template <class F>
struct FieldTypes {
  using type = TypeList<typename MemberPointer<F>::Type>;
};
template <class E>
struct FieldTypes<trailing<E>> {
  using type = TypeList<>;
};
template <class... F>
struct FieldTypes<FieldList<F...>> {
  using type = decltype((TypeList<>{} + ... + typename FieldTypes<F>::type{}));
};
template <class T>
using field_types_of = typename FieldTypes<declared_fields_of<T>>::type;

// Where T can be decomposed, its members tell whether the list is complete.
template <class T>
constexpr auto scan_fields() {
  using Fields = decltype(scan_parts<T>(field_types_of<T>{}));
  if constexpr (is_decomposed_by_braces<T>()) {
    using Members = decltype(scan_parts<T>(members_of<T>{}));
    if constexpr (Members::finding::fault == Fault::none && Members::words > Fields::words) {
      return FaultyScan<Fault::fields_leave_out, T>{};
    } else {
      return Fields{};
    }
  } else {
    return Fields{};
  }
}

template <class T, class Shaped>
constexpr auto scan_shape() {
  constexpr Shape shape = Shaped::shape;
  if constexpr (shape == Shape::faulty) {
    return FaultyScan<Shaped::fault, T>{};
  } else if constexpr (shape == Shape::pointer_free) {
    return ScanResult<ScanMode::none>{};
  } else if constexpr (shape == Shape::managed_words) {
    return ScanResult<ScanMode::words, managed_words_in_front<T>>{};
  } else if constexpr (shape == Shape::conservative) {
    return ScanResult<ScanMode::conservative>{};
  } else if constexpr (shape == Shape::built_in_array) {
    return scan_array<std::remove_extent_t<T>, std::extent_v<T>>();
  } else if constexpr (shape == Shape::std_array) {
    return scan_array<typename T::value_type, std::tuple_size_v<T>>();
  } else if constexpr (shape == Shape::pair || shape == Shape::tuple) {
    return scan_parts<T>(arguments_of<T>{});
  } else if constexpr (shape == Shape::optional) {
    return scan_optional<T>();
  } else if constexpr (shape == Shape::variant) {
    return scan_variant<T>();
  } else if constexpr (shape == Shape::fields) {
    return scan_fields<T>();
  } else if constexpr (shape == Shape::traced) {
    return ScanResult<ScanMode::traced>{};
  } else {
    return scan_parts<T>(members_of<T>{});
  }
}

template <class T>
struct Scan : decltype(scan_shape<T, shape_of<T>>()) {};

// ------------------------------------------------------------------------------- trailing storage

// The E of the trailing<E> in a field list; void when there is none.
template <class F>
struct TrailingIn {
  using type = void;
};
template <class E>
struct TrailingIn<trailing<E>> {
  using type = E;
};
template <class First, class... Rest>
struct TrailingIn<FieldList<First, Rest...>>
    : std::conditional_t<std::is_void_v<typename TrailingIn<First>::type>,
                         TrailingIn<FieldList<Rest...>>, TrailingIn<First>> {};

template <class T>
constexpr auto find_trailing() {
  if constexpr (HasLayoutOf<T> || HasFields<T>) {
    return TrailingIn<declared_fields_of<T>>{};
  } else {
    return TrailingIn<void>{};
  }
}
// What the trailing storage of a T is an array of; void when nothing is said about it.
template <class T>
using trailing_of = typename decltype(find_trailing<std::remove_cv_t<T>>())::type;

// What can be wrong with T and its trailing storage.
template <class T>
constexpr auto find_fault() {
  if constexpr (std::is_void_v<trailing_of<T>>) {
    return typename scan_of<T>::finding{};
  } else {
    using Trailing = typename scan_of<trailing_of<T>>::finding;
    return typename FirstFinding<typename scan_of<T>::finding, Trailing>::type{};
  }
}
template <class T>
using finding_of = decltype(find_fault<std::remove_cv_t<T>>());

// -------------------------------------------------------------------------------- nothing to scan

template <class T>
constexpr bool is_plainly_pointer_free() {
  using Plain = std::remove_cv_t<T>;
  if constexpr (!std::is_same_v<T, Plain>) {
    return pointer_free<Plain>;
  } else if constexpr (managed_words_in_front<T> != 0 || conservative<T>) {
    return false;
  } else if constexpr (decltype(scan_shape<T, decltype(find_undeclared_shape<T>())>())::mode !=
                       ScanMode::none) {
    return false;
  } else if constexpr (!std::is_void_v<trailing_of<T>>) {
    return scan_of<trailing_of<T>>::mode == ScanMode::none;
  } else {
    return true;
  }
}

// ------------------------------------------------------------------------ what is in malloc memory

template <class... M>
auto without_raw_pointers(TypeList<M...>)
    -> decltype((TypeList<>{} + ... +
                 std::conditional_t<is_raw_pointer<M>, TypeList<>, TypeList<M>>{}));

// The types that the class T plainly consists of. Plain pointers in users' classes say nothing.
template <class T>
constexpr auto visible_parts() {
  if constexpr (HasLayoutOf<T> || HasFields<T>) {
    if constexpr (is_field_list<declared_fields_of<T>>) {
      return field_types_of<T>{};
    } else {
      return TypeList<>{};
    }
  } else if constexpr (is_std_array<T>) {
    return TypeList<typename T::value_type>{};
  } else if constexpr (is_specialisation<std::pair, T> || is_specialisation<std::tuple, T> ||
                       is_specialisation<std::optional, T> || is_specialisation<std::variant, T>) {
    return arguments_of<T>{};
  } else if constexpr (is_decomposed_by_braces<T>()) {
    return decltype(without_raw_pointers(members_of<T>{})){};
  } else {
    return TypeList<>{};
  }
}

// Not by shapes: a class may have a std::vector of itself. Seen are the types that are being looked
// at already.
template <class T, class... Seen>
constexpr bool keeps_managed() {
  using Plain = std::remove_cv_t<std::remove_all_extents_t<T>>;
  if constexpr ((std::is_same_v<Plain, Seen> || ...)) {
    return false;
  } else if constexpr (managed_words_in_front<Plain> != 0 || is_raw_pointer<Plain>) {
    return true;
  } else if constexpr (!is_class_or_union<Plain> || !Complete<Plain>) {
    return false;
  } else if constexpr (conservative<Plain> || HasMutableTrace<Plain> || hides_closure<Plain>) {
    return true;
  } else if constexpr (keeps_in_malloc<Plain>) {
    return keeps_managed<typename MallocElement<Plain>::type, Seen..., Plain>();
  } else {
    return []<class... P>(TypeList<P...>) {
      return (keeps_managed<P, Seen..., Plain>() || ...);
    }(visible_parts<Plain>());
  }
}

}  // namespace tricolor::detail
