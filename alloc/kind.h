// A kind is what the cells of a span have in common: a layout and a size class. Types that can hold pointers get kinds of
// their own (typed spans); pointer-free types share one kind a size class.
//
// Ids are dense, so that a thread finds its run of a kind by index: 0 = not registered; 1..67 the pointer-free classes;
// 68 large pointer-free objects; from 69 on in order of registration.
#pragma once

#include <atomic>
#include <cstdint>

#include <tricolor/detail/size_class.h>
#include <tricolor/detail/type_info.h>

#include "alloc/base/lock.h"
#include "alloc/central.h"
#include "alloc/metadata.h"

namespace tricolor::impl {

struct Kind {
  Kind(const detail::type_info* type_, std::uint32_t id_, std::size_t size_class_);

  const detail::type_info* const type;  // null: pointer-free, shared by size
  const std::uint32_t id;
  const std::uint32_t size_class;
  const std::uint32_t cell_bytes;  // 0 for large objects
  const std::uint32_t cells;       // in a span
  const std::uint32_t pages;       // of a span; 0 for large objects
  const std::uint32_t reciprocal;  // ceil(2^32 / cell_bytes), 0 for large objects
  const detail::ScanMode scan;
  // For ScanMode::words in cells up to 512 bytes: bit i says that word i is managed. 0 otherwise.
  const std::uint64_t word_map;
  Central central;
};

inline constexpr std::uint32_t kUnregisteredKind = 0;
inline constexpr std::uint32_t kLargePointerFreeKind = detail::kClassCount;
inline constexpr std::uint32_t kFirstTypedKind = detail::kClassCount + 1;
// A bound on the number of kinds: a program that registers more has a leak of types.
inline constexpr std::uint32_t kMaxKinds = 1u << 16;

class KindTable {
 public:
  explicit KindTable(Metadata& metadata) : x_metadata(metadata) {}

  // Creates the table and the pointer-free kinds. False when memory is refused.
  bool create();

  // The id kept in `slot`, registered there first if it is 0. Returns 0 when memory or ids (kMaxKinds) have run out.
  // Two threads that register one slot get one id.
  std::uint32_t id_of(std::atomic<std::uint32_t>& slot, const detail::type_info& type,
                      std::size_t size_class);

  Kind& operator[](std::uint32_t id) const {
    // Acquire: the kind is complete. Pairs with add() (release).
    return *x_kinds[id].load(std::memory_order_acquire);
  }
  // Ids below this are registered.
  std::uint32_t count() const { return x_count.load(std::memory_order_acquire); }

 private:
  Kind* add(const detail::type_info* type, std::size_t size_class);

  Metadata& x_metadata;
  Mutex x_lock{LockRank::kKinds};
  std::atomic<Kind*>* x_kinds = nullptr;  // [kMaxKinds], written under x_lock
  std::atomic<std::uint32_t> x_count{1};  // written under x_lock
};

}  // namespace tricolor::impl
