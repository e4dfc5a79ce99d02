// What a type that cannot be managed is told at compile time: hands off.
#pragma once

#include <tricolor/detail/scan.h>
#include <tricolor/detail/size_class.h>

#include <cstddef>
#include <type_traits>

namespace tricolor::detail {

// Objects of T can be managed: the collector knows how to find the references in them.
template <class T>
concept Traceable = finding_of<T>::fault == Fault::none;

// The compiler's message shows the arguments: kMember counts from 0, and is a position in gc_fields
// where Class has them. Class is void where the managed type itself is the Member.
template <Fault kFault, class Class, std::size_t kMember, class Member>
constexpr void report() {
  static_assert(kFault != Fault::not_an_object,
                "tricolor: only objects can be managed: no references, functions, void, or "
                "arrays of unknown size");
  static_assert(kFault != Fault::incomplete,
                "tricolor: the type is only declared here: include its definition before it is "
                "made or is a member");
  static_assert(kFault != Fault::no_layout,
                "tricolor: nothing says where the references in this class are, and it cannot be "
                "decomposed. Four ways: (1) make it an aggregate (no constructors, no private "
                "members, no virtual functions) of gc::ptr and plain data; (2) write `static "
                "constexpr auto gc_fields = gc::fields(&T::a, &T::b);` last and public in it, or "
                "specialise gc::layout_of<T>; (3) write `void trace(gc::tracer& t) const "
                "noexcept` in it; (4) specialise gc::conservative<T> as true (or "
                "gc::pointer_free<T>, if it holds no references)");
  static_assert(kFault != Fault::too_many_members,
                "tricolor: the class has more members than can be decomposed (64): write "
                "gc_fields, or group some of them in a member of their own");
  static_assert(kFault != Fault::members_not_found,
                "tricolor: the members of this aggregate cannot be counted, since one of them is "
                "initialised neither from {} nor from a copy: write gc_fields");
  static_assert(kFault != Fault::reference,
                "tricolor: a reference may refer to a managed object and cannot be scanned: make "
                "it a gc::ptr<U>, or a gc::unmanaged<U> if it refers to none of ours; or write "
                "gc_fields, which then leaves it out");
  static_assert(kFault != Fault::raw_pointer,
                "tricolor: a plain pointer to a class keeps nothing alive: write gc::ptr<U>, or "
                "gc::unmanaged<U> for a pointer to what is not managed");
  static_assert(kFault != Fault::raw_atomic_pointer,
                "tricolor: an atomic plain pointer to a class keeps nothing alive, and stores to "
                "it pass no barrier: write gc::atomic_ptr<U>, or std::atomic<gc::unmanaged<U>> "
                "for a pointer to what is not managed");
  static_assert(kFault != Fault::raw_range,
                "tricolor: a span of objects of a class keeps nothing alive: write gc::array<U>, "
                "or gc::unmanaged<U> and a size for a range that is not managed");
  static_assert(kFault != Fault::malloc_memory,
                "tricolor: this member keeps gc::ptr or plain pointers in malloc memory, where "
                "the collector does not look: use gc::vector, gc::hash_map or gc::array, or let "
                "the elements be gc::root<U>; for pointers to what is not managed, "
                "gc::unmanaged<U>");
  static_assert(kFault != Fault::hidden_closure,
                "tricolor: what std::function and std::any hold is in malloc memory, where the "
                "collector does not look: use gc::function");
  static_assert(kFault != Fault::base_with_fields,
                "tricolor: the class has a base with fields, so it cannot be decomposed: write "
                "`static constexpr auto gc_fields = gc::fields(&T::inherited, &T::own);` last in "
                "it (`Base::gc_fields` may stand there too)");
  static_assert(kFault != Fault::union_unknown,
                "tricolor: which member of a union is active is only known at run time: write "
                "`void trace(gc::tracer& t) const noexcept` in the class around it, or "
                "specialise gc::pointer_free for a union that has a name and holds no references");
  static_assert(kFault != Fault::variant_of_different_words,
                "tricolor: the alternatives of this variant have their references at different "
                "places, or numbers in the same place: write `void trace(gc::tracer& t) const "
                "noexcept` in the class around it");
  static_assert(kFault != Fault::optional_of_traced,
                "tricolor: the trace() of a class cannot be called on an optional that may be "
                "empty: write `void trace(gc::tracer& t) const noexcept` in the class around it");
  static_assert(kFault != Fault::not_fields,
                "tricolor: gc_fields (and layout_of<T>::fields) must be what gc::fields(&T::a, "
                "&T::b) returns");
  static_assert(kFault != Fault::empty_fields,
                "tricolor: gc_fields names nothing: specialise gc::pointer_free<T> as true, "
                "which derived classes do not inherit");
  static_assert(kFault != Fault::foreign_field,
                "tricolor: gc_fields names a member of another class, which is no base of this "
                "one");
  static_assert(kFault != Fault::inherited_fields,
                "tricolor: gc_fields is inherited from a base and tells nothing of the members "
                "this class adds: write gc_fields in this class too, with `Base::gc_fields` and "
                "at least one member of its own (plain ones may be named)");
  static_assert(kFault != Fault::fields_leave_out,
                "tricolor: gc_fields leaves out a member that holds a gc::ptr or gc::array: name "
                "it, or what it refers to is lost");
  static_assert(kFault != Fault::trace_not_const,
                "tricolor: trace must be const: `void trace(gc::tracer& t) const noexcept`");
  static_assert(kFault != Fault::trace_may_throw,
                "tricolor: trace must be noexcept: `void trace(gc::tracer& t) const noexcept`");
  static_assert(kFault != Fault::inherited_trace,
                "tricolor: trace is inherited from a base and tells nothing of the members this "
                "class adds: write trace in this class too, and call Base::trace(t) there");
  static_assert(kFault != Fault::fields_and_trace,
                "tricolor: the class has both gc_fields and trace: keep one (trace may report "
                "every field)");
}

template <class F>
struct Report;
template <Fault kFault, class Class, std::size_t kMember, class Member>
struct Report<Finding<kFault, Class, kMember, Member>> {
  static constexpr void say() { report<kFault, Class, kMember, Member>(); }
};

template <class T>
constexpr void check_lifetime() {
  static_assert(alignof(T) <= kMaxAlign,
                "tricolor: managed objects are aligned to 8192 bytes at most");
  static_assert(std::is_trivially_destructible_v<T> || no_destructor<std::remove_cv_t<T>>,
                "tricolor: destructors of managed objects are not run in this version: let the "
                "class have none (gc::array and gc::ptr instead of containers), or specialise "
                "gc::no_destructor<T> as true if it need not run");
}

// One compile-time error with advice if no T can be managed.
template <class T>
constexpr void check_layout() {
  Report<finding_of<T>>::say();
  if constexpr (Traceable<T>) check_lifetime<std::remove_all_extents_t<T>>();
}

}  // namespace tricolor::detail
