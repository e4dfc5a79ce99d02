#include "roots/segments.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

using tricolor::impl::LoaderLock;
using tricolor::impl::Metadata;
using tricolor::impl::Segment;
using tricolor::impl::SegmentList;
using tricolor::impl::TlsBlocks;

namespace {

int target;
int* in_data = &target;
std::array<int*, 1000> in_bss;
int* const relocated_constant = &target;
thread_local int* in_tls;
thread_local int* in_tls_data = &target;

const Segment* segment_of(const SegmentList& list, const void* p) {
  for (const Segment& segment : list) {
    if (segment.begin <= p && p < segment.end) return &segment;
  }
  return nullptr;
}

template <class Blocks>
bool contains(const Blocks& blocks, const void* p) {
  return std::any_of(blocks.begin(), blocks.end(),
                     [p](const auto& b) { return b.begin <= p && p < b.end; });
}

// The library that meson builds beside this program.
std::string module_path() {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
  const std::string program(path, length > 0 ? static_cast<std::size_t>(length) : 0);
  return program.substr(0, program.rfind('/')) + "/libroots_module.so";
}

}  // namespace

TEST_CASE("the program's writable globals are in its segments") {
  Metadata metadata;
  SegmentList list(metadata);
  REQUIRE(list.update());
  for (const void* global :
       {static_cast<const void*>(&in_data), static_cast<const void*>(&in_bss[0]),
        static_cast<const void*>(&in_bss[999])}) {
    REQUIRE(segment_of(list, global) != nullptr);
  }
}

TEST_CASE("constants, code, the stack and the heap are in no segment") {
  Metadata metadata;
  SegmentList list(metadata);
  REQUIRE(list.update());
  const std::vector<int> heap(100);
  const int local = 0;
  static const int constant = 3;
  CHECK(segment_of(list, &constant) == nullptr);
  CHECK(segment_of(list, reinterpret_cast<const void*>(&module_path)) == nullptr);
  CHECK(segment_of(list, &local) == nullptr);
  CHECK(segment_of(list, heap.data()) == nullptr);
}

TEST_CASE("what the loader made read-only after relocation is left out") {
  Metadata metadata;
  SegmentList list(metadata);
  REQUIRE(list.update());
  CHECK(*const_cast<int* const volatile*>(&relocated_constant) == &target);
  CHECK(segment_of(list, &relocated_constant) == nullptr);
}

TEST_CASE("segments are whole words, not empty, and do not overlap") {
  Metadata metadata;
  SegmentList list(metadata);
  REQUIRE(list.update());
  std::vector<Segment> all(list.begin(), list.end());
  std::sort(all.begin(), all.end(),
            [](const Segment& a, const Segment& b) { return a.begin < b.begin; });
  REQUIRE(all.size() > 1);
  for (std::size_t i = 0; i < all.size(); ++i) {
    CHECK(reinterpret_cast<std::uintptr_t>(all[i].begin) % sizeof(void*) == 0);
    CHECK(all[i].begin < all[i].end);
    if (i > 0) CHECK(all[i - 1].end <= all[i].begin);
  }
}

TEST_CASE("the globals of libraries are in segments") {
  Metadata metadata;
  SegmentList list(metadata);
  REQUIRE(list.update());
  REQUIRE(segment_of(list, stdout) != nullptr);  // a FILE inside libc's data
}

namespace {

// Of what is writable of the library in that file: the last byte. Null when it is not loaded.
const char* writable_of(const std::string& path) {
  struct Search {
    const std::string& path;
    const char* found = nullptr;
  } search{path};
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* argument) {
        auto& wanted = *static_cast<Search*>(argument);
        if (std::string(info->dlpi_name).find(wanted.path) == std::string::npos) return 0;
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& header = info->dlpi_phdr[i];
          if (header.p_type == PT_LOAD && (header.p_flags & PF_W) != 0)
            wanted.found = reinterpret_cast<const char*>(info->dlpi_addr + header.p_vaddr +
                                                         header.p_memsz - sizeof(void*));
        }
        return 1;
      },
      &search);
  return search.found;
}

}  // namespace

