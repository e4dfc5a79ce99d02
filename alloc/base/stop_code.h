// Code that runs while the world is stopped stands together, in a section of its own, so that it can be fetched before a stop
// (gc/rehearsal.h). What is inlined goes along; what is not marked is only slower.
#pragma once

#define TRICOLOR_STOP_CODE [[gnu::section("tricolor_stop_code")]]
