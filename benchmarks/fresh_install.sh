#!/usr/bin/env bash
# Both README commands in a fresh clone and a fresh virtual environment, timed. Prints one line each.
#
#   benchmarks/fresh_install.sh [PYTHON]          SKIP_TOX=1: the first command only
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
cd "$scratch/modelwright"
"$python" -m venv "$scratch/venv"
export PATH="$scratch/venv/bin:$PATH"
timed 'pip install -e ".[all]"' pip install --quiet -e ".[all]"
timed "modelwright demo" modelwright demo
timed "modelwright demo, second time" modelwright demo
[ -n "${SKIP_TOX:-}" ] && exit
timed "pip install tox" pip install --quiet tox
timed "tox" tox
grep -E "^  [a-z0-9_]+: (OK|SKIP|FAIL)" "$scratch/log" || true
