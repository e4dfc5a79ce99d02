// How the collector finds the references in a T: hands off. Decided at compile time.
//
// shape_of<T> says what kind of thing T is; scan_of<T> follows from it and from T's parts: the mode, how
// many managed words there are, and the first thing that is wrong, if any (advice.h words it).
// describe.h turns the same shapes into offsets.
#pragma once

#include <tricolor/array.h>
#include <tricolor/detail/aggregate.h>
#include <tricolor/detail/declared_layout.h>
#include <tricolor/detail/type_info.h>
#include <tricolor/detail/type_name.h>
#include <tricolor/ptr.h>
#include <tricolor/tracer.h>

#include <any>
#include <array>
#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

namespace tricolor::detail {

// ------------------------------------------------------------------------------ classes of the library

// F is one managed word: 8 bytes at its start that hold an address inside a managed object, or null.
template <class F>
inline constexpr bool is_managed_word = false;
template <class T>
inline constexpr bool is_managed_word<ptr<T>> = true;
template <class T>
inline constexpr bool is_managed_word<array<T>> = true;
template <class F>
inline constexpr bool is_managed_word<const F> = is_managed_word<F>;
template <class F>
inline constexpr bool is_managed_word<volatile F> = is_managed_word<F>;
template <class F>
inline constexpr bool is_managed_word<const volatile F> = is_managed_word<F>;

// F begins with this many managed words and holds no others; 0 when that is not known.
template <class F>
inline constexpr std::size_t managed_words_in_front = is_managed_word<F> ? 1 : 0;

// ------------------------------------------------------------------------------------------- what is wrong

enum class Fault {
  none,
  not_an_object,
  incomplete,
  no_layout,
  too_many_members,
  members_not_found,
  reference,
  raw_pointer,
  raw_atomic_pointer,
  raw_range,
  malloc_memory,
  hidden_closure,
  base_with_fields,
  union_unknown,
  variant_of_different_words,
  optional_of_traced,
  not_fields,
  empty_fields,
  foreign_field,
  inherited_fields,
  trace_not_const,
  trace_may_throw,
  inherited_trace,
  fields_and_trace,
};

// Member number kMember (from 0) of Class is a Member, which is at fault. Class is void for a fault of
// Member itself.
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
  requires(kFault != Fault::none)
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
    : std::conditional_t<First::fault != Fault::none, std::type_identity<First>, FirstFinding<Rest...>> {};

// --------------------------------------------------------------------------------------------- the shapes

enum class Shape {
  faulty,
  pointer_free,  // by its kind or by declaration
  managed_words,
  conservative,
  built_in_array,
  std_array,
  pair,
  tuple,
  optional,
  variant,
  fields,  // layout_of or gc_fields
  traced,  // has trace()
  aggregate,
};

template <Shape kShape, Fault kFault = Fault::none>
struct Shaped {
  static constexpr Shape shape = kShape;
  static constexpr Fault fault = kFault;
};
template <Fault kFault>
using FaultyShape = Shaped<Shape::faulty, kFault>;

template <template <class...> class Template, class T>
inline constexpr bool is_specialisation = false;
template <template <class...> class Template, class... A>
inline constexpr bool is_specialisation<Template, Template<A...>> = true;

template <class T>
inline constexpr bool is_std_array = false;
template <class E, std::size_t kSize>
inline constexpr bool is_std_array<std::array<E, kSize>> = true;

template <class T>
inline constexpr bool is_span = false;
template <class E, std::size_t kExtent>
inline constexpr bool is_span<std::span<E, kExtent>> = true;

template <class T>
concept TupleLike = requires { std::tuple_size<T>::value; };

template <class T>
concept HasLayoutOf = requires { layout_of<T>::fields; };
template <class T>
concept HasFields = requires { T::gc_fields; };
template <class T>
concept HasMutableTrace = requires(T& object, tracer& t) { object.trace(t); };
template <class T>
concept HasTrace = requires(const T& object, tracer& t) { object.trace(t); };
template <class T>
concept HasNoexceptTrace = requires(const T& object, tracer& t) {
  { object.trace(t) } noexcept;
};

template <class U>
inline constexpr bool is_class_or_union = std::is_class_v<U> || std::is_union_v<U>;

// What a pointer to pointers or arrays leads to in the end.
template <class U>
struct FinalPointee {
  using type = std::remove_cv_t<U>;
};
template <class U>
  requires(std::is_array_v<U> || std::is_pointer_v<U>)
struct FinalPointee<U> : FinalPointee<std::remove_pointer_t<std::remove_all_extents_t<U>>> {};

template <class T>
inline constexpr bool is_raw_pointer =
    std::is_pointer_v<T> && is_class_or_union<typename FinalPointee<std::remove_pointer_t<T>>::type>;

// Classes of the standard library, by the start of their names, that hold no references, or none but to
// what they own themselves.
inline constexpr std::array<std::string_view, 22> kPlainStandardClasses = {
    "atomic_flag", "bad_", "barrier<", "basic_string_view<", "bitset<", "chrono::", "complex<", "condition_variable",
    "counting_semaphore<", "error_code", "error_condition", "latch", "linear_congruential_engine<",
    "mersenne_twister_engine<", "mutex", "normal_distribution<", "once_flag", "recursive_mutex", "shared_mutex",
    "thread::id", "type_index", "uniform_",
};

template <class T>
constexpr bool is_plain_standard_class() {
  std::string_view name = type_name<T>();
  if (!name.starts_with("std::")) return false;
  name.remove_prefix(5);
  for (const std::string_view inline_namespace : {"__cxx11::", "__1::"}) {
    if (name.starts_with(inline_namespace)) name.remove_prefix(inline_namespace.size());
  }
  for (const std::string_view plain : kPlainStandardClasses) {
    if (name.starts_with(plain)) return true;
  }
  return false;
}

template <class T>
struct Scan;
// Of T without const and volatile.
template <class T>
using scan_of = Scan<std::remove_cv_t<T>>;

// std::function and std::any: nobody knows what is in there.
template <class T>
inline constexpr bool hides_closure = is_specialisation<std::function, T> || std::is_same_v<T, std::any>;

template <class T, class... Seen>
constexpr bool keeps_managed();

// The element type of what keeps its elements in malloc memory: containers, their adaptors, smart
// pointers. void for all others.
template <class T>
struct MallocElement {
  using type = void;
};
template <class T>
  requires requires { typename T::value_type; typename T::allocator_type; }
struct MallocElement<T> {
  using type = typename T::value_type;
};
template <class T>
  requires requires { typename T::container_type; typename T::container_type::allocator_type; }
struct MallocElement<T> {
  using type = typename T::value_type;
};
template <class E, class D>
struct MallocElement<std::unique_ptr<E, D>> {
  using type = std::remove_all_extents_t<E>;
};
template <class E>
struct MallocElement<std::shared_ptr<E>> {
  using type = std::remove_all_extents_t<E>;
};
template <class E>
struct MallocElement<std::weak_ptr<E>> {
  using type = std::remove_all_extents_t<E>;
};

template <class T>
inline constexpr bool keeps_in_malloc = !std::is_void_v<typename MallocElement<T>::type>;

// Classes of the standard library that no other rule describes; void: not one of them.
template <class T>
constexpr auto shape_of_standard_class() {
  if constexpr (is_std_array<T>) {
    return Shaped<Shape::std_array>{};
  } else if constexpr (is_specialisation<std::pair, T>) {
    return Shaped<Shape::pair>{};
  } else if constexpr (is_specialisation<std::tuple, T>) {
    return Shaped<Shape::tuple>{};
  } else if constexpr (is_specialisation<std::optional, T>) {
    return Shaped<Shape::optional>{};
  } else if constexpr (is_specialisation<std::variant, T>) {
    return Shaped<Shape::variant>{};
  } else if constexpr (is_specialisation<std::atomic, T>) {
    if constexpr (is_raw_pointer<typename T::value_type>) {
      return FaultyShape<Fault::raw_atomic_pointer>{};
    } else if constexpr (!pointer_free<typename T::value_type>) {
      return FaultyShape<Fault::no_layout>{};
    } else {
      return Shaped<Shape::pointer_free>{};
    }
  } else if constexpr (hides_closure<T>) {
    return FaultyShape<Fault::hidden_closure>{};
  } else if constexpr (is_specialisation<std::reference_wrapper, T>) {
    return FaultyShape<Fault::reference>{};
  } else if constexpr (is_span<T>) {
    if constexpr (is_class_or_union<typename T::value_type> || is_raw_pointer<typename T::value_type>) {
      return FaultyShape<Fault::raw_range>{};
    } else {
      return Shaped<Shape::pointer_free>{};
    }
  } else if constexpr (keeps_in_malloc<T>) {
    if constexpr (keeps_managed<typename MallocElement<T>::type>()) {
      return FaultyShape<Fault::malloc_memory>{};
    } else {
      return Shaped<Shape::pointer_free>{};
    }
  } else if constexpr (is_plain_standard_class<T>()) {
    return Shaped<Shape::pointer_free>{};
  }
}

// ------------------------------------------------------------------------------------- gc_fields and trace

// The layout_of or gc_fields of T, whichever holds.
template <class T>
constexpr const auto& declared_fields() {
  if constexpr (HasLayoutOf<T>) {
    return layout_of<T>::fields;
  } else {
    return T::gc_fields;
  }
}
template <class T>
using declared_fields_of = std::remove_cvref_t<decltype(declared_fields<T>())>;

// A pointer to the data member `Type Class::*`.
template <class P>
struct MemberPointer;
template <class T, class C>
struct MemberPointer<T C::*> {
  using Type = T;
  using Class = C;
};

// Does every pointer lead to a member of T or of a base?
template <class T, class F>
inline constexpr bool fields_belong_to = true;
template <class T, class F, class C>
inline constexpr bool fields_belong_to<T, F C::*> = std::is_base_of_v<C, T>;
template <class T, class... F>
inline constexpr bool fields_belong_to<T, FieldList<F...>> = (fields_belong_to<T, F> && ...);

// Does the list name anything? Any member?
template <class F>
inline constexpr bool names_something = true;
template <class... F>
inline constexpr bool names_something<FieldList<F...>> = (names_something<F> || ...);
template <class F>
inline constexpr bool names_members = std::is_member_object_pointer_v<F>;
template <class... F>
inline constexpr bool names_members<FieldList<F...>> = (names_members<F> || ...);

// Is one of them a member of T itself, or of a base that T adds no member to? (A base aligned to more
// than a word has room behind its last member.)
template <class T, class F>
inline constexpr bool fields_reach = false;
template <class T, class F, class C>
inline constexpr bool fields_reach<T, F C::*> =
    std::is_same_v<T, C> || (sizeof(C) == sizeof(T) && alignof(C) <= alignof(void*));
template <class T, class... F>
inline constexpr bool fields_reach<T, FieldList<F...>> = (fields_reach<T, F> || ...);

template <class T>
constexpr auto shape_of_fields() {
  if constexpr (!is_field_list<declared_fields_of<T>>) {
    return FaultyShape<Fault::not_fields>{};
  } else if constexpr (!fields_belong_to<T, declared_fields_of<T>>) {
    return FaultyShape<Fault::foreign_field>{};
  } else if constexpr (!names_something<declared_fields_of<T>>) {
    return FaultyShape<Fault::empty_fields>{};
  } else if constexpr (!HasLayoutOf<T> && names_members<declared_fields_of<T>> &&
                       !fields_reach<T, declared_fields_of<T>>) {
    return FaultyShape<Fault::inherited_fields>{};
  } else if constexpr (!HasLayoutOf<T> && HasTrace<T>) {
    return FaultyShape<Fault::fields_and_trace>{};
  } else {
    return Shaped<Shape::fields>{};
  }
}

template <class T, class C>
constexpr bool is_inherited(void (C::*)(tracer&) const noexcept) {
  return !std::is_same_v<T, C> && sizeof(T) > sizeof(C);
}
template <class T>
constexpr bool trace_is_inherited() {
  if constexpr (requires { is_inherited<T>(&T::trace); }) {
    return is_inherited<T>(&T::trace);
  } else {
    return false;  // a template or an overload set, which cannot be asked
  }
}

template <class T>
constexpr auto shape_of_traced() {
  if constexpr (!HasTrace<T>) {
    return FaultyShape<Fault::trace_not_const>{};
  } else if constexpr (!HasNoexceptTrace<T>) {
    return FaultyShape<Fault::trace_may_throw>{};
  } else if constexpr (trace_is_inherited<T>()) {
    return FaultyShape<Fault::inherited_trace>{};
  } else {
    return Shaped<Shape::traced>{};
  }
}

// --------------------------------------------------------------------------------------------- aggregates

// Converts to unions that nothing is declared about. Also to unnamed ones, which bindings do not decompose.
struct AnyUnknownUnion {
  template <class U>
    requires(std::is_union_v<U> && !pointer_free<U> && !conservative<U> && !HasLayoutOf<U> && !HasFields<U> &&
             !HasMutableTrace<U>)
  operator U() const noexcept;
};

template <class T>
constexpr auto shape_of_aggregate() {
  if constexpr (Aggregate<T>::kMembers == kUnknown) {
    constexpr bool too_many = takes_braces<T, kMaxMembers + 1>;
    return FaultyShape<too_many ? Fault::too_many_members : Fault::members_not_found>{};
  } else if constexpr (Aggregate<T>::kBaseWithFields) {
    return FaultyShape<Fault::base_with_fields>{};
  } else if constexpr (Aggregate<T>::kMembers > kMaxMembers) {
    return FaultyShape<Fault::too_many_members>{};
  } else if constexpr (Elements<T>::template any_takes<AnyUnknownUnion>()) {
    return FaultyShape<Fault::union_unknown>{};
  } else if constexpr (has_reference<T>(members_of<T>{})) {
    return FaultyShape<Fault::reference>{};
  } else {
    return Shaped<Shape::aggregate>{};
  }
}

// --------------------------------------------------------------------------------------------- the choice

// The shape of T by what is declared about it, or else by what it is. T is neither const nor volatile.
template <class T>
constexpr auto find_undeclared_shape() {
  if constexpr (std::is_reference_v<T>) {
    return FaultyShape<Fault::reference>{};
  } else if constexpr (!std::is_object_v<T> || std::is_unbounded_array_v<T>) {
    return FaultyShape<Fault::not_an_object>{};
  } else if constexpr (std::is_array_v<T>) {
    return Shaped<Shape::built_in_array>{};
  } else if constexpr (is_raw_pointer<T>) {
    return FaultyShape<Fault::raw_pointer>{};
  } else if constexpr (!is_class_or_union<T>) {
    return Shaped<Shape::pointer_free>{};
  } else if constexpr (!Complete<T>) {
    return FaultyShape<Fault::incomplete>{};
  } else if constexpr (HasLayoutOf<T> || HasFields<T>) {
    return shape_of_fields<T>();
  } else if constexpr (HasMutableTrace<T>) {
    return shape_of_traced<T>();
  } else if constexpr (is_specialisation<unmanaged, T> || std::is_empty_v<T>) {
    return Shaped<Shape::pointer_free>{};
  } else if constexpr (!std::is_void_v<decltype(shape_of_standard_class<T>())>) {
    return shape_of_standard_class<T>();
  } else if constexpr (std::is_union_v<T>) {
    return FaultyShape<Fault::union_unknown>{};
  } else if constexpr (std::is_aggregate_v<T> && !TupleLike<T>) {
    return shape_of_aggregate<T>();
  } else {
    return FaultyShape<Fault::no_layout>{};
  }
}

template <class T>
constexpr auto find_shape() {
  if constexpr (managed_words_in_front<T> != 0) {
    return Shaped<Shape::managed_words>{};
  } else if constexpr (conservative<T>) {
    return Shaped<Shape::conservative>{};
  } else if constexpr (pointer_free<T>) {
    return Shaped<Shape::pointer_free>{};
  } else {
    return find_undeclared_shape<T>();
  }
}

// ------------------------------------------------------------------------------------- what follows from it

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
  static constexpr std::size_t words = kWords;  // managed words, where the mode is `words` or `traced`
  using finding = F;
};
template <Fault kFault, class T>
using FaultyScan = ScanResult<ScanMode::conservative, 0, Finding<kFault, void, 0, T>>;

