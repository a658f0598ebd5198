#!/usr/bin/env bash
# Lists every crate in each program, with version, licence and hash: CycloneDX JSON, one file a program.
#   .ci/sbom.sh [OUT]      OUT/mcpmesh-{operator,proxy,cli}.cdx.json (default target/sbom), for this machine's target
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cache="${MCPMESH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mcpmesh}"
version=0.5.9
out="${1:-target/sbom}"
tool="$cache/tools/bin/cargo-cyclonedx"
host="$(rustc -vV | sed -n 's/^host: //p')"
made="$(mktemp -d)"
trap 'rm -rf "$made"' EXIT

exec 8>"$cache/.tools.lock"
flock 8
if ! "$tool" cyclonedx --version 2>/dev/null | grep -q " $version\$"; then
  echo "installing cargo-cyclonedx $version (some minutes)"
  CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --force --root "$cache/tools" \
    --target-dir "$made/target" "cargo-cyclonedx@$version"
fi
flock -u 8

# It writes beside each Cargo.toml: in a copy of the tree.
mkdir -p "$out"
tar -c --exclude=./target --exclude=./.git --exclude='*/fuzz' --exclude=node_modules . | tar -x -C "$made"
(cd "$made" && "$tool" cyclonedx --quiet --format json --spec-version 1.5 --target "$host")
for folder in operator proxy cli; do
  file="mcpmesh-$folder.cdx.json"
  mv "$made/$folder/$file" "$out/$file"
  printf '%s: %s crates\n' "$out/$file" "$(grep -c '"purl": "pkg:cargo/' "$out/$file")"
done
