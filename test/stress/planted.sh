#!/usr/bin/env bash
# planted.sh MOVES ARGUMENT...: succeeds when that program reports a lost token, and fails however else it ends. (What has been freed
# and is still used is a race, too, which ThreadSanitizer may see first.)
set -uo pipefail
output=$("$@" 2>&1)
code=$?
printf '%s\n' "$output"
[ "$code" -ne 0 ] && grep -qE '^LOST: |ThreadSanitizer: data race' <<<"$output"
