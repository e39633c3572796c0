"""Kills trainings while they publish to a real S3 server, and compares how they end.

    python -m tests.faults.remote --kills=10

The server is that of moto, on this machine; `pip install 's3fs' 'moto[server]'` brings
what is needed. One run is left alone, in a local folder. Others work at s3://, and each
gets SIGKILL in the middle of an upload, twice: at uploads that are spread over the run,
a random moment after they began. They come back on the same machine or, with an empty
cache, on another one. All must leave the same weights, optimizer slots, averages,
scores and points, bit for bit. Exit code 0 if they do, 1 if not.
"""

import argparse
import contextlib
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from tests import shallow
from tests.faults import processes
from trainer.remote import mirrors

_PROGRAM = "tests.faults.remote_program"
_BUCKET = "segloop-faults"
_STEPS = (
    *processes.SHORT,
    "--checkpoint_interval=3",
    "--log_steps=2",
    "--max_to_keep=2",
    "--virtual_devices=1",
)
_MAX_DELAY_SECS = 0.03
"""Longer than the server takes for an upload."""


@contextlib.contextmanager
def _serving() -> Iterator[None]:
    """Runs an S3 server with an empty bucket; the environment leads to it."""
    import boto3
    import botocore.exceptions

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", f"-p{port}"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with contextlib.suppress(botocore.exceptions.BotoCoreError):
                boto3.client("s3").create_bucket(Bucket=_BUCKET)
                break
            time.sleep(0.2)
        yield
    finally:
        server.kill()
        server.wait()


class _Trial:
    """Runs in a folder, each at a URL of its own."""

    def __init__(self, folder: pathlib.Path, seed: int):
        self._folder = folder
        self._random = random.Random(seed)
        self.num_kills = 0

    def run_alone(self) -> str:
        """Returns the fingerprint of an undisturbed run in a local folder."""
        self._finish("alone", f"--model_dir={self._folder / 'alone'}")
        return processes.fingerprint(self._folder / "alone")

    def run(self, name: str, kill_at: tuple[int, ...] = ()) -> str:
        """Returns the fingerprint of a run, killed at some uploads of its starts."""
        url = f"--model_dir=s3://{_BUCKET}/{name}"
        cache = 0
        for number in kill_at:
            delay = self._random.uniform(0, _MAX_DELAY_SECS)
            process = self._start(name, cache, url, number, delay)
            code = processes.finish(process)
            self.num_kills += code == -signal.SIGKILL
            print(f"  {name}: upload {number}, after {delay:.3f} s: {code}", flush=True)
            cache += self._random.randrange(2)
        self._finish(name, url, cache)
        os.environ["SEGLOOP_CACHE"] = str(self._folder / "caches" / f"{name}-check")
        with mirrors.session():
            folder = mirrors.open_run(f"s3://{_BUCKET}/{name}")
            return processes.fingerprint(pathlib.Path(folder))

    def count_uploads(self) -> int:
        """Returns how many uploads the last start has made."""
        return int((self._folder / "uploads").read_text())

    def _start(self, name, cache, url, kill_at=0, delay=0.0) -> subprocess.Popen:
        return processes.start(
            self._folder,
            self._folder / name,
            *_STEPS,
            url,
            program=_PROGRAM,
            SEGLOOP_CACHE=str(self._folder / "caches" / f"{name}-{cache}"),
            UPLOADS_FILE=str(self._folder / "uploads"),
            KILL_AT_UPLOAD=str(kill_at),
            KILL_AFTER_SECS=str(delay),
        )

    def _finish(self, name: str, url: str, cache: int = 0) -> None:
        code = processes.finish(self._start(name, cache, url))
        if code:
            log = processes.read_log(self._folder / name)
            raise RuntimeError(f"{name}: exit code {code}:\n{log[-3000:]}")


def main() -> int:
    """Runs the script; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="segloop-remote-"))
    shallow.write_weights(folder / "encoder.weights.h5")
    trial = _Trial(folder, arguments.seed)
    differences = []
    with _serving():
        expected = trial.run_alone()
        print(f"alone: {expected}", flush=True)
        found = {"undisturbed": trial.run("undisturbed")}
        num_uploads = trial.count_uploads()
        print(f"at s3://: {found['undisturbed']}, {num_uploads} uploads", flush=True)
        num_runs = -(-arguments.kills // 2)
        for index in range(num_runs):
            first = 1 + index * num_uploads // num_runs
            name = f"killed-{index}"
            found[name] = trial.run(name, (first, 1 + first // 4))
            print(f"  {name}: {found[name]}", flush=True)
    differences = [name for name, value in found.items() if value != expected]
    print(
        f"{trial.num_kills} SIGKILL in uploads, {len(found)} runs compared, "
        f"{len(differences)} differences: {', '.join(differences) or 'none'}"
    )
    shutil.rmtree(folder)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
