"""What `--mode=predict` reads and writes."""

import dataclasses

from trainer.settings import fields

SAVE_CHOICES = ("labels", "overlay", "confidence", "probabilities", "npz")
_OF_PREDICT = {"mode": ("predict",)}


@dataclasses.dataclass(frozen=True)
class PredictConfig(fields.Section):
    """What `--mode=predict` reads and writes."""

    input: str = fields.setting(
        "",
        "Photos for --mode=predict: a file, a folder with all below it, or a pattern "
        "with * and ** in quotes.",
        is_saved=False,
        only_with=_OF_PREDICT,
    )
    output: str = fields.setting(
        "",
        "Folder for what --mode=predict writes. Photos whose files are there already "
        "are left out.",
        is_saved=False,
        only_with=_OF_PREDICT,
    )
    save: tuple[str, ...] = fields.setting(
        ("labels",),
        "What to write of each photo. labels: a PNG file of class indexes, with the "
        "colours of the classes as its palette; overlay: the photo under these "
        "colours, with a legend, as JPEG; confidence: the probability of the "
        "predicted class, a PNG file, 0 to 255; probabilities: those of each class, a "
        "PNG file of 16 bits for each, 0 to 65535; npz: the same in one file for "
        "NumPy.",
        is_saved=False,
        only_with=_OF_PREDICT,
    )
    tile_size: int = fields.setting(
        0,
        "Predict photos at their own scale, in square tiles of so many pixels. Models "
        "that were trained on windows (--crop_size) need this. 0: resize the whole "
        "photo as in training.",
        minimum=0,
        maximum=8192,
        is_saved=False,
        only_with=_OF_PREDICT,
        parts=lambda size: ("a tile",) if size else (),
    )
    tile_overlap: float = fields.setting(
        0.25,
        "By what share of a tile's side, at least, it overlaps its neighbour. There "
        "the tile whose middle is nearer counts for more.",
        minimum=0.0,
        maximum=0.75,
        is_saved=False,
        only_with={**_OF_PREDICT, "tile_size": ("a tile",)},
    )
    mask_orientation: str = fields.setting(
        "shown",
        "How masks of photos with an EXIF orientation lie. shown: as viewers turn the "
        "photo; stored: as its pixels are stored.",
        choices=("shown", "stored"),
        is_saved=False,
        only_with=_OF_PREDICT,
    )
    max_megapixels: float = fields.setting(
        100.0,
        "Photos of more pixels than this, in millions, are taken for damaged and left "
        "out.",
        minimum=0.01,
        maximum=4000.0,
        is_saved=False,
        only_with=_OF_PREDICT,
    )
    overwrite: bool = fields.setting(
        False,
        "Predict photos again whose files are in --output already.",
        is_saved=False,
        only_with=_OF_PREDICT,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.save:
            if name not in SAVE_CHOICES:
                fields.reject(
                    "save",
                    self.save,
                    f"{name!r} is nothing to save; use {', '.join(SAVE_CHOICES)}",
                )
        if len(set(self.save)) < len(self.save):
            fields.reject("save", self.save, "a word is there twice")
        if not self.save:
            fields.reject("save", self.save, f"use {', '.join(SAVE_CHOICES)}")
        if 0 < self.tile_size < 32:
            fields.reject("tile_size", self.tile_size, "use at least 32, or 0")
