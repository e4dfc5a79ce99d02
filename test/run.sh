#!/usr/bin/env bash
# test/run.sh [all]: sets this machine up, builds every configuration and runs its tests.
#
#   debug         unit, collector, model, house and compile_fail suites, all internal checks on
#   release-test  unit, collector, processes, install and bench suites, as it is shipped
#   asan          unit and collector suites under AddressSanitizer and UndefinedBehaviorSanitizer
#   tsan          unit and collector suites under ThreadSanitizer
#
# The unit suite is the rooms below gc; collector is gc and the examples; processes is what of gc needs processes of its
# own (forks, limits, fatal reports), 50 times over; model is test/model, explored by Spin. With
# `all` also: the unit suite with clang++, clang-format, clang-tidy, cppcheck; a build for aarch64, of which the unit
# suite runs under qemu but for the tests that ask the kernel for what qemu does not do ([kernel]), and of gc what needs no heap
# (suite arithmetic); the debugging knobs,
# together and each alone; processes in debug, asan and tsan; events of the process 1,000 times over; the heavy suite in
# release; moves of the only reference, checked with 20 seeds; and the stress suite in release and tsan for STRESS_SECONDS a
# test (default 60). JOBS limits parallel
# compilers. The last line is `N passed, M failed`; what could not be built or never ran counts as failed, and with `all` what
# was skipped because this machine lacks something.
set -uo pipefail
cd "$(dirname "$0")/.."
. .ci/setup
export STRESS_SECONDS=${STRESS_SECONDS:-60}

passed=0 failed=0 skipped=0
what=${1:-quick}

count() {  # PASSED FAILED NAME
  passed=$((passed + $1)) failed=$((failed + $2))
  echo "-- $3: $1 passed, $2 failed"
}

check() {  # NAME COMMAND...: one test that is a command
  if "${@:2}" >build/check.log 2>&1; then
    count 1 0 "$1"
  else
    grep -E 'error:|rror while' build/check.log | sort -u | head -n 50
    count 0 1 "$1"
  fi
}

# clang-tidy over every source of the rooms: a pattern that matches none of them is no success.
tidy() {
  local seen wanted
  wanted=$(find alloc barrier roots gc -name '*.cc' | wc -l)
  run-clang-tidy -quiet -p build/clang -j "${JOBS:-$(nproc)}" "$PWD/(alloc|barrier|roots|gc)/" || return 1
  # It prints a command for each.
  seen=$(grep -cE '^[^ ]*clang-tidy.* [^ ]*\.cc$' build/check.log)
  [ "$seen" -ge "$wanted" ] || { echo "error: clang-tidy has seen $seen of $wanted sources"; return 1; }
}

# Builds, in a new folder where there is none or it was made with other options: meson remembers those that are given no more. What
# bench/run.sh --in has measured in it stays; a folder that somebody else has made is left alone.
build() {  # FOLDER OPTIONS...
  local stamp=$1/run.options options name
  options=$(for name in CC CXX CFLAGS CXXFLAGS CPPFLAGS LDFLAGS PKG_CONFIG_PATH; do echo "$name=${!name:-}"; done; echo "${*:2}")
  if [ -e "$1" ] && [ ! -e "$stamp" ]; then
    echo "error: $1 was not made by test/run.sh, which wants a folder of that name: move it away"
    return 1
  fi
  if [ ! -e "$1/build.ninja" ] || [ "$(cat "$stamp")" != "$options" ]; then
    mkdir -p "$1"
    find "$1" -mindepth 1 -maxdepth 1 ! -name bench-report -exec rm -rf {} +
    echo "$options" >"$stamp"
    meson setup "$1" -Dtests=enabled "${@:2}" || return 1
  fi
  ninja -C "$1" ${JOBS:+-j "$JOBS"}
}

# Runs suites of a configuration that has been built, and counts what meson's log says of each test.
run_suites() {  # NAME SUITES ARGUMENTS-OF-MESON-TEST...
  local logs=build/$1/meson-logs begin=$SECONDS suite suites=() results ran good jumped
  for suite in $2; do suites+=(--suite "$suite"); done
  rm -f "$logs"/testlog*.json  # with a wrapper the name has a suffix
  meson test -C "build/$1" --no-rebuild --print-errorlogs "${suites[@]}" "${@:3}"
  # One test a line; quotes inside of what a test printed are escaped.
  results=$(cat "$logs"/testlog*.json 2>/dev/null | grep -o '"result": "[A-Z]*"')
  ran=$(grep -c . <<<"$results")
  good=$(grep -cE '"(OK|EXPECTEDFAIL)"' <<<"$results")
  jumped=$(grep -c '"SKIP"' <<<"$results")
  skipped=$((skipped + jumped))
  if [ "$ran" -eq 0 ]; then count 0 1 "$1 ($2): no test ran"; return; fi
  count "$good" $((ran - good - jumped)) "$1 ($2), $((SECONDS - begin)) s"
}

