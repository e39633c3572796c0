#!/usr/bin/env bash
# Trains on this host: one process with all GPUs, or N workers of one cluster, which are
# all started again when one dies.
#
#   bash launch/local.sh [N] FLAG ...
#   bash launch/local.sh --flagfile=launch/flagfiles/quickstart.flags --model_dir=runs/a
#   bash launch/local.sh 2 --flagfile=launch/flagfiles/quickstart.flags --model_dir=runs/a
#
#   VENV          folder of the virtual environment (default: .venv in the repository)
#
# With N, where 1 is one process under supervision:
#
#   LOG_DIR       where worker-0.log, ... go (default: a new folder, removed if all goes well)
#   MAX_RESTARTS  how often to start again (default: 10)
#   GRACE_SECS    how long the others may take to end once a worker has failed, or once
#                 all were told to stop, before they are killed (default: 60); ten times
#                 as long once a worker is done
#
# All that workers say is shown, each line with the worker's number in front. SIGTERM,
# SIGINT, SIGHUP and SIGUSR1 are passed on as SIGTERM: the workers save, and this script
# exits with their 143. If this script is killed, Linux sends them SIGTERM. An exit code
# of 1 to 6 is a mistake that no restart mends: the others are killed. Without success,
# the worker that failed first is named at the end, with its last lines, and its exit
# code is that of this script.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

if [[ ! ${1:-} =~ ^[0-9]+$ ]]; then
  exec bash launch/worker.sh "$@"
fi
refuse() {
  echo "Error: $1" >&2
  exit 2
}

count="$((10#$1))"  # 08 is 8.
shift
((count > 0)) || refuse "0 workers; say 1 or more, or leave the number out."
grace_secs="${GRACE_SECS:-60}"
max_restarts="${MAX_RESTARTS:-10}"
[[ $grace_secs =~ ^[0-9]+$ ]] || refuse "GRACE_SECS=$grace_secs: give whole seconds."
[[ $max_restarts =~ ^[0-9]+$ ]] || refuse "MAX_RESTARTS=$max_restarts: give a whole number."
grace_secs="$((10#$grace_secs))" max_restarts="$((10#$max_restarts))"
python="${VENV:-.venv}/bin/python"
log_dir="${LOG_DIR:-$(mktemp -d)}"
mkdir -p "$log_dir" || exit 3
# What asks a worker to save and end when this script is gone, where there is such a thing.
bound=(setpriv --pdeathsig TERM)
"${bound[@]}" true 2>/dev/null || bound=()
pids=()
declare -A worker_of  # By process.
relays=()
timer=
is_stopping=
exec {silence}<> <(:)  # A pipe in which nobody writes, to wait at for a while.

kill_all() {
  kill -"$1" "${pids[@]}" 2>/dev/null
}

# Begins the time after which whoever still runs is killed, again if it has begun.
start_timer() {
  stop_timer
  sleep "$1" >/dev/null 2>&1 &
  timer=$!
}

stop_timer() {
  [ -n "$timer" ] && kill "$timer" 2>/dev/null && wait "$timer" 2>/dev/null
  timer=
}

# shellcheck disable=SC2329  # By the trap.
on_signal() {
  is_stopping=1
  kill_all TERM
  start_timer "$grace_secs"
}
trap on_signal TERM INT HUP USR1

free_addresses() {
  "$python" - "$count" <<'PYTHON'
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(",".join(f'"127.0.0.1:{s.getsockname()[1]}"' for s in sockets))
PYTHON
}

# Ends this script, with nothing left to look at.
finish() {
  stop_timer
  [ -n "${LOG_DIR:-}" ] || rm -rf "$log_dir"
  exit "$1"
}