// A class that is made of Parts.
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
  using finding = typename FirstFinding<typename FindingIn<Class, I, typename scan_of<P>::finding>::type...>::type;
};
template <class Class, class... P>
using ScanOfAll = ScanOfParts<Class, TypeList<P...>, std::index_sequence_for<P...>>;

template <class Class, class... P>
constexpr auto scan_members(TypeList<P...>) {
  return ScanOfAll<Class, P...>{};
}

// The types of a field list, those of nested lists in their place. Trailing storage is no part of the object.
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
    : std::conditional_t<std::is_void_v<typename TrailingIn<First>::type>, TrailingIn<FieldList<Rest...>>,
                         TrailingIn<First>> {};

template <class T>
constexpr auto find_trailing() {
  if constexpr (HasLayoutOf<T> || HasFields<T>) {
    return std::type_identity<typename TrailingIn<declared_fields_of<T>>::type>{};
  } else {
    return std::type_identity<void>{};
  }
}
// What the trailing storage of a T is an array of; void when it holds no references.
template <class T>
using trailing_of = typename decltype(find_trailing<std::remove_cv_t<T>>())::type;

template <class E, std::size_t kSize>
constexpr auto scan_array() {
  if constexpr (kSize == 0) {
    return ScanResult<ScanMode::none>{};
  } else {
    return ScanResult<scan_of<E>::mode, kSize * scan_of<E>::words, typename scan_of<E>::finding>{};
  }
}

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

