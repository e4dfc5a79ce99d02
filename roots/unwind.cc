#include "roots/unwind.h"

#define UNW_LOCAL_ONLY
#include <libunwind.h>

#include <string_view>

#include "alloc/base/check.h"
#include "alloc/base/log.h"

namespace tricolor::impl {

void print_backtrace() noexcept {
  constexpr int kMostFrames = 64;
  unw_context_t context;
  unw_cursor_t cursor;
  if (unw_getcontext(&context) != 0 || unw_init_local(&cursor, &context) != 0) return;
  for (int frame = 0; frame < kMostFrames && unw_step(&cursor) > 0; ++frame) {
    unw_word_t address = 0;
    unw_get_reg(&cursor, UNW_REG_IP, &address);
    char name[256];
    unw_word_t offset = 0;
    LineBuffer<400> line;
    line.text("  #").number(frame).text(" ").hex(address);
    // -UNW_ENOMEM: the name was cut, which is still a name.
    if (const int result = unw_get_proc_name(&cursor, name, sizeof name, &offset);
        result == 0 || result == -UNW_ENOMEM) {
      name[sizeof name - 1] = '\0';
      line.text(" ").text(name).text("+").hex(offset);
    }
    log_line(line.view());
  }
}

void install_report_backtrace() { set_report_hook(print_backtrace); }

}  // namespace tricolor::impl
