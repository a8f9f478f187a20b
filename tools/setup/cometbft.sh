#!/bin/sh
# Brings the consensus engine `cometbft` to .venv/bin at the pinned version. Where a program of that version is there
# already (in DLLM_COMETBFT, .venv/bin or on PATH), this costs one call of it. With --where-possible a machine without
# Go is no error: the tests that need it are then skipped.
set -eu
cd "$(dirname "$0")/../.."
version=$(sed -n 's/^COMETBFT_VERSION = "\(.*\)"$/\1/p' full_node/consensus/cometbft/binary.py)
target="$(pwd)/.venv/bin"
release="https://github.com/cometbft/cometbft/releases/tag/v$version"

is_pinned() {
  # An official release says "+" and its commit after the version.
  case "$("$1" version 2>/dev/null || true)" in "$version" | "$version+"*) return 0 ;; *) return 1 ;; esac
}

for program in "${DLLM_COMETBFT:-}" "$target/cometbft" "$(command -v cometbft || true)"; do
  if [ -n "$program" ] && is_pinned "$program"; then exit 0; fi
done

if ! command -v go >/dev/null 2>&1; then
  if [ "${1:-}" = "--where-possible" ]; then exit 0; fi
  {
    echo "cometbft $version is not in .venv/bin, and Go, which builds it, is not installed."
    echo "Either install Go 1.22 or newer (https://go.dev/dl/) and run this again,"
    echo "or take the official release $release"
    echo "and put its program as .venv/bin/cometbft (or anywhere on PATH, or name it in DLLM_COMETBFT)."
  } >&2
  exit 1
fi

mkdir -p "$target"
echo "setup: building cometbft $version with $(go version | cut -d' ' -f3); a minute or two the first time"
attempt=1
# Module proxies answer "try later" now and then; what was downloaded stays, so another try goes on from there.
until GOBIN="$target" go install "github.com/cometbft/cometbft/cmd/cometbft@v$version"; do
  if [ "$attempt" -ge 5 ]; then
    echo "cometbft $version could not be built after $attempt tries; the official release is at $release" >&2
    exit 1
  fi
  echo "setup: that did not work, trying again in $((attempt * 5)) s" >&2
  sleep $((attempt * 5))
  attempt=$((attempt + 1))
done
if ! is_pinned "$target/cometbft"; then
  echo "the program built says version '$("$target/cometbft" version)', wanted was $version" >&2
  exit 1
fi
echo "setup: cometbft $version is in .venv/bin"
