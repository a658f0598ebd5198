#!/usr/bin/env bash
# Builds the fuzz targets of proxy/fuzz and compiler/fuzz with the pinned stable compiler and runs each for SECONDS
# (default 10). Fails on the first crash, time-out or memory overrun; its input stays in artifacts/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds="${1:-10}"
host="$(rustc -vV | sed -n 's/^host: //p')"
# What cargo-fuzz passes, without a sanitizer: these are stable code generation flags. An explicit --target keeps them
# away from build scripts. A warning is an error, since `make lint` does not come here.
export RUSTFLAGS="-Dwarnings --cfg fuzzing -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares \
-Ccodegen-units=1"

for folder in proxy/fuzz compiler/fuzz; do
  cargo build --locked --release --target "$host" --bins --manifest-path "$folder/Cargo.toml"
  for target in "$folder"/fuzz_targets/*.rs; do
    name="$(basename "$target" .rs)"
    mkdir -p "$folder/corpus/$name" "$folder/artifacts/$name"
    printf '== %s %s: %s s\n' "$folder" "$name" "$seconds"
    "${CARGO_TARGET_DIR:-$folder/target}/$host/release/$name" "$folder/corpus/$name" "$folder/seeds/$name" \
      -max_total_time="$seconds" -rss_limit_mb=512 -malloc_limit_mb=256 -timeout=10 -max_len=4096 \
      -dict="$folder/words.dict" -print_final_stats=0 -verbosity=0 -artifact_prefix="$folder/artifacts/$name/"
  done
done
echo "fuzz: no crash"
