"""TF_CONFIG or Slurm's environment says who is in a cluster, or is refused."""

import json
import types

import pytest
import tensorflow as tf

from trainer import errors, flags
from trainer.distributing import arrivals, cluster, distribution, membership

_STEP = {
    "SLURM_JOB_ID": "1283",  # 3 more than twice 640: ports from 12000 + 3 * 32 on.
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_NODELIST": "n[08-09,11]x[1]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
}
BOUND = [
    {"SLURM_GPUS_PER_TASK": "2"},
    {"SLURM_NTASKS_PER_GPU": "1"},
    {"SLURM_TRES_PER_TASK": "cpu=4,gres/gpu=2"},
    {"SLURM_GPU_BIND": "per_task:2"},
    {"SLURM_GPU_BIND": "verbose,single:1"},
    {"SLURM_TRES_BIND": "gres/gpu:per_task:2+gres/nic:none"},
]
"""Where Slurm gives each task GPUs of its own."""
UNBOUND = [
    {"SLURM_TRES_PER_TASK": "cpu=4"},
    {"SLURM_GPU_BIND": "none"},
    {"SLURM_GPU_BIND": "verbose"},
    {"SLURM_GPU_BIND": "verbose,none", "SLURM_GPUS_PER_TASK": "2"},
    {"SLURM_TRES_BIND": "gres/nic:closest"},
    {"SLURM_TRES_BIND": "gres/gpu:none+gres/nic:closest", "SLURM_NTASKS_PER_GPU": "1"},
]
"""Where all tasks of a host see all of its GPUs."""
_PLACES = [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1"), ("2", "0")]
"""Of its tasks: the host, and the number there."""


def _set(monkeypatch, rank=3, **changes):
    """Makes the environment of a task of a step of Slurm; None unsets a variable."""
    monkeypatch.delenv("TF_CONFIG", raising=False)
    node, place = _PLACES[rank]
    own = {"SLURM_PROCID": str(rank), "SLURM_NODEID": node, "SLURM_LOCALID": place}
    unset = dict.fromkeys(name for case in (*BOUND, *UNBOUND) for name in case)
    for name, value in {**unset, **_STEP, **own, **changes}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


def _addresses(resolver):
    return resolver.cluster_spec().job_tasks("worker")


@pytest.mark.parametrize("rank", range(5))
def test_tasks_of_slurm_are_workers_with_the_addresses_of_the_script(monkeypatch, rank):
    _set(monkeypatch, rank)
    resolver = membership.resolve()
    assert (resolver.task_type, resolver.task_id) == ("worker", rank)
    assert _addresses(resolver) == [
        "n08x1:12096", "n08x1:12097", "n09x1:12096", "n09x1:12097", "n11x1:12096"
    ]  # fmt: skip
    assert cluster.is_chief("multi_worker_mirrored") == (rank == 0)
    # TensorFlow counts the GPUs itself.
    kind = tf.distribute.cluster_resolver.TFConfigClusterResolver
    assert isinstance(resolver, kind)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("n9,n10", ["n9", "n10"]),  # As text, n10 would come first.
        ("n[9-10]", ["n9", "n10"]),
        ("a-1,b[2,04-05]c[0-1]", ["a-1", *(f"b{n}" for n in (
            "2c0", "2c1", "04c0", "04c1", "05c0", "05c1"))]),
    ],
)  # fmt: skip
def test_hosts_stay_in_the_order_of_slurm(monkeypatch, names, expected):
    count = str(len(expected))
    _set(
        monkeypatch,
        0,
        SLURM_STEP_NODELIST=names,
        SLURM_STEP_TASKS_PER_NODE=f"1(x{count})",
        SLURM_STEP_NUM_TASKS=count,
    )
    hosts = [address.partition(":")[0] for address in _addresses(membership.resolve())]
    assert hosts == expected


class _Gpus:
    """Stands for TensorFlow's list of the GPUs that are visible."""

    def __init__(self, monkeypatch, count):
        self.visible = [f"GPU {index}" for index in range(count)]
        stand_in = types.SimpleNamespace(
            get_visible_devices=lambda kind: self.visible,
            set_visible_devices=lambda gpus, kind: setattr(self, "visible", gpus),
        )
        monkeypatch.setattr(membership.tf, "config", stand_in)


@pytest.mark.parametrize(
    ("rank", "count", "changes", "expected"),
    [
        (2, 5, {}, [0, 1]),  # 5 GPUs for the 2 tasks of this host: 2 each.
        (3, 5, {}, [2, 3]),
        (4, 5, {}, [0, 1, 2, 3, 4]),  # Alone on its host.
        *((3, 2, variables, [0, 1]) for variables in BOUND),
        *((3, 5, variables, [2, 3]) for variables in UNBOUND),
        (3, 2, {"TF_CONFIG": "{}"}, [0, 1]),  # The script has seen to it.
        (3, 2, dict.fromkeys(("SLURM_PROCID", *_STEP)), [0, 1]),
        (3, 1, {}, [0]),
        (3, 0, {}, []),
    ],
)
def test_workers_of_a_host_share_its_gpus(monkeypatch, rank, count, changes, expected):
    _set(monkeypatch, rank, **changes)
    gpus = _Gpus(monkeypatch, count)
    membership.share_gpus()
    assert gpus.visible == [f"GPU {index}" for index in expected]


