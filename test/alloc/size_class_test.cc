#include <tricolor/detail/size_class.h>

#include <algorithm>
#include <catch2/catch.hpp>

using namespace tricolor::detail;

namespace {

constexpr std::size_t kPage = 8192;

std::size_t span_bytes(std::size_t c) { return kSizeClasses[c].span_pages * kPage; }
std::size_t cell_bytes(std::size_t c) { return kSizeClasses[c].cell_bytes; }

}  // namespace

TEST_CASE("cells grow from class to class by steps of 8 bytes") {
  for (std::size_t c = 1; c < kClassCount; ++c) {
    CAPTURE(c);
    CHECK(cell_bytes(c) % 8 == 0);
    CHECK(cell_bytes(c) > cell_bytes(c - 1));
    CHECK(span_bytes(c) >= cell_bytes(c));
  }
  CHECK(cell_bytes(kLargeClass) == 0);
  CHECK(cell_bytes(kClassCount - 1) == kMaxSmallBytes);
}

TEST_CASE("a span leaves at most an eighth of itself unused at its end") {
  for (std::size_t c = 1; c < kClassCount; ++c) {
    CAPTURE(c, cell_bytes(c));
    CHECK(span_bytes(c) % cell_bytes(c) <= span_bytes(c) / 8);
  }
}

TEST_CASE("above 1 KiB at most a sixth of a span is waste, whatever the size") {
  for (std::size_t c = size_class_for(1025, 1); c < kClassCount; ++c) {
    const std::size_t cells = span_bytes(c) / cell_bytes(c);
    const std::size_t smallest = cell_bytes(c - 1) + 1;  // the object that fits worst
    CAPTURE(c, cell_bytes(c));
    CHECK((span_bytes(c) - cells * smallest) * 6 <= span_bytes(c));
  }
}

TEST_CASE("a page of small cells needs no more bits than its record has") {
  for (std::size_t c = 1; c < kClassCount; ++c) {
    CAPTURE(c, cell_bytes(c));
    // Out-of-line bits exist per page, so cells that need them never cross one.
    if (cell_bytes(c) < 32) CHECK(kSizeClasses[c].span_pages == 1);
    if (cell_bytes(c) >= 32) CHECK(span_bytes(c) / cell_bytes(c) <= 256);
  }
}

TEST_CASE("the reciprocal of a cell size divides every offset in its span exactly") {
  for (std::size_t c = 1; c < kClassCount; ++c) {
    const std::uint64_t cell = cell_bytes(c);
    const std::uint64_t reciprocal = ((std::uint64_t{1} << 32) + cell - 1) / cell;
    std::size_t wrong = 0;
    for (std::uint64_t offset = 0; offset < span_bytes(c); ++offset) {
      wrong += (offset * reciprocal >> 32) != offset / cell;
    }
    CAPTURE(c, cell);
    CHECK(reciprocal <= 0xffffffff);
    CHECK(wrong == 0);
  }
}

TEST_CASE("both look-ups find the smallest class that fits, for every size and alignment") {
  for (std::size_t align = 1; align <= kMaxAlign; align *= 2) {
    std::size_t wrong = 0;
    std::size_t first_wrong = 0;
    std::size_t expected = 1;  // rises with the size
    for (std::size_t bytes = 0; bytes <= kMaxSmallBytes + 1; ++bytes) {
      while (expected != kLargeClass &&
             (cell_bytes(expected) < bytes || cell_bytes(expected) % align != 0)) {
        expected = expected + 1 == kClassCount ? kLargeClass : expected + 1;
      }
      if (size_class_for(bytes, align) != expected ||
          size_class_at_run_time(bytes, align) != expected) {
        if (wrong++ == 0) first_wrong = bytes;
      }
    }
    CAPTURE(align, first_wrong);
    CHECK(wrong == 0);
  }
}

TEST_CASE("what no class can hold is large") {
  CHECK(size_class_for(kMaxSmallBytes + 1, 1) == kLargeClass);
  CHECK(size_class_at_run_time(kMaxSmallBytes + 1, 1) == kLargeClass);
  CHECK(size_class_at_run_time(SIZE_MAX, 1) == kLargeClass);
  CHECK(size_class_for(1, kMaxAlign * 8) == kLargeClass);
  CHECK(size_class_at_run_time(1, kMaxAlign * 8) == kLargeClass);
}

TEST_CASE("every cell of a class lies at the alignment it was chosen for") {
  for (std::size_t align = 8; align <= kMaxAlign; align *= 2) {
    for (const std::size_t bytes : {std::size_t{1}, align - 1, align, align + 1, 3 * align}) {
      const std::size_t c = size_class_for(bytes, align);
      if (c == kLargeClass) continue;  // page-aligned
      CAPTURE(bytes, align);
      // Spans begin at pages, and cells follow each other without a gap.
      CHECK(cell_bytes(c) % align == 0);
      CHECK(cell_bytes(c) >= bytes);
    }
  }
}
