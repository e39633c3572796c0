"""What `--mode=export` writes."""

import dataclasses

from trainer.exporting import registry
from trainer.settings import fields


@dataclasses.dataclass(frozen=True)
class ExportConfig(fields.Section):
    """What `--mode=export` writes, and where."""

    export_format: tuple[str, ...] = fields.setting(
        ("saved_model",),
        "Formats that --mode=export writes, each into a folder of its name: "
        f"{registry.describe()}.",
        is_saved=False,
        only_with={"mode": ("export",)},
    )
    export_dir: str = fields.setting(
        "",
        "Folder that --mode=export writes into; default: MODEL_DIR/export.",
        is_saved=False,
        only_with={"mode": ("export",)},
    )
    export_probabilities: bool = fields.setting(
        False,
        "Let exported files give the probabilities of all classes, too, not only the "
        "label of each pixel.",
        is_saved=False,
        only_with={"mode": ("export",)},
    )

    export_scores: bool = fields.setting(
        True,
        "Score each file, and the checkpoint, on the evaluation split, if that is at "
        "hand. A file that loses more than 0.01 of the mean IoU is not published. "
        "--noexport_scores saves the time.",
        is_saved=False,
        only_with={"mode": ("export",)},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.export_format
        if not names:
            fields.reject(
                "export_format", names, f"name one of {', '.join(registry.FORMATS)}"
            )
        fields.check_names("export_format", names, registry.FORMATS, "format")
