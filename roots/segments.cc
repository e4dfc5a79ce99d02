#include "roots/segments.h"

#include <elf.h>
#include <link.h>
#include <sys/auxv.h>

#include <algorithm>
#include <cstring>

#include "alloc/base/os.h"
#include "alloc/base/units.h"

namespace tricolor::impl {

namespace {

// Calls add(begin, end) for what is writable of a module at run time: its PT_LOAD segments with write permission, less the
// part that the loader makes read-only after relocation.
template <class Add>
void for_each_writable(const dl_phdr_info& info, Add add) {
  std::uintptr_t relro_begin = 0;
  std::uintptr_t relro_end = 0;
  for (int i = 0; i < info.dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = info.dlpi_phdr[i];
    if (header.p_type != PT_GNU_RELRO) continue;
    relro_begin = info.dlpi_addr + header.p_vaddr;
    relro_end = relro_begin + header.p_memsz;
  }
  for (int i = 0; i < info.dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = info.dlpi_phdr[i];
    if (header.p_type != PT_LOAD || (header.p_flags & PF_W) == 0) continue;
    std::uintptr_t begin = info.dlpi_addr + header.p_vaddr;
    const std::uintptr_t end = begin + header.p_memsz;
    // RELRO stands at the start of the segment.
    if (relro_begin <= begin && begin < relro_end) begin = std::min(relro_end, end);
    begin = round_up(begin, sizeof(void*));
    if (begin < end) add(reinterpret_cast<const char*>(begin), reinterpret_cast<const char*>(end));
  }
}

}  // namespace

namespace {

// The end of the loader's list, where it puts what it opens. The loader's lock is held, which ThreadSanitizer does not know.
__attribute__((no_sanitize("thread"))) const link_map* last_library() {
  const link_map* last = _r_debug.r_map;
  while (last != nullptr && last->l_next != nullptr) last = last->l_next;
  return last;
}

}  // namespace

bool SegmentList::may_be_outdated() const {
  if (x_last_library == nullptr) return false;
  // Its record may have been freed.
  link_map last = {};
  if (os::read_maybe_unmapped(&last, x_last_library, sizeof last) != sizeof last) return true;
  if (last.l_next != nullptr) return true;
  link_map before = {};
  return last.l_prev != nullptr &&
         (os::read_maybe_unmapped(&before, last.l_prev, sizeof before) != sizeof before ||
          before.l_next != x_last_library);
}

bool SegmentList::update() {
  struct Walk {
    SegmentList& list;
    bool first = true;  // the program itself comes first
    bool opened_later = false;
    bool unchanged = false;
    std::size_t needed = 0;  // counted even when they do not fit
  };
  for (;;) {
    Walk walk{*this};
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t size, void* data) {
          Walk& w = *static_cast<Walk*>(data);
          if (w.first && size >= offsetof(dl_phdr_info, dlpi_subs) + sizeof(info->dlpi_subs)) {
            if (w.list.x_complete && info->dlpi_adds == w.list.x_loads &&
                info->dlpi_subs == w.list.x_unloads) {
              w.unchanged = true;
              return 1;
            }
            w.list.x_loads = info->dlpi_adds;
            w.list.x_unloads = info->dlpi_subs;
          }
          if (w.first) w.list.x_last_library = last_library();
          for_each_writable(*info, [&](const char* begin, const char* end) {
            if (w.needed < w.list.x_capacity)
              w.list.x_segments[w.needed] = {begin, end, !w.first, w.opened_later};
            ++w.needed;
          });
          w.first = false;
          // The loader itself is the last of what a program starts with, and what is opened later comes behind it. (A
          // program without a loader opens nothing, or all that it opens is later.)
          w.opened_later |= info->dlpi_addr == getauxval(AT_BASE);
          return 0;
        },
        &walk);
    if (walk.unchanged) return true;
    if (walk.needed <= x_capacity) {
      x_count = walk.needed;
      x_complete = true;
      return true;
    }
    x_complete = false;
    // Too small: try again with room for more. The metadata lock is not taken under the loader's.
    const std::size_t capacity = std::max<std::size_t>(64, 2 * walk.needed);
    auto* const segments = static_cast<Segment*>(x_metadata.take(capacity * sizeof(Segment)));
    if (segments == nullptr) {
      x_count = std::min(walk.needed, x_capacity);
      return false;
    }
    if (x_segments != nullptr) x_metadata.give_back(x_segments, x_capacity * sizeof(Segment));
    x_segments = segments;
    x_capacity = capacity;
    x_count = 0;
  }
}

namespace {

// Smaller than what surrounds the static area: a thread's stack, or the loader's own mapping.
constexpr std::uintptr_t kStaticAreaBytes = 4096;

}  // namespace

bool TlsBlocks::list(Metadata& metadata) {
  for (;;) {
    x_count = 0;  // counted even when they do not fit
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t size, void* data) {
          auto& out = *static_cast<TlsBlocks*>(data);
          if (size < offsetof(dl_phdr_info, dlpi_tls_data) + sizeof(info->dlpi_tls_data)) return 1;
          if (info->dlpi_tls_data == nullptr) return 0;
          for (int i = 0; i < info->dlpi_phnum; ++i) {
            const ElfW(Phdr)& header = info->dlpi_phdr[i];
            if (header.p_type != PT_TLS || header.p_memsz < sizeof(void*)) continue;
            const auto begin =
                round_up(reinterpret_cast<std::uintptr_t>(info->dlpi_tls_data), sizeof(void*));
            const auto end = reinterpret_cast<std::uintptr_t>(info->dlpi_tls_data) + header.p_memsz;
            if (out.x_count < out.x_capacity) {
              // The static area ends (x86-64) or begins (aarch64) at the thread pointer. Blocks elsewhere are the
              // loader's to free.
              const auto here = reinterpret_cast<std::uintptr_t>(__builtin_thread_pointer());
              const bool is_static = begin - (here - kStaticAreaBytes) < 2 * kStaticAreaBytes;
              out.x_blocks[out.x_count] = {reinterpret_cast<const char*>(begin),
                                           reinterpret_cast<const char*>(end), !is_static};
            }
            ++out.x_count;
          }
          return 0;
        },
        this);
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