// libunwind needs it, and nothing else does: it comes behind the loader.
TEST_CASE("a library that only a library needs stays, a copy of it that is opened later does not") {
  const char* const own = writable_of("/liblzma.so.5");
  if (own == nullptr) {
    WARN("skipped: libunwind does not need liblzma here");
    return;
  }
  Metadata metadata;
  SegmentList list(metadata);
  REQUIRE(list.update());
  REQUIRE(segment_of(list, own) != nullptr);
  CHECK_FALSE(segment_of(list, own)->opened_later);
  CHECK_FALSE(segment_of(list, stdout)->opened_later);

  Dl_info info;
  REQUIRE(dladdr(own, &info) != 0);
  const auto folder =
      std::filesystem::temp_directory_path() / ("tricolor_segments_" + std::to_string(getpid()));
  std::filesystem::create_directory(folder);
  const std::string copy = folder / "liblzma.so.5";
  std::filesystem::copy_file(info.dli_fname, copy);
  void* const library = dlopen(copy.c_str(), RTLD_NOW | RTLD_LOCAL);
  std::filesystem::remove_all(folder);
  REQUIRE(library != nullptr);
  const char* const other = writable_of(copy);
  REQUIRE(other != own);
  REQUIRE(list.update());
  CHECK_FALSE(segment_of(list, own)->opened_later);
  REQUIRE(segment_of(list, other) != nullptr);
  CHECK(segment_of(list, other)->opened_later);
  dlclose(library);
  CHECK(list.may_be_outdated());
  REQUIRE(list.update());
  CHECK(segment_of(list, other) == nullptr);
}

TEST_CASE("a library that is opened after the first listing comes, and goes when it is closed") {
  Metadata metadata;
  SegmentList list(metadata);
  REQUIRE(list.update());
  const auto before = list.end() - list.begin();

  void* const library = dlopen(module_path().c_str(), RTLD_NOW | RTLD_LOCAL);
  INFO(module_path());
  REQUIRE(library != nullptr);
  const auto address = [library](const char* name) -> const void* {
    return reinterpret_cast<void* (*)()>(dlsym(library, name))();
  };
  const void* const data = address("module_data");
  const void* const bss = address("module_bss");
  const void* const constant = address("module_constant");
  CHECK(segment_of(list, data) == nullptr);
  CHECK(list.may_be_outdated());
  REQUIRE(list.update());
  CHECK_FALSE(list.may_be_outdated());
  REQUIRE(segment_of(list, data) != nullptr);
  CHECK(segment_of(list, bss) != nullptr);
  CHECK(segment_of(list, constant) == nullptr);
  CHECK(list.end() - list.begin() > before);

  REQUIRE(list.update());  // nothing has changed
  CHECK(segment_of(list, data) != nullptr);

  REQUIRE(dlclose(library) == 0);
  REQUIRE(list.update());
  CHECK(segment_of(list, data) == nullptr);
  CHECK(list.end() - list.begin() == before);
  CHECK(segment_of(list, &in_data) != nullptr);
}

TEST_CASE("a library that goes while another one comes leaves no stale segment") {
  Metadata metadata;
  SegmentList list(metadata);
  for (int i = 0; i < 20; ++i) {
    void* const library = dlopen(module_path().c_str(), RTLD_NOW | RTLD_LOCAL);
    REQUIRE(library != nullptr);
    const void* const bss = reinterpret_cast<void* (*)()>(dlsym(library, "module_bss"))();
    REQUIRE(list.update());
    CHECK(segment_of(list, bss) != nullptr);
    REQUIRE(dlclose(library) == 0);
  }
  REQUIRE(list.update());
  void* const library = dlopen(module_path().c_str(), RTLD_NOW | RTLD_LOCAL);
  REQUIRE(library != nullptr);
  const void* const bss = reinterpret_cast<void* (*)()>(dlsym(library, "module_bss"))();
  CHECK(segment_of(list, bss) == nullptr);
  REQUIRE(dlclose(library) == 0);
}

namespace {

const link_map* record_of(void* library) {
  const link_map* record = nullptr;
  REQUIRE(dlinfo(library, RTLD_DI_LINKMAP, &record) == 0);
  return record;
}

const void* bss_of(void* library) {
  return reinterpret_cast<void* (*)()>(dlsym(library, "module_bss"))();
}

}  // namespace

namespace {

// AddressSanitizer keeps what is freed for a while, so that no record comes to lie where another one was. What is seen is
// tested all the same.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kFreedMemoryRests = true;
#else
constexpr bool kFreedMemoryRests = false;
#endif

}  // namespace

