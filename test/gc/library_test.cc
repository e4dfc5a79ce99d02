// Libraries that are opened and closed while the program collects: who stays, who goes. The linker names no such library here;
// each case is a process of its own, since a library that stays does so for good.
#include "roots/libraries.h"

#include <dlfcn.h>
#include <link.h>
#include <tricolor/gc.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "test/gc/support.h"

using namespace tricolor::test;

namespace {

bool is_loaded(const std::string& path) {
  void* const library = dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  if (library != nullptr) dlclose(library);
  return library != nullptr;
}

// gc/module.cc, opened.
struct Library {
  void* handle;
  void* (*list)(std::uint64_t length);
  std::uint64_t (*sum)(void* list);
  void (*set)(int slot, std::uint64_t value);
  std::uint64_t (*value)(int slot);

  explicit Library(const std::string& path)
      : handle(gc::blocking_call([&] { return dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL); })) {
    if (handle == nullptr) FAIL(dlerror());
    list = reinterpret_cast<decltype(list)>(dlsym(handle, "module_list"));
    sum = reinterpret_cast<decltype(sum)>(dlsym(handle, "module_sum"));
    set = reinterpret_cast<decltype(set)>(dlsym(handle, "module_set"));
    value = reinterpret_cast<decltype(value)>(dlsym(handle, "module_value"));
  }
  void close() {
    gc::blocking_call([this] { dlclose(handle); });
  }
};

// Copies of a library, each of which the loader takes for another one.
class Copies {
 public:
  explicit Copies(const std::string& name, int count) {
    std::string pattern = std::filesystem::temp_directory_path() / "tricolor-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) FAIL("no directory for copies of the library");
    x_folder = pattern;
    for (int i = 0; i < count; ++i) {
      std::filesystem::copy_file(beside_this_program(name.c_str()), path(i));
    }
  }
  Copies(const Copies&) = delete;
  Copies& operator=(const Copies&) = delete;
  ~Copies() { std::filesystem::remove_all(x_folder); }
  std::string path(int i) const { return x_folder / (std::to_string(i) + ".so"); }

 private:
  std::filesystem::path x_folder;
};

constexpr std::uint64_t kLength = 100;
constexpr std::uint64_t kSum = kLength * (kLength + 1) / 2;
constexpr int kCopies = 20;

}  // namespace

