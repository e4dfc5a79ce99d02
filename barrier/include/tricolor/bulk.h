// Many slots at once: copying, moving, filling and clearing ranges of gc::ptr and gc::array, with one barrier for many words.
//
//   gc::array<gc::ptr<Node>> a = gc::make_array<gc::ptr<Node>>(1000);
//   gc::copy(a.span().first(500), a.data() + 500);   // as std::copy; ranges may overlap: as memmove
//   gc::fill(a.span(), node);
//   gc::clear(a.span());
//
// Each word is written atomically, so that the collector and other threads see old or new values; the range as a whole is not
// one step. Cost: about that of memmove while no cycle marks. The destination is memory that the collector scans.
#pragma once

#include <cstddef>
#include <span>
#include <type_traits>

#include <tricolor/array.h>
#include <tricolor/detail/write_barrier.h>
#include <tricolor/ptr.h>

namespace tricolor {

namespace detail {

template <class T>
inline constexpr bool is_plain_slot = false;
template <class T>
inline constexpr bool is_plain_slot<ptr<T>> = true;
template <class T>
inline constexpr bool is_plain_slot<array<T>> = true;

template <class T>
concept PlainSlot = is_plain_slot<T> && sizeof(T) == sizeof(managed_word);

// `to` may overlap `from`.
void copy_words(managed_word* to, const managed_word* from, std::size_t count);
void fill_words(managed_word* to, std::size_t count, managed_word word);

}  // namespace detail

// Stores from[i] into to[i].
template <class T>
requires detail::PlainSlot<std::remove_const_t<T>>
void copy(std::span<T> from, std::remove_const_t<T>* to) noexcept {
  detail::copy_words(reinterpret_cast<detail::managed_word*>(to),
                     reinterpret_cast<const detail::managed_word*>(from.data()), from.size());
}

template <detail::PlainSlot T>
void fill(std::span<T> range, const T& value) noexcept {
  detail::fill_words(reinterpret_cast<detail::managed_word*>(range.data()), range.size(),
                     *reinterpret_cast<const detail::managed_word*>(&value));
}

// Stores null everywhere.
template <detail::PlainSlot T>
void clear(std::span<T> range) noexcept {
  detail::fill_words(reinterpret_cast<detail::managed_word*>(range.data()), range.size(), 0);
}

// Before memory that holds references is overwritten by something else (a number in a union, a variant's other alternative, a
// value-initialised object constructed over an old one): a gc::ptr is told of a new value, but not of its end. Leaves the
// slot null.
template <detail::PlainSlot T>
void release(T& slot) noexcept {
  slot = T{};
}

}  // namespace tricolor
