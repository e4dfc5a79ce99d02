#include "roots/unwind.h"

#include <dlfcn.h>

#include <catch2/catch.hpp>
#include <stdexcept>
#include <string>

#include "alloc/base/check.h"
#include "test/alloc/child.h"

using tricolor::test::ChildEnd;
using tricolor::test::in_child;

extern "C" [[gnu::noinline]] int tricolor_test_deeper(int depth) {
  if (depth == 0) {
    tricolor::impl::print_backtrace();
    return 0;
  }
  const int below = tricolor_test_deeper(depth - 1);
  asm volatile("");  // no tail call
  return below + 1;
}

TEST_CASE("a backtrace names the functions of the frames, innermost first") {
  const ChildEnd end = in_child([] { return tricolor_test_deeper(3); });
  CHECK(end.exit_code == 3);
  INFO(end.errors);
  std::size_t frames = 0;
  for (std::size_t at = 0;
       (at = end.errors.find("tricolor_test_deeper+0x", at)) != std::string::npos; ++at)
    ++frames;
  CHECK(frames == 4);
  CHECK(end.errors.find("  #0 0x") == 0);
  const std::size_t main_frame = end.errors.find(" main+0x");
  REQUIRE(main_frame != std::string::npos);
  CHECK(main_frame > end.errors.rfind("tricolor_test_deeper+0x"));
}

TEST_CASE("a backtrace of a very deep stack ends") {
  const ChildEnd end = in_child([] { return tricolor_test_deeper(1'000) == 1'000 ? 0 : 1; });
  CHECK(end.exit_code == 0);
  std::size_t lines = 0;
  for (const char c : end.errors) lines += c == '\n';
  CHECK(lines > 10);
  CHECK(lines <= 100);
}

TEST_CASE("a fatal report ends with a backtrace once that is asked for, and aborts") {
  const ChildEnd end = in_child([] {
    tricolor::impl::install_report_backtrace();
    tricolor::impl::usage_error("the rule that was broken");
    return 0;
  });
  CHECK(end.signal == SIGABRT);
  INFO(end.errors);
  const std::size_t message = end.errors.find("the rule that was broken");
  REQUIRE(message != std::string::npos);
  CHECK(end.errors.find("  #0 0x") > message);
  CHECK(end.errors.find(" main+0x") != std::string::npos);
}

TEST_CASE("linking libunwind leaves the program's exceptions with libgcc_s") {
  CHECK_THROWS_AS(throw std::runtime_error("x"), std::runtime_error);
  Dl_info info;
  void* const raise = dlsym(RTLD_DEFAULT, "_Unwind_RaiseException");
  REQUIRE(raise != nullptr);
  REQUIRE(dladdr(raise, &info) != 0);
  const std::string library = info.dli_fname;
  INFO(library);
  CHECK(library.find("libunwind") == std::string::npos);
  // AddressSanitizer stands before it, as before much else.
  CHECK(
      (library.find("libgcc_s") != std::string::npos || library.find("asan") != std::string::npos));
}
