// type_info of a type: hands off. Made once a type, when it is registered: the places of its
// managed words, or a function that visits them.
#pragma once

#include <tricolor/detail/scan.h>
#include <tricolor/detail/size_class.h>
#include <tricolor/detail/type_info.h>
#include <tricolor/tracer.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

namespace tricolor::detail {

// More words than this are not listed one by one: a trace function visits them.
inline constexpr std::size_t kMaxListedWords = 1024;

// How a part with these words is scanned.
constexpr ScanMode mode_of(ScanMode mode, std::size_t words) {
  return mode == ScanMode::words && words > kMaxListedWords ? ScanMode::traced : mode;
}

// The mode of a T, and of arrays of T. Conservative for a T that check_layout rejects.
template <class T>
inline constexpr ScanMode scan_mode = mode_of(scan_of<T>::mode, scan_of<T>::words);

// ------------------------------------------------------------------------------- where members are

// Stands in for an object of T where only the addresses of members are asked for. Nobody writes to
// it, and what is read (bit-fields, to no purpose) is zero.
template <class T>
struct Stencil {
  alignas(T) static inline constinit char storage[sizeof(T)] = {};

  static const T& object() { return *static_cast<const T*>(static_cast<const void*>(storage)); }

  template <class M>
  static std::size_t offset_of(const M& member) {
    return static_cast<std::size_t>(reinterpret_cast<const char*>(std::addressof(member)) -
                                    storage);
  }
};

// A data member pointer is the member's offset (Itanium C++ ABI). The cast also reaches members of
// bases that T inherits privately; check_layout has seen that C is a base.
template <class T, class F, class C>
std::size_t offset_of_member(F C::*member) {
  return static_cast<std::size_t>(std::bit_cast<std::ptrdiff_t>((F T::*)(member)));
}

// ----------------------------------------------------------------------------------------- walking

// Calls the visitor with everything in the T that lies `offset` bytes from the start of a cell:
//   word(offset)                a managed word
//   words_between(offset, end)  any aligned word may be one
//   traced<F>(offset)           an F that has trace()
template <class T, class Visitor>
void walk(std::size_t offset, Visitor& visitor);

template <class E, class Visitor>
void walk_array(std::size_t offset, std::size_t count, Visitor& visitor) {
  for (std::size_t i = 0; i < count; ++i) walk<E>(offset + i * sizeof(E), visitor);
}

// Members without references are not looked for: a bit-field has no address.
template <class T, class M, class Visitor>
void walk_member(std::size_t offset, const M& member, Visitor& visitor) {
  if constexpr (scan_of<M>::mode != ScanMode::none) {
    walk<M>(offset + Stencil<T>::offset_of(member), visitor);
  }
}

template <class T, class Visitor>
void walk_members(std::size_t offset, Visitor& visitor) {
  const auto each = [offset, &visitor](const auto&... members) {
    (walk_member<T>(offset, members, visitor), ...);
  };
  if constexpr (shape_of<T>::shape == Shape::pair) {
    each(Stencil<T>::object().first, Stencil<T>::object().second);
  } else if constexpr (shape_of<T>::shape == Shape::tuple) {
    std::apply(each, Stencil<T>::object());
  } else {
    Bindings<Aggregate<T>::kMembers>::bind(Stencil<T>::object(), each);
  }
}

template <class T, class F, class C, class Visitor>
void walk_field(std::size_t offset, F C::*field, Visitor& visitor) {
  walk<F>(offset + offset_of_member<T>(field), visitor);
}
template <class T, class E, class Visitor>
void walk_field(std::size_t, trailing<E>, Visitor&) {}  // behind the object
template <class T, class... F, class Visitor>
void walk_field(std::size_t offset, const FieldList<F...>& list, Visitor& visitor) {
  std::apply([&](const F&... fields) { (walk_field<T>(offset, fields, visitor), ...); },
             list.fields);
}

template <class T, class Visitor>
void walk(std::size_t offset, Visitor& visitor) {
  if constexpr (scan_of<T>::mode != ScanMode::none) {
    using Plain = std::remove_cv_t<T>;
    constexpr Shape shape = shape_of<T>::shape;
    if constexpr (shape == Shape::managed_words) {
      for (std::size_t i = 0; i < managed_words_in_front<Plain>; ++i)
        visitor.word(offset + i * sizeof(void*));
    } else if constexpr (shape == Shape::conservative) {
      visitor.words_between(offset, offset + sizeof(T));
    } else if constexpr (shape == Shape::built_in_array) {
      walk_array<std::remove_extent_t<T>>(offset, std::extent_v<T>, visitor);
    } else if constexpr (shape == Shape::std_array) {
      walk_array<typename T::value_type>(offset, std::tuple_size_v<T>, visitor);
    } else if constexpr (shape == Shape::optional) {
      walk<typename T::value_type>(offset, visitor);  // the flag comes after the value
    } else if constexpr (shape == Shape::variant) {
      walk<typename VariantWords<Plain>::type>(offset, visitor);  // so does the index
    } else if constexpr (shape == Shape::fields) {
      walk_field<Plain>(offset, declared_fields<Plain>(), visitor);
    } else if constexpr (shape == Shape::traced) {
      visitor.template traced<Plain>(offset);
    } else if constexpr (shape != Shape::faulty) {
      walk_members<Plain>(offset, visitor);
    }
  }
}

// ---------------------------------------------------------------------------------------- visitors

// Lists managed words in ascending order, each once.
template <std::size_t kMost>
struct OffsetList {
  std::array<std::uint32_t, kMost> offsets = {};
  std::uint32_t count = 0;

