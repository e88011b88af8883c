#!/usr/bin/env bash
# .venv: what checks and tests need, by hash.
set -euo pipefail
cd "$(dirname "$0")/.."

SECONDS=0
# Debian's Python comes without the module that fills an environment.
if ! python3 -c 'import ensurepip' 2>/dev/null; then
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || {
    echo "venv: python3 lacks ensurepip: apt-get install python3-venv" >&2; exit 1; }
  apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
fi
rm -rf .venv
python3 -m venv .venv
.venv/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.txt
# The `p8s` command and the pytest plugin, from this tree.
.venv/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation --editable .
touch .venv/ready
echo "venv: .venv is made ($SECONDS s)"
