"""Starts the program as a process of its own, and compares what runs leave."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]

SMALL = (
    "--dataset=synthetic",
    "--image_size=32",
    "--encoder_alpha=0.35",
    "--decoder_filters=8,8,8,8",
    "--batch_size=8",
    "--summary_images=0",
)
"""Flags of a run that takes some seconds."""
SHORT = (
    "--train_split=validation",
    "--eval_split=validation",
    "--train_epochs=0",
    "--train_steps=12",
    "--epochs_between_evals=1",
    "--ema_decay=0.9",
    "--decoder_dropout=0.2",
    "--deterministic",
)
"""Further flags, of a run that ends with the same bits wherever it is killed."""

_SPEEDS = ("images_per_sec", "input_share")
"""Curves that have no point where all steps since the last one were the first ones."""


_started: list[subprocess.Popen] = []


def write_encoder_weights(path: pathlib.Path) -> None:
    """Writes random weights: a frozen encoder traces in a fraction of the time."""
    import keras

    keras.utils.set_random_seed(3)
    keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), alpha=0.35, include_top=False, weights=None
    ).save_weights(path)


def start(
    folder: pathlib.Path,
    model_dir: pathlib.Path,
    *flags: str,
    program: str = "trainer.main",
    **environment: str,
) -> subprocess.Popen:
    """Starts the program.

    Args:
      folder: holds `encoder.weights.h5`, and the cache of decoded examples.
      model_dir: of the run; its log lies beside it.
      *flags: besides `SMALL`.
      program: the module to run.
      **environment: variables besides those of this process.
    """
    cache = ["--cache=disk", f"--cache_dir={folder / 'cache'}"]
    if any(flag.startswith("--cache=") for flag in flags):
        cache = []
    command = [
        sys.executable,
        "-m",
        program,
        *SMALL,
        f"--encoder_weights={folder / 'encoder.weights.h5'}",
        *cache,
        f"--model_dir={model_dir}",
        *flags,
    ]
    with open(f"{model_dir}.log", "ab") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        )
    _started.append(process)
    return process


def kill_started() -> None:
    """Kills what `start` has started and runs on, as after a test that failed."""
    for process in _started:
        process.kill()
        process.wait()
    _started.clear()


def wait_for(condition: Callable[[], object], *running: subprocess.Popen) -> None:
    """Waits until something is so, which must come before processes end.

    The ten minutes are for what hangs: no machine is as slow as that.
    """
    deadline = time.monotonic() + 600
    while not condition():
        ended = [process.args for process in running if process.poll() is not None]
        assert not ended or condition(), f"{ended[0]} has ended"
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)


def finish(process: subprocess.Popen, timeout: float = 600) -> int:
    """Waits for the end and returns the exit code."""
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def is_stopped(pid: int) -> bool:
    """Tells whether SIGSTOP has reached a process: until then it goes on."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] == "T"


def read_log(model_dir: pathlib.Path) -> str:
    """Returns all that the processes of a run have printed."""
    return pathlib.Path(f"{model_dir}.log").read_text(errors="replace")


def read_state(model_dir: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns all variables in the newest checkpoint of a run."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(newest(model_dir) / "state"))
    names = sorted(reader.get_variable_to_shape_map())
    return {n: reader.get_tensor(n) for n in names if "OBJECT_GRAPH" not in n}


def newest(model_dir: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the newest checkpoint."""
    return max((model_dir / "checkpoints").glob("step-" + "[0-9]" * 8))


def read_points(model_dir: pathlib.Path) -> list[dict]:
    """Returns the points of `metrics.jsonl` without what the machine has measured."""
    lines = (model_dir / "metrics.jsonl").read_text().splitlines()
    points = [json.loads(line) for line in lines]
    for point in points:
        for tag in (*_SPEEDS, "host_memory_mib", "device_memory_peak_mib"):
            point.pop(tag, None)
        for name in [name for name in point if name.startswith("workers/")]:
            del point[name]
    return points


def read_events(model_dir: pathlib.Path) -> list[tuple[str, str, int]]:
    """Returns (split, tag, step) of each scalar in the TensorBoard files, sorted."""
    import tensorflow as tf

    found = []
    for file in model_dir.glob("*/events.out.tfevents.*"):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            found += [
                (file.parent.name, value.tag, event.step)
                for value in event.summary.value
                # The first two are written by each start that finds no checkpoint.
                if value.tag not in ("settings", "custom_scalars__config__", *_SPEEDS)
                and not value.tag.startswith("workers/")
            ]
    return sorted(found)


def fingerprint(model_dir: pathlib.Path) -> str:
    """Returns a hash of all that a finished run must agree in with another.

    Every variable of the newest checkpoint (weights, optimizer slots, averages, seeds,
    loss scale, step), the best score, the points of the metrics file and the tags and
    steps in TensorBoard's.
    """
    digest = hashlib.sha256()
    for name, value in read_state(model_dir).items():
        digest.update(name.encode() + value.tobytes())
    metadata = json.loads((newest(model_dir) / "metadata.json").read_text())
    seen = [metadata["step"], metadata["best_step"], metadata["best_score"]]
    digest.update(json.dumps([seen, read_points(model_dir)]).encode())
    digest.update(repr(read_events(model_dir)).encode())
    return digest.hexdigest()[:16]
