// The members of an aggregate, found at compile time: hands off.
//
//   counting  An initialiser of k empty pairs of braces fits when there are at least k elements,
//             and no element takes more than one pair: arrays, nested aggregates and bit-fields
//             count exactly. Where `{}` does not initialise an element (a reference, a class
//             without a default constructor), values that convert to anything are used instead; an
//             array takes as many of them as it has elements (brace elision), which is found out.
//   bases     The first elements that take a value which converts to bases of T only.
//   members   Structured bindings of as many names as there are members: their types and places.
//
// Nothing here is evaluated, and no object is made.
#pragma once

#include <tricolor/detail/bindings.h>

#include <cstddef>
#include <type_traits>
#include <utility>

namespace tricolor::detail {

inline constexpr std::size_t kUnknown = static_cast<std::size_t>(-1);

template <class... T>
struct TypeList {};

template <class T, std::size_t>
struct Repeated {
  using type = T;
};
template <class T, std::size_t... I>
auto repeat(std::index_sequence<I...>) -> TypeList<typename Repeated<T, I>::type...>;
template <class T, std::size_t kTimes>
using Repeat = decltype(repeat<T>(std::make_index_sequence<kTimes>{}));

template <class List, class T>
struct Appended;
template <class... L, class T>
struct Appended<TypeList<L...>, T> {
  using type = TypeList<L..., T>;
};
template <class List, class T>
using Append = typename Appended<List, T>::type;

// What initialisers are tried with; no conversion is ever called. They are const, so that a
// constructor that takes anything, as std::optional has, is preferred to them; and defined, since
// compilers look into such constructors.
struct NoValue {};
struct AnyValue {
  template <class U>
  operator U() const noexcept {
    __builtin_unreachable();
  }
};
struct AnyReference {
  template <class U>
  operator U&() const noexcept {
    __builtin_unreachable();
  }
};
// Fits references only: whatever else is initialised prefers the deleted conversion.
struct OnlyReference {
  template <class U>
  operator U&() const noexcept {
    __builtin_unreachable();
  }
  template <class U>
  operator U() noexcept = delete;
};
template <class T>
struct AnyBaseWithFields {
  template <class U>
  requires(std::is_base_of_v<U, T> && !std::is_same_v<U, T> && !std::is_empty_v<U>) operator U()
      const noexcept {
    __builtin_unreachable();
  }
};
template <class U>
struct AnyDerived {
  template <class V>
  requires std::is_base_of_v<U, V>
  operator V() const noexcept { __builtin_unreachable(); }
};

// Does T{before..., {inside...}, after...} fit? With void for Inside: T{before..., after...}.
template <class T, class Before, class Inside, class After>
inline constexpr bool takes_values = false;
template <class T, class... B, class... A>
inline constexpr bool takes_values<T, TypeList<B...>, void, TypeList<A...>> = requires {
  T{B{}..., A{}...};
};
template <class T, class... B, class... I, class... A>
inline constexpr bool takes_values<T, TypeList<B...>, TypeList<I...>, TypeList<A...>> = requires {
  T{B{}..., {I{}...}, A{}...};
};

template <class T, std::size_t kBraces = 0>
constexpr std::size_t count_braces() {
  if constexpr (kBraces > kMaxMembers || !takes_braces<T, 0>) {
    return kUnknown;
  } else if constexpr (takes_braces<T, kBraces + 1>) {
    return count_braces<T, kBraces + 1>();
  } else if constexpr (takes_braces<T, kBraces, AnyValue> ||
                       takes_braces<T, kBraces, AnyReference>) {
    return kUnknown;  // one more element, which braces do not initialise
  } else {
    return kBraces;
  }
}

// Bound of the search: an array's elements count singly here.
inline constexpr std::size_t kMaxValues = 2 * kMaxMembers;

// The values of V that initialise all of a T.
template <class T, class V, std::size_t kTried = 0, std::size_t kMost = kUnknown>
constexpr std::size_t count_values() {
  if constexpr (kTried > kMaxValues) {
    return kUnknown;
  } else if constexpr (takes_values<T, Repeat<V, kTried>, void, TypeList<>>) {
    return count_values<T, V, kTried + 1, kTried>();
  } else if constexpr (kMost == kUnknown) {
    return count_values<T, V, kTried + 1>();
  } else if constexpr (takes_values<T, Repeat<V, kMost>, void, TypeList<AnyValue>> ||
                       takes_values<T, Repeat<V, kMost>, void, TypeList<AnyReference>> ||
                       takes_values<T, Repeat<V, kMost>, TypeList<>, TypeList<>>) {
    return kUnknown;  // one more element, which a V does not initialise
  } else {
    return kMost;
  }
}

// How many of the kAll values go to the element that takes the value kAt. Only if that is an array
// of n elements do n values in braces leave room for the other values and for none more.
template <class T, class V, std::size_t kAll, std::size_t kAt, std::size_t kSize>
constexpr std::size_t values_of_array() {
  using Before = Repeat<V, kAt>;
  if constexpr (kSize < 2) {
    return 1;
  } else if constexpr (!takes_values<T, Before, Repeat<V, kSize>, Repeat<V, kAll - kAt - kSize>>) {
    return values_of_array<T, V, kAll, kAt, kSize - 1>();
  } else if constexpr (takes_values<T, Before, Repeat<V, kSize>,
                                    Repeat<V, kAll - kAt - kSize + 1>>) {
    return values_of_array<T, V, kAll, kAt, kSize - 1>();
  } else {
    return kSize;
  }
}
template <class T, class V, std::size_t kAll, std::size_t kAt>
constexpr std::size_t values_of_element() {
  // Most elements are decided by this: all other values find room beside {}.
  if constexpr (takes_values<T, Repeat<V, kAt>, TypeList<>, Repeat<V, kAll - kAt - 1>>) {
    return 1;
  } else {
    return values_of_array<T, V, kAll, kAt, kAll - kAt>();
  }
}

template <class T, class V, std::size_t kAll, std::size_t kAt = 0>
constexpr std::size_t count_elements_of_values() {
  if constexpr (kAll == kUnknown) {
    return kUnknown;
  } else if constexpr (kAt == kAll) {
    return 0;
  } else {
    return 1 + count_elements_of_values<T, V, kAll, kAt + values_of_element<T, V, kAll, kAt>()>();
  }
}

// The elements (bases, then members) of the aggregate T: how many, and can they be initialised with
// ...?
template <class T>
struct Elements {
  static constexpr std::size_t kBraces = count_braces<T>();
  static constexpr std::size_t kValues = kBraces == kUnknown ? count_values<T, AnyValue>() : 0;
  using Value = std::conditional_t<kValues == kUnknown, AnyReference, AnyValue>;
  static constexpr std::size_t kAll =
      kValues == kUnknown ? count_values<T, AnyReference>() : kValues;

