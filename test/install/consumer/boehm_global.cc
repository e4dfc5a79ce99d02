// TRICOLOR_NO_GC_ALIAS leaves the name `gc` to Boehm's collector.
#define TRICOLOR_NO_GC_ALIAS
#include <gc/gc.h>
#include <gc/gc_cpp.h>
#include <tricolor/gc.h>

namespace {

struct Old : gc {
  int key = 1;
};

struct New {
  tricolor::ptr<New> next;
  int key = 2;
};

}  // namespace

bool boehm_in_the_global_one() {
  const Old old;
  const New* ours = tricolor::make<New>();
  return old.key + ours->key == 3;
}
