#include "alloc/metadata.h"

#include <bit>
#include <cstring>

#include "alloc/base/os.h"
#include "alloc/base/units.h"

namespace tricolor::impl {

namespace {

std::size_t log2_of_block(std::size_t bytes, std::size_t smallest) {
  const auto log2 = static_cast<std::size_t>(std::bit_width(bytes - 1));
  return log2 < smallest ? smallest : log2;
}

}  // namespace

void* Metadata::take(std::size_t bytes) {
  dcheck(bytes != 0, "metadata.size");
  const std::size_t log2 = log2_of_block(bytes, kSmallestLog2);
  const std::size_t block_bytes = std::size_t{1} << log2;
  if (log2 >= kMappedAloneLog2) {
    void* const block = os::map(block_bytes, os::kernel_page_bytes(), "tricolor metadata");
    if (block != nullptr) x_mapped_bytes.fetch_add(block_bytes, std::memory_order_relaxed);
    return block;
  }
  const Guard guard(x_lock);
  if (FreeBlock* const block = x_free[log2]; block != nullptr) {
    x_free[log2] = block->next;
    std::memset(static_cast<void*>(block), 0, block_bytes);
    return block;
  }
  if (x_chunk_left < block_bytes) {
    // What is left of the old chunk is given up: less than the block that did not fit.
    void* const chunk = os::map(kChunkBytes, os::kernel_page_bytes(), "tricolor metadata");
    if (chunk == nullptr) return nullptr;
    x_mapped_bytes.fetch_add(kChunkBytes, std::memory_order_relaxed);
    x_chunk = static_cast<char*>(chunk);
    x_chunk_left = kChunkBytes;
  }
  char* const block = x_chunk;
  x_chunk += block_bytes;
  x_chunk_left -= block_bytes;
  return block;
}

void Metadata::trim(void* block, std::size_t bytes, std::size_t fewer) {
  dcheck(kTrimmedBytes <= fewer && fewer <= bytes && std::has_single_bit(bytes) &&
             std::has_single_bit(fewer),
         "metadata.size");
  if (fewer == bytes) return;
  os::unreserve(static_cast<char*>(block) + fewer, bytes - fewer);
  x_mapped_bytes.fetch_sub(bytes - fewer, std::memory_order_relaxed);
}

void Metadata::give_back(void* block, std::size_t bytes) {
  if (block == nullptr) return;
  const std::size_t log2 = log2_of_block(bytes, kSmallestLog2);
  const std::size_t block_bytes = std::size_t{1} << log2;
  if (log2 >= kMappedAloneLog2) {
    os::unreserve(block, block_bytes);
    x_mapped_bytes.fetch_sub(block_bytes, std::memory_order_relaxed);
    return;
  }
  const Guard guard(x_lock);
  auto* const free_block = static_cast<FreeBlock*>(block);
  free_block->next = x_free[log2];
  x_free[log2] = free_block;
}

}  // namespace tricolor::impl