  // kUnknown when there are too many, or when some cannot be initialised by these means.
  static constexpr std::size_t kCount =
      kBraces != kUnknown ? kBraces : count_elements_of_values<T, Value, kAll>();

  // Can the first elements be initialised with First?
  template <class... First>
  static constexpr bool begin_with() {
    if constexpr (kBraces != kUnknown) {
      return takes_braces<T, 0, First...>;
    } else if constexpr (kAll == kUnknown || kAll < sizeof...(First)) {
      return false;
    } else {
      return takes_values<T, TypeList<First...>, void, Repeat<Value, kAll - sizeof...(First)>>;
    }
  }

  // Is there an element that takes an Only, but does not take everything?
  template <class Only, std::size_t kAt = 0>
  static constexpr bool any_takes() {
    if constexpr (kAt == kLast) {
      return false;
    } else if constexpr (!takes<Only, kAt>()) {
      return any_takes<Only, kAt + 1>();
    } else {
      return !takes<NoValue, kAt>() || any_takes<Only, kAt + 1>();
    }
  }

 private:
  static constexpr std::size_t kLast = kBraces != kUnknown ? kBraces : kAll == kUnknown ? 0 : kAll;

  template <class Only, std::size_t kAt>
  static constexpr bool takes() {
    if constexpr (kBraces != kUnknown) {
      return takes_braces<T, kAt, Only>;
    } else {
      return takes_values<T, Append<Repeat<Value, kAt>, Only>, void, Repeat<Value, kAll - kAt - 1>>;
    }
  }
};

// Is one of the first elements a U, or derived from it? The elements before it take Before.
template <class T, class U, class Before, class... First>
inline constexpr bool starts_with_derived = false;
template <class T, class U, class... Before, class Next, class... First>
inline constexpr bool starts_with_derived<T, U, TypeList<Before...>, Next, First...> =
    Elements<T>::template begin_with<Before..., AnyDerived<U>>() ||
    starts_with_derived<T, U, TypeList<Before..., Next>, First...>;

// The next empty base after those that take Before. A member that has the type of a base is none.
template <class T, class... Before>
struct NextEmptyBase {
  template <class U>
  requires(std::is_base_of_v<U, T> && !std::is_same_v<U, T> && std::is_empty_v<U> &&
           !starts_with_derived<T, U, TypeList<>, Before...>)
  operator U() const noexcept {
    __builtin_unreachable();
  }
};

template <class... Base>
struct EmptyBases {
  static constexpr std::size_t kCount = sizeof...(Base);

  template <class T>
  static constexpr bool precede_base_with_fields() {
    return Elements<T>::template begin_with<Base..., AnyBaseWithFields<T>>();
  }
};

template <class T, class... Found>
constexpr auto find_empty_bases() {
  using Next = NextEmptyBase<T, Found...>;
  if constexpr (Elements<T>::template begin_with<Found..., Next>()) {
    return find_empty_bases<T, Found..., Next>();
  } else {
    return EmptyBases<Found...>{};
  }
}

struct ListTypes {
  template <class... M>
  constexpr TypeList<std::remove_cv_t<M>...> operator()(const M&...) const {
    return {};
  }
};

// What there is to know of the aggregate T.
template <class T>
struct Aggregate {
  using Bases = decltype(find_empty_bases<T>());
  static constexpr bool kBaseWithFields = Bases::template precede_base_with_fields<T>();
  static constexpr std::size_t kMembers =
      Elements<T>::kCount == kUnknown ? kUnknown : Elements<T>::kCount - Bases::kCount;
};

// The members' types, without const and without reference.
template <class T>
using members_of =
    decltype(Bindings<Aggregate<T>::kMembers>::bind(std::declval<const T&>(), ListTypes{}));

template <class M>
concept Complete = std::is_object_v<M> && requires {
  sizeof(M);
};

// Is a member of T a reference? The bindings do not tell. An rvalue reference is found only where
// all members have standard layout: the class then has it too, unless one is a reference.
template <class T, class... M>
constexpr bool has_reference(TypeList<M...>) {
  if constexpr (!(Complete<M> && ...) || Elements<T>::template any_takes<OnlyReference>()) {
    return true;  // no member is incomplete
  } else {
    return Aggregate<T>::Bases::kCount == 0 && (std::is_standard_layout_v<M> && ...) &&
           !std::is_standard_layout_v<T>;
  }
}

}  // namespace tricolor::detail
