// What the build's sanitizer changes. With os_linux.cc the only platform conditionals.
#pragma once

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

}  // namespace tricolor::impl
