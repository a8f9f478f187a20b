#!/usr/bin/env bash
# Writes requirements/*.lock anew from pyproject.toml. Each level is a superset of the one before, with the same
# versions, so that `make setup` and `make test` share one environment. Wants pip-compile (extra `dev`).
set -euo pipefail
cd "$(dirname "$0")/../.."
compile="${DLLM_PIP_COMPILE:-.venv/bin/pip-compile}"
[ -x "$compile" ] || { echo "no $compile: install the extra 'dev', or name one in DLLM_PIP_COMPILE" >&2; exit 2; }

lock() {
  local name="$1"; shift
  echo "locking requirements/$name.lock" >&2
  "$compile" --quiet --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
    --generate-hashes --strip-extras --allow-unsafe --output-file "requirements/$name.lock" "$@"
}

lock build requirements/build.in
lock client pyproject.toml
lock worker --extra worker --constraint requirements/client.lock pyproject.toml
lock test --extra worker --extra test --constraint requirements/worker.lock pyproject.toml
lock fuzz requirements/fuzz.in
# pip-compile drops the marker of a requirement that comes by way of an extra.
for name in worker test; do
  sed -i.old -e 's/^\(libtorrent==[^ ;]*\) /\1 ; python_version < "3.14" /' "requirements/$name.lock"
  rm -f "requirements/$name.lock.old"
done
