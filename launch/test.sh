#!/usr/bin/env bash
# One command on a fresh machine: makes an environment, installs segloop with what the
# tests need, checks the style, trains for a few steps from the command line, runs all
# tests, and a cross-section of them with the lowest versions that setup.py allows.
#
#   bash launch/test.sh [PYTEST ARGUMENT ...]   e.g. bash launch/test.sh -k metrics
#
#   VENV, PYTHON  as for launch/install.sh
#   VENV_LOWEST   the folder of the second environment (default: .venv-lowest)
#
# With arguments, the lowest versions are left out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash launch/install.sh test,hub,export,trackers
bin="${VENV:-.venv}/bin"
"$bin/ruff" format --check .
"$bin/ruff" check .

model_dir="$(mktemp -d)"
trap 'rm -rf "$model_dir"' EXIT
"$bin/segloop" --flagfile=launch/flagfiles/quickstart.flags --model_dir="$model_dir" \
  --train_epochs=0 --train_steps=4 --warmup_steps=1

# Two processes: most tests wait for TensorFlow to trace, on one core. Whoever is done
# first takes tests of the other.
"$bin/python" -m pytest --numprocesses=2 --dist=worksteal --durations=15 "$@"

if [ "$#" -eq 0 ]; then
  lowest="${VENV_LOWEST:-.venv-lowest}"
  VENV="$lowest" CONSTRAINTS=launch/constraints-lowest.txt bash launch/install.sh test
  "$lowest/bin/ruff" check .
  "$lowest/bin/python" -m pytest --numprocesses=2 --dist=worksteal --durations=5 \
    -m cross_section
fi
