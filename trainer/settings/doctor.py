"""How `--mode=doctor` judges masks."""

import dataclasses

from trainer.settings import fields


@dataclasses.dataclass(frozen=True)
class DoctorConfig(fields.Section):
    """How `--mode=doctor` judges masks."""

    crossfit: bool = fields.setting(
        False,
        "Let --mode=doctor train two runs, MODEL_DIR/crossfit/0 and 1, each on one "
        "half of the training split (--train_half), so that each mask is judged by a "
        "model that has not seen it. The two have the settings of the run in "
        "MODEL_DIR, or those given if there is none. Each may take all of a "
        "--time_budget, from its own start on. If the command is killed, the same "
        "command goes on.",
        is_saved=False,
        only_with={"mode": ("doctor",)},
    )
