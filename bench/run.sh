#!/usr/bin/env bash
# bench/run.sh [--quick] [--rounds=N] [--in=BUILD] [QUESTION...]: tricolor against Boehm and malloc.
#
# Every contestant answers every question once a round, one after the other, and the next round runs
# in the other order: on a shared machine times drift by tens of percent, so only what ran side by
# side may be compared. The tables (report.py) go to stdout, and with plots into
# build/bench-report/report.html; beside it lie the lines that they are made from (samples.txt) and
# the table of bench/README.md (table.md). --quick is one round of small runs: it says that all of it
# works, no more. --in takes a release build that is up to date in place of making one, and leaves
# its report there.
#
# A question is one source built as QUESTION_CONTESTANT that prints a line of key=value pairs
# (question.h), a function here that prints the runs of one round, a label and a command a line, and
# a row in report.py with its measurements.
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/setup

build=build/release
report=build/bench-report
built=no
contestants=(tricolor boehm malloc)
all=(gcbench trees allocate mark ring footprint threads pauses barrier)
rounds=7
quick=no
questions=()

complain() {
  echo "bench/run.sh: $1" >&2
  exit 2
}

while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=yes rounds=1 ;;
    --rounds=*) rounds=${1#*=} ;;
    --in=*) build=${1#*=} report=$build/bench-report built=yes ;;
    -*) complain "unknown option: $1" ;;
    *) questions+=("$1") ;;
  esac
  shift
