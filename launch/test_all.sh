#!/usr/bin/env bash
# Everything, which takes hours: launch/test.sh, every encoder against the original, all
# extras, an installation from a wheel, and the documented commands that are too slow for
# launch/test.sh, all exports among them.
#
#   bash launch/test_all.sh [FLAG ...]   e.g. bash launch/test_all.sh --data_dir=/data/tfds
#
#   --data_dir=FOLDER       has the photos of Oxford-IIIT Pet for TFDS
#   --encoder_weights=FILE  has the ImageNet weights of MobileNetV2
#
# Both by their whole paths; without them TFDS and Keras download both. Commands that need
# a GPU, Slurm or Kubernetes are not among them.
#
#   VENV, PYTHON  as for launch/install.sh
#   WORK          a folder for all that is made (default: a temporary one). The next call
#                 with the same folder goes on with the command that failed or was
#                 stopped; after a change of the code, take another folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root="$PWD"
flags=("$@")

if [ -z "${WORK:-}" ]; then
  WORK="$(mktemp -d)"
  trap 'rm -rf "$WORK"' EXIT
fi
mkdir -p "$WORK/elsewhere" "$WORK/clone"
work="$(cd "$WORK" && pwd)"

# The time stands before each command: the log says how long the one before took.
run() {
  if grep --quiet --no-messages --line-regexp --fixed-strings -e "$*" "$work/done"; then
    return
  fi
  echo "== $(date +%T) $*" >&2
  "$@" || return
  echo "$*" >> "$work/done"
}

run bash launch/test.sh
run bash launch/install.sh test,hub,export,trackers,benchmark,cloud
but=""
# pip clones a repository of GitHub, which not every machine reaches.
run bash launch/install.sh examples ||
  but=", but for the extra examples, which could not be installed"
PATH="$(cd "${VENV:-.venv}/bin" && pwd):$PATH"
run python -m pytest --numprocesses=2 --dist=worksteal tests/test_encoders.py --all-encoders

# A wheel, in an environment and a folder of its own.
python -m venv "$work/venv"
(
  PATH="$work/venv/bin:$PATH"
  cd "$work/elsewhere"
  python -m pip install --quiet build
  run python -m build --outdir="$work/dist" "$root"
  run pip install --quiet --constraint="$root/launch/constraints.txt" \
    "$work"/dist/segloop-*.whl
  run segloop --flagfile=quickstart.flags
)

# The others, in a folder that looks like the repository's.
ln -sfn "$root/launch" "$work/clone/launch"
cd "$work/clone"
PYTHONPATH="$root" && export PYTHONPATH
tutorial=(python -m trainer.main --flagfile=launch/flagfiles/pets_tutorial.flags)
run "${tutorial[@]}" --model_dir=runs/tutorial "${flags[@]}"
run python -m trainer.main --mode=evaluate --model_dir=runs/tutorial
run python -m trainer.main --mode=report --model_dir=runs/tutorial
run python -m trainer.main --mode=export --model_dir=runs/tutorial --export_format=saved_model,keras,litert,litert_int8,onnx
run python -m trainer.main --mode=evaluate --model=runs/tutorial/export/onnx --model_dir=runs/tutorial
run python -m trainer.main --mode=plan --time_budget=2m --dataset=synthetic --model_dir=runs/plan
run python -m trainer.main --flagfile=runs/plan/plan.flags --model_dir=runs/planned
run "${tutorial[@]}" --model_dir=runs/benchmark --mode=benchmark --against=fit "${flags[@]}"
run python -m tests.benchmarks.cached_input
run python -m tests.benchmarks.against_torch
run python -m tests.benchmarks.startup --dataset=tfds:oxford_iiit_pet "${flags[@]}"
# Each of these traces, on one core, for most of its time: two workers halve it.
run python -m tests.faults.run --kills=50 --workers=2
run python -m tests.matrix.run --results=matrix.jsonl --workers=2
run python -m tests.matrix.export --results=export.jsonl --workers=2
run python -m tests.documents.settings
echo "All of it ran$but." >&2
