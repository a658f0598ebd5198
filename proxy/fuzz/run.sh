#!/bin/sh
# Builds every fuzz target with the pinned stable compiler and runs each for SECONDS (default 10).
# Fails on the first crash, time-out or memory overrun; its input stays in artifacts/.
set -eu
seconds=${1:-10}
cd "$(dirname "$0")"
host=$(rustc -vV | sed -n 's/^host: //p')
# What cargo-fuzz passes, without a sanitizer: these are stable code generation flags. An explicit
# --target keeps them away from build scripts.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares \
-Ccodegen-units=1"
cargo build --locked --release --target "$host" --bins
targets=${CARGO_TARGET_DIR:-target}/$host/release
for name in envelope sse header handle rewrite; do
    mkdir -p "corpus/$name" "artifacts/$name"
    echo "== $name: $seconds s"
    "$targets/$name" "corpus/$name" "seeds/$name" -max_total_time="$seconds" -rss_limit_mb=512 \
        -malloc_limit_mb=256 -timeout=5 -max_len=4096 -dict=json.dict -print_final_stats=0 -verbosity=0 \
        -artifact_prefix="artifacts/$name/"
done
echo "fuzz: no crash"
