#!/usr/bin/env bash
# Runs N workers of one cluster on this host, and starts all of them again when one dies.
#
#   bash launch/local.sh N FLAG ...
#   bash launch/local.sh 2 --flagfile=launch/flagfiles/quickstart.flags
#
#   VENV          folder of the virtual environment (default: .venv in the repository)
#   MAX_RESTARTS  how often to start again (default: 10)
#   GRACE_SECS    how long the others may take to end once a worker has failed, or once
#                 all were told to stop, before they are killed (default: 60); ten times
#                 as long once a worker is done
#
# SIGTERM, SIGINT and SIGHUP are passed on as SIGTERM: the workers save, and this script
# exits with their 143. An exit code of 1 to 5 is a mistake that no restart mends, and
# ends the rest.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

count="${1:?number of workers}"
shift
python="${VENV:-.venv}/bin/python"
grace_secs="${GRACE_SECS:-60}"
pids=()
timer=
is_stopping=

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

on_signal() {
  is_stopping=1
  kill_all TERM
  start_timer "$grace_secs"
}
trap on_signal TERM INT HUP

free_addresses() {
  "$python" - "$count" <<'PYTHON'
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(",".join(f'"127.0.0.1:{s.getsockname()[1]}"' for s in sockets))
PYTHON
}

start_all() {
  local addresses index
  addresses="$(free_addresses)"
  pids=()
  for ((index = 0; index < count; index++)); do
    (
      # A terminal that closes sends SIGHUP to the workers as well, and a second signal
      # makes them exit without saving.
      trap '' HUP
      export TF_CONFIG="{\"cluster\": {\"worker\": [$addresses]}, \"task\": {\"type\": \"worker\", \"index\": $index}}"
      exec "$python" -m trainer.main --distribution_strategy=multi_worker_mirrored "${@}"
    ) &
    pids+=($!)
  done
}

# Notes the exit code of a worker that has ended, and what that means for the others.
note_end() {
  case "$1" in
    0) [ -z "$timer" ] && start_timer $((10 * grace_secs)) ;;
    1 | 2 | 3 | 4 | 5)
      first=$1
      kill_all KILL
      ;;
    *)
      # Those that are killed below, because of the first one, say nothing of their own.
      if [ "$first" = 0 ] || [ "$1" = 143 ]; then
        first=$1
        start_timer "$grace_secs"
      fi
      ;;
  esac
}

# Waits for all workers, in the order in which they end. Returns the first exit code that
# is not 0; one of a mistake, or of a stop, goes before.
wait_all() {
  local first=0 pid running
  while [ "${#pids[@]}" -gt 0 ]; do
    # A signal to this script ends `wait` early, with the workers still running.
    wait -n "${pids[@]}" ${timer:+"$timer"} 2>/dev/null
    running=()
    for pid in "${pids[@]}"; do
      if kill -0 "$pid" 2>/dev/null; then
        running+=("$pid")
      else
        wait "$pid"
        ended+=($?)
      fi
    done
    pids=(${running[@]+"${running[@]}"})
    for code in ${ended[@]+"${ended[@]}"}; do note_end "$code"; done
    ended=()
    if [ -n "$timer" ] && ! kill -0 "$timer" 2>/dev/null && [ "${#pids[@]}" -gt 0 ]; then
      echo "Killing ${#pids[@]} workers that do not end." >&2
      timer=
      kill_all KILL  # Which ends stopped processes, too.
    fi
  done
  stop_timer
  return "$first"
}

ended=()
for ((attempt = 0; attempt <= ${MAX_RESTARTS:-10}; attempt++)); do
  start_all "$@"
  wait_all
  code=$?
  case "$code" in
    [0-5] | 143) exit "$code" ;;
  esac
  [ -n "$is_stopping" ] && exit 143
  echo "A worker ended with code $code; starting all again." >&2
done
echo "Given up after ${MAX_RESTARTS:-10} restarts." >&2
exit "$code"
