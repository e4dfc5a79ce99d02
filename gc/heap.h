// One heap: owns every part, in construction order, and is the only reader of the options. The only global of the library
// is the pointer to the process's default heap.
#pragma once

#include <atomic>
#include <cstdint>

#include <tricolor/heap.h>
#include <tricolor/options.h>
#include <tricolor/stats.h>

#include "alloc/allocator.h"
#include "barrier/mark_queue.h"
#include "barrier/shader.h"
#include "gc/assist.h"
#include "gc/cycle.h"
#include "gc/handshake.h"
#include "gc/slot_check.h"
#include "roots/root_set.h"

namespace tricolor::impl {

// What can change while the program runs is atomic; relaxed everywhere: a change is seen a little later.
struct Settings {
  std::atomic<int> percent{100};
  std::atomic<std::uint64_t> memory_limit_bytes{no_limit};
  std::atomic<std::uint64_t> hard_limit_bytes{no_limit};
  std::atomic<std::uint64_t> min_heap_bytes{0};
  std::atomic<out_of_memory_callback> out_of_memory{nullptr};
  int gctrace = 0;
  int gcpacertrace = 0;
  int scavtrace = 0;
  int gcstoptheworld = 0;
  int gccheckmark = 0;
  int checkslot = 1;
  int stress = 0;
  int tinybuffers = 0;
  int workers = 0;  // 0: as many as the pacer says
  int idleworkers = 2;
  std::uint64_t period_ns = 0;
};

// Pins the libraries of the types that the mutator has registered inside gc::critical, which has ended (allocate.cc).
void pin_types_since(Mutator& mutator);

// By the owner of `mutator`. A stop may come in between, so that none has to wait for all of a large range.
void remove_range(Mutator& mutator, RootSet::Registration registration);

class Heap {
 public:
  // The process's heap, made at the first use from the environment. Null when the kernel refuses the first memory.
  static Heap* get();
  // The same if it has been made, else null.
  static Heap* existing() { return x_default.load(std::memory_order_acquire); }
  // Makes it with these options (the environment wins over them). False when it is there already.
  static bool make(const options& wanted);

  // Held while it is made, and by a thread that forks.
  static Mutex& creation_mutex();

  // The calling thread's mutator; attaches the thread if need be. Throws std::bad_alloc when memory is refused.
  static Mutator& mutator();

  Allocator& allocator() { return x_allocator; }
  RootSet& roots() { return x_roots; }
  PacketPool& packets() { return x_packets; }
  ShadedCounts& shaded() { return x_shaded; }
  // For one use on the stack, by who may share grey work now (barrier/shader.h).
  Shader shader() { return Shader(x_allocator.map, x_packets, x_shaded); }
  Handshake& handshake() { return x_handshake; }
  Assists& assists() { return x_assists; }
  Cycle& cycle() { return x_cycle; }
  SlotCheck& slot_check() { return x_slot_check; }
  Settings& settings() { return x_settings; }
  std::uint64_t begin_ns() const { return x_begin_ns; }

  // Every address of a managed object lies in here.
  AddressRange address_range() const {
    return {x_allocator.pages.lowest_address(), x_allocator.pages.highest_address()};
  }

  statistics stats() const;

 private:
  Heap() = default;
  bool create(const options& wanted);

  static std::atomic<Heap*> x_default;

  Settings x_settings;
  std::uint64_t x_begin_ns = 0;
  std::uint64_t x_cgroup_limit_bytes = no_limit;
  Allocator x_allocator;
  PacketPool x_packets{x_allocator.metadata};
  ShadedCounts x_shaded;
  RootSet x_roots{x_allocator.metadata, x_allocator.map, x_packets, x_shaded};
  Handshake x_handshake{*this};
  SlotCheck x_slot_check{*this};
  Assists x_assists{*this};
  Cycle x_cycle{*this};
};

}  // namespace tricolor::impl
