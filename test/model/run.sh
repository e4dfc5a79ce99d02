#!/usr/bin/env bash
# run.sh MODEL.pml [FAULT]: explores a model exhaustively and succeeds when it has no counter-example; with a FAULT (see the
# head of the model) it succeeds when there is one, and prints it to a terminal.
#
#   MODEL_DEFINES="-DWORDS=4"   other sizes
#   MODEL_CFLAGS=-DBFS          the shortest counter-example (not for a model with ltl)
set -euo pipefail
model=$(realpath "$1") fault=${2:-}
command -v spin >/dev/null || { echo "spin is not installed"; exit 77; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
read -ra defines <<<"${fault:+-D$fault} ${MODEL_DEFINES:-}"
read -ra flags <<<"${MODEL_CFLAGS:-}"
if [ -n "$fault" ]; then
  flags+=(-O0) arguments=(-m200000 -w20)  # ends early: not worth compiling well
else
  flags+=(-O2) arguments=(-m200000)
fi
if grep -q '^ltl' "$model"; then
  flags+=(-DNFAIR=3) arguments+=(-a -f)
else
  flags+=(-DSAFETY)
fi

# A fault that the model does not know would change nothing.
[ -z "$fault" ] || grep -qE "^#(el)?if.*\b$fault\b" "$model" || { echo "$model knows no $fault"; exit 1; }
spin -a "${defines[@]}" "$model"
"${CC:-cc}" -w "${flags[@]}" -o pan pan.c
./pan "${arguments[@]}" >log
grep -vE '^$|unreached|\.pml:|-end-|\(none\)' log

if grep -qE '^pan.*(max search depth|out of memory)|^error:' log; then
  echo "not explored to the end"
  exit 1
fi
if ls ./*.trail >/dev/null 2>&1; then
  if [ -z "$fault" ] || [ -t 1 ] || [ -n "${MODEL_CFLAGS:-}" ]; then
    spin -t -k ./*.trail -p -g "${defines[@]}" "$model" || true
  fi
  grep -qE '^pan:1: (assertion violated|acceptance cycle|invalid end state)' log && [ -n "$fault" ]
else
  grep -q 'errors: 0' log && [ -z "$fault" ]
fi
