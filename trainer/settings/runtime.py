"""On which devices, and in which number format."""

import dataclasses

from trainer.settings import fields

MAX_SECS = 7 * 24 * 3600
"""A week."""


@dataclasses.dataclass(frozen=True)
class RuntimeConfig(fields.Section):
    """On which devices, and in which number format."""

    distribution_strategy: str = fields.setting(
        "mirrored",
        "mirrored: all GPUs of this host, or the CPU if there are none; one_device: "
        "the first GPU, or the CPU; multi_worker_mirrored: all workers in "
        "TF_CONFIG, or all tasks of a step of Slurm.",
        choices=("mirrored", "one_device", "multi_worker_mirrored"),
        refused={
            "tpu": "TPUs would need tf.distribute.TPUStrategy, a training loop that "
            "XLA compiles whole (this one takes its batches from the host, and asks it "
            "at each step whether to stop), and a TPU to run the tests on"
        },
        is_local=True,
    )
    num_gpus: int = fields.setting(
        -1,
        "GPUs to use on this host; -1: all, 0: the CPU.",
        minimum=-1,
        maximum=1024,
        is_local=True,
    )
    virtual_devices: int = fields.setting(
        0,
        "Split the CPU, or the only GPU, into so many logical devices, to try "
        "distribution on one machine; 0: leave it whole.",
        minimum=0,
        maximum=64,
        is_local=True,
    )
    mixed_precision: str = fields.setting(
        "auto",
        "Number format of activations and gradients; weights, logits and loss are "
        "always float32. auto: bfloat16 or float16 if the GPUs compute it fast, and "
        "float32 on CPUs.",
        choices=("auto", "float32", "bfloat16", "float16"),
        unused_by=("doctor",),
    )
    startup_timeout: int = fields.setting(
        300,
        "Seconds to wait for the other workers at the start.",
        minimum=1,
        maximum=MAX_SECS,
        is_local=True,
        only_with={"distribution_strategy": ("multi_worker_mirrored",)},
    )
    stall_timeout: int = fields.setting(
        1800,
        "End the run, and print the stacks of its threads, after so many seconds "
        "without a step, a save or a batch of evaluation; 0: never.",
        minimum=0,
        maximum=MAX_SECS,
        is_local=True,
    )
    log_level: str = fields.setting(
        "info",
        "What goes to standard error. debug: also what other packages and "
        "TensorFlow's C++ say; info; warning; error.",
        choices=("debug", "info", "warning", "error"),
        is_local=True,
        is_saved=False,
    )
    enable_xla: bool = fields.setting(
        False,
        "Compile the forward and the backward pass with XLA; for one replica only.",
        is_local=True,
        unused_by=("evaluate", "doctor"),
    )