TEST_CASE("child closes libraries whose types it has used", "[.child]") {
  const Copies copies("libgc_module.so", kCopies);
  struct Kept {
    gc::root<void> list;
    std::uint64_t (*sum)(void*);
  };
  std::vector<Kept> kept;
  {
    const Collector collector;
    for (int i = 0; i < kCopies; ++i) {
      Library library(copies.path(i));
      kept.push_back({library.list(kLength), library.sum});
      library.close();
      CHECK(is_loaded(copies.path(i)));
    }
    int whole = 0;
    const int rounds = static_cast<int>(many(1'000));
    for (int i = 0; i < rounds; ++i) {
      Library library(copies.path(i % kCopies));
      gc::root<void> list = library.list(kLength);
      library.close();
      if (i % 10 == 0) gc::collect();
      whole += library.sum(list) == kSum;  // its code is still there
    }
    CHECK(whole == rounds);
  }
  collect();
  for (const Kept& k : kept) CHECK(k.sum(k.list) == kSum);
}

TEST_CASE("a library whose types are in use stays when it is closed, and their objects are traced",
          "[process]") {
  const ProgramEnd end = run_program("child closes libraries whose types it has used");
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child uses a library's type first inside critical", "[.child]") {
  const std::string path = beside_this_program("libgc_module.so");
  Library library(path);
  gc::root<void> list;
  {
    const gc::critical section;
    list = library.list(kLength);
  }
  library.close();
  REQUIRE(is_loaded(path));
  for (int i = 0; i < 10; ++i) gc::collect();
  CHECK(library.sum(list) == kSum);
}

TEST_CASE("a library whose type is first used inside gc::critical stays too", "[process]") {
  const ProgramEnd end = run_program("child uses a library's type first inside critical");
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

namespace {

// The library's static keeps an object of the program's own type; `see` lets a cycle find it.
void close_library_with_root(void (*see)()) {
  const std::string path = beside_this_program("libgc_module_roots.so");
  const auto load = [&] {
    void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) FAIL(dlerror());
    return handle;
  };
  // Nothing managed in it: it goes.
  void* library = load();
  gc::collect();
  dlclose(library);
  CHECK_FALSE(is_loaded(path));
  library = load();
  void** const slot = reinterpret_cast<void** (*)()>(dlsym(library, "module_bss"))();
  Hidden object;
  on_thread([&] {
    Node* const node = make_node(41);
    *slot = node;
    object = Hidden(node);
  });
  see();
  dlclose(library);
  REQUIRE(is_loaded(path));
  for (int i = 0; i < 10; ++i) collect();
  CHECK(alive(object));
  CHECK(intact(static_cast<Node*>(*slot), 41));
}

}  // namespace

TEST_CASE("child collects and closes a library whose static holds a root", "[.child]") {
  close_library_with_root(collect);
}
TEST_CASE("child closes a library whose static holds a root after cycles that were due",
          "[.child]") {
  gc::set_min_heap(0);
  close_library_with_root([] {
    const std::uint64_t cycles = gc::stats().cycles_total;
    while (gc::stats().cycles_total < cycles + 2) gc::make_array<char>(10'000);
    // A thread of its own pins the library, a little later: it has ended when nothing of it is left in /proc.
    const auto is_pinning = [] {
      for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
        char name[32];
        const int id = std::stoi(task.path().filename());
        if (tricolor::impl::os::thread_name(id, name, sizeof name) == "tricolor pin") return true;
      }
      return false;
    };
    for (int i = 0; i < 50 || is_pinning(); ++i) usleep(1'000);
  });
}

TEST_CASE("a library in whose statics a cycle has found roots stays when it is closed",
          "[process]") {
  const ProgramEnd end = run_program(
      GENERATE("child collects and closes a library whose static holds a root",
               "child closes a library whose static holds a root after cycles that were due"));
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child closes many libraries whose types or statics are in use", "[.child]") {
  // Each is another library to the loader, and each is closed while others collect. Their files go when they are open.
  const int rounds = event_rounds();
  struct Kept {
    std::string types_path;
    std::string statics_path;
    gc::root<void> list;  // of a type of the one library
    std::uint64_t (*sum)(void*);
    void** slot;  // in the other: all that keeps its object
  };
  std::vector<Kept> kept;
  int gone = 0;
  {
    const Collector collector;
    for (int i = 0; i < rounds; ++i) {
      const Copies types("libgc_module.so", 1);
      const Copies statics("libgc_module_roots.so", 1);
      Library library(types.path(0));
      void* const with_root =
          gc::blocking_call([&] { return dlopen(statics.path(0).c_str(), RTLD_NOW | RTLD_LOCAL); });
      REQUIRE(with_root != nullptr);
      kept.push_back({types.path(0), statics.path(0), library.list(kLength), library.sum,
                      reinterpret_cast<void** (*)()>(dlsym(with_root, "module_bss"))()});
      *kept.back().slot = make_node(static_cast<std::uint64_t>(i));
      collect();  // finds what the static holds
      library.close();
      gc::blocking_call([&] { dlclose(with_root); });
      gone += !is_loaded(kept.back().types_path) || !is_loaded(kept.back().statics_path);
      if (gone != 0) break;  // what follows would crash
      if (i % 10 != 0) continue;
      const Kept& before = kept[kept.size() / 2];
      CHECK(before.sum(before.list) == kSum);
      CHECK(intact(static_cast<Node*>(*before.slot), kept.size() / 2));
    }
  }
  REQUIRE(gone == 0);
  collect();
  int whole = 0;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    // The files are long gone: what is loaded is what was opened then.
    whole += is_loaded(kept[i].types_path) && is_loaded(kept[i].statics_path) &&
             kept[i].sum(kept[i].list) == kSum && alive(Hidden(*kept[i].slot)) &&
             intact(static_cast<Node*>(*kept[i].slot), i);
  }
  CHECK(whole == rounds);
}

TEST_CASE(
    "a thousand libraries whose types or statics are in use stay when they are closed while others "
    "collect, and nothing of theirs is lost",
    "[process][events]") {
  // The loader's list is long enough, and the time that it costs grows faster than it.
  constexpr int kAtOnce = 250;
  for (int left = event_rounds(); left > 0; left -= kAtOnce) {
    const ProgramEnd end =
        run_program("child closes many libraries whose types or statics are in use",
                    {{"TRICOLOR_TEST_EVENTS", std::to_string(std::min(left, kAtOnce))}});
    INFO(end.output);
    REQUIRE(end.exit_code == 0);
  }
}

TEST_CASE("child opens and closes a library that knows nothing of it", "[.child]") {
  const std::string path = beside_this_program("libgc_module_roots.so");
  int still_there = 0;
  {
    const Collector collector;
    const int rounds = static_cast<int>(many(1'000));
    for (int i = 0; i < rounds; ++i) {
      void* const library =
          gc::blocking_call([&] { return dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL); });
      REQUIRE(library != nullptr);
      make_node(1);
      if (i % 10 == 0) gc::collect();
      gc::blocking_call([&] { dlclose(library); });
      still_there += is_loaded(path);
    }
  }
  CHECK(still_there == 0);
}

TEST_CASE("a library without types and roots is unloaded, a thousand times, while others collect",
          "[process]") {
  const ProgramEnd end = run_program("child opens and closes a library that knows nothing of it");
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child has a constructor that waits for cycles", "[.child]") {
  // Threads make every cycle find roots in a new library, and constructors, with the loader's lock, wait for cycles.
  gc::set_min_heap(0);
  const Copies roots("libgc_module_roots.so", kCopies);
  const Copies constructors("libgc_module_collects.so", kCopies);
  std::atomic<bool> end{false};
  std::thread churn = start_thread([&] {
    while (!end) gc::make_array<char>(10'000);
  });
  std::thread opener = start_thread([&] {
    for (int i = 0; i < kCopies; ++i) {
      // The loader's lock is held by constructors that collect.
      void** const slot = gc::blocking_call([&]() -> void** {
        void* const library = dlopen(roots.path(i).c_str(), RTLD_NOW | RTLD_LOCAL);
        if (library == nullptr) std::abort();
        return reinterpret_cast<void** (*)()>(dlsym(library, "module_bss"))();
      });
      *slot = make_node(1);
      for (int k = 0; k < 200; ++k) gc::make_array<char>(10'000);
    }
  });
  for (int i = 0; i < kCopies; ++i) {
    void* const library = dlopen(constructors.path(i).c_str(), RTLD_NOW | RTLD_LOCAL);
    REQUIRE(library != nullptr);
    CHECK(reinterpret_cast<bool (*)()>(dlsym(library, "module_intact"))());
  }
  join(opener);
  end = true;
  join(churn);
}

TEST_CASE("libraries are pinned while constructors of others allocate and collect", "[process]") {
  const ProgramEnd end = run_program("child has a constructor that waits for cycles");
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child opens a library between the list of segments and the stop", "[.child]") {
  collect();
  const auto before = gc::stats();
  std::thread collector;
  void* library = nullptr;
  {
    const gc::critical section;
    collector = std::thread([] { gc::collect(); });
    const auto& note = tricolor::detail::current_cache->stop_note;
    while (note.load() == 0) std::this_thread::yield();
    // The stop waits for us, and the list has been made.
    library = dlopen(beside_this_program("libgc_module_roots.so").c_str(), RTLD_NOW | RTLD_LOCAL);
    const std::uint64_t begin_ns = tricolor::impl::os::now_ns();
    while (tricolor::impl::os::now_ns() - begin_ns < 2'000'000) std::this_thread::yield();
  }
  join(collector);
  REQUIRE(library != nullptr);
  const auto now = gc::stats();
  CHECK(now.cycles_total == before.cycles_total + 1);
  CHECK(now.first_pauses.total_count() == before.first_pauses.total_count() + 2);
  CHECK(now.last_pauses.total_count() >= before.last_pauses.total_count() + 1);
  CHECK(now.pauses.total_count() == now.first_pauses.total_count() + now.last_pauses.total_count());
  CHECK(now.stops.total_count() == now.pauses.total_count());
  // The longest was the one in vain, of which most was the stop.
  CHECK(now.stop_ns_max >= 2'000'000);
  CHECK(now.pause_ns_last >= 2'000'000);
  CHECK(now.pause_ns_max >= now.pause_ns_last);
  CHECK(now.pause_ns_total >= before.pause_ns_total + now.pause_ns_last);
  CHECK(now.pause_cpu_ns_total >= before.pause_cpu_ns_total + now.pause_ns_last);
}

TEST_CASE("a stop that is done again for a library that was opened meanwhile is counted twice",
          "[process]") {
  const ProgramEnd end =
      run_program("child opens a library between the list of segments and the stop");
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

namespace {

// Runs fn in a callback of the loader's, under its lock.
template <class F>
void inside_loader(F fn) {
  dl_iterate_phdr(
      [](dl_phdr_info*, std::size_t, void* f) {
        (*static_cast<F*>(f))();
        return 1;
      },
      &fn);
}

}  // namespace

TEST_CASE("child collects inside a callback of the loader", "[.child]") {
  tricolor::impl::os::kill_process_after(120);  // if it hangs
  gc::set_min_heap(0);
  gc::collect();
  void* const library =
      dlopen(beside_this_program("libgc_module_roots.so").c_str(), RTLD_NOW | RTLD_LOCAL);
  REQUIRE(library != nullptr);
  void** const slot = reinterpret_cast<void** (*)()>(dlsym(library, "module_bss"))();
  inside_loader([&] {  // the list of segments is outdated
    *slot = make_node(1);
    for (int i = 0; i < 10; ++i) collect();
    const std::uint64_t cycles = gc::stats().cycles_total;
    while (gc::stats().cycles_total < cycles + 3) gc::make_array<char>(10'000);
  });
  CHECK(intact(static_cast<Node*>(*slot), 1));
}

TEST_CASE("child collects inside callbacks of the loader beside others", "[.child]") {
  // Cycles that others have asked for, threads that attach meanwhile and wait for the loader.
  tricolor::impl::os::kill_process_after(120);
  const Copies copies("libgc_module_roots.so", kCopies);
  std::atomic<bool> end{false};
  std::thread attaching = start_thread([&] {
    while (!end) on_thread([] { make_node(1); });
  });
  {
    const Collector collector;
    for (int i = 0; i < kCopies; ++i) {
      void* const library =
          gc::blocking_call([&] { return dlopen(copies.path(i).c_str(), RTLD_NOW | RTLD_LOCAL); });
      REQUIRE(library != nullptr);
      for (int k = 0; k < 5; ++k) {
        inside_loader([] {
          Node* const node = make_node(3);
          gc::collect();
          if (!intact(node, 3)) std::abort();
        });
      }
      if (i % 2 == 0) gc::blocking_call([&] { dlclose(library); });
    }
    end = true;
    join(attaching);
  }
}

TEST_CASE("a collection inside a callback of dl_iterate_phdr does not wait for the loader",
          "[process]") {
  const ProgramEnd end =
      run_program(GENERATE("child collects inside a callback of the loader",
                           "child collects inside callbacks of the loader beside others"));
  INFO(end.output);
  CHECK(end.exit_code == 0);
  CHECK(end.signal == 0);
}