  void word(std::size_t offset) {
    const auto value = static_cast<std::uint32_t>(offset);
    std::uint32_t at = count;
    while (at > 0 && offsets[at - 1] > value) --at;
    if (at > 0 && offsets[at - 1] == value) return;  // named twice in gc_fields
    for (std::uint32_t i = count; i > at; --i) offsets[i] = offsets[i - 1];
    offsets[at] = value;
    ++count;
  }
};

// Hands everything in a cell to the marker.
class Reporter {
 public:
  Reporter(const void* cell, tracer& t) : x_cell(static_cast<const char*>(cell)), x_tracer(t) {}

  void word(std::size_t offset) {
    // The word is an atomic<T*> of one T or another, or any object's bytes.
    using Word [[gnu::may_alias]] = const void*;
    // Acquire: what was written into the object before its address was stored here is seen by
    // whoever scans it. Pairs with barriered_store (release).
    x_tracer(__atomic_load_n(reinterpret_cast<const Word*>(x_cell + offset), __ATOMIC_ACQUIRE));
  }
  void words_between(std::size_t offset, std::size_t end) {
    for (offset = (offset + 7) / 8 * 8; offset + 8 <= end; offset += 8) word(offset);
  }
  template <class F>
  void traced(std::size_t offset) {
    reinterpret_cast<const F*>(x_cell + offset)->trace(x_tracer);
  }

