#!/usr/bin/env bash
# bench/run.sh [--quick] [--rounds=N] [QUESTION...]: tricolor against Boehm and malloc.
#
# Every contestant answers every question once a round, one after the other, and the next round runs
# in the other order: on a shared machine times drift by tens of percent, so only what ran side by
# side may be compared. Shown are medians over the rounds, and as the ratio to Boehm the median of
# the rounds' own ratios. --quick is one round of small runs: it says that all of it works, no more.
#
# A question is one source built as QUESTION_CONTESTANT (bench/contestant.h) that prints one line of
# key=value pairs, and two functions here: runs_of_QUESTION prints the runs of one round, a label
# and a command a line; metric_of_QUESTION the key to compare. What stands before that key in the
# line names the case, and `check`, where there is one, must be equal for all contestants of a case.
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/setup

build=build/release
contestants=(tricolor boehm malloc)
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
    -*) complain "unknown option: $1" ;;
    *) questions+=("$1") ;;
  esac
  shift
done
[[ $rounds =~ ^[1-9][0-9]*$ ]] || complain "not a number of rounds: $rounds"
[ ${#questions[@]} -gt 0 ] || questions=(trees)

# ---------------------------------------------------------------------------------- the questions

runs_of_trees() {
  local depth=18 threads
  [ $quick = no ] || depth=10
  for threads in 1 2; do
    each_contestant trees $depth $threads
  done
}
metric_of_trees() { echo wall_ms; }

# The runs of every contestant that is built, with the same arguments. mimalloc is the malloc
# program with mimalloc in place of the C library's; it takes part where it is installed.
each_contestant() {
  local question=$1 contestant
  shift
  for contestant in "${contestants[@]}"; do
    [ ! -x "$build/bench/${question}_$contestant" ] ||
      echo "$contestant $build/bench/${question}_$contestant $*"
  done
  [ -z "$mimalloc" ] || echo "mimalloc env LD_PRELOAD=$mimalloc $build/bench/${question}_malloc $*"
}
mimalloc=${MIMALLOC:-$(/sbin/ldconfig -p | awk '/libmimalloc\.so/ { print $NF; exit }')}

# ---------------------------------------------------------------------------------------- the run

build_release() {
  needs_build_tools
  needs_library bdw-gc libgc-dev
  install_missing
  if [ ! -f $build/build.ninja ]; then
    meson setup $build --buildtype=release -Ddefault_library=static -Dtests=disabled >/dev/null
  elif ! ninja -C $build -t targets all | grep -q '^bench/.*_malloc:'; then
    # It was set up for the examples alone.
    meson setup --reconfigure $build -Dbenchmarks=auto >/dev/null
  fi
  # The times of a debug or sanitizer build would look like an answer.
  meson introspect --buildoptions $build | python3 -c '
import json, sys
options = {option["name"]: option["value"] for option in json.load(sys.stdin)}
for name, wanted in (("buildtype", "release"), ("b_sanitize", "none")):
    if options[name] != wanted:
        sys.exit(f"bench/run.sh: {sys.argv[1]} has {name}={options[name]}, not {wanted}")
' $build
  ninja -C $build --quiet | sed '/no work to do/d'
}

name_the_missing() {
  local question contestant
  for question in "${questions[@]}"; do
    for contestant in "${contestants[@]}"; do
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
  echo "build: commit $commit, $(c++ --version | head -n 1), $rounds rounds"
  # Settings of the collectors are part of the result.
  env | grep -E '^(GOGC|GOMEMLIMIT|GODEBUG|TRICOLOR_[A-Z_]*|GC_[A-Z_]*)=' |
    sed 's/^/environment: /' || true
}

# The lines of all runs of a question, each with its round and label in front.
samples_of() {
  local round order label command line
  for ((round = 1; round <= rounds; ++round)); do
    order=cat
    ((round % 2)) || order=tac
    while read -r label command; do
      line=$($command </dev/null) || { echo "bench/run.sh: failed: $command" >&2; return 1; }
      echo "round=$round label=$label $line"
    done < <("runs_of_$1" | $order)
  done
}

# From those lines: one table per case.
summarize() {
  python3 -c '
import statistics
import sys

metric = sys.argv[1]
cases = {}  # case -> label -> the lines of that contestant, one a round
for line in sys.stdin:
    pairs = dict(word.split("=", 1) for word in line.split())
    keys = list(pairs)
    case = " ".join(
        f"{key}={pairs[key]}"
        for key in keys[: keys.index(metric)]
        if key not in ("round", "label", "contestant")
    )
    cases.setdefault(case, {}).setdefault(pairs["label"], []).append(pairs)

form = "  {:10} {:>10} {:>21} {:>12} {:>9}  {}"
for case, runs_of in cases.items():
    print("\n" + case)
    print(form.format("", metric, "min - max", "peak_rss_mb", "to boehm", "last round"))
    for label, runs in runs_of.items():
        values = [float(run[metric]) for run in runs]
        ratio = "-"
        if "boehm" in runs_of:
            boehm = [float(run[metric]) for run in runs_of["boehm"]]
            ratio = "%.2f" % statistics.median(a / b for a, b in zip(values, boehm))
        keys = list(runs[-1])
        rest = keys[keys.index("check") + 1 :] if "check" in keys else []
        print(form.format(
            label,
            "%.1f" % statistics.median(values),
            "%.1f - %.1f" % (min(values), max(values)),
            "%.1f" % statistics.median(float(run["peak_rss_mb"]) for run in runs),
            ratio,
            " ".join(f"{key}={runs[-1][key]}" for key in rest),
        ).rstrip())
    checks = {run["check"] for runs in runs_of.values() for run in runs if "check" in run}
    if len(checks) > 1:
        sys.exit(f"bench/run.sh: {case}: the contestants disagree: check is {sorted(checks)}")
' "$1"
}

for question in "${questions[@]}"; do
  [ "$(type -t "runs_of_$question")" = function ] || complain "no such question: $question"
done
build_release
name_the_missing
describe
for question in "${questions[@]}"; do
  samples=$(samples_of "$question")
  [ -n "$samples" ] || complain "nothing to compare"
  summarize "$("metric_of_$question")" <<<"$samples"
done
