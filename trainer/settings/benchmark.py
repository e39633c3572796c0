"""What `--mode=benchmark` measures."""

import dataclasses

from trainer.settings import fields


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig(fields.Section):
    """What `--mode=benchmark` measures."""

    against: str = fields.setting(
        "none",
        "What --mode=benchmark compares with. fit: Keras' model.fit with the same "
        "model and data.",
        choices=("none", "fit"),
        is_saved=False,
        only_with={"mode": ("benchmark",)},
    )
    benchmark_rounds: int = fields.setting(
        5,
        "How many times --mode=benchmark takes each measurement, in turn.",
        minimum=1,
        is_saved=False,
        only_with={"mode": ("benchmark",)},
        maximum=10_000,
    )
    benchmark_secs: float = fields.setting(
        3.0,
        "About how many seconds one measurement takes; at least one step.",
        minimum=0.01,
        is_saved=False,
        only_with={"mode": ("benchmark",)},
        maximum=3600.0,
    )
