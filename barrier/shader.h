// Turns white to grey for whoever is not a marker: the write barrier, threads that leave blocking_call or detach, handles that
// go. What it makes grey it shares with the markers.
//
// Invariant [shader.shared]: when its owner lets go of what guards it (a turn, the lock of the table of handles), nothing grey
//   is left in a shader, but in that of the table of handles, which the cycle asks to share.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "alloc/page_map.h"
#include "barrier/color.h"
#include "barrier/mark_queue.h"

namespace tricolor::impl {

// What a cycle has marked outside of its markers.
struct ShadedCounts {
  std::atomic<std::uint64_t> objects{0};
  std::atomic<std::uint64_t> bytes{0};
};

class Shader {
 public:
  Shader(const ArenaMap& map, PacketPool& pool, ShadedCounts& counts)
      : x_map(map), x_pool(pool), x_counts(counts) {}
  Shader(const Shader&) = delete;
  Shader& operator=(const Shader&) = delete;
  ~Shader() { share(); }

  // Any word: what it refers to turns grey, or black if it holds no references.
  void shade_word(std::uintptr_t word);
  // Every aligned word of [begin, end) that lies in the heap.
  void shade_range(const void* begin, const void* end, std::uintptr_t lowest,
                   std::uintptr_t highest);

  bool has_work() const { return x_packet != nullptr; }
  // Hands all that is grey to the markers.
  void share();
  // Forgets it: in a forked child. Null when there is none.
  WorkPacket* take_packet() { return std::exchange(x_packet, nullptr); }

 private:
  const ArenaMap& x_map;
  PacketPool& x_pool;
  ShadedCounts& x_counts;
  WorkPacket* x_packet = nullptr;  // null or with work in it
};

}  // namespace tricolor::impl
