// A program of somebody else: allocates, lets an exception pass through the library, and asks the
// dynamic linker who serves its exceptions.
#include <dlfcn.h>
#include <tricolor/gc.h>
#include <unwind.h>

#include <cstddef>
#include <cstdio>
#include <limits>
#include <new>
#include <string_view>

bool boehm_in_its_namespace();
bool boehm_in_the_global_one();

namespace {

struct Node {
  gc::ptr<Node> next;
  int key = 0;
};

bool allocates() {
  Node* head = nullptr;
  for (int i = 0; i < 100'000; ++i) {
    Node* node = gc::make<Node>();
    node->key = i;
    if (i % 2 == 0) node->next = head, head = node;
  }
  gc::collect();
  int found = 0;
  for (Node* node = head; node != nullptr; node = node->next) ++found;
  return found == 50'000;
}

bool throws_through_the_library() {
  try {
    gc::make_array<long>(std::numeric_limits<std::size_t>::max() / 2);
  } catch (const std::bad_array_new_length&) {
    return true;
  }
  return false;
}

bool in_libgcc_s(const char* what, void* function) {
  Dl_info info = {};
  const bool found = function != nullptr && dladdr(function, &info) != 0;
  const std::string_view file = found ? info.dli_fname : "nowhere";
  if (file.find("libgcc_s.so") != file.npos) return true;
  std::printf("%s is served by %s, not by libgcc_s\n", what, found ? info.dli_fname : "nobody");
  return false;
}

bool exceptions_are_left_alone() {
  bool good = true;
  // What this program calls, and what libstdc++ and every other library calls.
  good &=
      in_libgcc_s("our _Unwind_RaiseException", reinterpret_cast<void*>(&_Unwind_RaiseException));
  good &= in_libgcc_s("our _Unwind_Resume", reinterpret_cast<void*>(&_Unwind_Resume));
  for (const char* name : {"_Unwind_RaiseException", "_Unwind_Resume", "_Unwind_Backtrace"}) {
    good &= in_libgcc_s(name, dlsym(RTLD_DEFAULT, name));
    good &= in_libgcc_s(name, dlvsym(RTLD_DEFAULT, name, name[8] == 'B' ? "GCC_3.3" : "GCC_3.0"));
  }
  return good;
}

bool passes(const char* what, bool good) {
  if (!good) std::printf("failed: %s\n", what);
  return good;
}

}  // namespace

int main() {
  bool good = true;
  good &= passes("allocates", allocates());
  good &= passes("throws through the library", throws_through_the_library());
  good &= passes("exceptions are left to libgcc_s", exceptions_are_left_alone());
  good &= passes("Boehm's collector in its namespace", boehm_in_its_namespace());
  good &= passes("Boehm's collector in the global one", boehm_in_the_global_one());
  return good ? 0 : 1;
}