// The alternative that has the words of all others, if there is one: void when none has words.
template <class Found, class... A>
struct WordsOfAll {
  using type = Found;
};
template <class Found, class First, class... Rest>
  requires(std::is_void_v<Found> || std::is_empty_v<First> || std::is_same_v<Found, First> ||
           (is_managed_word<Found> && is_managed_word<First>))
struct WordsOfAll<Found, First, Rest...>
    : WordsOfAll<std::conditional_t<std::is_empty_v<First>, Found, First>, Rest...> {};
template <class Found, class First, class... Rest>
  requires(!(std::is_void_v<Found> || std::is_empty_v<First> || std::is_same_v<Found, First> ||
             (is_managed_word<Found> && is_managed_word<First>)))
struct WordsOfAll<Found, First, Rest...> {
  using type = TypeList<Found, First>;  // they differ
};

// A variant whose alternatives have the same words is exact, whichever is active. If a number may overwrite
// a reference, nobody would tell the barrier: that is for the user to solve.
template <class... A>
constexpr auto scan_variant(std::type_identity<std::variant<A...>>) {
  using All = ScanOfAll<std::variant<A...>, A...>;
  using Words = typename WordsOfAll<void, std::remove_cv_t<A>...>::type;
  if constexpr (All::finding::fault != Fault::none || All::mode == ScanMode::none) {
    return All{};
  } else if constexpr (All::mode == ScanMode::words && !std::is_same_v<Words, void> &&
                       !is_specialisation<TypeList, Words>) {
    return scan_of<Words>{};
  } else {
    return FaultyScan<Fault::variant_of_different_words, std::variant<A...>>{};
  }
}

