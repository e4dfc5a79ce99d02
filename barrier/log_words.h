// The two halves of the write barrier: what a store logs, inside its unit, with room made before [barrier.room]. Every armed
// store comes by here, that of one word and those of many, so a fault planted here is planted in all of them.
#pragma once

#include <tricolor/detail/write_barrier.h>

#include "alloc/base/fault.h"

namespace tricolor::impl {

inline void log_old(detail::thread_cache& cache, detail::managed_word word) {
  if (word != 0 && !is_planted(Fault::no_deletion_half)) detail::append_to_log(cache, word);
}
inline void log_new(detail::thread_cache& cache, detail::managed_word word) {
  if (word != 0 && !is_planted(Fault::no_insertion_half)) detail::append_to_log(cache, word);
}

}  // namespace tricolor::impl
