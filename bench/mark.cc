// mark OBJECTS random|ordered MARKERS: how long does a full collection take when all of it lives?
//
// OBJECTS objects of 48 bytes form a binary tree; two more references of each go across the tree.
// `ordered` objects lie in memory as they are met from the root down, left before right, and refer
// across to their neighbours; `random` ones lie shuffled and refer to any other. MARKERS threads
// mark. collect_ms is the median of kCollections collections after a first one, all asked for;
// ns_each is that for one object. The check is the number of objects found in the tree afterwards.
// For collectors only.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string_view>
#include <utility>

#include "question.h"

namespace {

constexpr int kMaxObjects = 1'000'000'000;
constexpr int kMaxMarkers = 64;
constexpr std::size_t kCollections = 3;

struct Object {
  [[maybe_unused]] static constexpr std::size_t kReferences = 4;
  contestant::field<Object> left{}, right{}, across{}, away{};
  std::uint64_t numbers[2]{};
};
static_assert(sizeof(Object) == 48);

using Table = std::span<contestant::field<Object>>;

// The tree of `objects`, which are in the order in which they are met.
Object* link_tree(Table objects) {
  if (objects.empty()) return nullptr;
  Object* root = objects[0];
  const std::size_t half = objects.size() / 2;
  root->left = link_tree(objects.subspan(1, half));
  root->right = link_tree(objects.subspan(1 + half));
  return root;
}

// On a frame of its own, and with the table emptied: nothing but the root leads to the objects.
[[gnu::noinline]] Object* build(std::size_t count, bool random) {
  const Table objects = contestant::make_table<Object>(count);
  for (auto& object : objects) object = contestant::make<Object>();
  question::Random chance;
  for (std::size_t i = count - 1; random && i > 0; --i) {
    std::swap(objects[i], objects[chance.below(i + 1)]);
  }
  for (std::size_t i = 0; i < count; ++i) {
    objects[i]->across = objects[random ? chance.below(count) : (i + 1) % count];
    objects[i]->away = objects[random ? chance.below(count) : (i + count - 1) % count];
  }
  Object* root = link_tree(objects);
  for (auto& object : objects) object = nullptr;
  return root;
}

std::uint64_t count_tree(const Object* root) {
  return root == nullptr ? 0 : 1 + count_tree(root->left) + count_tree(root->right);
}

double collect_ms() {
  const auto start = question::Clock::now();
  contestant::collect();
  return question::ms_since(start);
}

}  // namespace

int main(int argc, char** argv) {
  int count = 0;
  int markers = 0;
  const std::string_view order = argc == 4 ? argv[2] : "";
  if ((order != "random" && order != "ordered") ||
      !question::parse(argv[1], 1, kMaxObjects, count) ||
      !question::parse(argv[3], 1, kMaxMarkers, markers)) {
    std::fprintf(stderr,
                 "usage: mark OBJECTS random|ordered MARKERS  (OBJECTS 1 to %d, MARKERS 1 to %d)\n",
                 kMaxObjects, kMaxMarkers);
    return 2;
  }
  contestant::Program program(1, markers);
  Object* root = nullptr;
  {
    contestant::Uncollected building;
    root = build(static_cast<std::size_t>(count), order == "random");
  }
  collect_ms();
  std::array<double, kCollections> times{};
  std::generate(times.begin(), times.end(), collect_ms);
  std::sort(times.begin(), times.end());
  const double median = times[kCollections / 2];
  std::printf(
      "question=mark contestant=%s objects=%d order=%s workers=%d collect_ms=%.1f ns_each=%.1f",
      contestant::kName, count, argv[2], markers, median, median * 1e6 / count);
  question::print_rest(count_tree(root));
}
