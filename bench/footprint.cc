// footprint OBJECTS CHURN: how much memory does a heap take that changes but does not grow?
//
// A table of OBJECTS references is filled with objects of 64 bytes; then an object at a random
// place is replaced by a new one, CHURN times. `footprint` is the largest resident set of the
// process divided by the bytes of the objects alone, 64 * OBJECTS; churn_ms is the time that the
// replacing takes. The check is the sum of what the objects hold at the end.

#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "question.h"

namespace {

constexpr int kMaxObjects = 1'000'000'000;

struct Object {
  contestant::field<Object> other{};
  std::uint64_t numbers[7]{};
};
static_assert(sizeof(Object) == 64);

Object* make(int number) {
  auto* object = contestant::make<Object>();
  object->numbers[0] = static_cast<std::uint64_t>(number);
  return object;
}

}  // namespace

int main(int argc, char** argv) {
  int count = 0;
  int churn = 0;
  if (argc != 3 || !question::parse(argv[1], 1, kMaxObjects, count) ||
      !question::parse(argv[2], 0, kMaxObjects, churn)) {
    std::fprintf(stderr, "usage: footprint OBJECTS CHURN  (both up to %d)\n", kMaxObjects);
    return 2;
  }
  contestant::Program program(1);
  const auto table = contestant::make_table<Object>(static_cast<std::size_t>(count));
  for (auto& object : table) object = make(0);

  question::Random chance;
  const auto start = question::Clock::now();
  for (int i = 0; i < churn; ++i) {
    auto& place = table[chance.below(table.size())];
    contestant::free_by_hand<Object>(place);
    place = make(i);
  }
  const double churn_ms = question::ms_since(start);

  std::uint64_t sum = 0;
  for (const Object* object : table) sum += object->numbers[0];
  std::printf("question=footprint contestant=%s objects=%d churn=%d footprint=%.3f churn_ms=%.1f",
              contestant::kName, count, churn,
              question::peak_rss_mb() * (1 << 20) / (static_cast<double>(count) * sizeof(Object)),
              churn_ms);
  question::print_rest(sum);
}
