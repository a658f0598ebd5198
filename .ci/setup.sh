#!/usr/bin/env bash
# Installs what building and testing need and what is missing: the mold linker, cargo-deny, and through e2e/setup.sh
# the MCP servers, clients and runners that the tests start. Done already: a moment. Nothing is changed outside the
# cache folders but for what apt-get installs as root (mold, also with sudo; what nodes of the test cluster need).
#   .ci/setup.sh          all of it
#   .ci/setup.sh run      what `make run` needs: quick on a fresh machine, and nothing as root
#   .ci/setup.sh build    what building and linting need
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cache="${MCPMESH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mcpmesh}"
cargo_deny=0.20.2

say() { printf '%s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

install_mold() {
  [ "$(uname -sm)" = "Linux x86_64" ] || return 0
  command -v mold >/dev/null && return
  say "installing mold"
  if as_root apt-get install -y -qq mold >/dev/null 2>&1 ||
    { as_root apt-get update -qq && as_root apt-get install -y -qq mold; } >/dev/null 2>&1; then
    return
  fi
  say "mold is missing and cannot be installed (apt-get install mold): linking with GNU ld, which is slower"
}

install_cargo_deny() {
  [ "$("$cache/tools/bin/cargo-deny" --version 2>/dev/null)" = "cargo-deny $cargo_deny" ] && return
  say "installing cargo-deny $cargo_deny (a minute or two)"
  local log="$cache/cargo-deny.log"
  # A debug build: made in a fifth of the time, and it runs for a second.
  if ! CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --no-default-features --force \
    --root "$cache/tools" --target-dir "$cache/tools/target" "cargo-deny@$cargo_deny" >"$log" 2>&1; then
    cat "$log" >&2
    fail "could not install cargo-deny"
  fi
  rm -rf "$cache/tools/target" "$log"
}

# fill_registries: of the test cluster. A network that fails for a moment fails hundreds of downloads.
fill_registries() {
  local attempt
  for attempt in 1 2 3; do
    if e2e/cluster/packages/registry fill; then return; fi
    say "filling the test cluster's package registries failed (attempt $attempt of 3)"
    sleep $((attempt * 10))
  done
  fail "the test cluster's package registries cannot be filled"
}

command -v cc >/dev/null || fail "a C compiler is missing (apt-get install build-essential)"
cargo --version >/dev/null 2>&1 ||
  fail "cargo is missing, or the toolchain of rust-toolchain.toml is (https://rustup.rs, then: rustup toolchain install)"
mkdir -p "$cache"
if [ "${1:-}" = run ]; then
  e2e/setup.sh run
  exit
fi
install_mold
# fd 8: two callers at once must not build into one folder.
exec 8>"$cache/.tools.lock"
flock 8
install_cargo_deny
if [ "${1:-}" = build ]; then exit; fi
e2e/cluster/setup.sh
e2e/setup.sh
if e2e/cluster/cluster can 2 >/dev/null 2>&1; then fill_registries; fi
