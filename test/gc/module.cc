// A library that tests open at run time: statics that hold managed objects.
#include <tricolor/gc.h>

#include <cstdint>

namespace {

struct Thing {
  gc::ptr<Thing> next;
  std::uint64_t value = 0;
};

// Not constant-initialised to zero, so that one stands in .data and one in .bss.
struct Holder {
  std::uint64_t magic = 17;
  gc::ptr<Thing> thing;
};
Holder in_data;
gc::ptr<Thing> in_bss;
struct Owner {
  static gc::ptr<Thing>& slot() {
    static gc::ptr<Thing> thing;
    return thing;
  }
};

gc::ptr<Thing>& slot_of(int slot) {
  return slot == 0 ? in_data.thing : slot == 1 ? in_bss : Owner::slot();
}

}  // namespace

extern "C" {

void module_set(int slot, std::uint64_t value) {
  slot_of(slot) = gc::make<Thing>();
  slot_of(slot)->value = value;
}
void module_clear(int slot) { slot_of(slot) = nullptr; }
std::uintptr_t module_hidden(int slot) {
  return ~reinterpret_cast<std::uintptr_t>(slot_of(slot).get());
}
std::uint64_t module_value(int slot) { return slot_of(slot)->value; }
}
