#!/usr/bin/env bash
# Runs N workers of one cluster on this host, and starts all of them again when one dies.
#
#   bash launch/local.sh N FLAG ...
#   bash launch/local.sh 2 --flagfile=launch/flagfiles/quickstart.flags
#
#   VENV          folder of the virtual environment (default: .venv in the repository)
#   MAX_RESTARTS  how often to start again (default: 10)
#
# SIGTERM is passed on: the workers save, and this script exits with their 143. An exit
# code of 1 to 5 is a mistake that no restart mends, and ends the rest.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

count="${1:?number of workers}"
shift
python="${VENV:-.venv}/bin/python"
pids=()
is_stopping=

stop_all() {
  kill -"$1" "${pids[@]}" 2>/dev/null
}
trap 'is_stopping=1; stop_all TERM' TERM INT

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
    TF_CONFIG="{\"cluster\": {\"worker\": [$addresses]}, \"task\": {\"type\": \"worker\", \"index\": $index}}" \
      "$python" -m trainer.main --distribution_strategy=multi_worker_mirrored "${@}" &
    pids+=($!)
  done
}

# Waits for all workers; gives the first exit code that is not 0.
wait_all() {
  local first=0 code pid
  for pid in "${pids[@]}"; do
    while :; do
      wait "$pid"
      code=$?
      # A signal to this script ends `wait` early, with the worker still running.
      kill -0 "$pid" 2>/dev/null || break
    done
    case "$code" in
      0) ;;
      1 | 2 | 3 | 4 | 5) first=$code; stop_all KILL ;;
      *) if [ "$first" = 0 ] || [ "$code" = 143 ]; then first=$code; fi ;;
    esac
  done
  return "$first"
}

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
