#!/usr/bin/env bash
# One command on a fresh machine: makes an environment, installs segloop, trains a
# U-Net from scratch on the built-in pictures, and shows the scores. About two minutes
# on two cores after the installation; nothing is downloaded but packages.
#
#   bash launch/quickstart.sh [FLAG ...]   e.g. bash launch/quickstart.sh --seed=1
#
# Run again, it resumes, or says that the run is done, also without a network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python="${VENV:-.venv}/bin/python"
code=0
bash launch/install.sh || code=$?
if ((code > 0)); then
  "$python" -m pip show --quiet segloop 2>/dev/null || exit "$code"
  echo "Warning: launch/install.sh failed; going on with what it installed before." >&2
fi
exec "$python" -m trainer.main \
  --flagfile=launch/flagfiles/quickstart.flags "$@"
