// Boehm's GC_NAMESPACE leaves the name `gc` to us.
#define GC_NAMESPACE
#include <gc.h>
#include <gc/gc_cpp.h>
#include <tricolor/gc.h>

namespace {

struct Old : boehmgc::gc {
  int key = 1;
};

struct New {
  gc::ptr<New> next;
  int key = 2;
};

}  // namespace

bool boehm_in_its_namespace() {
  const Old old;
  const New* ours = gc::make<New>();
  return old.key + ours->key == 3;
}