done
[[ $rounds =~ ^[1-9][0-9]*$ ]] || complain "not a number of rounds: $rounds"
[ ${#questions[@]} -gt 0 ] || questions=("${all[@]}")
for question in "${questions[@]}"; do
  [[ " ${all[*]} " = *" $question "* ]] || complain "no such question: $question (there are ${all[*]})"
done

# ---------------------------------------------------------------------------------- the questions

# The first number, or with --quick the second.
size() { [ $quick = no ] && echo "$1" || echo "$2"; }

runs_of_gcbench() { each_contestant gcbench "$(size 18 10)"; }

runs_of_trees() {
  local threads
  for threads in 1 2; do each_contestant trees "$(size 18 10)" $threads; done
}

runs_of_allocate() {
  local kind threads
  for kind in plain linked; do
    for threads in 1 2; do
      each_contestant allocate 32 $kind $threads "$(size 10000000 100000)"
      each_contestant allocate 1024 $kind $threads "$(size 1000000 10000)"
    done
  done
}

runs_of_mark() {
  local order workers
  for order in random ordered; do
    for workers in 1 2; do
      each_contestant mark "$(size 5000000 20000)" $order $workers
      each_contestant mark "$(size 20000000 50000)" $order $workers
    done
  done
}

runs_of_ring() { each_contestant ring "$(size 250000 10000)" "$(size 2000000 50000)"; }

runs_of_footprint() { each_contestant footprint "$(size 8192000 100000)" "$(size 16384000 200000)"; }

runs_of_threads() { each_contestant threads 64 "$(size 25 10)" "$(size 20000 100)"; }

runs_of_pauses() {
  if [ $quick = yes ]; then
    each_contestant pauses 20 1 0 0
    each_contestant pauses 20 1 1024 100
    return
  fi
  each_contestant pauses 20 5 0 0
  each_contestant pauses 200 10 0 0
  if [ -n "${PAUSES_2GB:-}" ]; then
    each_contestant pauses 2000 80 0 0  # a cycle takes 5 s
    # As small, but with stops as rare: what of the difference is code and tables that have gone cold?
    echo "tricolor env GOGC=10000 $build/bench/pauses_tricolor 20 40 0 0"
  fi
  each_contestant pauses 200 5 1024 0
  each_contestant pauses 200 5 4096 0
  each_contestant pauses 200 5 0 1000
}

runs_of_barrier() {
  each_contestant barrier off 0 "$(size 1000 20)"
  # Only where marking runs beside the program: with the world stopped there is no store to time, and a program whose other
  # thread collects without pause gets nowhere.
  echo "tricolor $build/bench/barrier_tricolor on $(size 200 20) $(size 300 20)"
}

# The runs of every contestant that is built, with the same arguments. mimalloc is the malloc
# program with mimalloc in place of the C library's; it takes part where it is installed.
each_contestant() {
  local question=$1 contestant
  shift
  for contestant in "${contestants[@]}"; do
    [ ! -x "$build/bench/${question}_$contestant" ] ||
      echo "$contestant $build/bench/${question}_$contestant $*"
  done
  [ -z "$mimalloc" ] || [ ! -x "$build/bench/${question}_malloc" ] ||
    echo "mimalloc env LD_PRELOAD=$mimalloc $build/bench/${question}_malloc $*"
}
# To the end of the list: a reader that leaves early fails the writer, and with it this script.
find_mimalloc() { /sbin/ldconfig -p | awk '/libmimalloc\.so/ && !found { print $NF; found = 1 }'; }

# ---------------------------------------------------------------------------------------- the run

build_release() {
  needs_build_tools
  needs_library bdw-gc libgc-dev
  needs_python matplotlib python3-matplotlib
  [ -n "${MIMALLOC:-$(find_mimalloc)}" ] || missing+=(libmimalloc2.0)
  install_missing
  if [ ! -f $build/build.ninja ]; then
    meson setup $build --buildtype=release -Ddefault_library=static -Dtests=disabled >/dev/null
  elif ! ninja -C $build -t targets all | grep -q '^bench/.*_malloc:'; then
    # It was set up for the examples alone.
    meson setup --reconfigure $build -Dbenchmarks=auto >/dev/null
  fi
  ninja -C $build --quiet | sed '/no work to do/d'
}

# The times of a debug or sanitizer build would look like an answer.
demand_release() {
  meson introspect --buildoptions "$build" | python3 -c '
import json, sys
options = {option["name"]: option["value"] for option in json.load(sys.stdin)}
for name, wanted in (("buildtype", "release"), ("b_sanitize", "none")):
    if options[name] != wanted:
        sys.exit(f"bench/run.sh: {sys.argv[1]} has {name}={options[name]}, not {wanted}")
' "$build"
}

name_the_missing() {
  local question contestant
  for question in "${questions[@]}"; do
    for contestant in "${contestants[@]}"; do
      [[ "$question $contestant" = @(mark|barrier)" malloc" ]] ||
        [ -x "$build/bench/${question}_$contestant" ] ||
        echo "bench/run.sh: not built: ${question}_$contestant" >&2
    done
  done
}

describe() {
  local commit
  commit=$(git describe --always --dirty=+changes 2>/dev/null || echo none)
  echo "machine: $(nproc) x $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)," \
    "Linux $(uname -r), load $(cut -d ' ' -f 1 /proc/loadavg)"
  echo "build: commit $commit, $(c++ --version | head -n 1)," \
    "$(getconf GNU_LIBC_VERSION)${mimalloc:+, $(basename "$(readlink -f "$mimalloc")")}"
  echo "run: $(date -u +%F), $rounds rounds, quick: $quick"
  # Settings of the collectors are part of the result.
  env | grep -E '^(GOGC|GOMEMLIMIT|GODEBUG|TRICOLOR_[A-Z_]*|GC_[A-Z_]*)=' |
    sed 's/^/environment: /' || true
}

# The lines of all runs of a question, each with its round and label in front. What a large process leaves a virtual machine may give back
# to its host; for some 20 s that keeps any thread waiting for up to 45 ms (prototype/README.md, 5), which is not the next one's doing.
large_mb=2048
samples_of() {
  local round order label command line
  for ((round = 1; round <= rounds; ++round)); do
    order=cat
    ((round % 2)) || order=tac
    while read -r label command; do
      line=$($command </dev/null) || { echo "bench/run.sh: failed: $command" >&2; return 1; }
      echo "round=$round label=$label $line"
      [[ ! $line =~ peak_rss_mb=([0-9]+) ]] || [ "${BASH_REMATCH[1]}" -lt $large_mb ] || sleep 30
    done < <("runs_of_$1" | $order)
  done
}

[ $built = yes ] || build_release
demand_release
name_the_missing
mimalloc=${MIMALLOC:-$(find_mimalloc)}
mkdir -p "$report"
about=$(describe)
echo "$about"
sed 's/^/# /' <<<"$about" >"$report/samples.txt"
for question in "${questions[@]}"; do
  samples=$(samples_of "$question")
  [ -n "$samples" ] || complain "nothing to compare: $question"
  echo "$samples" >>"$report/samples.txt"
done
"$system_python" bench/report.py "$report"
echo
echo "with plots: $report/report.html"
