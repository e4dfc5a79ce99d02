// What kind of thing a T is, as far as finding its references goes: hands off. Decided at compile
// time, by what is declared about T or else by what it is. scan.h draws the conclusions.
#pragma once

#include <tricolor/array.h>
#include <tricolor/atomic_ptr.h>
#include <tricolor/detail/aggregate.h>
#include <tricolor/detail/declared_layout.h>
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

// -------------------------------------------------------------------------- classes of the library

// F is one managed word: 8 bytes at its start hold an address inside a managed object, or null.
template <class F>
inline constexpr bool is_managed_word = false;
template <class T>
inline constexpr bool is_managed_word<ptr<T>> = true;
template <class T>
inline constexpr bool is_managed_word<array<T>> = true;
template <class T>
inline constexpr bool is_managed_word<atomic_ptr<T>> = true;
template <class F>
inline constexpr bool is_managed_word<const F> = is_managed_word<F>;
template <class F>
inline constexpr bool is_managed_word<volatile F> = is_managed_word<F>;
template <class F>
inline constexpr bool is_managed_word<const volatile F> = is_managed_word<F>;

// F begins with this many managed words and holds no others; 0 when that is not known.
template <class F>
inline constexpr std::size_t managed_words_in_front = is_managed_word<F> ? 1 : 0;

// ---------------------------------------------------------------------------------- the answers

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

// Why a T cannot be managed; advice.h words it.
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
  fields_leave_out,
};

template <Shape kShape, Fault kFault = Fault::none>
struct Shaped {
  static constexpr Shape shape = kShape;
  static constexpr Fault fault = kFault;
};
template <Fault kFault>
using FaultyShape = Shaped<Shape::faulty, kFault>;

// ------------------------------------------------------------------------- questions about types

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
concept TupleLike = requires {
  std::tuple_size<T>::value;
};

template <class T>
concept HasLayoutOf = requires {
  layout_of<T>::fields;
};
template <class T>
concept HasFields = requires {
  T::gc_fields;
};
template <class T>
concept HasMutableTrace = requires(T& object, tracer& t) {
  object.trace(t);
};
template <class T>
concept HasTrace = requires(const T& object, tracer& t) {
  object.trace(t);
};
template <class T>
concept HasNoexceptTrace = requires(const T& object, tracer& t) {
  { object.trace(t) }
  noexcept;
};

template <class U>
inline constexpr bool is_class_or_union = std::is_class_v<U> || std::is_union_v<U>;

// What a pointer to pointers or arrays leads to in the end.
template <class U>
struct FinalPointee {
  using type = U;
};
template <class U>
struct FinalPointee<U*> : FinalPointee<std::remove_cv_t<std::remove_all_extents_t<U>>> {};

template <class T>
inline constexpr bool is_raw_pointer =
    std::is_pointer_v<T>&& is_class_or_union<typename FinalPointee<T>::type>;

// --------------------------------------------------------------------------- the standard library

// Classes, by the start of their names, that hold no references, or none but to what they own.
inline constexpr std::array<std::string_view, 16> kPlainStandardClasses = {
    "atomic_flag",
    "basic_string_view<",
    "bitset<",
    "chrono::",
    "complex<",
    "condition_variable",
    "error_code",
    "linear_congruential_engine<",
    "counting_semaphore<",
    "latch",
    "mutex",
    "mersenne_twister_engine<",
    "once_flag",
    "recursive_mutex",
    "shared_mutex",
    "thread::id",
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

// std::function and std::any: nobody knows what is in there.
template <class T>
inline constexpr bool hides_closure =
    is_specialisation<std::function, T> || std::is_same_v<T, std::any>;

template <class T>
concept Container = requires {
  typename T::value_type;
  typename T::allocator_type;
};
template <class T>
concept ContainerAdaptor = requires {
  typename T::value_type;
  typename T::container_type::allocator_type;
};

// What a T keeps in malloc memory: containers, their adaptors, smart pointers. void for all others.
template <class T>
struct MallocElement {
  using type = void;
};
template <Container T>
struct MallocElement<T> {
  using type = typename T::value_type;
};
template <ContainerAdaptor T>
struct MallocElement<T> {
  using type = typename T::value_type;
};
template <class E, class D>
struct MallocElement<std::unique_ptr<E, D>> {
  using type = E;
};
template <class E>
struct MallocElement<std::shared_ptr<E>> {
  using type = E;
};
template <class E>
struct MallocElement<std::weak_ptr<E>> {
  using type = E;
};

template <class T>
inline constexpr bool keeps_in_malloc = !std::is_void_v<typename MallocElement<T>::type>;

// Is there a managed word in a T, as far as one can see? Defined in scan.h.
template <class T, class... Seen>
constexpr bool keeps_managed();

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
    if constexpr (is_class_or_union<typename T::value_type> ||
                  is_raw_pointer<typename T::value_type>) {
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

// ----------------------------------------------------------------------------- gc_fields and trace

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

// Is one of them a member of T itself, or of a base that T adds no member to? (A base aligned to
// more than a word has room behind its last member.)
template <class T, class F>
inline constexpr bool fields_reach = false;
template <class T, class F, class C>
inline constexpr bool fields_reach<T, F C::*> = std::is_same_v<T, C> ||
                                                (sizeof(C) == sizeof(T) &&
                                                 alignof(C) <= alignof(void*));
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

// -------------------------------------------------------------------------------------- aggregates

// Converts to unions that nothing is declared about. Also to unnamed ones, which bindings do not
// decompose.
struct AnyUnknownUnion {
  template <class U>
  requires(std::is_union_v<U> && !pointer_free<U> && !conservative<U> && !HasLayoutOf<U> &&
           !HasFields<U> && !HasMutableTrace<U>)
  operator U() const noexcept {
    __builtin_unreachable();
  }
};

template <class T>
constexpr auto shape_of_aggregate() {
  if constexpr (Aggregate<T>::kMembers == kUnknown) {
    constexpr bool too_many = takes_braces<T, kMaxMembers + 1>;
    constexpr Fault fault = too_many ? Fault::too_many_members : Fault::members_not_found;
    return FaultyShape<fault>{};
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

// Can T be decomposed, and are its members certain? Asked about types that are also described.
template <class T>
constexpr bool is_decomposed_by_braces() {
  if constexpr (!std::is_class_v<T> || !std::is_aggregate_v<T> || TupleLike<T>) {
    return false;
  } else if constexpr (Elements<T>::kBraces == kUnknown) {
    return false;
  } else {
    return shape_of_aggregate<T>().shape == Shape::aggregate;
  }
}

// -------------------------------------------------------------------------------------- the choice

// The shape of T by what is declared about it, or else by what it is. T is neither const nor
// volatile.
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

template <class T>
using shape_of = decltype(find_shape<std::remove_cv_t<T>>());

}  // namespace tricolor::detail
