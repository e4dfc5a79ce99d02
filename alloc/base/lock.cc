// The check of the lock order [lock.order], in debug builds.
//
// Since a thread takes locks in strictly rising rank, the stack of what it holds is a set, and the
// set is a mask: one bit a rank, the highest bit is the lock taken last.
#include "alloc/base/lock.h"

#include <bit>

namespace tricolor::impl {
namespace {

// Ranks of the locks this thread holds. Static TLS where the linker allows it, never initialised
// lazily: a lock may be the first thing that a thread does with us.
constinit thread_local std::uint32_t held_ranks = 0;

static_assert(static_cast<unsigned>(LockRank::kMetadata) < 32, "a rank is a bit of the mask");

}  // namespace

void Mutex::note_lock(LockRank rank) {
  const auto bit = static_cast<unsigned>(rank);
  // Before the lock is taken, so that a wrong order is a report and not a deadlock.
  check((held_ranks >> bit) == 0, "lock.order",
        {bit, static_cast<std::uint64_t>(std::bit_width(held_ranks)) - 1});
  held_ranks |= 1U << bit;
}

void Mutex::note_unlock(LockRank rank) {
  const auto bit = static_cast<unsigned>(rank);
  check((held_ranks >> bit & 1U) != 0, "lock.order", {bit, held_ranks});
  held_ranks &= ~(1U << bit);
}

}  // namespace tricolor::impl
