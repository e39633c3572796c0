#!/usr/bin/env bash
# Everything, which takes hours: launch/test.sh, every encoder against the original, all
# extras, and the documented commands that are too slow for it, all exports among them.
#
#   bash launch/test_all.sh [FLAG ...]   e.g. bash launch/test_all.sh --data_dir=/data/tfds
#
#   FLAGs say where the photos of Oxford-IIIT Pet and the ImageNet weights are; without
#   them TFDS and Keras download both. VENV and PYTHON are as for launch/install.sh.
#
# Commands that need a GPU, Slurm or Kubernetes are not among them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
flags=("$@")

bash launch/test.sh
bash launch/install.sh test,hub,export,trackers,benchmark,examples
PATH="$PWD/${VENV:-.venv}/bin:$PATH"
python -m pytest --numprocesses=2 --dist=worksteal --all-encoders

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
ln -s "$PWD/launch" "$work/launch"
PYTHONPATH="$PWD" && export PYTHONPATH
cd "$work"

run() {
  echo "== $*" >&2
  "$@"
}

tutorial=(python -m trainer.main --flagfile=launch/flagfiles/pets_tutorial.flags)
run segloop --flagfile=launch/flagfiles/quickstart.flags
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
run python -m tests.faults.run --kills=100
run python -m tests.matrix.run --results=matrix.jsonl
run python -m tests.matrix.export --results=export.jsonl
run python -m tests.documents.settings
echo "All of it ran." >&2
