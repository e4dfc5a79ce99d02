#include "gc/cycle.h"

#include <tricolor/gc.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cstdio>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "test/gc/support.h"

using namespace tricolor::test;
using tricolor::impl::Heap;

TEST_CASE("collect returns after a cycle that began after the call") {
  // What is dropped before the call is gone after it, however many others collect.
  std::atomic<bool> end{false};
  std::vector<std::thread> others;
  for (int t = 0; t < 2; ++t) {
    others.emplace_back([&] {
      while (!end) gc::collect();
    });
  }
  int kept = 0;
  for (int i = 0; i < 200; ++i) {
    Hidden dropped;
    on_thread([&] { dropped = Hidden(make_node(1)); });
    collect();
    kept += alive(dropped);
  }
  end = true;
  for (std::thread& other : others) join(other);
  CHECK(kept == 0);
}

TEST_CASE("threads that reach the goal together make one cycle, not one each") {
  if (stressed()) {
    WARN("skipped: stress=n collects all the time");
    return;
  }
  collect();
  const int percent = gc::set_percent(100);
  const auto before = gc::stats();
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.push_back(start_thread([] {
      for (int i = 0; i < 500; ++i) gc::make_array<char>(20'000);  // 80 MB all together
    }));
  }
  for (std::thread& thread : threads) join(thread);
  const std::uint64_t room = before.heap_goal_bytes - before.heap_marked_bytes;
  const std::uint64_t cycles = gc::stats().cycles_total - before.cycles_total;
  INFO("room " << room);
  // Fewer where a mark is slow: what is allocated meanwhile is alive for it, and the next goal is farther.
  CHECK(cycles >= 80'000'000 / room / 4);
  // More where cycles begin at the earliest trigger, 70 % of the way, and end there.
  CHECK(cycles <= 80'000'000 / room * 10 / 7 + 4);
  gc::set_percent(percent);
  collect();
}

