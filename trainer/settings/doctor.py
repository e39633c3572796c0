"""How `--mode=doctor` judges masks."""

import dataclasses

from trainer.settings import fields


@dataclasses.dataclass(frozen=True)
class DoctorConfig(fields.Section):
    """How `--mode=doctor` judges masks."""

    crossfit: bool = fields.setting(
        False,
        "Let --mode=doctor train two runs, MODEL_DIR/crossfit/0 and 1, each on one "
        "half of the training split (--train_half), with the settings of the run in "
        "MODEL_DIR or, if there is none, those given, so that each mask is judged by "
        "the model that has not seen it. What was killed goes on.",
        is_saved=False,
        only_with={"mode": ("doctor",)},
    )
