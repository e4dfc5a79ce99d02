#include "roots/registers.h"

#include <pthread.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdint>
#include <stdexcept>

#include "roots/stack.h"

using tricolor::impl::with_spilled_registers;

namespace {

using tricolor::impl::StackBounds;

// The calling thread's.
StackBounds bounds_here() {
  StackBounds bounds;
  REQUIRE(tricolor::impl::current_stack_bounds(bounds));
  return bounds;
}

// What a scan of the words from top to the base of the stack would find.
[[gnu::noinline, maybe_unused]] __attribute__((no_sanitize("address"))) bool on_stack(
    const void* top, std::uintptr_t word) {
  const auto* const base = reinterpret_cast<const std::uintptr_t*>(bounds_here().base);
  const auto first = (reinterpret_cast<std::uintptr_t>(top) + 7) & ~std::uintptr_t{7};
  for (const auto* at = reinterpret_cast<const volatile std::uintptr_t*>(first); at < base; ++at) {
    if (*at == word) return true;
  }
  return false;
}

struct Destroyed {
  bool& flag;
  ~Destroyed() { flag = true; }
};

}  // namespace

TEST_CASE("the function is called once, with the argument, below the caller's frame") {
  struct Seen {
    int calls = 0;
    void* top = nullptr;
  } seen;
  with_spilled_registers(
      [](void* top, void* argument) {
        auto& s = *static_cast<Seen*>(argument);
        ++s.calls;
        s.top = top;
      },
      &seen);
  CHECK(seen.calls == 1);
  CHECK(bounds_here().contains(seen.top));
  CHECK(static_cast<void*>(&seen) > seen.top);
}

TEST_CASE("spilling nests") {
  struct Seen {
    void* outer = nullptr;
    void* inner = nullptr;
  } seen;
  with_spilled_registers(
      [](void* top, void* argument) {
        static_cast<Seen*>(argument)->outer = top;
        with_spilled_registers([](void* t, void* a) { static_cast<Seen*>(a)->inner = t; },
                               argument);
      },
      &seen);
  CHECK(seen.inner < seen.outer);
}

TEST_CASE("exceptions pass through the spilled frame and destroy what is on the way") {
  bool outer = false;
  struct Argument {
    bool inner = false;
  } argument;
  const auto call = [&] {
    const Destroyed here{outer};
    with_spilled_registers(
        [](void*, void* a) {
          const Destroyed inside{static_cast<Argument*>(a)->inner};
          throw std::runtime_error("out");
        },
        &argument);
  };
  CHECK_THROWS_WITH(call(), "out");
  CHECK(argument.inner);
  CHECK(outer);
}

TEST_CASE("a cancelled thread unwinds through the spilled frame") {
  struct Flags {
    bool inner = false;
    bool outer = false;
    std::atomic<bool> waits{false};
    int pipe_ends[2];
  } flags;
  REQUIRE(pipe(flags.pipe_ends) == 0);
  pthread_t thread;
  REQUIRE(pthread_create(
              &thread, nullptr,
              [](void* data) -> void* {
                const Destroyed here{static_cast<Flags*>(data)->outer};
                with_spilled_registers(
                    [](void*, void* d) {
                      auto& f = *static_cast<Flags*>(d);
                      const Destroyed inside{f.inner};
                      f.waits = true;
                      f.waits.notify_one();
                      char byte;
                      while (read(f.pipe_ends[0], &byte, 1) !=
                             1) {  // a cancellation point; nothing ever comes
                      }
                    },
                    data);
                return nullptr;
              },
              &flags) == 0);
  flags.waits.wait(false);
  REQUIRE(pthread_cancel(thread) == 0);
  void* result = nullptr;
  REQUIRE(pthread_join(thread, &result) == 0);
  CHECK(result == PTHREAD_CANCELED);
  CHECK(flags.inner);
  CHECK(flags.outer);
  close(flags.pipe_ends[0]);
  close(flags.pipe_ends[1]);
}

#if defined(__x86_64__)

// Loads rbx, rbp, r12 to r15 with the complements of hidden[0..5] and calls spill(fn, argument): the plain values are in these
// registers and nowhere else.
extern "C" void tricolor_test_spill_with(const std::uintptr_t* hidden,
                                         void (*spill)(void (*)(void*, void*), void*),
                                         void (*fn)(void*, void*), void* argument);
asm(R"(
    .text
    .globl tricolor_test_spill_with
    .type tricolor_test_spill_with, @function
tricolor_test_spill_with:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    subq $8, %rsp
    movq %rsi, %rax
    movq 0(%rdi), %rbx
    movq 8(%rdi), %rbp
    movq 16(%rdi), %r12
    movq 24(%rdi), %r13
    movq 32(%rdi), %r14
    movq 40(%rdi), %r15
    notq %rbx
    notq %rbp
    notq %r12
    notq %r13
    notq %r14
    notq %r15
    movq %rdx, %rdi
    movq %rcx, %rsi
    call *%rax
    addq $8, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret
    .size tricolor_test_spill_with, . - tricolor_test_spill_with
)");

TEST_CASE(
    "a word that is only in a callee-saved register is found from top on, whichever register it "
    "is") {
  struct Search {
    std::array<std::uintptr_t, 6> hidden;
    std::array<bool, 6> found = {};
    bool found_another = true;
  } search;
  // Computed, so that the plain values are in no constant pool and in no frame.
  for (std::size_t i = 0; i < 6; ++i)
    search.hidden[i] = ~(std::uintptr_t{0x1234'5678'9abc'0001} * (i + 3));
  tricolor_test_spill_with(
      search.hidden.data(), with_spilled_registers,
      [](void* top, void* argument) {
        auto& s = *static_cast<Search*>(argument);
        for (std::size_t i = 0; i < 6; ++i) s.found[i] = on_stack(top, ~s.hidden[i]);
        s.found_another = on_stack(top, ~s.hidden[0] + 1);
      },
      &search);
  CHECK(search.found == std::array<bool, 6>{true, true, true, true, true, true});
  CHECK_FALSE(search.found_another);
}

#endif
