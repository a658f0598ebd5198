#!/usr/bin/env bash
# The Dockerfile's images without a registry and without docker: the programs by cargo, the images by buildah, which
# takes the programs, and this machine's trusted roots, in place of the stage `build`. Writes mcpmesh-proxy.tar and mcpmesh-operator.tar (docker archives)
# for this machine's platform.
#   .ci/images.sh                        builds the release, writes to target/images
#   .ci/images.sh OUT PROGRAMS           of programs that are built already, in the folder PROGRAMS
#   .ci/images.sh OUT PROGRAMS RUNNERS   npm-runner.tar and pypi-runner.tar besides, over root file systems of these
#                                        names in the folder RUNNERS in place of their base images
# IMAGES_PREFIX and IMAGES_TAG name them (default: mcpmesh.local/, the version).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { printf 'images: %s\n' "$*" >&2; exit 1; }
command -v buildah >/dev/null || fail "buildah is missing (apt-get install buildah)"
roots=/etc/ssl/certs/ca-certificates.crt
[ -s "$roots" ] || fail "$roots is missing (apt-get install ca-certificates)"

out="${1:-target/images}" programs="${2:-}" runners="${3:-}"
prefix="${IMAGES_PREFIX:-mcpmesh.local/}"
tag="${IMAGES_TAG:-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)}"
mkdir -p "$out"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

if [ -z "$programs" ]; then
  host="$(rustc -vV | sed -n 's/^host: //p')"
  cargo build --locked --release --target "$host" -p mcpmesh-proxy -p mcpmesh-operator
  programs="${CARGO_TARGET_DIR:-target}/$host/release"
fi
mkdir -p "$work/build/out"
install -D -m 644 "$roots" "$work/build$roots"
for program in mcpmesh-proxy mcpmesh-operator; do
  [ -x "$programs/$program" ] || fail "$programs/$program is not built"
  # A program that looks for libraries would start nowhere from scratch.
  ! readelf -l "$programs/$program" | grep -q INTERP || fail "$programs/$program is not static"
  strip -o "$work/build/out/$program" "$programs/$program"
done

# A store of its own, gone afterwards; nothing of the machine's is touched, and no kernel support is needed.
of_store() { buildah --root "$work/store" --runroot "$work/run" --storage-driver vfs "$@"; }

# image TARGET NAME
image() {
  of_store bud --quiet --isolation chroot --pull=never --timestamp 0 --build-context "build=$work/build" \
    --target "$1" --tag "$prefix$2:$tag" . >/dev/null
  rm -f "$out/$2.tar"
  of_store push --quiet "$prefix$2:$tag" "docker-archive:$out/$2.tar:$prefix$2:$tag"
  printf '%s%s:%s %s\n' "$prefix" "$2" "$tag" "$out/$2.tar"
}

# base TARGET: puts the folder of this name where the Dockerfile's FROM finds it.
base() {
  local container name
  name="$(sed -n "s/^FROM \(.*\) AS $1\$/\1/p" Dockerfile)"
  container="$(of_store from scratch)"
  of_store copy --quiet "$container" "$runners/$1" / >/dev/null
  of_store commit --quiet --rm "$container" "$name" >/dev/null
}

image proxy mcpmesh-proxy
image operator mcpmesh-operator
if [ -n "$runners" ]; then
  for name in npm-runner pypi-runner; do
    base "$name"
    image "$name" "$name"
  done
fi
