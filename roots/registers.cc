#include "roots/registers.h"

namespace tricolor::impl {

// The builtin makes this function save every callee-saved register in its prologue, with unwind tables to match: no
// assembly of ours to maintain per machine. The callee's frame lies below those saves, so its address bounds them.
[[gnu::noinline]] void with_spilled_registers(void (*fn)(void* top, void* argument),
                                              void* argument) {
  __builtin_unwind_init();
  asm volatile(
      ""
      : "+r"(
          fn));  // link-time optimisation may clone this function, but not draw fn into its frame
  fn(__builtin_alloca(16), argument);
  asm volatile("" ::: "memory");  // no tail call: the frame must stay
}

}  // namespace tricolor::impl
