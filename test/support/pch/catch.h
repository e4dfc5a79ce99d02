// What meson compiles once for all files of a test program.
#ifndef TRICOLOR_TEST_PCH_CATCH_H
#define TRICOLOR_TEST_PCH_CATCH_H

#define CATCH_CONFIG_EXTERNAL_INTERFACES  // for listeners (gc/collect_test.cc)
#include <catch2/catch.hpp>

#endif
