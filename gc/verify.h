// An independent look at the end of a mark (gccheckmark=1): whatever a live object refers to must be marked. With the world
// stopped, every marked object is read again, by its layout, without the marker's code; so are gc::root handles, globals,
// thread-local storage, and the captures of stacks that the cycle began with. (Stacks as they are now are not: they hold
// leftovers, which refer to what is dead.) So whatever those roots reach is marked.
//
// Invariant [verify.no-hidden-white]: at the end of a mark no marked and allocated cell, and no such root, refers to a cell that
//   is allocated and not marked. A violation ends the process with a report that names parent, field and child.
#pragma once

namespace tricolor::impl {

class Heap;
class SegmentList;

// World stopped, nothing grey.
void verify_marks(Heap& heap, const SegmentList& segments);

}  // namespace tricolor::impl
