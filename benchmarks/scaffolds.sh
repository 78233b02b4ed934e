#!/usr/bin/env bash
# A new plugin of each kind as its author would begin: written, installed, trained, its own tox; timed, a line each.
#
#   benchmarks/scaffolds.sh [PYTHON]          in a fresh virtual environment; wheels are cached after the first kind
set -euo pipefail
python=${1:-python3}
source=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

timed() {  # what, command...
  local what=$1 began=$SECONDS
  shift
  if ! "$@" >"$scratch/log" 2>&1; then
    tail -n 40 "$scratch/log" >&2
    echo "$what: failed after $((SECONDS - began)) s"
    return 1
  fi
  echo "$what: $((SECONDS - began)) s"
}

git clone --quiet "$source" "$scratch/modelwright"
"$python" -m venv "$scratch/venv"
export PATH="$scratch/venv/bin:$PATH"
timed "pip install modelwright" pip install --quiet "$scratch/modelwright" tox tox-uv
export MODELWRIGHT="$scratch/modelwright"  # where the plugins' tox finds modelwright until there is a release
for kind in classification detection sequence tabular blank; do
  began=$SECONDS
  cd "$scratch"
  timed "$kind: new-plugin" modelwright new-plugin "my-$kind" --kind "$kind"
  cd "$scratch"/*my-"$kind"
  timed "$kind: pip install -e ." pip install --quiet -e .
  timed "$kind: modelwright train" modelwright train "my-$kind" --recipe quick --out run
  timed "$kind: tox" tox
  echo "$kind: $((SECONDS - began)) s in all"
done
