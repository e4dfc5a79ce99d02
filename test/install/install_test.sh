#!/usr/bin/env bash
# install_test.sh ROOT: installs the library into fresh prefixes and builds a consumer against it in
# every way there is; the consumer checks for itself that it works (consumer/main.cc).
set -euo pipefail

root=$1
consumer=$root/test/install/consumer
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
unset PKG_CONFIG_PATH LD_LIBRARY_PATH

quietly() { "$@" >log 2>&1 || { cat log; return 1; }; }

installs() {  # KIND: shared, static or both, into the prefix of that name
  echo "== installs $1, and only under our names"
  [ -d build ] || quietly meson setup build "$root" -Dtests=disabled -Dbenchmarks=disabled
  quietly meson configure build --prefix="$tmp/$1" -Ddefault_library="$1"
  quietly ninja -C build install
  [ "$(ls "$1/include")" = tricolor ] || { echo "include/ holds: $(ls "$1/include")"; return 1; }
  libdir=$(dirname "$(find "$tmp/$1" -name 'libtricolor.*' -print -quit)")
}

pkg_config() { PKG_CONFIG_PATH=$libdir/pkgconfig pkg-config "$@" tricolor; }

compile() {  # PROGRAM LINK-ARGUMENTS...
  quietly c++ -std=c++20 "$consumer"/*.cc $(pkg_config --cflags) -o "$1" "${@:2}"
}

cmake_build() {  # FOLDER PREFIX OPTIONS...
  quietly cmake -S "$consumer" -B "$1" -DCMAKE_PREFIX_PATH="$tmp/$2" "${@:3}"
  quietly cmake --build "$1"
}

meson_build() {  # FOLDER OPTIONS...
  mkdir -p "$1"
  cp "$consumer"/* "$1"
  quietly meson setup "$1/build" "$1" "${@:2}"
  quietly ninja -C "$1/build"
}

as_subproject() {  # FOLDER
  mkdir -p "$1/subprojects"
  ln -s "$root" "$1/subprojects/tricolor"
  meson_build "$1" -Ddefault_library=static
}

# The consumer runs well, and was linked as it should be.
good() {  # shared|static PROGRAM
  echo "== $2"
  LD_LIBRARY_PATH=$libdir "$2"
  local linked=static
  if readelf -d "$2" | grep -q 'NEEDED.*libtricolor'; then linked=shared; fi
  [ $linked = "$1" ] || { echo "is linked to the $linked library, not the $1 one"; return 1; }
}

installs both
compile ./pkg-config-shared $(pkg_config --libs)
good shared ./pkg-config-shared
compile ./pkg-config-static $(pkg_config --libs --static | sed 's/-ltricolor/-l:libtricolor.a/')
good static ./pkg-config-static
cmake_build cmake-shared both
good shared cmake-shared/consumer
cmake_build cmake-chosen-static both -Dtricolor_USE_STATIC_LIBS=ON
good static cmake-chosen-static/consumer
PKG_CONFIG_PATH=$libdir/pkgconfig meson_build meson-shared
good shared meson-shared/build/consumer

installs static
compile ./pkg-config-only-static $(pkg_config --libs)
good static ./pkg-config-only-static
cmake_build cmake-only-static static
good static cmake-only-static/consumer
PKG_CONFIG_PATH=$libdir/pkgconfig meson_build meson-only-static
good static meson-only-static/build/consumer

echo "== the consumer notices a careless order of libraries"
compile ./careless -L"$libdir" -ltricolor -lunwind -lfmt
if ./careless >log; then echo "libunwind came first, and nobody noticed"; exit 1; fi
grep -q 'served by .*libunwind' log

as_subproject subproject
good static subproject/build/consumer
