#!/bin/sh
# Builds the prototypes with -O2 and prints their tables. About 15 minutes; with "large" also 20 M
# objects (random graph), which takes 5 GiB and 10 minutes more.
# Environment: CXX (g++), CPU (1, the core to run on), OUT (where the programs go).
set -eu

here=$(dirname "$0")
out=${OUT:-$(mktemp -d)}
cpu=${CPU:-1}

for name in page_records typed_spans typed_spans_mark typed_spans_waste cold_pages capture freed_pages; do
  "${CXX:-g++}" -std=c++20 -O2 -pthread -Wall -Wextra -Wconversion -o "$out/$name" "$here/$name.cc"
done

taskset -c "$cpu" "$out/page_records" 1000000 9
taskset -c "$cpu" "$out/page_records" 5000000 5
if [ "${1:-}" = large ]; then taskset -c "$cpu" "$out/page_records" 20000000 2 1; fi
taskset -c "$cpu" "$out/typed_spans" 11
taskset -c "$cpu" "$out/typed_spans_mark" 1000000 9
taskset -c "$cpu" "$out/typed_spans_mark" 5000000 5
"$out/typed_spans_waste" 8
"$out/cold_pages"
taskset -c "$cpu" "$out/capture" 4 8
taskset -c "$cpu" "$out/capture" 4 1
taskset -c "$cpu" "$out/capture" 4 64
"$out/freed_pages"
