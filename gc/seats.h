// The registry of mutators: where each of them says what it does. The states stand side by side, so a stop finds out who runs
// among a thousand by reading some lines of the cache, and touches nothing else of those that are idle.
//
// Guarded by Handshake's lock of the registry, but for the states themselves: each is its mutator's (handshake.h).
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <new>

#include "alloc/metadata.h"
#include "gc/mutator.h"

namespace tricolor::impl {

class Seats {
 public:
  // Gives the mutator a seat. False when memory is refused.
  bool take(Metadata& metadata, Mutator& mutator) {
    for (Block** link = &x_first;; link = &(*link)->next) {
      if (*link == nullptr) {
        void* const memory = metadata.take(sizeof(Block));
        if (memory == nullptr) return false;
        *link = ::new (memory) Block();
      }
      Block& block = **link;
      for (std::size_t i = 0; i < block.states.size(); ++i) {
        if (block.mutators[i] != nullptr) continue;
        block.mutators[i] = &mutator;
        mutator.state = &block.states[i];
        return true;
      }
    }
  }

  // Its state is idle from now on, as that of every seat that nobody has.
  void give_back(Mutator& mutator) {
    for (Block* block = x_first; block != nullptr; block = block->next) {
      for (Mutator*& seat : block->mutators) {
        if (seat == &mutator) seat = nullptr;
      }
    }
    mutator.state->store(MutatorState::idle, std::memory_order_relaxed);
  }

  // Calls fn(mutator). The lock may be given up in between: those that come meanwhile may be left out.
  template <class Fn>
  void for_each(Fn fn) const {
    for (const Block* block = x_first; block != nullptr; block = block->next) {
      for (std::size_t i = 0; i < block->mutators.size(); ++i) {
        Mutator* const mutator = block->mutators[i];
        if (mutator != nullptr) fn(*mutator);
      }
    }
  }

  // Calls fn(mutator, state) for all that are not idle.
  template <class Fn>
  void for_each_not_idle(Fn fn) const {
    for (const Block* block = x_first; block != nullptr; block = block->next) {
      for (std::size_t i = 0; i < block->states.size(); ++i) {
        // L2 of [handshake.dekker].
        const MutatorState state = block->states[i].load(std::memory_order_seq_cst);
        if (state != MutatorState::idle) fn(*block->mutators[i], state);
      }
    }
  }

 private:
  struct Block {
    Block* next = nullptr;
    std::array<std::atomic<MutatorState>, 340> states = {};  // idle
    std::array<Mutator*, 340> mutators = {};
  };
  static_assert(sizeof(Block) <= 4096, "a metadata block");
  static_assert(MutatorState{} == MutatorState::idle, "seats that nobody has");

  Block* x_first = nullptr;  // blocks are never given back
};

}  // namespace tricolor::impl
