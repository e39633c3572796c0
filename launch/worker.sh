#!/usr/bin/env bash
# Runs one worker: finds out which one of which cluster it is, and becomes the program.
# The other scripts and the container call this one. Where nothing says that there is a
# cluster, the worker is the whole run, on all GPUs of its host.
#
#   bash launch/worker.sh FLAG ...
#
#   VENV                  folder of the virtual environment (default: .venv in the
#                         repository)
#
# The first of these says who is in the cluster:
#
#   TF_CONFIG             taken as it is
#   SLURM_STEP_NUM_TASKS  a step of Slurm with several tasks: each is a worker. A worker
#                         listens on a port that follows from the job's number, so that
#                         two jobs on a host do not meet.
#   JOB_COMPLETION_INDEX  a pod of an indexed Job of Kubernetes, in which
#     WORKERS             is the number of pods (default: PET_NNODES, as Kubeflow says it)
#     WORKER_HOSTS        is their host name, with {} in place of the index
#     WORKER_PORT         is the port of each (default: 2222)
#
# Workers that share a host share its GPUs in equal parts, but where Slurm binds each
# task to GPUs of its own (--gpus-per-task, --ntasks-per-gpu, --gpu-bind).
# shellcheck disable=SC2089,SC2090  # TF_CONFIG is JSON: its quotes are part of it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "Error: $1" >&2
  exit 2
}

# Sets TF_CONFIG for worker number $1 of those at the addresses that follow.
set_tf_config() {
  local index="$1" list
  shift
  list="$(printf ', "%s"' "$@")"
  printf -v TF_CONFIG \
    '{"cluster": {"worker": [%s]}, "task": {"type": "worker", "index": %d}}' \
    "${list:2}" "$index"
  export TF_CONFIG
}

# Prints how many tasks each host has, a line each: of 2(x3),1 four lines.
expand_counts() {
  local part count times
  for part in ${1//,/ }; do
    count="${part%%(*}" times=1
    [[ $part == *"(x"*")" ]] && times="${part##*x}" && times="${times%)}"
    while ((times-- > 0)); do echo "$count"; done
  done
}

# Slurm gives each host a block of tasks, as slurm.sbatch asks it to.
read_slurm() {
  local names hosts counts port i j addresses=()
  names="$(scontrol show hostnames "$SLURM_STEP_NODELIST")" ||
    fail "scontrol cannot expand SLURM_STEP_NODELIST=$SLURM_STEP_NODELIST."
  mapfile -t hosts <<<"$names"
  mapfile -t counts < <(expand_counts "$SLURM_STEP_TASKS_PER_NODE")
  # Below those that Linux gives to clients, 32768 and up; 32 for the tasks of a host.
  port=$((12000 + SLURM_JOB_ID % 640 * 32))
  for i in "${!hosts[@]}"; do
    for ((j = 0; j < ${counts[i]:-0}; j++)); do
      addresses+=("${hosts[i]}:$((port + j))")
    done
  done
  ((${#addresses[@]} == SLURM_STEP_NUM_TASKS)) ||
    fail "SLURM_STEP_NODELIST=$SLURM_STEP_NODELIST and SLURM_STEP_TASKS_PER_NODE=$SLURM_STEP_TASKS_PER_NODE make ${#addresses[@]} tasks, SLURM_STEP_NUM_TASKS says $SLURM_STEP_NUM_TASKS."
  set_tf_config "$SLURM_PROCID" "${addresses[@]}"
  has_own_gpus || share_gpus "$SLURM_LOCALID" "${counts[SLURM_NODEID]}"
}

# Whether Slurm binds each task to GPUs of its own: the way to bind says so, or else a
# number of GPUs for a task, which Slurm binds by unless that way is `none`.
has_own_gpus() {
  local way="${SLURM_GPU_BIND:-}"
  if [[ -z $way && ${SLURM_TRES_BIND:-} == *gpu:* ]]; then
    way="${SLURM_TRES_BIND##*gpu:}" way="${way%%+*}"
  fi
  way="${way#verbose}" way="${way#,}"
  [[ $way != none ]] || return 1
  [[ -n $way || -n ${SLURM_GPUS_PER_TASK:-}${SLURM_NTASKS_PER_GPU:-} ||
    ${SLURM_TRES_PER_TASK:-} == *gpu* ]]
}

read_kubernetes() {
  local count="${WORKERS:-${PET_NNODES:-}}" i addresses=()
  [[ $count =~ ^[1-9][0-9]*$ ]] ||
    fail "WORKERS=$count: JOB_COMPLETION_INDEX is set, so say how many pods the Job has."
  ((JOB_COMPLETION_INDEX < count)) ||
    fail "WORKERS=$count, but JOB_COMPLETION_INDEX=$JOB_COMPLETION_INDEX: let WORKERS be the Job's completions and parallelism."
  ((count > 1)) || return 0
  [[ ${WORKER_HOSTS:-} == *"{}"* ]] ||
    fail "WORKER_HOSTS=${WORKER_HOSTS:-}: give the host name of the pods with {} in place of the index, such as segloop-{}.segloop."
  for ((i = 0; i < count; i++)); do
    addresses+=("${WORKER_HOSTS//"{}"/$i}:${WORKER_PORT:-2222}")
  done
  set_tf_config "$JOB_COMPLETION_INDEX" "${addresses[@]}"
}

# Leaves worker number $1 of the $2 on this host its part of the GPUs.
share_gpus() {
  local gpus each
  if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
    IFS=, read -r -a gpus <<<"$CUDA_VISIBLE_DEVICES"
    [ "${gpus[0]:-}" != -1 ] || gpus=()  # As CUDA understands it.
  else
    # It says on its standard output, too, what is wrong with the driver.
    mapfile -t gpus < <(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null |
      grep --line-regexp '[0-9]\+')
  fi
  each=$((${#gpus[@]} / $2))
  if ((each > 0)); then
    gpus=("${gpus[@]:$1*each:each}")
    CUDA_VISIBLE_DEVICES="$(IFS=, && echo "${gpus[*]}")"
    export CUDA_VISIBLE_DEVICES
  elif ((${#gpus[@]} > 0 && $1 == 0)); then
    echo "Warning: $2 workers on a host of ${#gpus[@]} GPUs; start fewer, or say --num_gpus=0." >&2
  fi
}

python="${VENV:-.venv}/bin/python"
[ -x "$python" ] ||
  fail "VENV=${VENV:-.venv}: there is no $python; run bash launch/install.sh, or name another virtual environment."
if [ -n "${TF_CONFIG:-}" ]; then
  # launch/local.sh says how many workers this host has.
  [ -z "${LOCAL_COUNT:-}" ] || share_gpus "$LOCAL_INDEX" "$LOCAL_COUNT"
elif ((${SLURM_STEP_NUM_TASKS:-1} > 1)); then
  read_slurm
elif [ -n "${JOB_COMPLETION_INDEX:-}" ]; then
  read_kubernetes
fi
exec "$python" -m trainer.main \
  ${TF_CONFIG:+--distribution_strategy=multi_worker_mirrored} "$@"