def test_the_share_is_taken_before_there_are_devices(monkeypatch):
    _set(monkeypatch, 0)
    config = flags.read_config(
        ["--model_dir=x", "--distribution_strategy=multi_worker_mirrored"]
    ).config.runtime
    calls = []
    for place, name in (
        (membership, "share_gpus"),
        (arrivals, "wait_for_all"),
        (distribution.tf.distribute, "MultiWorkerMirroredStrategy"),
    ):
        monkeypatch.setattr(place, name, lambda *_, n=name, **__: calls.append(n))
    distribution.create_strategy(config)
    assert calls == ["share_gpus", "wait_for_all", "MultiWorkerMirroredStrategy"]


@pytest.mark.parametrize("rank", [2, 3])
def test_fewer_gpus_than_workers_are_a_warning_of_the_first(monkeypatch, caplog, rank):
    _set(monkeypatch, rank)
    _Gpus(monkeypatch, 1)
    membership.share_gpus()
    assert ("2 workers of this host see 1 GPUs" in caplog.text) == (rank == 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # A batch script has the first of these, a shell of salloc none.
        ({"SLURM_STEP_NODELIST": None}, "needs TF_CONFIG, or a Slurm job step, which"),
        ({"SLURM_PROCID": None}, "needs TF_CONFIG, or a .*: bash launch/local.sh 2"),
        ({"SLURM_STEP_NUM_TASKS": None}, "^SLURM_STEP_NUM_TASKS is not set, though"),
        ({"SLURM_STEP_TASKS_PER_NODE": None}, "^SLURM_STEP_TASKS_PER_NODE is not set"),
        ({"SLURM_JOB_ID": "x"}, "^SLURM_JOB_ID=x is no number; start the workers with"),
        (
            {"SLURM_STEP_TASKS_PER_NODE": "2(x3)"},
            r"TASKS_PER_NODE=2\(x3\) make 6 tasks on 3 hosts.*NUM_TASKS says 5, and",
        ),
        ({"SLURM_PROCID": "5"}, "make 5 tasks on 3 hosts.* and this is task 5"),
        (
            {"SLURM_NODEID": "0"},
            "^SLURM_PROCID=3 is task 1 of host 0, .*srun --distribution=block",
        ),
        ({"SLURM_LOCALID": "0"}, "^SLURM_PROCID=3 is task 0 of host 1"),
    ],
)
def test_a_step_that_cannot_be_a_cluster_is_named(monkeypatch, changes, message):
    _set(monkeypatch, **changes)
    with pytest.raises(errors.ConfigError, match=message):
        membership.resolve()


def _config(workers=("a:1", "b:2"), task="worker", index=1, **jobs):
    cluster = {"worker": list(workers), **jobs}
    return {"cluster": cluster, "task": {"type": task, "index": index}}


@pytest.mark.parametrize(
    ("config", "index"),
    [(_config(), 1), (_config(index="0"), 0), (_config(chief=["c:1"]), 2)],
)
def test_a_config_that_can_work_is_taken(monkeypatch, config, index):
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert _addresses(membership.resolve()) == ["a:1", "b:2"]
    assert cluster._index(membership.resolve()) == index


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "TF_CONFIG={: not a JSON object with a cluster .Expecting"),
        ("[]", "not a JSON object with a cluster"),
        ({"cluster": {}}, "not a JSON object with a cluster"),
        (_config(ps=["a:1"]), "the jobs ps, worker; Keras"),
        ({"cluster": {"worker": ["a:1"]}}, "task is null; say which worker this is"),
        ({"cluster": {"worker": "a:1"}}, 'worker is "a:1", and no list of addresses'),
        ({"cluster": {"worker": []}}, "worker is .., and no list of addresses"),
        (_config(["a", "b:2"]), '"a" is no address of worker: say HOST:PORT'),
        (_config(["a:1", "b"]), '"b" is no address of worker'),
        (_config(["a:1", "b:65536"]), '"b:65536" is no address'),
        (_config(["a:1", "b:0"]), '"b:0" is no address'),
        (_config(["a:1", ":2"]), '":2" is no address'),
        (_config(["a:1", 2]), "2 is no address"),
        (_config(["a:1", "a:1"]), "two workers have one address"),
        (_config(chief=["c:1", "d:1"]), "several chiefs"),
        (_config(chief=["a:1"]), "two workers have one address"),
        (_config(task="chief"), 'the type of task is "chief"; say worker'),
        (_config(task=None), "the type of task is null; say worker"),
        (_config(index=5), "the index of task is 5; say one of 0 to 1"),
        (_config(index=-1), "the index of task is -1; say one of 0 to 1"),
        (_config(index=True), "the index of task is true"),
        (_config(index=None), "the index of task is null"),
    ],
)
def test_a_config_that_cannot_work_is_named(monkeypatch, config, message):
    text = config if isinstance(config, str) else json.dumps(config)
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(errors.ConfigError, match=message):
        membership.resolve()
