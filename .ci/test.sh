#!/usr/bin/env bash
# Everything that must hold: runs each step even when one before it failed, then sums up. A step that counts its own
# tests is counted by them, any other as one.
#   .ci/test.sh        what CI runs
#   .ci/test.sh e2e    the tests on clusters, of every tier, and a small run of the bench's W7 and W8
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log="$(mktemp -d)"
trap 'rm -rf "$log"' EXIT
passed=0 failed=0 not_run=0 summary=
free() { df --output=avail -BG . | tail -1 | tr -dc 0-9; }
at_start="$(free)"

# step NAME COMMAND...
step() {
  local name="$1" start=$SECONDS code=0 good=0 bad=0
  verdict=ok
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

# tier N: the tests on a cluster of that tier, where the machine can have one; else said and counted, in CI a failure.
tier() {
  local tests reason
  if reason="$(e2e/cluster/cluster can "$1" 2>&1)"; then
    step "tier $1" make --no-print-directory "tier$1"
    return
  fi
  printf '\n=== tier %s\n!!! NOT RUN: %s\n' "$1" "$reason"
  tests="$(grep -rhc '^#\[test\]' "e2e/tests/tier$1" | awk '{ sum += $1 } END { print sum }')"
  not_run=$((not_run + tests))
  summary+="$(printf '%-16s %-6s %6s not run: %s' "tier $1" "$([ "${CI:-}" = true ] && echo FAILED || echo -)" "$tests" "$reason")"$'\n'
  [ "${CI:-}" != true ] || failed=$((failed + 1))
}

# done_with: the table, and the verdict as the exit code.
done_with() {
  summary+="disk             $(free) GiB free at the end, $at_start at the start"$'\n'
  printf '\n%s\n' "$summary"
  printf '%d passed, %d failed, %d not run\n' "$passed" "$failed" "$not_run"
  [ "$failed" = 0 ]
}

# beside NAME COMMAND...: begins it beside the steps that follow. joined NAME: its step, once it has ended.
beside() {
  local name="$1"
  shift
  { "$@" > "$log/$name" 2>&1; echo "$?" > "$log/$name.code"; } &
}
joined() {
  wait
  step "$1" ended "$1"
}
ended() {
  cat "$log/$1"
  return "$(cat "$log/$1.code")"
}

# needed: the step before is needed by all that follow.
needed() {
  [ "$verdict" = ok ] || { printf '\n%s\nFAILED: without these tools nothing else can run\n' "$summary"; exit 1; }
}

step tools .ci/setup.sh build
needed
if [ "${1:-}" = e2e ]; then
  step setup make --no-print-directory setup
  needed
  step flux e2e/cluster/setup.sh all
  step "tier 1" make --no-print-directory tier1
  tier 2
  tier 3
  step "w7, w8" make --no-print-directory bench-mesh
  done_with
  exit
fi
# It downloads more than it computes; linting and building need nothing of it.
beside setup make --no-print-directory setup
step fmt make --no-print-directory fmt-check
step lint make --no-print-directory lint
step build make --no-print-directory build
joined setup
needed
step generated make --no-print-directory check-generated
# Both wait for processes and servers more than they compute.
beside "tier 1" make --no-print-directory tier1
step tests make --no-print-directory unit
joined "tier 1"
# Tier 2 waits even more; what the fuzz targets are built with is left by it.
beside fuzz nice make --no-print-directory fuzz
tier 2
joined fuzz
done_with
