"""Proves that house.py fires: a small tree that obeys every rule gets one fault at a time."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
from house import CHECKS

GOOD = {
    "README.md": "See `alloc/span.h`, `span.h`, `<gc/gc_cpp.h>` and [hello](examples/hello.cc).\n"
                 "```cpp\nint main() {}\n```\n",
    "alloc/README.md": "`span.h`, `base/`, `alloc/base/`: [span.owner]\n",
    "alloc/base/check.h": "#include <source_location>\nvoid check(bool, const char* label);\n",
    "alloc/base/log.cc": "#include <fmt/format.h>\n",
    "alloc/meson.build": "'base/log.cc', 'include/tricolor/detail/type_info.h'\n",
    "alloc/span.h": '#include "alloc/base/check.h"\n// Invariant [span.owner]: one thread owns a span.\n'
                    'inline void f(int a) { check(g(a, "x, y"), "span.owner", {1, 2}); }\n',
    "alloc/include/tricolor/detail/type_info.h": "#include <cstddef>\n",
    "barrier/include/tricolor/ptr.h": "#include <tricolor/detail/type_info.h>\n",
    "barrier/shade.cc": '#include <sys/mman.h>\n#include <tricolor/ptr.h>\n#include "alloc/span.h"  // [span.owner]\n',
    "barrier/meson.build": "'include/tricolor/ptr.h', 'shade.cc'\n",
    "roots/meson.build": "'unwind.cc'\n",
    "roots/unwind.cc": "#include <libunwind.h>\n",
    "gc/heap.h": '#include "roots/stack.h"\n',
    "examples/hello.cc": "// The first program.\nint main() {}\n",
    "test/meson.build": "'alloc/span_test.cc'\n",
    "test/install/consumer/main.cc": "#include <gc/gc.h>\n",
    "test/alloc/span_test.cc": '#include <catch2/catch.hpp>\n#include "alloc/span.h"\n#include "test/support/prng.h"\n',
    "bench/trees.cc": '#include <benchmark/benchmark.h>\n#include <gc/gc.h>\n#include "contestant.h"\n',
}

# check, file, text added to it, what the report must say
FAULTS = [
    ("includes", "alloc/base/check.h", '#include "alloc/span.h"\n', "lies above"),
    ("includes", "alloc/span.h", '#include "gc/heap.h"\n', "lies above"),
    ("includes", "alloc/span.h", "#  include <tricolor/ptr.h>\n", "lies above"),
    ("includes", "alloc/include/tricolor/detail/type_info.h", "#include <tricolor/ptr.h>\n", "lies above"),
    ("includes", "barrier/include/tricolor/ptr.h", '#include "alloc/span.h"\n', "public headers only"),
    ("includes", "barrier/shade.cc", '#include "span.h"\n', "from the root"),
    ("includes", "barrier/shade.cc", "#include <fmt/core.h>\n", "alloc/base/log.cc"),
    ("includes", "gc/heap.h", "#include <libunwind-x86_64.h>\n", "roots/unwind.cc"),
    ("includes", "gc/heap.h", "#include <gc/gc.h>\n", "bench/"),
    ("includes", "examples/hello.cc", '#include "gc/heap.h"\n', "what users have"),
    ("includes", "test/alloc/span_test.cc", '#include "barrier/shade.h"\n', "lies above"),
    ("names", "gc/gc_internal.h", "\n", "hide Boehm"),
    ("names", "gc/gc.h", "\n", "hide Boehm"),
    ("names", "gc/include/tricolor/ptr.h", "\n", "rename one"),
    ("listed", "alloc/base/page.cc", "", "alloc/meson.build"),
    ("listed", "alloc/include/tricolor/tracer.h", "", "alloc/meson.build"),
    ("listed", "test/roots/stack_test.cc", "", "test/meson.build"),
    ("labels", "barrier/shade.cc", "// Invariant [span.owner]: again.\n", "is defined at"),
    ("labels", "barrier/shade.cc", 'int x = f(1), y = (dcheck(a[1, 2] && b(c),\n"span.own"), 1);\n', "checks [span.own]"),
    ("labels", "barrier/shade.cc", 'void f() { check(true, "be good"); }\n', "two words"),
    ("labels", "barrier/shade.cc", "// Keeps [span.own].\n", "names [span.own]"),
    ("labels", "alloc/README.md", "[span.own]\n", "names [span.own]"),
    ("readmes", "README.md", "See `alloc/page.h`.\n", "alloc/page.h"),
    ("readmes", "README.md", "See [it](test/house/it.py).\n", "test/house/it.py"),
    ("readmes", "alloc/README.md", "See `gc/phases/`.\n", "gc/phases/"),
    ("readmes", "examples/hello.cc", "int more;\n", "hello.cc"),
    ("words", "alloc/span.h", "// TO" "DO: later\n", "file an issue"),
    ("words", "test/meson.build", "# FIX" "ME\n", "file an issue"),
    ("words", "README.md", "As hou" "se.md says.\n", "readers do not have"),
]


def faults(check, tree):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in tree.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        return list(CHECKS[check](Path(folder)))


class HouseTest(unittest.TestCase):
    def test_a_good_tree_has_no_faults(self):
        for check in CHECKS:
            self.assertEqual(faults(check, GOOD), [], check)

    def test_every_planted_fault_is_reported_once_with_its_remedy(self):
        for check, name, text, report in FAULTS:
            with self.subTest(check=check, name=name, text=text):
                found = faults(check, {**GOOD, name: GOOD.get(name, "") + text})
                self.assertEqual(len(found), 1, found)
                self.assertIn(report, found[0])


if __name__ == "__main__":
    unittest.main()
