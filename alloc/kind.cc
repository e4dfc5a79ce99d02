#include "alloc/kind.h"

#include <new>

#include "alloc/base/os.h"
#include "alloc/base/units.h"

namespace tricolor::impl {

namespace {

std::uint32_t cells_of(std::size_t size_class) {
  if (size_class == detail::kLargeClass) return 1;
  const detail::size_class_row row = detail::kSizeClasses[size_class];
  return static_cast<std::uint32_t>(row.span_pages * kPageBytes / row.cell_bytes);
}

std::uint32_t reciprocal_of(std::size_t size_class) {
  if (size_class == detail::kLargeClass) return 0;
  const std::uint64_t bytes = detail::kSizeClasses[size_class].cell_bytes;
  return static_cast<std::uint32_t>(((std::uint64_t{1} << 32) + bytes - 1) / bytes);
}

// Every place of a managed word in a cell of at most 64 words.
std::uint64_t word_map_of(const detail::type_info* type, std::size_t cell_bytes) {
  if (type == nullptr || type->scan != detail::ScanMode::words || cell_bytes == 0 ||
      cell_bytes > 512)
    return 0;
  std::uint64_t map = 0;
  for (std::uint32_t i = 0; i < type->fixed.count; ++i)
    map |= std::uint64_t{1} << (type->fixed.begin[i] / 8);
  if (type->tail_stride != 0) {
    for (std::size_t at = type->tail_offset; at + type->tail_stride <= cell_bytes;
         at += type->tail_stride) {
      for (std::uint32_t i = 0; i < type->tail.count; ++i)
        map |= std::uint64_t{1} << ((at + type->tail.begin[i]) / 8);
    }
  }
  return map;
}

}  // namespace

Kind::Kind(const detail::type_info* type_, std::uint32_t id_, std::size_t size_class_)
    : type(type_),
      id(id_),
      size_class(static_cast<std::uint32_t>(size_class_)),
      cell_bytes(detail::kSizeClasses[size_class_].cell_bytes),
      cells(cells_of(size_class_)),
      pages(detail::kSizeClasses[size_class_].span_pages),
      reciprocal(reciprocal_of(size_class_)),
      scan(type_ == nullptr ? detail::ScanMode::none : type_->scan),
      word_map(word_map_of(type_, cell_bytes)) {}

bool KindTable::create() {
  // 512 KiB of address space; a page of it is touched for every 512 kinds.
  x_kinds = static_cast<std::atomic<Kind*>*>(
      os::map(kMaxKinds * sizeof(x_kinds[0]), os::kernel_page_bytes(), "tricolor metadata"));
  if (x_kinds == nullptr) return false;
  const Guard guard(x_lock);
  for (std::size_t c = 1; c < detail::kClassCount; ++c) {
    if (add(nullptr, c) == nullptr) return false;
  }
  return add(nullptr, detail::kLargeClass) != nullptr;
}

std::uint32_t KindTable::id_of(std::atomic<std::uint32_t>& slot, const detail::type_info& type,
                               std::size_t size_class) {
  // Acquire: the kind behind the id is in the table. Pairs with the store below (release).
  if (const std::uint32_t id = slot.load(std::memory_order_acquire); id != kUnregisteredKind)
    return id;
  const Guard guard(x_lock);
  if (const std::uint32_t id = slot.load(std::memory_order_relaxed); id != kUnregisteredKind)
    return id;
  const Kind* const kind = add(&type, size_class);
  if (kind == nullptr) return kUnregisteredKind;
  slot.store(kind->id, std::memory_order_release);
  return kind->id;
}

Kind* KindTable::add(const detail::type_info* type, std::size_t size_class) {
  const std::uint32_t id = x_count.load(std::memory_order_relaxed);
  if (id == kMaxKinds) return nullptr;
  void* const memory = x_metadata.take(sizeof(Kind));
  if (memory == nullptr) return nullptr;
  Kind* const kind = ::new (memory) Kind(type, id, size_class);
  x_kinds[id].store(kind, std::memory_order_release);
  x_count.store(id + 1, std::memory_order_release);
  return kind;
}

}  // namespace tricolor::impl
