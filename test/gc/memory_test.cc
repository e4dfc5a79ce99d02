// Limits, and memory that ends.
#include <tricolor/heap.h>

#include <sys/resource.h>
#include <tricolor/gc.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "alloc/base/os.h"
#include "test/gc/support.h"

using namespace tricolor::test;
namespace os = tricolor::impl::os;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

// A list that grows until memory ends, or to `most` nodes. Returns its length.
std::uint64_t grow_until_refused(gc::root<Node>& list, std::uint64_t most) {
  std::uint64_t length = 0;
  try {
    while (length < most) {
      list = make_node(length, list);
      ++length;
    }
  } catch (const std::bad_alloc&) {
  }
  return length;
}

bool all_intact(const Node* list, std::uint64_t length) {
  for (; list != nullptr; list = list->next) {
    if (length == 0 || !intact(list, --length)) return false;
  }
  return length == 0;
}

// Fills memory, loses nothing, and goes on when something is dropped; three times.
void check_end_of_memory(std::uint64_t least, std::uint64_t most) {
  for (int round = 0; round < 3; ++round) {
    gc::root<Node> list;
    std::uint64_t length = 0;
    std::uint64_t again = 0;
    const std::uint64_t cycles = gc::stats().cycles_forced;
    on_thread([&] {
      length = grow_until_refused(list, most);
      again = grow_until_refused(list, 0);
    });
    INFO("round " << round);
    CHECK(gc::stats().cycles_forced > cycles);  // before it said no
    CHECK(length >= least);
    CHECK(length < most);
    CHECK(again == 0);
    CHECK(all_intact(list, length));
    CHECK_THROWS_AS(gc::make_array<char>(least * sizeof(Node)), std::bad_alloc);
    CHECK(all_intact(list, length));
    // Half of it goes, and as much can be had again, in another shape.
    Node* middle = list;
    for (std::uint64_t i = 0; i < length / 2; ++i) middle = middle->next;
    middle->next = nullptr;
    middle = nullptr;
    scrub_stack();
    std::vector<gc::root<char>> arrays;
    for (std::uint64_t bytes = 0; bytes < length / 4 * sizeof(Node); bytes += 20'000) {
      arrays.emplace_back(gc::make_array<char>(20'000).data());
    }
    CHECK(arrays.size() > 10);
    list = nullptr;
  }
  collect();
}

// A hard limit that leaves so much over what is in use. Returns the old limit.
std::uint64_t set_room(std::uint64_t bytes) {
  const auto now = gc::stats();
  return gc::set_hard_limit(now.heap_mapped_bytes - now.heap_free_bytes + bytes);
}

}  // namespace

TEST_CASE("child reaches the hard limit of the environment", "[.child]") {
  check_end_of_memory(1'000'000, 3'000'000);  // 32 bytes each
  CHECK(gc::stats().heap_mapped_bytes <= 64 * kMiB);
}

TEST_CASE(
    "at the hard limit an allocation collects, then throws bad_alloc; nothing is lost and what is "
    "dropped serves again",
    "[process]") {
  const ProgramEnd end = run_program("child reaches the hard limit of the environment",
                                     {{"TRICOLOR_HARD_LIMIT", "64MiB"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("the hard limit can be set while the program runs") {
  collect();
  gc::root<Node> list;
  const std::uint64_t room = many(16 * kMiB);
  const std::uint64_t before = set_room(room);
  std::uint64_t length = 0;
  on_thread([&] { length = grow_until_refused(list, 50'000'000); });
  CHECK(length >= room / 64);
  CHECK(length < 50'000'000);
  CHECK(all_intact(list, length));
  CHECK_THROWS_AS(gc::make_array<char>(100 * kMiB), std::bad_alloc);
  gc::set_hard_limit(before);
  CHECK(gc::make_array<char>(100 * kMiB).size() == 100 * kMiB);
  list = nullptr;
  collect();
}

TEST_CASE("threads that meet the hard limit together all get bad_alloc or memory, and none hangs") {
  collect();
  const std::uint64_t before = set_room(many(16 * kMiB));
  std::atomic<int> refused{0};
  std::atomic<int> broken{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.push_back(start_thread([&] {
      for (int i = 0; i < 3; ++i) {
        gc::root<Node> list;
        const std::uint64_t length = grow_until_refused(list, 10'000'000);
        if (length < 10'000'000) ++refused;
        if (!all_intact(list, length)) ++broken;
      }
    }));
  }
  for (std::thread& thread : threads) join(thread);
  gc::set_hard_limit(before);
  CHECK(refused == 12);
  CHECK(broken == 0);
  collect();
}

// ----------------------------------------------------------------------------- the host's callback

namespace {

// What the callbacks below work with; one test at a time.
struct Host {
  std::atomic<int> asked{0};
  std::atomic<int> recursions_refused{0};
  std::atomic<std::size_t> bytes{0};
  std::mutex lock;
  std::vector<gc::root<Node>> spare;  // guarded by lock
  gc::root<Node> partial;

  static Node* list_of(std::uint64_t nodes) {
    Node* list = nullptr;
    for (std::uint64_t i = 0; i < nodes; ++i) list = make_node(i, list);
    return list;
  }
  // Drops one of what is kept for bad days; false when none is left.
  bool drop_one() {
    gc::root<Node> dropped;
    const auto guard = lock_blocked(lock);
    if (spare.empty()) return false;
    dropped = std::move(spare.back());
    spare.pop_back();
    return true;
  }
};

Host* host = nullptr;

// Sets the callback and little room, and puts both back.
class EndOfMemory {
 public:
  EndOfMemory(gc::out_of_memory_callback callback, std::uint64_t room) {
    collect();
    x_limit = set_room(room);
    x_before = gc::set_out_of_memory_callback(callback);
  }
  EndOfMemory(const EndOfMemory&) = delete;
  EndOfMemory& operator=(const EndOfMemory&) = delete;
  ~EndOfMemory() {
    gc::set_out_of_memory_callback(x_before);
    gc::set_hard_limit(x_limit);
  }

 private:
  std::uint64_t x_limit = 0;
  gc::out_of_memory_callback x_before = nullptr;
};

constexpr std::uint64_t kRoom = 2 * kMiB;
constexpr std::uint64_t kNever = 50'000'000;  // nodes

}  // namespace

TEST_CASE("the out-of-memory callback is asked after a full collection, and what it drops serves") {
  Host own;
  host = &own;
  on_thread([&] {
    for (int i = 0; i < 10; ++i) own.spare.emplace_back(Host::list_of(20'000));  // 640 KB each
  });
  gc::root<Node> list;
  std::uint64_t length = 0;
  {
    const EndOfMemory end(
        [](std::size_t bytes) {
          ++host->asked;
          host->bytes = bytes;
          return host->drop_one();
        },
        kRoom);
    const std::uint64_t cycles = gc::stats().cycles_forced;
    on_thread([&] { length = grow_until_refused(list, kNever); });
    CHECK(own.asked == 11);  // ten times it helped
    CHECK(own.bytes == sizeof(Node));
    CHECK(gc::stats().cycles_forced >= cycles + 11);
  }
  CHECK(length >= 200'000);
  CHECK(length < kNever);
  CHECK(all_intact(list, length));
  list = nullptr;
  collect();
}

TEST_CASE("a callback that gives up at once is asked once for each allocation that fails") {
  Host own;
  host = &own;
  gc::root<Node> list;
  std::uint64_t length = 0;
  {
    const EndOfMemory end(
        [](std::size_t bytes) {
          ++host->asked;
          host->bytes = bytes;
          return false;
        },
        kRoom);
    on_thread([&] { length = grow_until_refused(list, kNever); });
    CHECK(own.asked == 1);
    CHECK_THROWS_AS(gc::make_array<char>(100 * kMiB), std::bad_alloc);
    CHECK(own.asked == 2);
    CHECK(own.bytes >= 100 * kMiB);
    {
      const gc::critical section;  // no collection in here, no callback either
      CHECK_THROWS_AS(gc::make_array<char>(100 * kMiB), std::bad_alloc);
    }
    CHECK(own.asked == 2);
  }
  CHECK(all_intact(list, length));
  CHECK(gc::make_array<char>(100 * kMiB).size() == 100 * kMiB);
  CHECK(own.asked == 2);
  list = nullptr;
  collect();
}

TEST_CASE(
    "a callback's exception passes through the allocation, a thousand times, and nothing is lost") {
  Host own;
  host = &own;
  gc::root<Node> list;
  std::uint64_t length = 0;
  struct Enough {
    int times;
  };
  {
    const EndOfMemory end([](std::size_t) -> bool { throw Enough{++host->asked}; }, kRoom / 8);
    on_thread([&] {
      const int rounds = static_cast<int>(many(1'000));
      for (int i = 1; i <= rounds; ++i) {
        try {
          for (;;) {
            list = make_node(length, list);
            ++length;
          }
        } catch (const Enough& enough) {
          if (enough.times != i) break;
        }
      }
      CHECK(own.asked == rounds);
    });
  }
  CHECK(all_intact(list, length));
  list = nullptr;
  collect();
}

TEST_CASE(
    "a callback may allocate and collect; when that fails it gets bad_alloc and is not asked "
    "again") {
  Host own;
  host = &own;
  gc::root<Node> list;
  std::uint64_t length = 0;
  {
    const EndOfMemory end(
        [](std::size_t) {
          ++host->asked;
          try {
            for (;;) host->partial = make_node(1, host->partial);
          } catch (const std::bad_alloc&) {
            ++host->recursions_refused;
          }
          gc::collect();
          host->partial = nullptr;
          return host->asked < 3;
        },
        kRoom);
    on_thread([&] { length = grow_until_refused(list, kNever); });
    CHECK(own.asked == 3);
    CHECK(own.recursions_refused == 3);
  }
  CHECK(all_intact(list, length));
  list = nullptr;
  collect();
}

TEST_CASE("threads that run out of memory together are all asked, a thousand times") {
  Host own;
  host = &own;
  std::atomic<int> lost{0};
  std::atomic<int> failed{0};
  const int rounds = static_cast<int>(many(250));
  // Nodes: together the four threads want more than there is (16,384). Unequal, as four that want the same and collect in
  // step (stress=n) can all be refused at a quarter of what there is, every time.
  constexpr std::uint64_t kList = 2'000;
  {
    const EndOfMemory end(
        [](std::size_t) {
          ++host->asked;
          return host->drop_one();
        },
        kRoom / 4);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.push_back(start_thread([&, wanted = (t + 1) * kList] {
        for (int i = 0; i < rounds; ++i) {
          // Fills what there is and keeps it for others' bad days, or drops it when it is refused.
          gc::root<Node> list;
          std::uint64_t length = 0;
          const bool full = [&] {
            length = grow_until_refused(list, wanted);
            return length < wanted;
          }();
          if (full) ++failed;
          if (!all_intact(list, length)) ++lost;
          if (full) continue;
          const auto guard = lock_blocked(own.lock);
          own.spare.push_back(std::move(list));
        }
      }));
    }
    for (std::thread& thread : threads) join(thread);
    CHECK(own.asked > rounds);
    INFO("refused " << failed << " of " << 4 * rounds);
    CHECK(failed < 4 * rounds);
  }
  CHECK(lost == 0);
  own.spare.clear();
  collect();
}

// ------------------------------------------------------------------------------ the kernel says no

namespace {

// What /proc/self/statm says: its first number is of the address space, its sixth of writable memory that is no file's.
std::uint64_t statm_bytes(int number) {
  std::FILE* const file = std::fopen("/proc/self/statm", "r");
  unsigned long pages = 0;
  for (int i = 0; i < number && file != nullptr; ++i) {
    if (std::fscanf(file, "%lu", &pages) != 1) pages = 0;
  }
  if (file != nullptr) std::fclose(file);
  return std::uint64_t{pages} * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}
std::uint64_t virtual_bytes() { return statm_bytes(1); }
std::uint64_t data_bytes() { return statm_bytes(6); }

void limit(decltype(RLIMIT_AS) which, std::uint64_t bytes) {
  const rlimit both{bytes, bytes};
  REQUIRE(setrlimit(which, &both) == 0);
}

}  // namespace

TEST_CASE("child has a limited address space", "[.child]") {
  make_node(1);
  limit(RLIMIT_AS, virtual_bytes() + 200 * kMiB);
  check_end_of_memory(1'000'000, 7'000'000);
}
TEST_CASE("child has limited data", "[.child]") {
  make_node(1);
  limit(RLIMIT_DATA, 100 * kMiB);
  check_end_of_memory(1'000'000, 4'000'000);
}
TEST_CASE("child has no memory from the start", "[.child]") {
  limit(RLIMIT_AS, virtual_bytes() + 2 * kMiB);
  CHECK_THROWS_AS(gc::make<Node>(), std::bad_alloc);
  CHECK_THROWS_AS(gc::make<Node>(), std::bad_alloc);
  CHECK_THROWS_AS(gc::collect(), std::bad_alloc);
  CHECK(gc::stats().cycles_total == 0);
}
TEST_CASE("child is asked when the kernel refuses", "[.child]") {
  make_node(1);
  static gc::root<char> spare;
  static int asked = 0;
  spare = gc::make_array<char>(64 * kMiB).data();
  limit(RLIMIT_AS, virtual_bytes() + 70 * kMiB);
  gc::set_out_of_memory_callback([](std::size_t) {
    ++asked;
    if (!spare) return false;
    spare = nullptr;
    return true;
  });
  gc::root<Node> list;
  std::uint64_t length = 0;
  on_thread([&] { length = grow_until_refused(list, kNever); });
  CHECK(asked == 2);
  CHECK(length >= 2'000'000);
  CHECK(all_intact(list, length));
}
TEST_CASE("child cannot start threads", "[.child]") {
  // Memory for the heap is there; another thread's stack is not.
  make_node(1);
  gc::make_array<char>(10 * kMiB);
  limit(RLIMIT_AS, virtual_bytes() + 4 * kMiB);
  gc::root<Node> list;
  for (std::uint64_t i = 0; i < 300'000; ++i) {
    list = make_node(i % 1'000, i % 1'000 == 0 ? nullptr : list.get());
    if (i % 100'000 == 0) gc::collect();
  }
  CHECK(all_intact(list, 1'000));
  CHECK(gc::stats().cycles_total >= 3);
}
TEST_CASE("child is refused memory again and again", "[.child]") {
  make_node(1);
  constexpr std::uint64_t kLength = 10'000;
  gc::root<Node> list;
  REQUIRE(grow_until_refused(list, kLength) == kLength);
  std::atomic<bool> end{false};
  std::atomic<int> lost{0};
  std::thread beside = start_thread([&] {
    while (!end) {
      gc::root<Node> own;
      const std::uint64_t length = grow_until_refused(own, kLength);
      if (!all_intact(own, length)) ++lost;
    }
  });
  limit(RLIMIT_AS, virtual_bytes() + 100 * kMiB);
  int refused = 0;
  const int rounds = event_rounds();
  for (int round = 0; round < rounds; ++round) {
    try {
      gc::make_array<char>(200 * kMiB);
    } catch (const std::bad_alloc&) {
      ++refused;
    }
    if (!all_intact(list, kLength)) ++lost;
  }
  end = true;
  join(beside);
  CHECK(refused == rounds);
  CHECK(lost == 0);
}

namespace {

// Memory is filled until the kernel refuses more; the callback drops some of it, and the second attempt succeeds. Again and
// again, beside a thread that allocates, too, and may be quicker to take what has been dropped: then the callback is asked once
// more. So there is room for many pieces. `forbid` limits the process to what it has and that.
void check_second_attempts(void (*forbid)()) {
  constexpr std::uint64_t kLength = 2'000;
  constexpr std::size_t kPiece = kMiB;
  static std::vector<gc::root<char>> pieces;  // guarded by lock
  static std::mutex lock;
  static std::atomic<int> asked = 0;
  gc::root<Node> list;
  REQUIRE(grow_until_refused(list, kLength) == kLength);
  forbid();
  gc::set_out_of_memory_callback([](std::size_t bytes) {
    if (bytes >= kPiece) ++asked;
    const auto guard = lock_blocked(lock);
    if (pieces.size() < 4) return false;
    pieces.resize(pieces.size() - 4);
    return true;
  });
  std::atomic<bool> end{false};
  std::atomic<int> lost{0};
  std::atomic<int> refused{0};  // for good: the callback always has something to drop
  std::thread beside = start_thread([&] {
    while (!end) {
      gc::root<Node> own;
      const std::uint64_t length = grow_until_refused(own, kLength);
      refused += length < kLength;
      if (!all_intact(own, length)) ++lost;
    }
  });
  const int rounds = event_rounds();
  int at_once = 0;
  for (int round = 0; round < rounds && refused == 0; ++round) {
    Node* const fresh = make_node(7);
    const int before = asked;
    while (asked == before && refused == 0) {
      try {
        gc::root<char> piece = gc::make_array<char>(kPiece).data();
        for (std::size_t at = 0; at < kPiece; at += 10'000) refused += piece.get()[at]++ != 0;
        const auto guard = lock_blocked(lock);
        pieces.push_back(std::move(piece));
      } catch (const std::bad_alloc&) {
        ++refused;
      }
    }
    at_once += asked == before + 1;  // nobody has taken first what was dropped
    if (!intact(fresh, 7) || !all_intact(list, kLength)) ++lost;
  }
  end = true;
  join(beside);
  gc::set_out_of_memory_callback(nullptr);
  CHECK(refused == 0);
  CHECK(asked >= rounds);
  CHECK(at_once >= rounds / 10);
  CHECK(lost == 0);
}

}  // namespace

TEST_CASE("child is refused address space and helped again and again", "[.child]") {
  check_second_attempts([] { limit(RLIMIT_AS, virtual_bytes() + 100 * kMiB); });
}
TEST_CASE("child is refused data and helped again and again", "[.child]") {
  check_second_attempts([] { limit(RLIMIT_DATA, data_bytes() + 100 * kMiB); });
}

TEST_CASE("memory that the kernel refuses again and again costs no object and hangs nobody",
          "[process][events]") {
  if (kShadowMemory) {
    WARN("skipped: the sanitizer's own memory stands outside of such limits");
    return;
  }
  const ProgramEnd end =
      run_program(GENERATE("child is refused memory again and again",
                           "child is refused address space and helped again and again",
                           "child is refused data and helped again and again"));
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE(
    "when the kernel refuses memory an allocation collects, then throws bad_alloc; dropped memory "
    "serves again",
    "[process]") {
  if (kShadowMemory) {
    WARN("skipped: the sanitizer's own memory stands outside of such limits");
    return;
  }
  const ProgramEnd end =
      run_program(GENERATE("child has a limited address space", "child has limited data",
                           "child has no memory from the start",
                           "child is asked when the kernel refuses", "child cannot start threads"));
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

// ---------------------------------------------------------------------------------- the soft limit

TEST_CASE("child lives below a memory limit", "[.child]") {
  gc::root<Node> live;
  std::uint64_t most = 0;
  on_thread([&] {
    for (std::uint64_t i = 0; i < 500'000; ++i) live = make_node(i, live);  // 16 MB
    for (int i = 0; i < 50'000; ++i) {
      gc::make_array<char>(20'000);  // 1 GB of garbage
      const auto now = gc::stats();
      most = std::max(most, now.heap_mapped_bytes + now.metadata_bytes);
    }
  });
  INFO("most: " << most);
  // Of the limit, 64 MiB. On an idle machine it is 1 MiB; more where a worker loses its CPU while it sets the price of a byte.
  CHECK(most <= (64 + 16) * kMiB);
  CHECK(gc::stats().cycles_total >= 20);
  CHECK(all_intact(live, 500'000));
}

TEST_CASE("with GOGC off the memory limit alone keeps the heap small", "[process]") {
  const ProgramEnd end =
      run_program("child lives below a memory limit", {{"GOGC", "off"}, {"GOMEMLIMIT", "64MiB"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child storms at the memory limit", "[.child]") {
  // What lives is nearly all that the limit allows: each goal is at once reached again.
  constexpr std::size_t kLists = 64;
  constexpr std::size_t kNodes = 30'000;  // 61 MB, all in all
  const char* const threads = std::getenv("TRICOLOR_TEST_THREADS");
  const bool many_threads = threads != nullptr && std::string(threads) == "many";
  gc::array<gc::ptr<Node>> lists = gc::make_array<gc::ptr<Node>>(kLists);
  std::atomic<std::uint64_t> made = 0;
  on_thread([&] {
    for (std::size_t i = 0; i < kLists * kNodes; ++i)
      lists[i % kLists] = make_node(i, lists[i % kLists]);
  });
  const auto before = gc::stats();
  const std::uint64_t begin_cpu_ns = os::process_cpu_ns();
  const std::uint64_t begin_ns = os::now_ns();
  std::vector<std::thread> storm;
  for (int t = 0; t < (many_threads ? 2 * static_cast<int>(os::cpu_count()) : 1); ++t) {
    storm.push_back(start_thread([&] {
      // With many threads until the limiter is on, as it will be; where the process gets hardly any CPU time that takes longer.
      const auto goes_on = [&] {
        const std::uint64_t ns = os::now_ns() - begin_ns;
        return ns < 8'000'000'000 || (many_threads && ns < 60'000'000'000 &&
                                      gc::stats().limited_cycle_last <= before.cycles_total);
      };
      while (goes_on()) {
        for (int i = 0; i < 1'000; ++i) make_node(1);
        made += 1'000;
      }
    }));
  }
  for (std::thread& thread : storm) join(thread);
  const auto now = gc::stats();
  const std::uint64_t process_ns = os::process_cpu_ns() - begin_cpu_ns;
  const std::uint64_t took_ns = os::now_ns() - begin_ns;
  // With more threads than CPUs there is no CPU that nobody wants.
  const auto collector_ns = [&](const gc::statistics& at) {
    return at.gc_cpu_ns_total + at.scavenge_assist_cpu_ns_total +
           at.scavenge_background_cpu_ns_total - (many_threads ? 0 : at.idle_cpu_ns_total);
  };
  const std::uint64_t spent_ns = collector_ns(now) - collector_ns(before);
  const auto ms = [](std::uint64_t ns) { return static_cast<unsigned long long>(ns / 1'000'000); };
  std::printf(
      "process %llu ms, collector %llu and %llu that nobody wanted; assists %llu; made %llu, "
      "%llu cycles, limited in %llu, mapped %llu\n",
      ms(process_ns), ms(spent_ns), ms(now.idle_cpu_ns_total - before.idle_cpu_ns_total),
      ms(now.assist_cpu_ns_total - before.assist_cpu_ns_total),
      static_cast<unsigned long long>(made), static_cast<unsigned long long>(now.cycles_total),
      static_cast<unsigned long long>(now.limited_cycle_last),
      static_cast<unsigned long long>(now.mapped_bytes));
  CHECK(now.cycles_total - before.cycles_total >= 5);
  // Half of the CPU time that there was. (Of what the process took it is more when the program's threads wait.)
  CHECK(spent_ns <= took_ns * os::cpu_count() / 2);
  if (many_threads) CHECK(now.limited_cycle_last > before.cycles_total);
  CHECK(made >= 500'000);
  for (const auto& list : lists) CHECK(length_of(list) == kNodes);
}

TEST_CASE("a storm at the memory limit goes on, with half of the CPU time at least", "[process]") {
  if (kShadowMemory) {
    WARN("skipped: with a sanitizer eight seconds are a cycle or two");
    return;
  }
  const ProgramEnd end = run_program(
      "child storms at the memory limit",
      {{"GOGC", "off"}, {"GOMEMLIMIT", "64MiB"}, {"TRICOLOR_TEST_THREADS", GENERATE("1", "many")}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
  if (std::getenv("TRICOLOR_TEST_SHOW") != nullptr) std::printf("%s", end.output.c_str());
}

TEST_CASE("an allocation that the memory limit has no room for succeeds") {
  collect();
  const std::uint64_t before = gc::set_memory_limit(kMiB);
  gc::root<char> large;
  on_thread([&] {
    large = gc::make_array<char>(50 * kMiB).data();
    for (int i = 0; i < 100; ++i) make_node(1);
  });
  CHECK(large);
  gc::set_memory_limit(before);
  large = nullptr;
  collect();
}

// -------------------------------------------------------------------------- memory held outside

TEST_CASE("child holds much memory through few objects", "[.child]") {
  // 10,000 buffers of 64 KiB, of which 100 are held at a time; who is dropped is found dead by the next cycle.
  constexpr std::int64_t kBytes = 64 << 10;
  const bool told = std::getenv("TELL") != nullptr;
  gc::root<Node> held;
  std::int64_t most = 0;
  std::int64_t outside = 0;
  std::int64_t dropped = 0;
  on_thread([&] {
    std::uint64_t cycles = 0;
    for (int i = 0; i < 10'000; ++i) {
      held = make_node(1, i % 100 == 0 ? nullptr : held.get());
      if (told) gc::external_memory(kBytes);
      outside += kBytes;
      if (i % 100 == 99) dropped += 100 * kBytes;
      if (const auto now = gc::stats().cycles_total; now != cycles) {
        cycles = now;
        if (told) gc::external_memory(-dropped);
        outside -= dropped;
        dropped = 0;
      }
      most = std::max(most, outside);
    }
  });
  const auto now = gc::stats();
  std::printf("cycles=%llu most=%lld\n", static_cast<unsigned long long>(now.cycles_total),
              static_cast<long long>(most));
  if (told) {
    // What was dropped goes when the next cycle is seen to be over: before anything more is allocated.
    const bool at_limit = std::getenv("GOMEMLIMIT") != nullptr;
    // Globals count for the goal, and a sanitizer has many.
    const auto globals = static_cast<std::int64_t>(now.globals_scanned_bytes);
    CHECK(now.cycles_total >= (at_limit ? 8 : 15));
    CHECK(most <= (at_limit ? (64 + 16) << 20 : (24 << 20) + 2 * globals));
    CHECK(now.external_bytes == static_cast<std::uint64_t>(outside));
  } else {
    CHECK(now.cycles_total == 0);
  }
}

TEST_CASE("memory held outside starts cycles as if it were heap", "[process]") {
  const ProgramEnd silent = run_program("child holds much memory through few objects");
  INFO(silent.output);
  CHECK(silent.exit_code == 0);
  const ProgramEnd end =
      run_program("child holds much memory through few objects", {{"TELL", "1"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("memory held outside counts for the memory limit", "[process]") {
  const ProgramEnd end = run_program("child holds much memory through few objects",
                                     {{"TELL", "1"}, {"GOGC", "off"}, {"GOMEMLIMIT", "64MiB"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
  if (std::getenv("TRICOLOR_TEST_SHOW") != nullptr) std::printf("%s", end.output.c_str());
}

TEST_CASE("memory held outside is counted by every thread, attached, blocked or neither") {
  const std::uint64_t before = gc::stats().external_bytes;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.push_back(std::thread([t] {
      if (t % 2 == 0) make_node(1);
      for (int i = 0; i < 10'000; ++i) gc::external_memory(100);
      const auto blocked = [] { gc::external_memory(1'000); };
      gc::blocking_call(blocked);
      for (int i = 0; i < 1'000; ++i) gc::external_memory(-10);
    }));
  }
  for (std::thread& thread : threads) join(thread);
  CHECK(gc::stats().external_bytes == before + 4 * (1'000'000 + 1'000 - 10'000));
  gc::external_memory(-4 * (1'000'000 + 1'000 - 10'000));
  CHECK(gc::stats().external_bytes == before);
  // More taken back than was ever there is nothing.
  gc::external_memory(-(1 << 30));
  CHECK(gc::stats().external_bytes == 0);
  gc::external_memory(1 << 30);
  CHECK(gc::stats().external_bytes == before);
}

TEST_CASE("memory held outside is counted inside gc::critical without a wait") {
  const std::uint64_t limit = gc::set_memory_limit(kMiB);
  collect();
  {
    const gc::critical section;
    gc::external_memory(100 * kMiB);
  }
  CHECK(gc::stats().external_bytes >= 100 * kMiB);
  gc::external_memory(-100 * static_cast<std::int64_t>(kMiB));
  gc::set_memory_limit(limit);
  collect();
}

// ----------------------------------------------------------------------------------- environment

TEST_CASE("child tells its goal", "[.child]") {
  gc::collect();
  std::printf("goal=%llu\n", static_cast<unsigned long long>(gc::stats().heap_goal_bytes));
}

TEST_CASE("the environment sets what the program did not", "[process]") {
  CHECK(has_line(run_program("child tells its goal", {{"GOGC", "off"}}).output,
                 "goal=9223372036854775807"));
  const ProgramEnd large = run_program("child tells its goal", {{"TRICOLOR_MIN_HEAP", "100MiB"}});
  CHECK(has_line(large.output, "goal=104857600"));
  const ProgramEnd wrong =
      run_program("child tells its goal", {{"GOGC", "some"}, {"TRICOLOR_MIN_HEAP", "100MiB"}});
  CHECK(has_line(wrong.output, "goal=104857600"));
  CHECK(has_line(wrong.output, "tricolor: GOGC: \"some\" is malformed"));
}

TEST_CASE("child asks for options in code", "[.child]") {
  gc::options wanted;
  wanted.percent = 50;
  wanted.min_heap_bytes = 77 * kMiB;
  CHECK(gc::init(wanted));
  CHECK_FALSE(gc::init(wanted));
  make_node(1);
  CHECK_FALSE(gc::init(wanted));  // also from a thread that is attached
  CHECK(gc::set_min_heap(0) == 77 * kMiB);
  CHECK(gc::set_percent(100) == 30);  // the environment wins
}

TEST_CASE("init takes the program's options, once, and the environment wins over them",
          "[process]") {
  const ProgramEnd end = run_program("child asks for options in code", {{"GOGC", "30"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

namespace {

template <std::size_t kBytes>
struct Block {
  gc::ptr<Block> next;
  std::array<std::byte, kBytes - sizeof(void*)> rest;
};

}  // namespace

TEST_CASE("child finds what is dead behind much that lives", "[.child]") {
  using Live = Block<512>;
  using Dead = Block<8192>;
  using Other = Block<4096>;
  gc::root<Live> live;
  for (std::size_t i = 0; i < 40 * kMiB / sizeof(Live); ++i) {
    Live* const block = gc::make<Live>();
    block->next = live;
    live = block;
  }
  gc::root<Other> others;
  int in_time = 0;
  for (int i = 0; i < 1000 && in_time < 2; ++i) {
    collect();  // the next cycle comes after what is made now: nothing of it is black
    const std::uint64_t cycles = gc::stats().cycles_total;
    apart([] {
      gc::ptr<Dead> dead;
      for (std::size_t k = 0; k < 16 * kMiB / sizeof(Dead); ++k) {
        Dead* const block = gc::make<Dead>();
        block->next = dead;
        dead = block;
      }
    });
    // One that nobody waits for, so its sweep is still to be done.
    while (gc::stats().cycles_total == cycles) make_node(1);
    const std::uint64_t before = set_room(0);
    {
      const gc::critical section;  // no collection in here
      const auto is_made = [&] {
        try {
          Other* const other = gc::make<Other>();
          other->next = others;
          others = other;
          return true;
        } catch (const std::bad_alloc&) {
          return false;
        }
      };
      auto& sweeper = tricolor::impl::Heap::existing()->cycle().sweeper();
      const bool is_swept = sweeper.done();
      if (is_made()) {
        in_time += is_swept ? 0 : 1;
      } else {
        // It had all been found before the limit came. Then there is no more to be found.
        while (!sweeper.done()) sweeper.sweep_for(tricolor::impl::PageCount{SIZE_MAX}, 16);
        CHECK_FALSE(is_made());
      }
    }
    gc::set_hard_limit(before);
  }
  CHECK(in_time == 2);
}

TEST_CASE("what is dead is found before memory ends, however far it lies", "[process]") {
  CHECK(run_program("child finds what is dead behind much that lives").exit_code == 0);
}
