// A library that tests open at run time: statics that hold managed objects, and types of its own. (In an anonymous namespace
// all of them: g++ marks what several libraries may share as unique, and the loader never unloads who has such symbols.)
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

// Its references are found by code of this library.
struct Traced {
  gc::ptr<Traced> next;
  std::uint64_t value = 0;
  void trace(gc::tracer& t) const noexcept { t(next); }
};

}  // namespace

extern "C" {

// A list of `length` objects of this library's own type, on no static of it; and what their values add up to.
void* module_list(std::uint64_t length) {
  Traced* list = nullptr;
  for (std::uint64_t i = 1; i <= length; ++i) {
    Traced* const traced = gc::make<Traced>();
    traced->value = i;
    traced->next = list;
    list = traced;
  }
  return list;
}
std::uint64_t module_sum(void* list) {
  std::uint64_t sum = 0;
  for (const Traced* t = static_cast<Traced*>(list); t != nullptr; t = t->next) sum += t->value;
  return sum;
}

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
