"""What a training shows of itself, besides its curves."""

import dataclasses

from trainer.settings import fields
from trainer.settings import train as train_settings
from trainer.tracking import registry

_MOST_TRACED_STEPS = 1000
"""A trace of more fills the memory, and no browser opens it."""
_NOT_TRAINING = ("evaluate", "benchmark", "doctor")


@dataclasses.dataclass(frozen=True)
class MonitoringConfig(fields.Section):
    """What a training shows of itself, besides its curves."""

    summary_histograms: int = fields.setting(
        0,
        "Every so many steps, write to TensorBoard a histogram of each trained "
        "weight, and of its gradient as the optimizer gets it (summed over devices, "
        "clipped); 0: none.",
        minimum=0,
        maximum=train_settings.MAX_STEPS,
        unused_by=_NOT_TRAINING,
    )
    profile_steps: tuple[int, ...] = fields.setting(
        (),
        "The first and the last step to trace, counted from 1, e.g. 10,20. The trace "
        "goes to MODEL_DIR/profile, for the profile tab of TensorBoard (pip install "
        "tensorboard-plugin-profile). Calls of the devices end before the first of "
        "these steps and after the last. An evaluation between them is left out, and "
        "makes two traces of one.",
        minimum=1,
        maximum=train_settings.MAX_STEPS,
        is_saved=False,
        unused_by=_NOT_TRAINING,
    )
    tracker: tuple[str, ...] = fields.setting(
        (),
        f"Trackers that get settings and curves, too: {registry.describe()}; several "
        "with commas. A run that goes on does so in the same run of the tracker.",
        is_local=True,
        unused_by=_NOT_TRAINING,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.profile_steps:
            self._check_profile(*self.profile_steps)
        fields.check_names("tracker", self.tracker, registry.TRACKERS, "tracker")

    def _check_profile(self, first: int, *others: int) -> None:
        if len(others) != 1 or others[0] < first:
            rule = "give the first and the last step to trace, such as 10,20"
        elif others[0] - first >= _MOST_TRACED_STEPS:
            rule = f"trace at most {_MOST_TRACED_STEPS} steps"
        else:
            return
        fields.reject("profile_steps", self.profile_steps, rule)
