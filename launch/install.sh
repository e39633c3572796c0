#!/usr/bin/env bash
# Makes a virtual environment and installs segloop into it, with the versions of its
# dependencies that it is tested with. The other scripts call this one.
#
#   bash launch/install.sh [EXTRAS]        e.g. bash launch/install.sh test,gpu
#
#   VENV         the environment's folder (default: .venv in the repository)
#   PYTHON       the interpreter, 3.11 to 3.13 (default: python3)
#   CONSTRAINTS  the file of versions (default: launch/constraints.txt)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv="${VENV:-.venv}"
python="${PYTHON:-python3}"
constraints="${CONSTRAINTS:-launch/constraints.txt}"
extras="${1:-}"

if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'; then
  echo "PYTHON=$python is $("$python" --version 2>&1); segloop needs Python 3.11 to 3.13." >&2
  exit 2
fi
# One that was not finished, for want of python3-venv for instance, has no pip.
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  "$python" -m venv "$venv"
fi
"$venv/bin/python" -m pip install --quiet --upgrade pip
"$venv/bin/python" -m pip install --quiet --constraint "$constraints" \
  --editable ".${extras:+[$extras]}"
