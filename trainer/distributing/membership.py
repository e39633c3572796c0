"""Who the workers of a cluster are, and which one this is: TF_CONFIG or Slurm says it.

Slurm is read as `launch/worker.sh` reads it, which makes a TF_CONFIG of it: whichever
starts a run, it has the same addresses and the same GPUs.
"""

import itertools
import json
import os
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import tensorflow as tf
from absl import logging

from trainer import errors

_ADDRESS = re.compile(r"\S+:(\d{1,5})")
_GPU_BINDING = re.compile(r"gpu:([^+]*)")
"""In SLURM_TRES_BIND, such as `gres/gpu:per_task:1+gres/nic:none`."""
_FIRST_PORT, _PORTS_PER_JOB, _NUM_JOBS = 12000, 32, 640
"""Below the ports that Linux gives to clients, 32768 and up."""


class _Resolver(tf.distribute.cluster_resolver.TFConfigClusterResolver):
    """A cluster that is known.

    MultiWorkerMirroredStrategy asks TensorFlow for the GPUs only if the resolver is of
    the class above.
    """

    def __init__(self, job: str, addresses: Sequence[str], index: int):
        super().__init__(task_type=job, task_id=index, rpc_layer="grpc")
        self._spec = tf.train.ClusterSpec({job: list(addresses)})

    def cluster_spec(self) -> tf.train.ClusterSpec:
        return self._spec


def resolve() -> tf.distribute.cluster_resolver.ClusterResolver:
    """Reads the cluster from TF_CONFIG, or from Slurm's environment.

    Raises:
      errors.ConfigError: if there is none, or if it cannot work.
    """
    if os.environ.get("TF_CONFIG"):
        _check_config(os.environ["TF_CONFIG"])
        return tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if _is_slurm_step():
        addresses = [
            f"{host}:{_slurm_port() + place}" for host, place in _slurm_places()
        ]
        return _Resolver("worker", addresses, _slurm_number("SLURM_PROCID"))
    raise errors.ConfigError(
        "--distribution_strategy=multi_worker_mirrored needs TF_CONFIG, or a Slurm job "
        "step, which srun starts; to try it on this host: bash launch/local.sh 2 FLAGS."
    )


def share_gpus() -> None:
    """Leaves this worker its part of the GPUs that it sees, under Slurm.

    Elsewhere, and where Slurm gives each task GPUs of its own, a worker sees no others.
    Call it before TensorFlow makes devices of the GPUs.
    """
    if os.environ.get("TF_CONFIG") or not _is_slurm_step() or _has_own_gpus():
        return
    gpus, places = tf.config.get_visible_devices("GPU"), _slurm_places()
    own_host, place = places[_slurm_number("SLURM_PROCID")]
    num_sharing = sum(host == own_host for host, _ in places)
    each = len(gpus) // num_sharing
    if each:
        tf.config.set_visible_devices(gpus[place * each : (place + 1) * each], "GPU")
    elif gpus and not place:
        logging.warning(
            "%d workers of this host see %d GPUs; unless Slurm binds each to its own, "
            "start fewer, or say --num_gpus=0.",
            num_sharing,
            len(gpus),
        )


def _check_config(text: str) -> None:
    """Checks what TensorFlow takes as it is.

    Raises:
      errors.ConfigError: if it says no cluster, or none that this process is in.
    """
    try:
        config = json.loads(text)
    except ValueError as error:
        _reject_config(text, f"not a JSON object with a cluster ({error})")
    cluster = config.get("cluster") if isinstance(config, dict) else None
    if not isinstance(cluster, dict) or not cluster:
        _reject_config(text, "not a JSON object with a cluster")
    if cluster.keys() - {"worker", "chief"}:
        raise errors.ConfigError(
            f"TF_CONFIG names the jobs {', '.join(sorted(cluster))}; Keras 3 does not "
            "support parameter servers or evaluators: use workers only."
        )
    for job, addresses in cluster.items():
        if not isinstance(addresses, list) or not addresses:
            value = json.dumps(addresses)
            _reject_config(text, f"{job} is {value}, and no list of addresses")
        for address in addresses:
            if not _is_address(address):
                value = json.dumps(address)
                _reject_config(text, f"{value} is no address of {job}: say HOST:PORT")
    if len(cluster.get("chief", [""])) > 1:
        _reject_config(text, "there are several chiefs: make the others workers")
    everyone = [address for addresses in cluster.values() for address in addresses]
    if len(set(everyone)) < len(everyone):
        _reject_config(text, "two workers have one address: give each its own port")
    _check_task(text, config.get("task"), cluster)


def _check_task(text: str, task: Any, cluster: dict[str, list[str]]) -> None:
    """Checks that a task is one of a cluster."""
    if not isinstance(task, dict):
        value = json.dumps(task)
        _reject_config(
            text, f"task is {value}; say which worker this is: its type and index"
        )
    job, index = task.get("type"), task.get("index")
    if not isinstance(job, str) or job not in cluster:
        value, jobs = json.dumps(job), " or ".join(cluster)
        _reject_config(text, f"the type of task is {value}; say {jobs}")
    # TensorFlow takes texts, too.
    if not str(index).isdecimal() or int(index) >= len(cluster[job]):
        value, last = json.dumps(index), len(cluster[job]) - 1
        _reject_config(text, f"the index of task is {value}; say one of 0 to {last}")


