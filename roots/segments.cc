#include "roots/segments.h"

#include <dlfcn.h>

#include <algorithm>

#include "alloc/base/sanitizer.h"
#include "alloc/base/stop_code.h"
#include "alloc/base/units.h"

namespace tricolor::impl {

namespace {

// Calls add(begin, end) for what is writable of a module at run time: its PT_LOAD segments with write permission, less the
// part that the loader makes read-only after relocation.
template <class Add>
void for_each_writable(const LoaderWalk& module, Add add) {
  std::uintptr_t relro_begin = 0;
  std::uintptr_t relro_end = 0;
  for (const ElfW(Phdr) & header : module.headers()) {
    if (header.p_type != PT_GNU_RELRO) continue;
    relro_begin = module.load_address() + header.p_vaddr;
    relro_end = relro_begin + header.p_memsz;
  }
  for (const ElfW(Phdr) & header : module.headers()) {
    if (header.p_type != PT_LOAD || (header.p_flags & PF_W) == 0) continue;
    std::uintptr_t begin = module.load_address() + header.p_vaddr;
    const std::uintptr_t end = begin + header.p_memsz;
    // RELRO stands at the start of the segment.
    if (relro_begin <= begin && begin < relro_end) begin = std::min(relro_end, end);
    begin = round_up(begin, sizeof(void*));
    if (begin < end) add(reinterpret_cast<const char*>(begin), reinterpret_cast<const char*>(end));
  }
}

}  // namespace

TRICOLOR_STOP_CODE bool SegmentList::may_be_outdated() const {
  return !x_complete || !is_loader_list({x_modules, x_modules_count}, x_staying);
}

bool SegmentList::update() {
  const std::uintptr_t loader = loader_address();
  while (may_be_outdated()) {
    std::size_t modules = 0;  // counted even when they do not fit
    std::size_t segments = 0;
    bool opened_later = false;
    x_staying = {};
    for (LoaderWalk walk; walk.next();) {
      const bool stays = !opened_later || modules < modules_at_start();
      if (modules < x_modules_capacity) x_modules[modules] = walk.mark();
      ++modules;
      if (stays) x_staying.all = modules;
      if (!walk.is_sanitizer()) {
        for_each_writable(walk, [&](const char* begin, const char* end) {
          if (segments < x_capacity)
            x_segments[segments] = {begin, end, !walk.is_program(), !stays};
          ++segments;
        });
      }
      // What is opened later comes behind the loader itself, or where there is none behind the program.
      if (!opened_later && (loader == 0 || walk.load_address() == loader)) {
        opened_later = true;
        x_staying.loader = modules;
      }
    }
    x_modules_count = std::min(modules, x_modules_capacity);
    x_count = std::min(segments, x_capacity);
    if (!opened_later) {  // the loader is not to be found, so nothing is known
      x_staying = {};
      for (Segment& segment : *this) segment.opened_later = segment.may_go;
    }
    x_complete = modules == x_modules_count && segments == x_count;
    if (x_complete) return true;
    // Too small: try again with room for more.
    if (!grow(x_modules, x_modules_capacity, modules) || !grow(x_segments, x_capacity, segments))
      return false;
  }
  return true;
}

// For `needed` entries and more. Their contents are lost when it has to grow; false when memory is refused.
template <class T>
bool SegmentList::grow(T*& entries, std::size_t& capacity, std::size_t needed) {
  if (needed <= capacity) return true;
  const std::size_t more = std::max<std::size_t>(64, 2 * needed);
  auto* const bigger = static_cast<T*>(x_metadata.take(more * sizeof(T)));
  if (bigger == nullptr) return false;
  if (entries != nullptr) x_metadata.give_back(entries, capacity * sizeof(T));
  entries = bigger;
  capacity = more;
  return true;
}

namespace {

// Smaller than what surrounds the static area: a thread's stack, or the loader's own mapping.
constexpr std::uintptr_t kStaticAreaBytes = 4096;

bool has_tls(std::span<const ElfW(Phdr)> headers) {
  return std::any_of(headers.begin(), headers.end(),
                     [](const ElfW(Phdr) & header) { return header.p_type == PT_TLS; });
}

}  // namespace

void TlsBlocks::add(const void* data, std::span<const ElfW(Phdr)> headers) {
  if (data == nullptr) return;
  for (const ElfW(Phdr) & header : headers) {
    if (header.p_type != PT_TLS || header.p_memsz < sizeof(void*)) continue;
    const auto begin = round_up(reinterpret_cast<std::uintptr_t>(data), sizeof(void*));
    const auto end = reinterpret_cast<std::uintptr_t>(data) + header.p_memsz;
    if (x_count < x_capacity) {
      // The static area ends (x86-64) or begins (aarch64) at the thread pointer. Blocks elsewhere are the loader's to free.
      const auto here = reinterpret_cast<std::uintptr_t>(__builtin_thread_pointer());
      const bool is_static = begin - (here - kStaticAreaBytes) < 2 * kStaticAreaBytes;
      x_blocks[x_count] = {reinterpret_cast<const char*>(begin), reinterpret_cast<const char*>(end),
                           !is_static};
    }
    ++x_count;
  }
}

bool TlsBlocks::list(Metadata& metadata, LoaderLock lock) {
  for (;;) {
    x_count = 0;  // counted even when they do not fit
    if (lock == LoaderLock::whole) {
      dl_iterate_phdr(
          [](dl_phdr_info* info, std::size_t size, void* blocks) {
            if (size < offsetof(dl_phdr_info, dlpi_tls_data) + sizeof(info->dlpi_tls_data))
              return 1;
            if (is_sanitizer_library(info->dlpi_name)) return 0;
            static_cast<TlsBlocks*>(blocks)->add(info->dlpi_tls_data,
                                                 {info->dlpi_phdr, info->dlpi_phnum});
            return 0;
          },
          this);
    } else {
      for (LoaderWalk walk; walk.next();) {
        void* data = nullptr;
        // A handle is the loader's entry. Takes no lock for this question.
        if (walk.entry() != nullptr && has_tls(walk.headers()) && !walk.is_sanitizer() &&
            dlinfo(const_cast<link_map*>(walk.entry()), RTLD_DI_TLS_DATA, &data) == 0)
          add(data, walk.headers());
      }
    }
    if (x_count <= x_capacity) return true;
    const std::size_t capacity = x_count + 8;
    free(metadata);
    x_blocks = static_cast<Block*>(metadata.take(capacity * sizeof(Block)));
    if (x_blocks == nullptr) return false;
    x_capacity = capacity;
  }
}

void TlsBlocks::free(Metadata& metadata) {
  if (x_blocks != nullptr) metadata.give_back(x_blocks, x_capacity * sizeof(Block));
  x_blocks = nullptr;
  x_count = 0;
  x_capacity = 0;
}

}  // namespace tricolor::impl
