#!/usr/bin/env bash
# make bench: builds the release, measures on loopback beside nginx, writes docs/benchmarks.md. Arguments go to the bench.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v nginx >/dev/null || { echo "bench needs nginx: apt-get install nginx-light (or nginx)" >&2; exit 1; }
${CARGO:-cargo} build --locked --release -p mcpmesh-proxy -p mcpmesh-e2e --bin mcpmesh-proxy --bin bench
exec "${CARGO_TARGET_DIR:-target}/$(rustc --print host-tuple)/release/bench" "$@"
