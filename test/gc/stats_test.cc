#include "gc/stats.h"

#include <tricolor/gc.h>
#include <tricolor/stats.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cctype>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <thread>

#include "test/gc/held_mark.h"
#include "test/gc/support.h"

using namespace tricolor::test;
using tricolor::impl::CycleRecord;
using tricolor::impl::kMaxTraceBytes;

namespace {

constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();

std::string trace(const CycleRecord& cycle) {
  char bytes[kMaxTraceBytes];
  return {bytes, tricolor::impl::format_trace(cycle, bytes, sizeof bytes)};
}

std::string ms(std::uint64_t ns) {
  tricolor::impl::LineBuffer<32> line;
  tricolor::impl::append_ms(line, ns);
  return std::string(line.view());
}

// The cycle of the example line in the README.
CycleRecord example() {
  CycleRecord cycle;
  cycle.number = 7;
  cycle.start_ns = 518'700'000;
  cycle.gc_cpu_percent = 3;
  cycle.first_stop_clock_ns = 18'400;
  cycle.mark_clock_ns = 1'290'000;
  cycle.last_stop_clock_ns = 11'999;
  cycle.first_stop_cpu_ns = 36'000;
  cycle.assist_cpu_ns = 400'001;
  cycle.worker_cpu_ns = 1'100'000;
  cycle.idle_cpu_ns = 209'999;
  cycle.last_stop_cpu_ns = 22'000;
  cycle.heap_start_bytes = (15u << 20) + 5;
  cycle.heap_end_bytes = (17u << 20) - 1;
  cycle.heap_marked_bytes = 8u << 20;
  cycle.goal_bytes = (18u << 20) - 1;
  cycle.stacks_bytes = (1u << 20) - 1;
  cycle.globals_bytes = 1u << 20;
  cycle.processors_count = 2;
  return cycle;
}

// One number as the line has it: its digits without the point, and how many stand behind the point.
struct Decimal {
  std::uint64_t digits = 0;
  int places = 0;

  // In units of 10^-3, the smallest the line has; 10 ms and more have no places and may be large.
  std::uint64_t thousandths() const {
    std::uint64_t value = digits;
    for (int i = places; i < 3; ++i) value *= 10;
    return value;
  }
};

struct Trace {
  Decimal number, start_s, percent;
  Decimal clock_ms[3], cpu_ms[5], heap_mb[3];
  Decimal goal_mb, stacks_mb, globals_mb, processors;
  bool forced = false;
};

// Reads a trace line by its grammar:
//   gc N @T s U%: a+b+c ms clock, d+e/f/g+h ms cpu, H0->H1->H2 MB, K MB goal, X MB stacks, Y MB
//   globals, n P[ (forced)]
class TraceParser {
 public:
  static std::optional<Trace> parse(std::string_view line) {
    TraceParser p(line);
    Trace t;
    t.number = p.integer("gc ");
    t.start_s = p.decimal(" @");
    t.percent = p.integer("s ");
    t.clock_ms[0] = p.decimal("%: ");
    t.clock_ms[1] = p.decimal("+");
    t.clock_ms[2] = p.decimal("+");
    t.cpu_ms[0] = p.decimal(" ms clock, ");
    t.cpu_ms[1] = p.decimal("+");
    t.cpu_ms[2] = p.decimal("/");
    t.cpu_ms[3] = p.decimal("/");
    t.cpu_ms[4] = p.decimal("+");
    t.heap_mb[0] = p.integer(" ms cpu, ");
    t.heap_mb[1] = p.integer("->");
    t.heap_mb[2] = p.integer("->");
    t.goal_mb = p.integer(" MB, ");
    t.stacks_mb = p.integer(" MB goal, ");
    t.globals_mb = p.integer(" MB stacks, ");
    t.processors = p.integer(" MB globals, ");
    p.literal(" P");
    if (!p.rest_.empty()) {
      p.literal(" (forced)");
      t.forced = true;
    }
    if (!p.good_ || !p.rest_.empty()) return std::nullopt;
    return t;
  }

 private:
  explicit TraceParser(std::string_view line) : rest_(line) {}

  void literal(std::string_view text) {
    good_ = good_ && rest_.starts_with(text);
    if (good_) rest_.remove_prefix(text.size());
  }

  // The literal in front, then digits, no leading zero but a lone one.
  Decimal integer(std::string_view before) {
    literal(before);
    Decimal value;
    const std::size_t start = rest_.size();
    const bool zero = rest_.starts_with('0');
    take_digits(value);
    const std::size_t length = start - rest_.size();
    good_ = good_ && length > 0 && (!zero || length == 1);
    return value;
  }