def _is_address(address: Any) -> bool:
    found = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
    return found is not None and 0 < int(found[1]) < 2**16


def _reject_config(text: str, rule: str) -> NoReturn:
    raise errors.ConfigError(f"TF_CONFIG={text}: {rule}.")


def _is_slurm_step() -> bool:
    """Whether srun started this: a batch script does not have all these variables."""
    return {"SLURM_PROCID", "SLURM_STEP_NODELIST"} <= os.environ.keys()


def _has_own_gpus() -> bool:
    """Whether Slurm binds each task to GPUs of its own.

    The way to bind says so, or else a number of GPUs for a task, which Slurm binds by
    unless that way is `none`.
    """
    way = os.environ.get("SLURM_GPU_BIND", "")
    if not way:
        found = _GPU_BINDING.search(os.environ.get("SLURM_TRES_BIND", ""))
        way = found[1] if found else ""
    way = way.removeprefix("verbose").removeprefix(",")
    counts = ("SLURM_GPUS_PER_TASK", "SLURM_NTASKS_PER_GPU")
    return way != "none" and bool(
        way
        or any(os.environ.get(name) for name in counts)
        or "gpu" in os.environ.get("SLURM_TRES_PER_TASK", "")
    )


def _slurm_port() -> int:
    """Returns the first port of each host: two jobs on a host do not meet."""
    job = _slurm_number("SLURM_JOB_ID")
    return _FIRST_PORT + job % _NUM_JOBS * _PORTS_PER_JOB


def _slurm_places() -> list[tuple[str, int]]:
    """Returns where the tasks of the step run: a host, and a number on it.

    Each host has a block of tasks.

    Raises:
      errors.ConfigError: if Slurm says that it is otherwise.
    """
    hosts = _expand_hosts(_slurm_value("SLURM_STEP_NODELIST"))
    counts = _expand_counts(_slurm_value("SLURM_STEP_TASKS_PER_NODE"))
    places = [
        (host, place)
        for host, count in zip(hosts, counts, strict=False)
        for place in range(count)
    ]
    rank, num_tasks = (
        _slurm_number(f"SLURM_{name}") for name in ("PROCID", "STEP_NUM_TASKS")
    )
    if len(hosts) != len(counts) or len(places) != num_tasks or rank >= num_tasks:
        raise errors.ConfigError(
            f"SLURM_STEP_NODELIST={os.environ['SLURM_STEP_NODELIST']} and "
            f"SLURM_STEP_TASKS_PER_NODE={os.environ['SLURM_STEP_TASKS_PER_NODE']} make "
            f"{len(places)} tasks on {len(hosts)} hosts, SLURM_STEP_NUM_TASKS says "
            f"{num_tasks}, and this is task {rank}; set TF_CONFIG for each task."
        )
    host, place = places[rank]
    own = _slurm_number("SLURM_NODEID"), _slurm_number("SLURM_LOCALID")
    if own != (hosts.index(host), place):
        raise errors.ConfigError(
            f"SLURM_PROCID={rank} is task {own[1]} of host {own[0]}, so the hosts do "
            "not have a block of tasks each; start them with srun --distribution=block."
        )
    return places


def _slurm_value(name: str) -> str:
    if value := os.environ.get(name):
        return value
    raise errors.ConfigError(
        f"{name} is not set, though SLURM_PROCID is; start the workers with srun, or "
        "set TF_CONFIG for each."
    )


def _slurm_number(name: str) -> int:
    value = _slurm_value(name)
    if value.isdecimal():
        return int(value)
    raise errors.ConfigError(
        f"{name}={value} is no number; start the workers with srun, or set TF_CONFIG "
        "for each."
    )


def _expand_hosts(names: str) -> list[str]:
    """Returns the hosts of a list: of `n[08-09,11]x,m` n08x, n09x, n11x and m."""
    hosts = []
    for part in re.findall(r"(?:\[[^\]]*\]|[^,\[\]])+", names):
        pieces = re.findall(r"\[[^\]]*\]|[^\[\]]+", part)
        choices = [_expand_range(p) if p[0] == "[" else [p] for p in pieces]
        hosts += map("".join, itertools.product(*choices))
    return hosts


def _expand_range(piece: str) -> list[str]:
    """Returns the texts of a range: of `[08-09,11]` 08, 09 and 11."""
    found = []
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", piece):
        numbers = range(int(first), int(last or first) + 1)
        found += [f"{number:0{len(first)}d}" for number in numbers]
    return found


def _expand_counts(counts: str) -> list[int]:
    """Returns how many tasks each host has: of `2(x3),1` 2, 2, 2 and 1."""
    return [
        int(count)
        for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", counts)
        for _ in range(int(times or 1))
    ]
