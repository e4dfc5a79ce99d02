#!/usr/bin/env bash
# Builds the library in release mode and runs the examples on real input: the documentation tree of
# this machine. On a fresh Debian 12 it first installs what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/setup

docs=(/usr/share/doc /usr/share/perl)
enough_bytes=$((20 << 20))
most_bytes=$((64 << 20))

# The documents the concordance reads, as lines of size and path: plain text, always the same files
# in the same order, up to $most_bytes.
documents() {
  { find "${docs[@]}" -type f \( -name '*.txt' -o -name '*.rst' -o -name '*.pod' \) -printf '%s\t%p\n' 2>/dev/null || true; } |
    LC_ALL=C sort -t $'\t' -k 2 |
    awk -F '\t' -v most="$most_bytes" 'sum + $1 <= most { sum += $1; print }'
}

bytes() { documents | awk '{ sum += $1 } END { print sum + 0 }'; }

needs_build_tools
[ "$(bytes)" -ge "$enough_bytes" ] || missing+=(python3-doc perl-doc)
install_missing

build=build/release
[ -f $build/build.ninja ] ||
  meson setup $build --buildtype=release -Ddefault_library=static -Dtests=disabled -Dbenchmarks=disabled >/dev/null
ninja -C $build --quiet

# Runs an example with collector traces on; shows what it prints and its last traces.
show() {
  local traces status=0
  traces=$(mktemp)
  TRICOLOR_DEBUG=gctrace=1 "$build/examples/$1" "${@:2}" 2>"$traces" || status=$?
  grep -v '^gc [0-9]' "$traces" || true
  echo "the last of $(grep -c '^gc [0-9]' "$traces" || true) collections:"
  grep '^gc [0-9]' "$traces" | tail -n 4 || true
  rm "$traces"
  return $status
}

echo "== hello"
show hello
mapfile -t files < <(documents | cut -f 2)
echo "== concordance: ${#files[@]} files of ${docs[*]}, $(($(bytes) >> 20)) MiB"
show concordance "${files[@]}"
echo "== binary_trees 18"
show binary_trees 18
echo "== ring"
show ring