configuration() {  # NAME SUITES OPTIONS-OF-MESON-SETUP...
  local begin=$SECONDS
  echo "== $1"
  if build "build/$1" "${@:3}" >"build/$1.log" 2>&1; then
    echo "-- $1: built in $((SECONDS - begin)) s"
    run_suites "$1" "$2" "${wrapper[@]}"
  else
    grep -E -A 12 'error|ERROR|FAILED|warning:' "build/$1.log" | head -n 100
    count 0 1 "$1 (does not build; all of it is in build/$1.log)"
  fi
}

needs_build_tools
needs_command cmake cmake
needs_command spin spin
needs_library catch2 catch2
needs_library bdw-gc libgc-dev
needs_python matplotlib python3-matplotlib
if [ "$what" = all ]; then
  needs_command clang++ clang
  needs_command clang-tidy clang-tidy
  needs_command clang-format clang-format
  needs_command cppcheck cppcheck
  needs_command aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
  needs_command qemu-aarch64 qemu-user
  needs_file /usr/lib/aarch64-linux-gnu/pkgconfig/fmt.pc libfmt-dev:arm64
  needs_file /usr/lib/aarch64-linux-gnu/pkgconfig/libunwind.pc libunwind-dev:arm64
  needs_file /usr/lib/aarch64-linux-gnu/libstdc++.so.6 libstdc++6:arm64
fi
install_missing
mkdir -p build

# GCC 12's sanitizers do not start where the kernel spreads addresses wider than it knew.
wrapper=()
if [ "$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 28)" -gt 28 ] && setarch -R true 2>/dev/null; then
  wrapper=(--wrapper 'setarch -R')
fi

# With a precompiled header GCC 12 takes system headers for the program's and warns of them where it optimises: none there.
# Optimised a little: what -O0 saves in compiling it costs several times in running. Warnings are no errors there: with -O1 GCC 12
# makes some up (in std::regex, in a string's operator+). Lines are enough for what a sanitizer prints, and no check of UBSan's needs to
# remember that it has been reported: half the time to build, and 14 MB of .data, which every cycle reads, instead of 32.
sanitized=(-Doptimization=1 -Ddebug=false -Ddefault_library=static -Dbenchmarks=disabled)
configuration debug 'unit collector model house compile_fail' --werror --buildtype=debug -Dbenchmarks=disabled
configuration release-test 'unit collector processes install bench' --werror -Db_pch=false --buildtype=release -Ddefault_library=both -Dbenchmarks=enabled
configuration asan 'unit collector' -Db_sanitize=address,undefined -Dcpp_args='-g1 -fno-sanitize-recover=all' "${sanitized[@]}"
configuration tsan 'unit collector' -Db_sanitize=thread -Dcpp_args=-g1 "${sanitized[@]}"

if [ "$what" = all ]; then
  CXX=clang++ configuration clang unit --werror -Db_pch=false --buildtype=debugoptimized -Dbenchmarks=enabled
  mapfile -t sources < <(find alloc barrier roots gc examples bench test -name '*.cc' -o -name '*.h')
  check clang-format clang-format --dry-run -Werror "${sources[@]}"
  check clang-tidy tidy
  check cppcheck cppcheck --std=c++20 --enable=warning,performance,portability --inline-suppr -q -j "${JOBS:-$(nproc)}" \
    --suppressions-list=test/cppcheck.txt --error-exitcode=1 \
    -I. -Ialloc/include -Ibarrier/include -Iroots/include -Igc/include alloc barrier roots gc examples
  configuration aarch64 'unit arithmetic' --cross-file test/cross/aarch64.ini "${sanitized[@]}"
  run_suites debug 'processes knobs knobs-alone'
  run_suites release-test 'events stress seeds heavy'
  run_suites asan processes "${wrapper[@]}"
  run_suites tsan 'processes stress' "${wrapper[@]}"
fi

[ $skipped -eq 0 ] || echo "-- $skipped skipped"
[ "$what" != all ] || [ $skipped -eq 0 ] || count 0 $skipped "skipped (what is missing on this machine?)"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
