#!/usr/bin/env bash
# Writes the two files of Python pins anew, from what they are made of. No index is named in them.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -x build/lock/bin/pip-compile ] || { python3 -m venv build/lock && build/lock/bin/pip install -q pip-tools; }
for name in image/requirements requirements-dev; do
  build/lock/bin/pip-compile -q --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header \
    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
    $([ $name = image/requirements ] || echo -c image/requirements.txt) --output-file $name.txt $name.in
done
