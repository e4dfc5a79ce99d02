// tricolor: an embeddable garbage collector for C++20. This header is the whole C++ API.
//
// Names are in namespace tricolor, with the alias gc. Where `gc` is taken (libgc's gc_cpp.h declares a class of that name),
// define TRICOLOR_NO_GC_ALIAS before including this.
#pragma once

#include <tricolor/array.h>
#include <tricolor/atomic_ptr.h>
#include <tricolor/bulk.h>
#include <tricolor/heap.h>
#include <tricolor/layout.h>
#include <tricolor/make.h>
#include <tricolor/options.h>
#include <tricolor/ptr.h>
#include <tricolor/root.h>
#include <tricolor/root_range.h>
#include <tricolor/stats.h>
#include <tricolor/thread.h>
#include <tricolor/tracer.h>

#ifndef TRICOLOR_NO_GC_ALIAS
namespace gc = tricolor;
#endif
