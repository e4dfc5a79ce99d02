// Catch's main, compiled once and without sanitizers for all test programs.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
