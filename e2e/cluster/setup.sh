#!/usr/bin/env bash
# Makes the test cluster ready to start: builds its binary unless cached, and installs the Debian packages that its
# nodes need (tier 2 and 3) where they are missing and we are root. Done already: a moment. What cannot be installed is
# said, not fatal: tier 1 needs none of it, and the tests say loudly which tier they could not run.
#   e2e/cluster/setup.sh           the cluster
#   e2e/cluster/setup.sh all       what only `make e2e` needs too: Flux's controllers, buildah
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"

say() { printf '%s\n' "$*"; }

# install_packages NAME...: without starting what they bring (a containerd of the machine would only be in the way).
install_packages() (
  export DEBIAN_FRONTEND=noninteractive
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  apt-get -o DPkg::Lock::Timeout=120 install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get -o DPkg::Lock::Timeout=120 install -y -qq --no-install-recommends "$@"; } >/dev/null 2>&1
)

# need PACKAGE FILE...: asks for the package unless one of the files is there.
missing=()
need() {
  local package="$1" file
  shift
  for file; do [ ! -x "$file" ] || return 0; done
  missing+=("$package")
}

packages() {
  [ "$(uname -s)" = Linux ] || return 0
  need containerd {/usr,/usr/local}/bin/containerd
  need runc {/usr,/usr/local}/{s,}bin/runc
  need containernetworking-plugins /usr/lib/cni/bridge
  need iproute2 {/usr,}/{s,}bin/ip
  need iptables {/usr,}/sbin/iptables
  need nftables {/usr,}/sbin/nft
  need conntrack {/usr,}/sbin/conntrack
  need openssl /usr/{local/,}bin/openssl
  [ "$1" != all ] || need buildah /usr/{local/,}bin/buildah
  [ "${#missing[@]}" != 0 ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "the test cluster's nodes need packages that only root can install: ${missing[*]}"
    return 0
  fi
  say "installing ${missing[*]} for the test cluster's nodes"
  install_packages "${missing[@]}" || say "apt-get install ${missing[*]} failed: no nodes in the test cluster"
}

# gateway_api: the definitions of the Gateway API's standard channel, as its Go module carries them.
gateway_api() {
  local version=v1.4.1 to="${MCPMESH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mcpmesh}/gateway-api" from
  [ "$(cat "$to/.version" 2>/dev/null)" != "$version" ] || return 0
  from="$(cd / && go mod download -json "sigs.k8s.io/gateway-api@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')"
  mkdir -p "$to"
  install -m 644 "$from"/config/crd/standard/gateway.networking.k8s.io_{gateways,httproutes}.yaml "$to/"
  printf '%s' "$version" >"$to/.version"
}

packages "${1:-}"
gateway_api
./cluster can 1
./cluster build >/dev/null
if [ "${1:-}" = all ]; then gitops/flux --build; fi
