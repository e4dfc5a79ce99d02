#include "roots/loader.h"

#include <sys/auxv.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string_view>

#include "alloc/base/os.h"
#include "alloc/base/sanitizer.h"
#include "alloc/base/stop_code.h"

// The dynamic section of the module that this is linked into; null in a static program.
extern ElfW(Dyn) _DYNAMIC[] __attribute__((weak, visibility("hidden")));

namespace tricolor::impl {

namespace {

// Written by the loader before the program begins.
__attribute__((no_sanitize("thread"))) const link_map* first_entry() { return _r_debug.r_map; }

// Of an entry that stays. Relaxed: where a library has been linked that holds references, the thread that did it has stopped.
__attribute__((no_sanitize("thread"))) const link_map* next_after(const link_map* entry) {
  return __atomic_load_n(&entry->l_next, __ATOMIC_RELAXED);
}

bool read(void* to, std::uintptr_t from, std::size_t bytes) {
  return os::read_maybe_unmapped(to, reinterpret_cast<const void*>(from), bytes) == bytes;
}

auto whole(const os::LoadedRange& range, std::uintptr_t load_address) -> ElfW(Phdr) {
  ElfW(Phdr) header = {};
  header.p_type = PT_LOAD;
  header.p_flags = PF_R | PF_W;
  header.p_vaddr = reinterpret_cast<std::uintptr_t>(range.begin) - load_address;
  header.p_memsz = static_cast<std::size_t>(range.end - range.begin);
  return header;
}

// FNV-1a, a word at a time.
std::uint64_t sum_of(const void* bytes, std::size_t count) {
  std::uint64_t sum = 0xcbf29ce484222325;
  for (std::size_t at = 0; at + sizeof sum <= count; at += sizeof sum) {
    std::uint64_t word;
    std::memcpy(&word, static_cast<const char*>(bytes) + at, sizeof word);
    sum = (sum ^ word) * 0x100000001b3;
    sum ^= sum >> 32;
  }
  return sum;
}

// Of what follows the last slash of a path that may be gone: 0 then.
std::uint64_t sum_of_file(const char* path) {
  std::array<char, 512> bytes = {};
  const std::string_view read(bytes.data(),
                              os::read_maybe_unmapped(bytes.data(), path, bytes.size()));
  const std::size_t length = read.find('\0');
  if (length == std::string_view::npos || length == 0) return 0;
  const std::string_view file =
      read.substr(0, length).substr(read.substr(0, length).rfind('/') + 1);
  std::uint64_t sum = 0xcbf29ce484222325;
  for (const char c : file) sum = (sum ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return sum;
}

// The libraries that modules need, by file; kept as sums.
class NeededFiles {
 public:
  // As many as there is room for.
  void add_of(const LoaderWalk& module);
  bool has(const LoaderWalk& module) const;

 private:
  std::array<std::uint64_t, 1024> x_sums;
  std::size_t x_count = 0;
};

}  // namespace

// Where the program was started by naming the loader, the kernel does not say.
std::uintptr_t loader_address() {
  const std::uintptr_t address = getauxval(AT_BASE);
  return address != 0 ? address : _r_debug.r_ldbase;
}

bool LoaderWalk::next() {
  if (x_entries == kMostEntries) return false;
  x_is_program = x_entries++ == 0;
  if (!x_is_program && x_at == nullptr) return false;  // static, so there are no others
  x_at = x_is_program ? first_entry() : x_entry.l_next;
  if (x_at == nullptr && !x_is_program) return false;
  if (x_at != nullptr && os::read_maybe_unmapped(&x_entry, x_at, sizeof x_entry) != sizeof x_entry)
    return false;
  if (x_is_program) {
    find_program_headers();
  } else {
    find_headers();
  }
  return true;
}

bool LoaderWalk::is_sanitizer() const {
  if (is_program()) return false;
  std::array<char, 512> path;
  const std::string_view bytes(path.data(),
                               os::read_maybe_unmapped(path.data(), name(), path.size()));
  return is_sanitizer_library(bytes.substr(0, bytes.find('\0')));
}

void LoaderWalk::find_program_headers() {
  const os::ProgramHeaders headers = os::program_headers();
  x_headers_count = std::min(headers.count, kMostHeaders);
  std::copy_n(static_cast<const ElfW(Phdr)*>(headers.begin), x_headers_count, x_headers.begin());
  if (x_at != nullptr) return;
  for (const ElfW(Phdr) & header : this->headers()) {
    if (header.p_type == PT_PHDR)
      x_entry.l_addr = reinterpret_cast<std::uintptr_t>(headers.begin) - header.p_vaddr;
  }
}

void LoaderWalk::find_headers() {
  if (read_headers(x_entry.l_addr)) return;
  const os::LoadedRange range = os::loaded_range_of(x_entry.l_ld);
  if (range.begin == nullptr || read_headers(reinterpret_cast<std::uintptr_t>(range.begin))) return;
  x_headers[0] = whole(range, x_entry.l_addr);
  x_headers_count = 1;
}

// From a library's first bytes, if that is where they are: its dynamic section must lie where the loader says.
bool LoaderWalk::read_headers(std::uintptr_t at) {
  x_headers_count = 0;
  x_headers_at = nullptr;
  ElfW(Ehdr) header;
  if (!read(&header, at, sizeof header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_phentsize != sizeof(ElfW(Phdr)) || header.e_phnum > kMostHeaders ||
      !read(x_headers.data(), at + header.e_phoff, header.e_phnum * sizeof(ElfW(Phdr)))) {
    return false;
  }
  for (std::size_t i = 0; i < header.e_phnum; ++i) {
    if (x_headers[i].p_type != PT_DYNAMIC) continue;
    if (x_entry.l_addr + x_headers[i].p_vaddr != reinterpret_cast<std::uintptr_t>(x_entry.l_ld))
      continue;
    x_headers_count = header.e_phnum;
    x_headers_at = reinterpret_cast<const void*>(at + header.e_phoff);
    return true;
  }
  return false;
}

ModuleMark LoaderWalk::mark() const {
  const bool read = x_headers_at != nullptr;
  const std::size_t bytes = x_headers_count * sizeof(ElfW(Phdr));
  return {x_at,         x_entry.l_addr,   x_entry.l_ld,
          x_headers_at, read ? bytes : 0, is_program() ? 0 : sum_of(x_headers.data(), bytes)};
}

namespace {

void NeededFiles::add_of(const LoaderWalk& module) {
  std::array<ElfW(Dyn), 256> entries;
  const std::size_t bytes =
      os::read_maybe_unmapped(entries.data(), module.dynamic(), sizeof entries);
  const std::span<const ElfW(Dyn)> read(entries.data(), bytes / sizeof entries[0]);
  const auto end = std::find_if(read.begin(), read.end(),
                                [](const ElfW(Dyn) & entry) { return entry.d_tag == DT_NULL; });
  const auto names = std::find_if(read.begin(), end,
                                  [](const ElfW(Dyn) & entry) { return entry.d_tag == DT_STRTAB; });
  if (names == end) return;
  for (auto at = read.begin(); at != end && x_count < x_sums.size(); ++at) {
    if (at->d_tag != DT_NEEDED) continue;
    // Where the loader has not made an address of it, because the section cannot be written, it is one in the file.
    const std::uintptr_t name = names->d_un.d_ptr + at->d_un.d_val;
    std::uint64_t sum = sum_of_file(reinterpret_cast<const char*>(name));
    if (sum == 0) sum = sum_of_file(reinterpret_cast<const char*>(name + module.load_address()));
    const auto known = x_sums.begin() + x_count;
    if (sum != 0 && std::find(x_sums.begin(), known, sum) == known) x_sums[x_count++] = sum;
  }
}

bool NeededFiles::has(const LoaderWalk& module) const {
  const std::uint64_t sum = sum_of_file(module.name());
  return sum != 0 &&
         std::find(x_sums.begin(), x_sums.begin() + x_count, sum) != x_sums.begin() + x_count;
}

// Relaxed: a cycle may run before it is known, in the initialisation of another library.
std::atomic<std::size_t> at_start{0};

[[gnu::constructor(101)]] void find_modules_at_start() {
  const std::uintptr_t loader = loader_address();
  NeededFiles needed;
  std::size_t count = 0;
  bool is_own_among_them = false;
  bool is_behind_loader = false;
  for (LoaderWalk walk; walk.next();) {
    if (is_behind_loader && !needed.has(walk)) break;
    needed.add_of(walk);
    ++count;
    is_own_among_them |= walk.dynamic() == _DYNAMIC;
    is_behind_loader |= walk.load_address() == loader;
    if (is_behind_loader && !is_own_among_them) return;
  }
  if (is_behind_loader) at_start.store(count, std::memory_order_relaxed);
}

}  // namespace

std::size_t modules_at_start() { return at_start.load(std::memory_order_relaxed); }

TRICOLOR_STOP_CODE bool is_loader_list(std::span<const ModuleMark> marks, StayingModules staying) {
  if (marks.empty() || marks.front().entry != first_entry()) return false;
  if (first_entry() == nullptr) return true;  // a static program
  const auto next_of = [&](std::size_t i) {
    return i + 1 < marks.size() ? marks[i + 1].entry : nullptr;
  };
  for (std::size_t i = staying.loader - 1; i < staying.all; ++i) {
    if (next_after(marks[i].entry) != next_of(i)) return false;
  }
  // Many at once: a system call costs more than what it reads.
  std::array<char, 16 << 10> bytes;
  std::array<os::Piece, 32> pieces;
  const auto bytes_of = [](const ModuleMark& m) { return sizeof(link_map) + m.headers_bytes; };
  for (std::size_t begin = staying.all, end = staying.all; begin < marks.size(); begin = end) {
    std::size_t count = 0;
    for (std::size_t length = 0; end < marks.size(); ++end) {
      length += bytes_of(marks[end]);
      if (count + 2 > pieces.size() || length > bytes.size()) break;
      pieces[count++] = {marks[end].entry, sizeof(link_map)};
      pieces[count++] = {marks[end].headers, marks[end].headers_bytes};
    }
    if (!os::read_pieces_maybe_unmapped(bytes.data(), {pieces.data(), count})) return false;
    const char* at = bytes.data();
    for (std::size_t i = begin; i < end; at += bytes_of(marks[i]), ++i) {
      const ModuleMark& mark = marks[i];
      link_map entry;
      std::memcpy(&entry, at, sizeof entry);
      if (entry.l_addr != mark.load_address || entry.l_ld != mark.dynamic ||
          entry.l_next != next_of(i))
        return false;
      std::uint64_t sum = sum_of(at + sizeof entry, mark.headers_bytes);
      if (mark.headers == nullptr) {
        const os::LoadedRange range = os::loaded_range_of(mark.dynamic);
        const ElfW(Phdr) header = whole(range, mark.load_address);
        sum = sum_of(&header, range.begin != nullptr ? sizeof header : 0);
      }
      if (sum != mark.headers_sum) return false;
    }
  }
  return true;
}

}  // namespace tricolor::impl
