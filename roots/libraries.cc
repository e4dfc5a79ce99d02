#include "roots/libraries.h"

#include <dlfcn.h>
#include <elf.h>
#include <limits.h>
#include <link.h>

#include <cstdint>
#include <cstring>

namespace tricolor::impl {

namespace {

struct Search {
  std::uintptr_t address;
  bool is_program = true;        // the program itself comes first
  char name[PATH_MAX + 1] = {};  // empty: not found, or the program
};

bool contains(const dl_phdr_info& info, std::uintptr_t address) {
  for (int i = 0; i < info.dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = info.dlpi_phdr[i];
    if (header.p_type == PT_LOAD && address - (info.dlpi_addr + header.p_vaddr) < header.p_memsz)
      return true;
  }
  return false;
}

}  // namespace

void pin_library_of(const void* address) {
  Search search{reinterpret_cast<std::uintptr_t>(address)};
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        Search& s = *static_cast<Search*>(data);
        const bool here = contains(*info, s.address);
        if (here && !s.is_program && std::strlen(info->dlpi_name) < sizeof s.name)
          std::strcpy(s.name, info->dlpi_name);
        s.is_program = false;
        return here ? 1 : 0;
      },
      &search);
  if (search.name[0] == '\0') return;
  // It is open: only its mode changes. If it is being closed at this moment it is found no more.
  if (void* const library = dlopen(search.name, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE))
    dlclose(library);
}

}  // namespace tricolor::impl
