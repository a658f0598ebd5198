#!/usr/bin/env bash
# Renews the Python pins (python/*.txt) from python/*.in. The npm ones: `npm install --package-lock-only` in npm/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. "$(./setup.sh -q)"
for source in python/*.in; do
  name="$(basename "$source" .in)"
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
    --custom-compile-command "e2e/pins.sh (do not edit)" "$source" -o "python/$name.txt"
done
