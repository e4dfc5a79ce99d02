// What the build's sanitizer changes. With os_linux.cc the only platform conditionals.
#pragma once

#include <cstdint>
#include <string_view>

// AddressSanitizer's fake stacks are not scanned: detect_stack_use_after_return=0. LeakSanitizer does not look into the heap, which
// is no root region of it: malloc memory that only managed objects refer to is a leak to it. MemorySanitizer is not supported:
// stacks are read whether or not they are initialised.

namespace tricolor::impl {

#if defined(__SANITIZE_THREAD__)
inline constexpr bool kThreadSanitizer = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif
#else
inline constexpr bool kThreadSanitizer = false;
#endif

// ThreadSanitizer delays signals until a thread's next blocking call, so such builds stop threads by polls.
inline constexpr bool kStopByPolls = kThreadSanitizer;

// A sanitizer's library has up to 50 MB of tables in its writable segments and 800 kB in every thread's storage. Nothing there
// refers to a managed object; read at every cycle, it would be most of a cycle.
inline bool is_sanitizer_library(std::string_view path) {
  const std::string_view name = path.substr(path.rfind('/') + 1);
  return name.starts_with("libtsan.so") || name.starts_with("libasan.so") ||
         name.starts_with("libubsan.so");
}

// Acquire: what the thread that stored the word wrote into the object. Pairs with barriered_store (release).
//
// A constructor may be filling the object with zeros at the same time: C++ does that by plain stores, over zeros, when an object
// is value-initialised. ThreadSanitizer would call that a race, so in its builds it is told of the order but not of the access.
#if defined(__SANITIZE_THREAD__)
extern "C" void __tsan_acquire(void* address);
[[gnu::noinline]] __attribute__((no_sanitize("thread"))) inline std::uintptr_t load_scanned_word(
    const char* slot) {
  const std::uintptr_t word = *reinterpret_cast<const volatile std::uintptr_t*>(slot);
  if (word != 0) __tsan_acquire(const_cast<char*>(slot));
  return word;
}
#else
inline std::uintptr_t load_scanned_word(const char* slot) {
  return __atomic_load_n(reinterpret_cast<const std::uintptr_t*>(slot), __ATOMIC_ACQUIRE);
}
#endif

}  // namespace tricolor::impl