start_all() {
  local addresses index log
  if ((count > 1)); then addresses="$(free_addresses)"; fi
  # What was asked to stop meanwhile had no workers to pass it on to.
  if [ -n "$is_stopping" ]; then finish 143; fi
  pids=() worker_of=() relays=()
  for ((index = 0; index < count; index++)); do
    log="$log_dir/worker-$index.log"
    # The worker writes to a file, not into a pipe: no reader that ends can end it.
    : >"$log"
    (
      # A terminal that closes sends SIGHUP to the workers as well, and a second signal
      # makes them exit without saving.
      trap '' HUP
      exec {silence}>&-
      if ((count > 1)); then
        export LOCAL_INDEX="$index" LOCAL_COUNT="$count"
        export TF_CONFIG="{\"cluster\": {\"worker\": [$addresses]}, \"task\": {\"type\": \"worker\", \"index\": $index}}"
      fi
      exec ${bound[@]+"${bound[@]}"} bash launch/worker.sh "$@"
    ) >>"$log" 2>&1 &
    pids+=($!)
    worker_of[$!]=$index
    tail --lines=+1 --follow --sleep-interval=0.2 --pid=$! "$log" 2>/dev/null |
      sed --unbuffered "s/^/[$index] /" &
    relays+=($!)
  done
  # Those that were started after the trap are told here.
  if [ -n "$is_stopping" ]; then kill_all TERM; fi
}

# Notes that worker $1 has ended with exit code $2, and what that means for the others.
note_end() {
  case "$2" in
    0) [ -z "$timer" ] && start_timer $((10 * grace_secs)) ;;
    [1-6])
      first=$2 first_worker=$1
      kill_all KILL
      ;;
    *)
      # Those that are killed below, because of the first one, say nothing of their own.
      if [ "$first" = 0 ] || [ "$2" = 143 ]; then
        first=$2 first_worker=$1
        start_timer "$grace_secs"
      fi
      ;;
  esac
}

# Waits for all workers, and says on file descriptor 3 what it does to them. Sets `first`,
# the first exit code that is not 0, and `first_worker`; one of a mistake, or of a stop,
# goes before.
wait_all() {
  local pid running ended
  first=0 first_worker=
  while [ "${#pids[@]}" -gt 0 ]; do
    # Not `wait -n`: it waits for the others where a signal has ended a worker while bash
    # did something else.
    read -r -t 0.05 -u "$silence"
    running=() ended=()
    for pid in "${pids[@]}"; do
      if kill -0 "$pid" 2>/dev/null; then
        running+=("$pid")
      else
        wait "$pid"
        ended+=("${worker_of[$pid]} $?")
      fi
    done
    pids=(${running[@]+"${running[@]}"})
    # shellcheck disable=SC2086  # Two words.
    for pid in ${ended[@]+"${ended[@]}"}; do note_end $pid; done
    if [ -n "$timer" ] && ! kill -0 "$timer" 2>/dev/null && [ "${#pids[@]}" -gt 0 ]; then
      echo "Killing ${#pids[@]} workers that do not end." >&3
      timer=
      kill_all KILL  # Which ends stopped processes, too.
    fi
  done
  stop_timer
  wait "${relays[@]}"
}

# Names the worker that failed first, shows the end of its log, and ends this script.
fail() {
  echo "Worker $first_worker failed first, with code $first; the end of $log_dir/worker-$first_worker.log:" >&2
  tail --lines=10 "$log_dir/worker-$first_worker.log" | sed 's/^/    /' >&2
  exit "$first"
}

for ((attempt = 0; attempt <= max_restarts; attempt++)); do
  start_all "$@"
  # Between any two commands, bash may tell on stderr which of its jobs were killed.
  wait_all 3>&2 2>/dev/null
  case "$first" in
    0 | 143) finish "$first" ;;
    [1-6]) fail ;;
  esac
  if [ -n "$is_stopping" ]; then
    stop_timer
    exit 143
  fi
  if ((attempt < max_restarts)); then
    echo "Worker $first_worker ended with code $first; starting all again." >&2
  fi
done
echo "Given up after $max_restarts restarts." >&2
fail
