#include "roots/libraries.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

namespace tricolor::impl {

namespace {

struct Search {
  std::uintptr_t address;
  LibraryName& name;
  bool is_program = true;  // the program itself comes first
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

void find_library_of(const void* address, LibraryName& name) {
  name[0] = '\0';
  Search search{reinterpret_cast<std::uintptr_t>(address), name};
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        Search& s = *static_cast<Search*>(data);
        const bool here = contains(*info, s.address);
        if (here && !s.is_program && std::strlen(info->dlpi_name) < s.name.size())
          std::strcpy(s.name.data(), info->dlpi_name);
        s.is_program = false;
        return here ? 1 : 0;
      },
      &search);
}

void pin_library(const LibraryName& name) {
  if (name[0] == '\0') return;
  const int saved_errno = errno;
  // It is open: only its mode changes. If it is being closed at this moment it is found no more.
  if (void* const library = dlopen(name.data(), RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE))
    dlclose(library);
  errno = saved_errno;
}

}  // namespace tricolor::impl
