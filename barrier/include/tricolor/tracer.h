// gc::tracer: what a type's own trace function reports its references to.
//
//   struct Value {
//     std::variant<double, gc::ptr<String>> v;
//     void trace(gc::tracer& t) const noexcept {
//       if (auto* s = std::get_if<gc::ptr<String>>(&v)) t(*s);
//     }
//   };
//
// trace() runs at the same time as the program, on library threads and inside the allocations of any thread (whatever locks that
// one holds): it takes no lock and allocates nothing. Words given to the tracer may be null, stale or no pointer at all.
// They are looked up as they are. A tag in low bits does no harm, as any address inside a cell will do; one in the bits above the
// address (x86's LAM, Arm's TBI and MTE) must be taken off before, and is not supported in words that trace() does not report.
//
// The collector must see every reference end: as long as a cycle marks, what a gc::ptr held is shaded when another value is
// stored to it or constructed over it. Where it is overwritten by something else, or trace() stops reporting it, say so before,
// by gc::release(slot) (<tricolor/bulk.h>) or by storing null:
//
//   if (auto* s = std::get_if<gc::ptr<String>>(&value->v)) gc::release(*s);
//   value->v = 1.5;
//
// The same goes for a value-initialised object constructed over an old one (`optional.emplace()` without arguments of a class
// whose default constructor is implicit): C++ fills it with zeros before any constructor of ours runs.
#pragma once

#include <cstddef>

#include <tricolor/array.h>
#include <tricolor/ptr.h>

namespace tricolor {

class tracer {
 public:
  // `words` is a buffer of `capacity` words; `full` empties it.
  tracer(const void** words, std::size_t capacity, void (*full)(tracer&, std::size_t count))
      : x_words(words), x_capacity(capacity), x_full(full) {}
  tracer(const tracer&) = delete;
  tracer& operator=(const tracer&) = delete;

  // An address inside a managed object, or null.
  void operator()(const void* word) {
    if (word == nullptr) return;
    x_words[x_count++] = word;
    if (x_count == x_capacity) flush();
  }
  template <class T>
  void operator()(const ptr<T>& field) {
    (*this)(static_cast<const void*>(field.get()));
  }
  template <class T>
  void operator()(const array<T>& field) {
    (*this)(static_cast<const void*>(field.data()));
  }

  // Hands what is buffered to the marker.
  void flush() {
    const std::size_t count = x_count;
    x_count = 0;
    if (count != 0) x_full(*this, count);
  }

 private:
  const void** const x_words;
  const std::size_t x_capacity;
  std::size_t x_count = 0;
  void (*const x_full)(tracer&, std::size_t count);
};

}  // namespace tricolor
