#include "roots/root_set.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdint>
#include <set>
#include <thread>
#include <vector>

using tricolor::impl::ArenaMap;
using tricolor::impl::Metadata;
using tricolor::impl::PacketPool;
using tricolor::impl::RootSet;
using tricolor::impl::RootSlot;
using tricolor::impl::ShadedCounts;

namespace {

// A table, and what it shades into. No arena is in the map: nothing it is given is an object.
struct Parts {
  Parts() { REQUIRE(map.create()); }
  Metadata metadata;
  ArenaMap map;
  PacketPool pool{metadata};
  ShadedCounts counts;
  RootSet set{metadata, map, pool, counts};
};

void* word(std::uintptr_t n) { return reinterpret_cast<void*>(n); }

std::multiset<void*> words_of(RootSet& set) {
  std::multiset<void*> words;
  set.for_each([&](const void*, void* w) { words.insert(w); });
  return words;
}

}  // namespace

TEST_CASE("a new slot holds null, and nulls are not visited") {
  Parts parts;
  RootSet& set = parts.set;
  CHECK(words_of(set).empty());
  RootSlot* const slot = set.take();
  REQUIRE(slot != nullptr);
  CHECK(slot->load() == nullptr);
  CHECK(words_of(set).empty());
  slot->store(word(0x7f00'0000'0010));
  CHECK(words_of(set) == std::multiset<void*>{word(0x7f00'0000'0010)});
  slot->store(nullptr);
  CHECK(words_of(set).empty());
}

TEST_CASE("every slot in use is visited once, also with an odd address in it") {
  Parts parts;
  RootSet& set = parts.set;
  std::multiset<void*> expected;
  std::set<RootSlot*> distinct;
  for (std::uintptr_t i = 0; i < 10'000; ++i) {
    RootSlot* const slot = set.take();
    REQUIRE(slot != nullptr);
    distinct.insert(slot);
    slot->store(word(0x5000'0000 + i));
    expected.insert(word(0x5000'0000 + i));
  }
  CHECK(distinct.size() == 10'000);
  CHECK(words_of(set) == expected);
}

TEST_CASE("a slot that was given back is not visited, and serves again as if it were new") {
  Parts parts;
  RootSet& set = parts.set;
  std::vector<RootSlot*> slots;
  for (std::uintptr_t i = 1; i <= 2'000; ++i) {
    slots.push_back(set.take());
    slots.back()->store(word(i * 16));
  }
  for (std::size_t i = 0; i < slots.size(); i += 2) set.give_back(slots[i]);
  CHECK(words_of(set).size() == 1'000);
  for (RootSlot* const slot : slots) {
    if (slot->load() == word(16)) FAIL("the slot of 16 was given back");
  }
  std::vector<RootSlot*> again;
  for (int i = 0; i < 1'000; ++i) {
    again.push_back(set.take());
    REQUIRE(again.back()->load() == nullptr);
    CHECK(std::find(slots.begin(), slots.end(), again.back()) != slots.end());
  }
  CHECK(words_of(set).size() == 1'000);
  for (RootSlot* const slot : again) set.give_back(slot);
  for (std::size_t i = 1; i < slots.size(); i += 2) set.give_back(slots[i]);
  CHECK(words_of(set).empty());
}

TEST_CASE("threads take and give back slots while another visits them") {
  Parts parts;
  RootSet& set = parts.set;
  RootSlot* const constant = set.take();
  constant->store(word(8));
  std::atomic<bool> end{false};
  std::atomic<int> wrong{0};
  std::thread reader([&] {
    while (!end) {
      bool seen = false;
      set.for_each([&](const void*, void* w) {
        seen |= w == word(8);
        if (reinterpret_cast<std::uintptr_t>(w) > 3'000 * 8) ++wrong;
      });
      if (!seen) ++wrong;
    }
  });
  std::vector<std::thread> takers;
  for (int t = 0; t < 3; ++t) {
    takers.emplace_back([&set, &wrong, t] {
      std::vector<RootSlot*> mine;
      for (std::uintptr_t i = 0; i < 3'000; ++i) {
        RootSlot* const slot = set.take();
        if (slot->load() != nullptr) ++wrong;
        slot->store(word(8 * (i % 1'000 + 1) + static_cast<unsigned>(t)));
        mine.push_back(slot);
        if (i % 3 != 0) {
          set.give_back(mine.front());
          mine.erase(mine.begin());
        }
      }
      for (RootSlot* const slot : mine) set.give_back(slot);
    });
  }
  for (std::thread& taker : takers) taker.join();
  end = true;
  reader.join();
  CHECK(wrong == 0);
  CHECK(words_of(set) == std::multiset<void*>{word(8)});
}