TEST_CASE("a library is seen whose record lies where that of a closed one was") {
  Metadata metadata;
  SegmentList list(metadata);
  std::vector<std::pair<void*, std::size_t>> taken;
  constexpr std::size_t kPage = 4096;
  int met = 0;
  for (int i = 0; i < 50 && met < 5; ++i) {
    void* library = dlopen(module_path().c_str(), RTLD_NOW | RTLD_LOCAL);
    REQUIRE(library != nullptr);
    const link_map* const record = record_of(library);
    const std::uintptr_t address = record->l_addr;
    const std::size_t bytes =
        (reinterpret_cast<std::uintptr_t>(bss_of(library)) - address) / kPage * kPage + kPage;
    REQUIRE(list.update());
    CHECK_FALSE(list.may_be_outdated());
    REQUIRE(dlclose(library) == 0);
    // Its place is taken, so that it comes to another one.
    void* const place = mmap(reinterpret_cast<void*>(address), bytes, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    REQUIRE(place != MAP_FAILED);
    taken.emplace_back(place, bytes);
    library = dlopen(module_path().c_str(), RTLD_NOW | RTLD_LOCAL);
    REQUIRE(library != nullptr);
    REQUIRE(record_of(library)->l_addr != address);
    met += record_of(library) == record;
    CHECK(list.may_be_outdated());
    REQUIRE(list.update());
    CHECK(segment_of(list, bss_of(library)) != nullptr);
    REQUIRE(dlclose(library) == 0);
  }
  CHECK((met == 5 || kFreedMemoryRests));
  for (const auto& [place, bytes] : taken) munmap(place, bytes);
}

namespace {

// Makes the library's .bss longer, as if it had been compiled anew.
void grow_bss(const std::string& path, std::size_t bytes) {
  std::ifstream in(path, std::ios::binary);
  std::string file(std::istreambuf_iterator<char>(in), {});
  ElfW(Ehdr) header;
  std::copy_n(file.data(), sizeof header, reinterpret_cast<char*>(&header));
  for (int i = 0; i < header.e_phnum; ++i) {
    char* const at =
        file.data() + header.e_phoff + static_cast<std::size_t>(i) * sizeof(ElfW(Phdr));
    ElfW(Phdr) segment;
    std::copy_n(at, sizeof segment, reinterpret_cast<char*>(&segment));
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) == 0) continue;
    segment.p_memsz += bytes;
    std::copy_n(reinterpret_cast<const char*>(&segment), sizeof segment, at);
  }
  std::ofstream(path, std::ios::binary) << file;
}

}  // namespace

TEST_CASE("a library is seen that was closed, changed and opened again under its name",
          "[kernel]") {
  // The loader's record says nothing new: same place in memory, name, load address, dynamic section. (An emulator's kernel does
  // not give a place again at once.)
  const std::string path =
      std::filesystem::temp_directory_path() / ("tricolor-" + std::to_string(getpid()) + ".so");
  Metadata metadata;
  SegmentList list(metadata);
  int met = 0;
  for (int i = 0; i < 50 && met < 5; ++i) {
    std::filesystem::copy_file(module_path(), path,
                               std::filesystem::copy_options::overwrite_existing);
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    REQUIRE(library != nullptr);
    REQUIRE(list.update());
    const link_map* const record = record_of(library);
    const link_map before = *record;
    const Segment* const segment = segment_of(list, bss_of(library));
    REQUIRE(segment != nullptr);
    const std::ptrdiff_t tail = segment->end - static_cast<const char*>(bss_of(library));
    REQUIRE(dlclose(library) == 0);
    grow_bss(path, 800);  // within the page
    library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    REQUIRE(library != nullptr);
    const link_map& after = *record_of(library);
    met += &after == record && after.l_addr == before.l_addr && after.l_ld == before.l_ld &&
           after.l_prev == before.l_prev;
    CHECK(list.may_be_outdated());
    REQUIRE(list.update());
    CHECK(segment_of(list, static_cast<const char*>(bss_of(library)) + tail + 700) != nullptr);
    REQUIRE(dlclose(library) == 0);
  }
  CHECK((met == 5 || kFreedMemoryRests));
  std::filesystem::remove(path);
}

TEST_CASE("a thread's blocks hold its thread_locals and nobody else's") {
  Metadata metadata;
  const LoaderLock lock = GENERATE(LoaderLock::whole, LoaderLock::may_be_lost);
  TlsBlocks mine;
  REQUIRE(mine.list(metadata, lock));
  CHECK(contains(mine, &in_tls));
  CHECK(contains(mine, &in_tls_data));
  CHECK_FALSE(contains(mine, &in_data));

  std::thread([&] {
    TlsBlocks theirs;
    REQUIRE(theirs.list(metadata, lock));
    CHECK(contains(theirs, &in_tls));
    CHECK(contains(theirs, &in_tls_data));
    CHECK_FALSE(contains(mine, &in_tls));
    theirs.free(metadata);
  }).join();
  mine.free(metadata);
  CHECK(mine.begin() == mine.end());
}

TEST_CASE("listing a thread's blocks again finds the same, and freeing twice does no harm") {
  Metadata metadata;
  const LoaderLock lock = GENERATE(LoaderLock::whole, LoaderLock::may_be_lost);
  TlsBlocks blocks;
  REQUIRE(blocks.list(metadata, lock));
  const auto count = blocks.end() - blocks.begin();
  REQUIRE(blocks.list(metadata, lock));
  CHECK(blocks.end() - blocks.begin() == count);
  CHECK(contains(blocks, &in_tls));
  blocks.free(metadata);
  blocks.free(metadata);
  REQUIRE(blocks.list(metadata, lock));
  CHECK(contains(blocks, &in_tls));
  blocks.free(metadata);
}
