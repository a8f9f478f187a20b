#!/bin/sh
# Brings .venv/ to the level asked (client, worker or test). Where it is there already, this costs one comparison.
set -eu
cd "$(dirname "$0")/../.."
level="${1:-worker}"
case "$level" in client | worker | test) ;; *) echo "unknown level '$level': client, worker or test" >&2; exit 2 ;; esac

# The stamp holds what the environment was made from, and where: a moved checkout has broken scripts.
wanted="$(pwd) $(cat pyproject.toml requirements/*.lock tools/setup/environment.py | cksum)"
for have in test worker client; do
  if [ -x .venv/bin/python ] && [ "$(cat ".venv/.setup-$have" 2>/dev/null)" = "$wanted" ]; then exit 0; fi
  [ "$have" = "$level" ] && break
done

python=$(PYTHON="${PYTHON:-}" sh tools/setup/find_python.sh)
"$python" tools/setup/environment.py "$level"
rm -f .venv/.setup-*
printf '%s\n' "$wanted" > ".venv/.setup-$level"
