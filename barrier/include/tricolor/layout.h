// How the collector learns where the references in an object are: from its type, once, at no cost
// per object.
//
//   struct Node {                     // 1. An aggregate is decomposed: nothing to write.
//     gc::ptr<Node> left, right;
//     int key = 0;
//   };
//
//   class Account : public Named {    // 2. Other classes name their fields, last in the class:
//    public:                          //    those of bases, arrays, private ones. Fields without
//     explicit Account(int id);       //    references may be left out.
//    private:
//     int id;
//     gc::ptr<Person> owner;
//     gc::ptr<Entry> latest[3];
//    public:
//     static constexpr auto gc_fields =
//         gc::fields(Named::gc_fields, &Account::owner, &Account::latest);
//   };
//
//   template <>                       //    A class that cannot be edited:
//   struct gc::layout_of<Foreign> {
//     static constexpr auto fields = gc::fields(&Foreign::user_data);
//   };
//
//   struct Closure {                  //    With storage behind it that make_extra adds:
//     gc::ptr<Code> code;
//     static constexpr auto gc_fields =
//         gc::fields(&Closure::code, gc::trailing<gc::ptr<Cell>>{});
//   };
//
//   class Value {                     // 3. Known at run time only: see <tricolor/tracer.h>.
//     void trace(gc::tracer& t) const noexcept;
//   };
//
//   template <>                       // 4. Every aligned word is looked at. (Stores to references
//   inline constexpr bool gc::conservative<Legacy> = true;  // still go through gc::ptr.)
//
// What is declared about exactly this class goes before what it is: conservative, pointer_free,
// layout_of, gc_fields, trace, and only then decomposition. A class that none of them fits is a
// compile error that says what to do, and so is a member that would hide references: a plain
// pointer to a class (gc::ptr<U>, or gc::unmanaged<U> for what is not managed), a C++ reference, a
// container that keeps gc::ptr in malloc memory.
#pragma once

#include <tricolor/detail/advice.h>
#include <tricolor/detail/declared_layout.h>
#include <tricolor/detail/describe.h>