 private:
  const char* const x_cell;
  tracer& x_tracer;
};

// --------------------------------------------------------------------------------------- type_info

// The managed words of a T, whose mode is `words`.
template <class T>
WordOffsets word_offsets() {
  static const auto list = [] {
    OffsetList<scan_of<T>::words> all;
    walk<T>(0, all);
    return all;
  }();
  return {list.offsets.data(), list.count};
}

template <class T>
void trace_object(const void* cell, tracer& t) noexcept {
  Reporter reporter(cell, t);
  walk<T>(0, reporter);
}

// The number of elements, or of trailing bytes, lies in the word just before them.
inline std::size_t count_before(const void* cell, std::size_t offset) {
  return *reinterpret_cast<const std::size_t*>(static_cast<const char*>(cell) + offset -
                                               sizeof(std::size_t));
}

template <class T>
void trace_array(const void* cell, tracer& t) noexcept {
  Reporter reporter(cell, t);
  walk_array<T>(kArrayHeaderBytes<T>, count_before(cell, kArrayHeaderBytes<T>), reporter);
}

// A description with no words in it yet.
template <class Named>
type_info blank_type_info(std::size_t align, ScanMode mode) {
  type_info info = {};
  info.name = type_name<Named>().data();
  info.name_size = static_cast<std::uint32_t>(type_name<Named>().size());
  info.align = static_cast<std::uint32_t>(align);
  info.scan = mode;
  return info;
}

// Of a cell that holds one T.
template <class T>
const type_info& object_type_info() {
  static const type_info info = [] {
    type_info made = blank_type_info<T>(alignof(T), scan_mode<T>);
    if constexpr (scan_mode<T> == ScanMode::words) made.fixed = word_offsets<T>();
    if constexpr (scan_mode<T> == ScanMode::traced) made.trace = trace_object<T>;
    return made;
  }();
  return info;
}

// Of a cell that holds a managed array of T: header, elements.
template <class T>
const type_info& array_type_info() {
  static const type_info info = [] {
    constexpr std::size_t align =
        alignof(T) > alignof(std::size_t) ? alignof(T) : alignof(std::size_t);
    type_info made = blank_type_info<T[]>(align, scan_mode<T>);
    if constexpr (scan_mode<T> == ScanMode::words) {
      made.tail_offset = static_cast<std::uint32_t>(kArrayHeaderBytes<T>);
      made.tail_stride = static_cast<std::uint32_t>(sizeof(T));
      made.tail = word_offsets<T>();
    }
    if constexpr (scan_mode<T> == ScanMode::traced) made.trace = trace_array<T>;
    return made;
  }();
  return info;
}

// -------------------------------------------------------------------------------- trailing storage

// make_extra: [T] [number of trailing bytes] [trailing bytes]. The bytes begin here; their number
// lies in the word just before.
template <class T>
inline constexpr std::size_t kExtraOffset = [] {
  const std::size_t number_end = (sizeof(T) + 7) / 8 * 8 + sizeof(std::size_t);
  std::size_t align = alignof(std::size_t);
  if constexpr (!std::is_void_v<trailing_of<T>>) {
    if (alignof(trailing_of<T>) > align) align = alignof(trailing_of<T>);
  }
  return (number_end + align - 1) / align * align;
}();

template <class T>
inline constexpr ScanMode extra_scan_mode = [] {
  if constexpr (std::is_void_v<trailing_of<T>>) {
    return scan_mode<T>;
  } else {
    return combine(scan_mode<T>, scan_mode<trailing_of<T>>);
  }
}();

// Trailing storage that is not a whole number of elements long ends with a part of one, which is
// not visited.
template <class T>
void trace_extra(const void* cell, tracer& t) noexcept {
  trace_object<T>(cell, t);
  if constexpr (!std::is_void_v<trailing_of<T>>) {
    Reporter reporter(cell, t);
    const std::size_t bytes = count_before(cell, kExtraOffset<T>);
    walk_array<trailing_of<T>>(kExtraOffset<T>, bytes / sizeof(trailing_of<T>), reporter);
  }
}

// Of a cell that make_extra made.
template <class T>
const type_info& extra_type_info() {
  static const type_info info = [] {
    constexpr ScanMode mode = extra_scan_mode<T>;
    using E = trailing_of<T>;
    std::size_t align = alignof(T) > alignof(std::size_t) ? alignof(T) : alignof(std::size_t);
    if constexpr (!std::is_void_v<E>) {
      if (alignof(E) > align) align = alignof(E);
    }
    type_info made = blank_type_info<T>(align, mode);
    if constexpr (mode == ScanMode::words) {
      if constexpr (scan_mode<T> == ScanMode::words) made.fixed = word_offsets<T>();
      if constexpr (!std::is_void_v<E>) {
        if constexpr (scan_mode<E> == ScanMode::words) {
          made.tail_offset = static_cast<std::uint32_t>(kExtraOffset<T>);
          made.tail_stride = static_cast<std::uint32_t>(sizeof(E));
          made.tail = word_offsets<E>();
        }
      }
    }
    if constexpr (mode == ScanMode::traced) made.trace = trace_extra<T>;
    return made;
  }();
  return info;
}

}  // namespace tricolor::detail