TEST_CASE("child asks for cycles where every CPU is busy", "[.child]") {
  collect();  // the collector's threads are there, and it knows how many CPUs there are
  gc::set_percent(1'000);  // the goal is far from the trigger
  std::atomic<bool> end{false};
  std::atomic<unsigned> running{0};
  std::vector<std::thread> threads;
  const unsigned cpus = tricolor::impl::os::cpu_count();
  for (unsigned i = 0; i + 1 < cpus; ++i) {
    threads.push_back(start_thread([&] {
      const gc::thread_scope attach;
      ++running;
      while (!end) gc::safepoint();
    }));
  }
  while (running + 1 < cpus) gc::safepoint();
  Heap& heap = *Heap::existing();
  for (int i = 0; i < 20; ++i) {
    collect();
    while (!heap.cycle().pacing().at_trigger()) gc::make_array<char>(40'000);
    gc::blocking_call([&] {
      while (heap.handshake().count_running() + 1 < cpus) std::this_thread::yield();
    });
    const auto epoch = heap.handshake().epoch();
    const std::uint64_t begin_ns = tricolor::impl::os::now_ns();
    gc::make_array<char>(40'000);
    const std::uint64_t ns = tricolor::impl::os::now_ns() - begin_ns;
    INFO(ns << " ns");
    // The cycle has begun, or it could not for a while.
    CHECK((heap.handshake().epoch() != epoch || ns >= 3'000'000));
  }
  end = true;
  for (std::thread& thread : threads) join(thread);
}

TEST_CASE("who asks for a cycle where every CPU is busy waits for its beginning", "[process]") {
  const ProgramEnd end = run_program("child asks for cycles where every CPU is busy");
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("the numbers of a cycle fit together") {
  const auto before = gc::stats();
  const gc::root<Node> kept = make_node(1);
  collect();
  const auto after = gc::stats();
  CHECK(after.cycles_total > before.cycles_total);
  CHECK(after.cycles_forced > before.cycles_forced);
  CHECK(after.pause_ns_last > 0);
  CHECK(after.pause_ns_last <= after.pause_ns_max);
  CHECK(after.pause_ns_max <= after.pause_ns_total);
  CHECK(after.pause_ns_total >= before.pause_ns_total + after.pause_ns_last);
  CHECK(after.stop_ns_last <= after.pause_ns_last);
  CHECK(after.mark_ns_last > 0);
  CHECK(after.marked_bytes_total >= before.marked_bytes_total + sizeof(Node));
  CHECK(after.stopped_marked_bytes_total <= after.marked_bytes_total);
  CHECK(after.gc_cpu_ns_total > before.gc_cpu_ns_total);
  CHECK(after.heap_goal_bytes >= after.heap_marked_bytes);
  CHECK(after.heap_mapped_bytes >= after.heap_live_bytes);
  CHECK(after.heap_free_bytes <= after.heap_mapped_bytes);
  CHECK(after.reserved_bytes >= after.heap_mapped_bytes);
  CHECK(after.metadata_bytes > 0);
  CHECK(after.spans_count > 0);
  CHECK(after.types_count > 0);
  CHECK(after.threads_count >= 1);
  CHECK(after.conservative_cells_count == 0);
}

TEST_CASE("child collects a little and prints its cycles", "[.child]") {
  gc::root<Node> list;
  for (std::uint64_t i = 0; i < 100'000; ++i) list = make_node(i, list);
  gc::collect();
  for (int i = 0; i < 1'000; ++i) gc::make_array<char>(20'000);
  gc::collect();
}

namespace {

// A line with each number replaced by #, and the numbers.
std::pair<std::string, std::vector<double>> split(const std::string& line) {
  std::string words;
  std::vector<double> numbers;
  for (std::size_t i = 0; i < line.size();) {
    if (line[i] < '0' || line[i] > '9') {
      words += line[i++];
      continue;
    }
    std::size_t used = 0;
    numbers.push_back(std::stod(line.substr(i), &used));
    words += '#';
    i += used;
  }
  return {words, numbers};
}

}  // namespace

TEST_CASE("gctrace=1 prints one line a cycle in Go's grammar", "[process]") {
  const ProgramEnd end = run_program("child collects a little and prints its cycles",
                                     {{"TRICOLOR_DEBUG", "gctrace=1"}, {"GOGC", "10"}});
  CHECK(end.exit_code == 0);
  std::istringstream lines(end.output);
  int cycles = 0;
  int forced = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("gc ", 0) != 0) continue;
    INFO(line);
    auto [words, numbers] = split(line);
    if (words.ends_with(" (forced)")) {
      ++forced;
      words.resize(words.size() - 9);
    }
    CHECK(words ==
          "gc # @#s #%: #+#+# ms clock, #+#/#/#+# ms cpu, #->#-># MB, # MB goal, # MB stacks, # MB "
          "globals, # P");
    REQUIRE(numbers.size() == 18);
    CHECK(numbers[0] == ++cycles);
    CHECK(numbers[13] <= numbers[12]);  // alive, of what was there
  }
  INFO(end.output);
  CHECK(cycles >= 4);
  CHECK(forced == 2);
}

namespace {

// What the lines after a cycle's say of the objects that it has scanned: the total, and by class.
struct Scanned {
  std::uint64_t total = 0;
  std::map<std::string, std::uint64_t> by_class;
};

std::vector<Scanned> scanned_objects(const std::string& output) {
  std::vector<Scanned> cycles;
  std::istringstream lines(output);
  static const std::regex total("scan: total ([0-9]+) objs");
  static const std::regex of_class("scan: class (L|[0-9]+B) ([0-9]+) objs");
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (line.rfind("gc ", 0) == 0) cycles.emplace_back();
    if (std::regex_match(line, match, total)) {
      cycles.back().total = std::stoull(match[1]);
    } else if (std::regex_match(line, match, of_class)) {
      cycles.back().by_class[match[1]] = std::stoull(match[2]);
    } else {
      CHECK(line.rfind("scan: ", 0) == std::string::npos);
    }
  }
  return cycles;
}

struct Wide {
  gc::ptr<Node> nodes[64];
  static constexpr auto gc_fields = gc::fields(&Wide::nodes);
};

}  // namespace

TEST_CASE("child holds objects of three sizes", "[.child]") {
  gc::array<gc::ptr<Node>> nodes = gc::make_array<gc::ptr<Node>>(30'000);
  gc::array<gc::ptr<Wide>> wide = gc::make_array<gc::ptr<Wide>>(30);
  for (std::size_t i = 0; i < nodes.size(); ++i) nodes[i] = make_node(i);
  for (std::size_t i = 0; i < wide.size(); ++i) wide[i] = gc::make<Wide>();
  gc::make_array<char>(1'000);  // nothing to scan
  gc::collect();
}

TEST_CASE("gctrace=2 also says how many objects have been scanned, by class", "[process]") {
  for (const char* knobs : {"gctrace=2", "gctrace=2,tinybuffers=1"}) {
    const ProgramEnd end = run_program("child holds objects of three sizes",
                                       {{"TRICOLOR_DEBUG", knobs}, {"GOGC", "off"}});
    INFO(end.output);
    CHECK(end.exit_code == 0);
    const std::vector<Scanned> cycles = scanned_objects(end.output);
    REQUIRE(cycles.size() == 1);
    Scanned scanned = cycles[0];
    std::uint64_t sum = 0;
    for (const auto& [name, objects] : scanned.by_class) sum += objects;
    CHECK(scanned.total == sum);
    // What else there is, Catch's stack may refer to.
    const std::string node = std::to_string(sizeof(Node)) + "B";
    CHECK(scanned.by_class[node] >= 30'000);
    CHECK(scanned.by_class[node] <= 30'002);
    CHECK(scanned.by_class["512B"] >= 30);
    CHECK(scanned.by_class["512B"] <= 32);
    // What does not fit into the queue may be scanned twice.
    CHECK(scanned.by_class["L"] >= 1);
    CHECK(scanned.by_class["L"] <= 2);
    CHECK(scanned.total <= 30'000 + 30 + 2 + 5);
  }
}

TEST_CASE("child assists with objects that always live", "[.child]") {
  gc::array<gc::ptr<Node>> nodes = gc::make_array<gc::ptr<Node>>(100'000);
  for (std::size_t i = 0; i < nodes.size(); ++i) nodes[i] = make_node(i);
  gc::collect();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.push_back(start_thread([] {
      const gc::thread_scope attach;
      for (int i = 0; i < 2'000'000; ++i) make_node(1);
    }));
  }
  for (std::thread& thread : threads) join(thread);
  CHECK(gc::stats().assist_cpu_ns_total > 0);
}

TEST_CASE("what threads scan that assist is in the lines of gctrace=2, too", "[process]") {
  const ProgramEnd end = run_program("child assists with objects that always live",
                                     {{"TRICOLOR_DEBUG", "gctrace=2,idleworkers=0"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
  const std::vector<Scanned> cycles = scanned_objects(end.output);
  REQUIRE(cycles.size() >= 5);
  bool complete = false;
  for (const Scanned& scanned : cycles) {
    complete |= scanned.total > 100'000;
    if (complete) CHECK(scanned.total > 100'000);
  }
  CHECK(complete);
}

TEST_CASE("gcpacertrace=1 prints what is planned, what came of it, and what sweeping took",
          "[process]") {
  const ProgramEnd end = run_program("child collects a little and prints its cycles",
                                     {{"TRICOLOR_DEBUG", "gcpacertrace=1"}, {"GOGC", "10"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
  std::istringstream lines(end.output);
  static const std::regex swept(
      "pacer: sweep done at heap size [0-9]+MB; allocated [0-9]+MB during sweep; swept [0-9]+ "
      "pages at "
      "\\+[0-9]\\.[0-9]+e[-+][0-9]+ pages/byte");
  int plans = 0, ends = 0, sweeps = 0;
  for (std::string line; std::getline(lines, line);) {
    plans += line.rfind("pacer: assist ratio=", 0) == 0;
    ends += line.find("cons/mark") != std::string::npos;
    if (line.rfind("pacer: sweep", 0) != 0) continue;
    CHECK(std::regex_match(line, swept));
    ++sweeps;
  }
  CHECK(plans >= 4);
  CHECK(ends == plans);
  // The last may not be swept before the program ends.
  CHECK(sweeps >= plans - 1);
  CHECK(sweeps <= plans);
}

TEST_CASE("child collects at every allocation", "[.child]") {
  gc::root<Node> list;
  const std::uint64_t before = gc::stats().cycles_total;
  for (std::uint64_t i = 0; i < 300; ++i) list = make_node(i, list);
  CHECK(gc::stats().cycles_total >= before + 300);
  std::uint64_t expected = 300;
  for (const Node* node = list; node != nullptr; node = node->next) CHECK(intact(node, --expected));
  CHECK(expected == 0);
}

TEST_CASE("stress=1 collects at every allocation of a kind, and nothing is lost", "[process]") {
  const ProgramEnd end = run_program("child collects at every allocation",
                                     {{"TRICOLOR_DEBUG", "stress=1,clobberfree=1"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child looks at freed memory", "[.child]") {
  Hidden dead;
  gc::root<Node> neighbour;
  on_thread([&] {
    neighbour = make_node(1);
    Node* const node = make_node(2);
    dead = Hidden(node);
  });
  collect();
  CHECK_FALSE(alive(dead));
  CHECK(intact(neighbour, 1));
  CHECK(reinterpret_cast<const volatile Node*>(dead.address())->value == 0xdeadbeefdeadbeef);
}

TEST_CASE("clobberfree=1 fills what is freed", "[process]") {
  const ProgramEnd end =
      run_program("child looks at freed memory", {{"TRICOLOR_DEBUG", "clobberfree=1"}});
  INFO(end.output);
  CHECK(end.exit_code == 0);
}

TEST_CASE("child never collects", "[.child]") {
  for (int i = 0; i < 1'000; ++i) make_node(1);
  CHECK(gc::stats().cycles_total == 0);
  // The main thread alone: the collector's starts with the first cycle.
  int threads = 0;
  if (std::FILE* const status = std::fopen("/proc/self/status", "r")) {
    char line[256];
    while (std::fgets(line, sizeof line, status) != nullptr)
      std::sscanf(line, "Threads: %d", &threads);
    std::fclose(status);
  }
  if (!tricolor::impl::kThreadSanitizer) CHECK(threads == 1);
  CHECK(gc::stats().heap_mapped_bytes < 1u << 20);
}

TEST_CASE("a program that never collects starts no thread and touches little memory", "[process]") {
  const ProgramEnd end = run_program("child never collects");
  INFO(end.output);
  CHECK(end.exit_code == 0);
}
