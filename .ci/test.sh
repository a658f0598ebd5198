#!/usr/bin/env bash
# Everything that must hold: runs each step even when one before it failed, then sums up. A step that counts its own
# tests is counted by them, any other as one.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log="$(mktemp -d)"
trap 'rm -rf "$log"' EXIT
passed=0 failed=0 summary=

# step NAME COMMAND...
step() {
  local name="$1" start=$SECONDS code=0 good=0 bad=0 verdict=ok
  shift
  printf '\n=== %s\n' "$name"
  "$@" 2>&1 | tee "$log/out" || code=$?
  read -r good bad < <(awk '/^test result: /{ for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) good += $(i-1); if ($i ~ /^failed/) bad += $(i-1) } }
    END { print good + 0, bad + 0 }' "$log/out")
  [ "$code" = 0 ] || verdict=FAILED
  # A step without tests of its own, or one that broke outside them.
  if [ "$((good + bad))" = 0 ] && [ "$code" = 0 ]; then good=1; fi
  if [ "$bad" = 0 ] && [ "$code" != 0 ]; then bad=1; fi
  passed=$((passed + good)) failed=$((failed + bad))
  summary+="$(printf '%-16s %-6s %6s passed %4s failed %5s s' "$name" "$verdict" "$good" "$bad" "$((SECONDS - start))")"$'\n'
}

step setup make --no-print-directory setup
[ "$failed" = 0 ] || { printf '\nFAILED: without its tools nothing else can run\n'; exit 1; }
step fmt make --no-print-directory fmt-check
step lint make --no-print-directory lint
step generated make --no-print-directory check-generated
step tests make --no-print-directory unit
step fuzz make --no-print-directory fuzz

printf '\n%s\n' "$summary"
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