// A tuple's, a pair's, a variant's, an optional's types.
template <template <class...> class Template, class... A>
TypeList<A...> list_arguments(std::type_identity<Template<A...>>);
template <class T>
using arguments_of = decltype(list_arguments(std::type_identity<T>{}));

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
    return scan_members<T>(arguments_of<T>{});
  } else if constexpr (shape == Shape::optional) {
    return scan_optional<T>();
  } else if constexpr (shape == Shape::variant) {
    return scan_variant(std::type_identity<T>{});
  } else if constexpr (shape == Shape::fields) {
    return scan_members<T>(typename FieldTypes<declared_fields_of<T>>::type{});
  } else if constexpr (shape == Shape::traced) {
    return ScanResult<ScanMode::traced>{};
  } else {
    return scan_members<T>(members_of<T>{});
  }
}

template <class T>
using shape_of = decltype(find_shape<std::remove_cv_t<T>>());

template <class T>
struct Scan : decltype(scan_shape<T, shape_of<T>>()) {};

template <class T>
constexpr bool is_plainly_pointer_free() {
  using Plain = std::remove_cv_t<T>;
  if constexpr (!std::is_same_v<T, Plain>) {
    return pointer_free<Plain>;
  } else if constexpr (managed_words_in_front<T> != 0 || conservative<T>) {
    return false;
  } else {
    constexpr bool trailing_is = [] {
      if constexpr (std::is_void_v<trailing_of<T>>) {
        return true;
      } else {
        return scan_of<trailing_of<T>>::mode == ScanMode::none;
      }
    }();
    return trailing_is && decltype(scan_shape<T, decltype(find_undeclared_shape<T>())>())::mode == ScanMode::none;
  }
}

