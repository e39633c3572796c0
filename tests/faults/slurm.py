"""Stand-ins for Slurm's commands: a host that runs one job at a time, at once.

`install` puts `sbatch`, `srun` and `scontrol` into a folder for `PATH`, which is also
where they note what happens. They do what `launch/slurm.sbatch` relies on, as Slurm's
manual pages and source have it:

- `sbatch` takes options from the script's `#SBATCH` lines, and those that are typed
  before these; it runs a copy of the script, again if the job was requeued meanwhile,
  and ends with it, unlike Slurm's.
- `srun` starts the job's tasks, each in a process group of its own, one log file each,
  and ends with the highest of their exit codes.
- A signal to the tasks (`signal_tasks`) goes to all of their processes.
"""

import itertools
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

_COMMANDS = ("sbatch", "srun", "scontrol")
_NODES = "127.0.0.1"


def install(folder: pathlib.Path) -> dict[str, str]:
    """Makes the commands; returns the environment to find them by."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(parents=True)
    for name in _COMMANDS:
        path = bin_folder / name
        words = shlex.join([sys.executable, "-S", __file__, name])
        path.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        path.chmod(0o755)
    path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "SLURM_STAND_IN": str(folder)}


def tasks(folder: pathlib.Path) -> list[int]:
    """Returns the process groups of the tasks that were started last."""
    try:
        return json.loads((folder / "tasks").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return []


def signal_tasks(folder: pathlib.Path, number: signal.Signals) -> None:
    """Signals all tasks, as before the time limit or by `scancel --signal`."""
    for group in tasks(folder):
        os.killpg(group, number)


def calls(folder: pathlib.Path, name: str) -> list[str]:
    """Returns the arguments of each call of a command."""
    file = folder / f"{name}.calls"
    return file.read_text().splitlines() if file.exists() else []


def expand(names: str) -> list[str]:
    """Returns the hosts of a compressed list such as `a[1-2,07]b,c`."""
    hosts = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", names):
        pieces = re.split(r"\[([^\]]*)\]", part)
        choices = [
            _numbers(piece) if index % 2 else [piece]
            for index, piece in enumerate(pieces)
        ]
        hosts += ["".join(chosen) for chosen in itertools.product(*choices)]
    return hosts


def _numbers(ranges: str) -> list[str]:
    numbers = []
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        numbers += [
            str(number).zfill(len(first))
            for number in range(int(first), int(last or first) + 1)
        ]
    return numbers


def _options(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Splits `--name=value` words from what follows them."""
    rest = list(itertools.dropwhile(lambda word: word.startswith("--"), words))
    found = (word[2:].partition("=") for word in words[: len(words) - len(rest)])
    return {name: value for name, _, value in found}, rest


def _sbatch(folder: pathlib.Path, arguments: list[str]) -> int:
    typed, (script, *arguments) = _options(arguments)
    lines = pathlib.Path(script).read_text().splitlines()
    words = [line.removeprefix("#SBATCH ") for line in lines if "#SBATCH --" in line]
    options = {**_options(words)[0], **typed}
    job = os.environ.get("STAND_IN_JOB_ID", "7")
    spooled = folder / "slurm_script"
    shutil.copy(script, spooled)
    count = int(options["ntasks-per-node"]) * int(options["nodes"])
    environment = {
        **os.environ,
        "SLURM_JOB_ID": job,
        "SLURM_SUBMIT_DIR": os.getcwd(),
        "SLURM_NTASKS": str(count),
    }
    code = None
    while code is None or ((folder / "requeued").exists() and "requeue" in options):
        (folder / "requeued").unlink(missing_ok=True)
        with open(folder / f"slurm-{job}.out", "ab") as output:
            batch = _start_held(
                ["bash", str(spooled), *arguments],
                env=environment,
                stdout=output,
                stderr=output,
            )
            (folder / "batch").write_text(str(batch.pid))
            _let_go(batch)
            code = batch.wait()
    return code


def _start_held(command: list[str], **options: Any) -> subprocess.Popen:
    """Starts a command that waits until its process id is noted, for who signals it."""
    words = ["sh", "-c", 'read -r _; exec "$@" </dev/null', "held", *command]
    return subprocess.Popen(words, stdin=subprocess.PIPE, **options)


def _let_go(*held: subprocess.Popen) -> None:
    for process in held:
        process.stdin.close()


def _srun(folder: pathlib.Path, arguments: list[str]) -> int:
    options, command = _options(arguments)
    count = int(os.environ["SLURM_NTASKS"])
    running = []
    for rank in range(count):
        step = {
            "SLURM_PROCID": rank,
            "SLURM_LOCALID": rank,
            "SLURM_NODEID": 0,
            "SLURM_STEP_NUM_TASKS": count,
            "SLURM_STEP_NODELIST": _NODES,
            "SLURM_STEP_TASKS_PER_NODE": count,
        }
        mode = "ab" if options.get("open-mode") == "append" else "wb"
        with open(options["output"].replace("%t", str(rank)), mode) as output:
            task = _start_held(
                command,
                env={**os.environ, **{k: str(v) for k, v in step.items()}},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        running.append(task)
    (folder / "tasks").write_text(json.dumps([task.pid for task in running]))
    _let_go(*running)
    return max(_wait_for(running, options))


def _wait_for(running: list[subprocess.Popen], options: dict[str, str]) -> list[int]:
    """Waits for all tasks, `--wait` seconds from the first end on; returns codes."""
    deadline = None
    while any(task.poll() is None for task in running):
        if deadline is None and any(task.poll() is not None for task in running):
            deadline = time.monotonic() + float(options["wait"])
        if deadline is not None and time.monotonic() > deadline:
            for task in running:
                if task.poll() is None:
                    os.killpg(task.pid, signal.SIGKILL)
        time.sleep(0.02)
    return [c if c >= 0 else 128 - c for c in (task.wait() for task in running)]


def _scontrol(folder: pathlib.Path, arguments: list[str]) -> int:
    if arguments[:2] == ["show", "hostnames"]:
        print(*expand(arguments[2]), sep="\n")
        return 0
    if arguments[0] == "requeue":
        (folder / "requeued").touch()
        return 0
    return 1


def main() -> int:
    """Runs the command named by the first argument; returns its exit code."""
    name, *arguments = sys.argv[1:]
    folder = pathlib.Path(os.environ["SLURM_STAND_IN"])
    with open(folder / f"{name}.calls", "a") as file:
        file.write(f"{shlex.join(arguments)}\n")
    run = {"sbatch": _sbatch, "srun": _srun, "scontrol": _scontrol}[name]
    return run(folder, arguments)


if __name__ == "__main__":
    sys.exit(main())
