#!/usr/bin/env bash
# make bench: builds the release, measures on loopback beside nginx and on a cluster, writes docs/benchmarks.md. Arguments
# go to the bench. MCPMESH_BENCH_PROFILE=debug: without optimization, to try whether it works.
set -euo pipefail
cd "$(dirname "$0")/../.."
profile="${MCPMESH_BENCH_PROFILE:-release}"
# In debug, what the tests have built is built already.
build=(--locked --workspace --bins)
[ "$profile" = debug ] ||
  build=(--locked --release -p mcpmesh-proxy -p mcpmesh-operator -p mcpmesh-e2e --bin mcpmesh-proxy --bin mcpmesh-operator --bin bench)
# In words of a shell: where mold is missing, make puts RUSTFLAGS in front.
eval "${CARGO:-cargo} build ${build[*]}"
bench="${CARGO_TARGET_DIR:-target}/$(rustc --print host-tuple)/$profile/bench"
# A network of its own, with an address that is no loopback address: a pod's, for W7 and W8.
user=()
[ "$(id -u)" = 0 ] || user=(--map-root-user)
# shellcheck disable=SC2016
exec unshare --net "${user[@]}" bash -c 'ip link set lo up && ip addr add 10.20.0.1/32 dev lo && exec "$0" "$@"' "$bench" "$@"
