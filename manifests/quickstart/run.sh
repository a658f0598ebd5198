#!/usr/bin/env bash
# What `make run` does: builds mcpmesh, serves this folder, shows an allowed and a denied call, and goes on serving
# until Ctrl-C. Arguments go to `mcpmesh up`, such as `--listen 127.0.0.1:0`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

.ci/setup.sh run
# shellcheck source=/dev/null
. "$(e2e/setup.sh -q run)"
eval "${CARGO:-cargo} build --locked -p mcpmesh-cli"
mcpmesh="${CARGO_TARGET_DIR:-target}/$(rustc --print host-tuple)/debug/mcpmesh"
folder=manifests/quickstart
key=mcpmesh-quickstart-demo-key
log="${CARGO_TARGET_DIR:-target}/quickstart"

# show WHAT COMMAND...: the command as one would type it, and what it says.
show() {
  printf '\n--- %s\n$ mcpmesh' "$1"
  shift
  local word
  for word; do if [[ $word =~ [^[:alnum:]/:._-] ]]; then printf " '%s'" "$word"; else printf ' %s' "$word"; fi; done
  printf '\n'
  "$mcpmesh" "$@" 2>&1 || true
}

settled() { [ "$(grep -cE '^server  (everything|time)  (Ready|Failed)' "$log/up.out")" -ge 2 ]; }

demonstrate() {
  local up=$1 left=600 url
  until settled || [ $((left -= 1)) = 0 ]; do
    kill -0 "$up" 2>/dev/null || exit 0
    sleep 0.2
  done
  url="$(awk '$1 == "endpoint" { print $2; exit }' "$log/up.out")"
  # Not on the command line, where every user of the machine can read it.
  export MCPMESH_KEY=$key
  printf '\n--- to type what follows in another terminal\n'
  printf 'export MCPMESH_KEY=%s\nalias mcpmesh=%q\n' "$key" "$(realpath "$mcpmesh")"
  show "a call that the policy allows" call everything/echo --args '{"message": "hello"}' --url "$url"
  show "a call that it denies: for the caller there is no such tool" call everything/get-env --url "$url"
  show "the reason" can-i --as demo --group visitors call everything/get-env -f $folder
  printf '\n--- and in the access log\n'
  grep -F '"outcome":"denied"' "$log/access.log" | tail -1
  printf '\n--- connect a client (cursor, claude-code, claude-desktop, vscode, windsurf), for example\n'
  printf '$ mcpmesh connect cursor --url %s --key %s\n' "$url" $key
  printf '\nserving %s until Ctrl-C; access log: %s\n' "$url" "$log/access.log"
}

mkdir -p "$log"
: >"$log/up.out"
: >"$log/access.log"
demonstrate $$ &
# What it prints goes on until the last line, also after Ctrl-C.
exec "$mcpmesh" up $folder --access-log "$log/access.log" "$@" > >(trap '' INT; exec tee "$log/up.out")
