#include "roots/libraries.h"

#include <dlfcn.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

#include "alloc/base/os.h"
#include "roots/loader.h"

namespace tricolor::impl {

namespace {

bool contains(const LoaderWalk& module, std::uintptr_t address) {
  for (const ElfW(Phdr) & header : module.headers()) {
    if (header.p_type == PT_LOAD &&
        address - (module.load_address() + header.p_vaddr) < header.p_memsz)
      return true;
  }
  return false;
}

}  // namespace

void find_library_of(const void* address, LibraryName& name) {
  name[0] = '\0';
  LoaderWalk walk;
  do {
    if (!walk.next()) return;
  } while (!contains(walk, reinterpret_cast<std::uintptr_t>(address)));
  if (walk.is_program()) return;
  const std::size_t read = os::read_maybe_unmapped(name.data(), walk.name(), name.size());
  const auto end = name.begin() + static_cast<std::ptrdiff_t>(read);
  if (std::find(name.begin(), end, '\0') == end) name[0] = '\0';
}

bool pin_library(const LibraryName& name) {
  if (name[0] == '\0') return false;
  const int saved_errno = errno;
  // It is open: only its mode changes. If it is being closed at this moment it is found no more.
  void* const library = dlopen(name.data(), RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
  if (library != nullptr) dlclose(library);
  errno = saved_errno;
  return library != nullptr;
}

}  // namespace tricolor::impl
