#!/bin/sh
# Prints the first Python 3.11 or newer on this machine; says what to do where there is none.
for name in ${PYTHON:-} python3.11 python3.12 python3.13 python3.14 python3 python; do
  path=$(command -v "$name" 2>/dev/null) || continue
  if "$path" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    echo "$path"
    exit 0
  fi
done
cat >&2 <<'MSG'
DLLM needs Python 3.11 or newer with its venv module, and found none.
  Debian, Ubuntu:  sudo apt install python3 python3-venv
  Fedora:          sudo dnf install python3
  macOS:           brew install python
Or name one:       make setup PYTHON=/path/to/python3
MSG
exit 2
