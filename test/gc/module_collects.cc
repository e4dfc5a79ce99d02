// A library whose constructors allocate and collect while the loader is at work.
#include <tricolor/gc.h>

namespace {

struct Thing {
  gc::ptr<Thing> next;
  int value = 0;
};

gc::ptr<Thing> list;

const int built = [] {
  for (int i = 0; i < 100; ++i) {
    Thing* const thing = gc::make<Thing>();
    thing->next = list;
    thing->value = i;
    list = thing;
    if (i % 10 == 0) gc::collect();
  }
  return 100;
}();

}  // namespace

extern "C" bool module_intact() {
  int expected = built;
  for (Thing* thing = list; thing != nullptr; thing = thing->next) {
    if (thing->value != --expected) return false;
  }
  return expected == 0;
}