template <class... M>
constexpr auto without_raw_pointers(TypeList<M...>) {
  return decltype((TypeList<>{} + ... + std::conditional_t<is_raw_pointer<M>, TypeList<>, TypeList<M>>{})){};
}

// The types of which the class T plainly consists; of plain pointers in user's classes nothing is known.
template <class T>
constexpr auto visible_parts() {
  if constexpr (HasLayoutOf<T> || HasFields<T>) {
    if constexpr (is_field_list<declared_fields_of<T>>) {
      return typename FieldTypes<declared_fields_of<T>>::type{};
    } else {
      return TypeList<>{};
    }
  } else if constexpr (is_std_array<T>) {
    return TypeList<typename T::value_type>{};
  } else if constexpr (is_specialisation<std::pair, T> || is_specialisation<std::tuple, T> ||
                       is_specialisation<std::optional, T> || is_specialisation<std::variant, T>) {
    return arguments_of<T>{};
  } else if constexpr (std::is_class_v<T> && std::is_aggregate_v<T> && !TupleLike<T>) {
    if constexpr (shape_of_aggregate<T>().shape == Shape::aggregate) {
      return without_raw_pointers(members_of<T>{});
    } else {
      return TypeList<>{};
    }
  } else {
    return TypeList<>{};
  }
}

// Is there a managed word in a T, as far as one can see? For what must not hold any. Seen are the types that
// are being looked at already. (Not by shapes: a class may have a std::vector of itself.)
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
