#!/usr/bin/env bash
# compile_fail.sh CASE COMPILER ARGS...: a wrong program does not compile, and is told why.
#
# A case begins with one or more lines `// expect: REGEX`. It must be rejected, and each extended
# regular expression must match somewhere in what the compiler says. `// expect: ok` instead: it
# must compile without a word, which proves that its wrong neighbours fail for the right reason.
set -uo pipefail
export LC_ALL=C  # plain quotes in messages

case=$1
shift
mapfile -t expected < <(sed -n 's|^// expect: ||p; /^\/\/ expect: /!q' "$case")
[ ${#expected[@]} -gt 0 ] || { echo "$case: the first line must be // expect: REGEX, or // expect: ok"; exit 1; }

said=$("$@" -S -o /dev/null "$case" 2>&1)
status=$?

fail() { printf '%s: %s\nthe compiler says:\n%s\n' "$case" "$1" "$said"; exit 1; }

if [ "${expected[*]}" = ok ]; then
  [ $status -eq 0 ] && [ -z "$said" ] || fail "must compile without a word"
  exit 0
fi
[ $status -ne 0 ] || fail "compiles, but must be rejected"
! grep -qi 'internal compiler error\|PLEASE submit a bug report' <<<"$said" || fail "the compiler crashed"
for regex in "${expected[@]}"; do
  grep -qE -- "$regex" <<<"$said" || fail "is rejected without saying: $regex"
done