  Decimal decimal(std::string_view before) {
    Decimal value = integer(before);
    if (!good_ || !rest_.starts_with('.')) return value;
    rest_.remove_prefix(1);
    const std::size_t start = rest_.size();
    take_digits(value);
    value.places = static_cast<int>(start - rest_.size());
    good_ = good_ && value.places > 0;
    return value;
  }

  void take_digits(Decimal& value) {
    while (!rest_.empty() && std::isdigit(static_cast<unsigned char>(rest_.front()))) {
      value.digits = value.digits * 10 + static_cast<std::uint64_t>(rest_.front() - '0');
      rest_.remove_prefix(1);
    }
  }

  std::string_view rest_;
  bool good_ = true;
};

// What Go's readers rely on: no more than two significant digits below 10 ms, three decimals at
// most, truncated.
bool is_rounding_of(const Decimal& text_ms, std::uint64_t ns) {
  const std::uint64_t us = ns / 1000;
  if (us >= 10'000) return text_ms.places == 0 && text_ms.digits == us / 1000;
  if (us == 0) return text_ms.places == 0 && text_ms.digits == 0;
  const int places = us < 100 ? 3 : us < 1000 ? 2 : 1;
  const std::uint64_t step_us = us < 100 ? 1 : us < 1000 ? 10 : 100;
  const std::uint64_t shown_us = text_ms.thousandths();
  return text_ms.places == places && text_ms.digits < 100 && shown_us <= us &&
         us - shown_us < step_us;
}

}  // namespace

TEST_CASE("the trace line has Go's grammar to the character") {
  CHECK(
      trace(example()) ==
      "gc 7 @0.518s 3%: 0.018+1.2+0.011 ms clock, 0.036+0.40/1.1/0.20+0.022 ms cpu, 15->16->8 MB, "
      "17 MB goal, 0 MB stacks, 1 MB globals, 2 P");
}

TEST_CASE("a forced cycle says so at the end of its line") {
  CycleRecord cycle = example();
  cycle.forced = true;
  CHECK(trace(cycle) == trace(example()) + " (forced)");
}

TEST_CASE("an empty record is a valid line of zeros") {
  CHECK(trace(CycleRecord{}) ==
        "gc 0 @0.000s 0%: 0+0+0 ms clock, 0+0/0/0+0 ms cpu, 0->0->0 MB, 0 MB goal, 0 MB stacks, 0 "
        "MB globals, 0 P");
}

TEST_CASE("milliseconds keep two significant digits below 10 ms and are whole above") {
  CHECK(ms(0) == "0");
  CHECK(ms(1) == "0");
  CHECK(ms(999) == "0");
  CHECK(ms(1'000) == "0.001");
  CHECK(ms(1'999) == "0.001");
  CHECK(ms(9'999) == "0.009");
  CHECK(ms(10'000) == "0.010");
  CHECK(ms(99'999) == "0.099");
  CHECK(ms(100'000) == "0.10");
  CHECK(ms(109'999) == "0.10");
  CHECK(ms(110'000) == "0.11");
  CHECK(ms(999'999) == "0.99");
  CHECK(ms(1'000'000) == "1.0");
  CHECK(ms(1'099'999) == "1.0");
  CHECK(ms(1'100'000) == "1.1");
  CHECK(ms(9'990'000) == "9.9");
  CHECK(ms(9'999'999) == "9.9");
  CHECK(ms(10'000'000) == "10");
  CHECK(ms(10'999'999) == "10");
  CHECK(ms(999'999'999) == "999");
  CHECK(ms(1'000'000'000) == "1000");
  CHECK(ms(kMax) == "18446744073709");
}

TEST_CASE("the start is in seconds with three decimals, truncated") {
  const auto start = [](std::uint64_t ns) {
    CycleRecord cycle;
    cycle.start_ns = ns;
    const std::string line = trace(cycle);
    return line.substr(6, line.find("s ") - 6);
  };
  CHECK(start(0) == "0.000");
  CHECK(start(999'999) == "0.000");
  CHECK(start(1'000'000) == "0.001");
  CHECK(start(999'999'999) == "0.999");
  CHECK(start(1'000'000'000) == "1.000");
  CHECK(start(86'400'000'000'000) == "86400.000");
}

TEST_CASE("megabytes are truncated") {
  CycleRecord cycle;
  cycle.heap_start_bytes = (1u << 20) - 1;
  cycle.heap_end_bytes = 1u << 20;
  cycle.heap_marked_bytes = (2u << 20) - 1;
  cycle.goal_bytes = 3ull << 40;
  const std::string line = trace(cycle);
  CHECK(line.find(" 0->1->1 MB, 3145728 MB goal, ") != std::string::npos);
}

TEST_CASE("a parser built from the grammar reads every field back") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  // Any magnitude is as likely as any other.
  const auto any = [&] { return random() >> (random() % 64); };

  for (int i = 0; i < 20'000; ++i) {
    CycleRecord c;
    c.number = any();
    c.start_ns = any();
    c.gc_cpu_percent = static_cast<std::uint32_t>(random() % 101);
    for (std::uint64_t* field :
         {&c.first_stop_clock_ns, &c.mark_clock_ns, &c.last_stop_clock_ns, &c.first_stop_cpu_ns,
          &c.assist_cpu_ns, &c.worker_cpu_ns, &c.idle_cpu_ns, &c.last_stop_cpu_ns,
          &c.heap_start_bytes, &c.heap_end_bytes, &c.heap_marked_bytes, &c.goal_bytes,
          &c.stacks_bytes, &c.globals_bytes}) {
      *field = any();
    }
    c.processors_count = static_cast<std::uint32_t>(any());
    c.forced = random() % 2 == 0;

    const std::string line = trace(c);
    const auto t = TraceParser::parse(line);
    INFO(line);
    REQUIRE(t.has_value());
    const bool head = t->number.digits == c.number && t->start_s.places == 3 &&
                      t->start_s.digits == c.start_ns / 1'000'000 &&
                      t->percent.digits == c.gc_cpu_percent;
    const bool clock = is_rounding_of(t->clock_ms[0], c.first_stop_clock_ns) &&
                       is_rounding_of(t->clock_ms[1], c.mark_clock_ns) &&
                       is_rounding_of(t->clock_ms[2], c.last_stop_clock_ns);
    const bool cpu = is_rounding_of(t->cpu_ms[0], c.first_stop_cpu_ns) &&
                     is_rounding_of(t->cpu_ms[1], c.assist_cpu_ns) &&
                     is_rounding_of(t->cpu_ms[2], c.worker_cpu_ns) &&
                     is_rounding_of(t->cpu_ms[3], c.idle_cpu_ns) &&
                     is_rounding_of(t->cpu_ms[4], c.last_stop_cpu_ns);
    const bool heap = t->heap_mb[0].digits == c.heap_start_bytes >> 20 &&
                      t->heap_mb[1].digits == c.heap_end_bytes >> 20 &&
                      t->heap_mb[2].digits == c.heap_marked_bytes >> 20 &&
                      t->goal_mb.digits == c.goal_bytes >> 20;
    const bool tail = t->stacks_mb.digits == c.stacks_bytes >> 20 &&
                      t->globals_mb.digits == c.globals_bytes >> 20 &&
                      t->processors.digits == c.processors_count && t->forced == c.forced;
    CHECK(head);
    CHECK(clock);
    CHECK(cpu);
    CHECK(heap);
    CHECK(tail);
  }
}

TEST_CASE("the parser refuses a line that is not one") {
  const std::string good = trace(example());
  REQUIRE(TraceParser::parse(good).has_value());
  CHECK_FALSE(TraceParser::parse(good + " ").has_value());
  CHECK_FALSE(TraceParser::parse(good + "\n").has_value());
  CHECK_FALSE(TraceParser::parse("").has_value());
  for (std::size_t i = 0; i < good.size(); ++i) {
    INFO(i);
    CHECK_FALSE(TraceParser::parse(good.substr(0, i)).has_value());
    std::string broken = good;
    broken[i] = '#';
    CHECK_FALSE(TraceParser::parse(broken).has_value());
  }
}

TEST_CASE("the longest possible line fits its buffer and a short buffer is never overrun") {
  CycleRecord c;
  c.number = c.start_ns = kMax;
  c.gc_cpu_percent = c.processors_count = std::numeric_limits<std::uint32_t>::max();
  c.first_stop_clock_ns = c.mark_clock_ns = c.last_stop_clock_ns = kMax;
  c.first_stop_cpu_ns = c.assist_cpu_ns = c.worker_cpu_ns = c.idle_cpu_ns = c.last_stop_cpu_ns =
      kMax;
  c.heap_start_bytes = c.heap_end_bytes = c.heap_marked_bytes = c.goal_bytes = kMax;
  c.stacks_bytes = c.globals_bytes = kMax;
  c.forced = true;
  const std::string line = trace(c);
  CHECK(line.size() < kMaxTraceBytes);
  CHECK(line.ends_with(" P (forced)"));

  for (std::size_t n = 0; n <= line.size(); ++n) {
    char bytes[kMaxTraceBytes];
    bytes[n] = '#';
    const std::size_t used = tricolor::impl::format_trace(c, bytes, n);
    if (used != n || bytes[n] != '#') FAIL("wrong length or overrun at " << n);
  }
}

TEST_CASE("print_trace writes the line to stderr in one write") {
  int fds[2];
  REQUIRE(::pipe(fds) == 0);
  const int saved = ::dup(STDERR_FILENO);
  ::dup2(fds[1], STDERR_FILENO);
  tricolor::impl::print_trace(example());
  ::dup2(saved, STDERR_FILENO);
  ::close(saved);
  ::close(fds[1]);
  char bytes[2 * kMaxTraceBytes];
  const ssize_t n = ::read(fds[0], bytes, sizeof bytes);
  ::close(fds[0]);
  REQUIRE(n > 0);
  CHECK(std::string(bytes, static_cast<std::size_t>(n)) == trace(example()) + "\n");
}

TEST_CASE("fresh statistics are all zero") {
  const tricolor::statistics fresh;
  CHECK(fresh.cycles_total == 0);
  CHECK(fresh.heap_live_bytes == 0);
  CHECK(fresh.pause_ns_max == 0);
  CHECK(fresh.gc_cpu_ns_total == 0);
}

// ------------------------------------------------------------------------------------ histograms

TEST_CASE("a histogram's buckets follow one another without a gap, each at most a quarter wide") {
  using gc::histogram;
  for (std::size_t i = 0; i + 1 < histogram::buckets; ++i) {
    const std::uint64_t begin = histogram::begin_ns(i);
    const std::uint64_t end = histogram::begin_ns(i + 1);
    INFO(i << ": " << begin << " to " << end);
    REQUIRE(begin < end);
    REQUIRE(histogram::bucket_of(begin) == i);
    REQUIRE(histogram::bucket_of(end - 1) == i);
    REQUIRE((end - begin == 1 || end - begin <= begin / 4));
  }
  CHECK(histogram::bucket_of(0) == 0);
  CHECK(histogram::bucket_of(UINT64_MAX) == histogram::buckets - 1);
  CHECK(histogram::begin_ns(histogram::buckets - 1) > 1'000'000'000'000u);  // a quarter of an hour
}

TEST_CASE("a quantile is a bound that so large a share of the times did not exceed") {
  gc::histogram times;
  CHECK(times.quantile_ns(0.5) == 0);
  for (std::uint64_t us = 1; us <= 1000; ++us) ++times.counts[gc::histogram::bucket_of(us * 1000)];
  CHECK(times.total_count() == 1000);
  for (const double share : {0.01, 0.5, 0.9, 0.999, 1.0}) {
    const double exact = share * 1'000'000;
    CHECK(static_cast<double>(times.quantile_ns(share)) >= exact);
    CHECK(static_cast<double>(times.quantile_ns(share)) <= exact * 1.25);
  }
}

TEST_CASE("every pause is in the histograms, and the longest bounds them", "[heap]") {
  gc::collect();
  const auto now = gc::stats();
  const std::uint64_t last_stops = marks_beside_the_program() ? now.cycles_total : 0;
  // One more for each stop that was in vain.
  CHECK(now.first_pauses.total_count() >= now.cycles_total);
  CHECK(now.last_pauses.total_count() >= last_stops);
  CHECK(now.pauses.total_count() == now.first_pauses.total_count() + now.last_pauses.total_count());
  CHECK(now.stops.total_count() == now.pauses.total_count());
  CHECK(now.pauses.counts[gc::histogram::bucket_of(now.pause_ns_max)] > 0);
  CHECK(now.pauses.quantile_ns(1) >= now.pause_ns_max);
  CHECK(now.stops.quantile_ns(1) >= now.stop_ns_max);
  CHECK(now.stops.quantile_ns(0.5) <= now.pauses.quantile_ns(1));
}

TEST_CASE("a last stop that finds something grey is a pause like any other", "[heap]") {
  if (!can_hold_a_mark()) return;
  collect();
  const auto before = gc::stats();
  const auto in_vain = [&] {
    const auto now = gc::stats();
    return now.last_pauses.total_count() - before.last_pauses.total_count() -
           (now.cycles_total - before.cycles_total);
  };
  const gc::root<Node> holder = make_node(1);
  // A thread that is in a critical section when the last stop is asked for stores a reference to a white object, which it has from
  // nowhere. Something else may refer to that, in a dead frame: then once more.
  std::uint64_t longest_ns = 0;
  for (int attempt = 0; attempt < 20 && in_vain() == 0; ++attempt) {
    Hidden white;
    on_thread([&] { white = Hidden(make_node(2)); });
    HeldMark mark;
    std::atomic<int> is_inside{0};
    std::thread writer = start_thread([&] {
      const gc::thread_scope attach;
      const gc::critical section;
      raise(is_inside, 1);
      const auto& note = tricolor::detail::current_cache->stop_note;
      while (note.load() == 0) std::this_thread::yield();
      // Not worked out before: a register would keep it alive.
      std::uintptr_t hidden = white.complement();
      asm volatile("" : "+r"(hidden));
      holder->next = reinterpret_cast<Node*>(~hidden);
      const std::uint64_t begin_ns = tricolor::impl::os::now_ns();
      while (tricolor::impl::os::now_ns() - begin_ns < 2'000'000) std::this_thread::yield();
    });
    wait_until(is_inside, 1);
    mark.end();
    longest_ns = gc::stats().pause_ns_last;
    join(writer);
    CHECK(intact(holder->next, 2));
    holder->next = nullptr;
  }
  const auto now = gc::stats();
  CHECK(in_vain() >= 1);
  CHECK(now.pauses.total_count() == now.first_pauses.total_count() + now.last_pauses.total_count());
  CHECK(longest_ns >= 2'000'000);  // the one in vain
  CHECK(now.pause_ns_max >= longest_ns);
  CHECK(now.pause_ns_total >= before.pause_ns_total + longest_ns);
}

// ------------------------------------------------------------------------------- memory by class

namespace {

// Memory of the process that is no file's.
std::uint64_t resident_anonymous_bytes() {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.rfind("RssAnon:", 0) == 0) return std::stoull(line.substr(8)) << 10;
  }
  return 0;
}

}  // namespace

TEST_CASE("child compares its numbers with the system's", "[.child]") {
  constexpr std::uint64_t kMiB = 1 << 20;
  const std::uint64_t before = resident_anonymous_bytes();  // without a heap
  REQUIRE(before != 0);
  gc::set_percent(
      -1);  // else the background may give something back between one number and the next
  const auto compare = [before](const char* when) {
    const auto now = gc::stats();
    const std::uint64_t resident = resident_anonymous_bytes() - before;
    INFO(when << ": " << now.mapped_bytes << " we say, " << resident << " the system; heap "
              << now.heap_mapped_bytes << " records " << now.page_record_bytes << " structures "
              << now.structure_bytes);
    CHECK(now.mapped_bytes == now.heap_mapped_bytes + now.metadata_bytes);
    CHECK(now.heap_mapped_bytes ==
          now.heap_live_bytes + now.heap_unused_bytes + now.heap_free_bytes);
    CHECK(now.metadata_bytes == now.page_record_bytes + now.structure_bytes);
    CHECK(now.mapped_bytes + kMiB >= resident);
    CHECK(now.mapped_bytes <= resident + resident / 50 + kMiB);
  };
  make_node(1);
  compare("one object");
  gc::root<Node> list;
  on_thread([&] {
    for (std::uint64_t i = 0; i < 1'000'000; ++i) list = make_node(i, list);
    for (int i = 0; i < 1'000'000; ++i) gc::make<std::uint64_t>();
    for (int i = 0; i < 100; ++i) std::memset(gc::make_array<char>(kMiB / 2).data(), 1, kMiB / 2);
  });
  compare("lists and arrays");
  collect();
  compare("after a collection");
  list = nullptr;
  const std::uint64_t released = gc::stats().released_bytes_total;
  gc::release_memory();
  compare("after release_memory");
  const auto end = gc::stats();
  CHECK(end.heap_free_bytes < 128 << 10);
  CHECK(end.heap_mapped_bytes < 2 * kMiB);
  CHECK(end.released_bytes_total > released);
  CHECK(resident_anonymous_bytes() - before < 4 * kMiB);
}

TEST_CASE("memory by class adds up to what the system says, and release_memory gives it back",
          "[process]") {
  if (kShadowMemory) {
    WARN("skipped: the sanitizer's own memory counts as the process's");
    return;
  }
  const ProgramEnd end = run_program("child compares its numbers with the system's");
  INFO(end.output);
  CHECK(end.exit_code == 0);
}
