// The report of a failed check: one line, the registered hook (a backtrace), abort.
//
// It may run anywhere: in a signal handler, with the world stopped, with any lock held, on several
// threads at once, and inside its own hook. So it allocates nothing and takes no lock before the line
// is out; the first thread to fail owns the end of the process. The hook, and the program's own
// handler of SIGABRT, may wait for a lock that a stopped thread holds (the loader's, malloc's): a timer
// ends the process all the same.
#include "alloc/base/check.h"

#include <atomic>
#include <cstdlib>
#include <string_view>

#include "alloc/base/log.h"
#include "alloc/base/os.h"

namespace tricolor::impl {
namespace {

using ReportHook = void (*)() noexcept;

// Release in set_report_hook: what the hook reads is ready. Pairs with die() (acquire).
std::atomic<ReportHook> report_hook{nullptr};

// The thread that reports, 0 while nobody does. Relaxed: it orders nothing but itself.
std::atomic<std::int32_t> reporter{0};

// How long the backtrace and the program's handler of SIGABRT may take.
constexpr unsigned kPatienceSeconds = 5;

[[noreturn]] void die(std::string_view line) {
  log_line(line);
  const std::int32_t self = os::thread_id();
  std::int32_t owner = 0;
  if (reporter.compare_exchange_strong(owner, self, std::memory_order_relaxed)) {
    os::kill_process_after(kPatienceSeconds);
    // Acquire: pairs with set_report_hook (release).
    if (const ReportHook hook = report_hook.load(std::memory_order_acquire)) hook();
  } else if (owner != self) {
    // Another thread is at it and will end both of us.
    const std::atomic<std::uint32_t> never{0};
    for (;;) os::futex_wait(never, 0);
  }  // else the hook itself has failed: no second backtrace
  std::abort();
}

}  // namespace

void check_failed(const char* label, Evidence evidence, Place where) {
  LineBuffer<kMaxLineBytes> line;
  line.text("tricolor: check failed: ").text(label).text(" at ").text(where.file);
  line.text(":").number(where.line).text(" in ").text(where.function);
  line.text("; a=").hex(evidence.a).text(" (").count(evidence.a).text(")");
  line.text(" b=").hex(evidence.b).text(" (").count(evidence.b).text(")");
  line.text(
      "; a bug of tricolor or a stray write into its heap: try "
      "TRICOLOR_DEBUG=clobberfree=1,stress=1000");
  die(line.view());
}

void usage_error(const char* rule_and_remedy) {
  LineBuffer<kMaxLineBytes> line;
  line.text("tricolor: ").text(rule_and_remedy);
  die(line.view());
}

void set_report_hook(void (*hook)() noexcept) {
  // Release: see report_hook.
  report_hook.store(hook, std::memory_order_release);
}

}  // namespace tricolor::impl
