"""Which examples, and how they are read."""

import dataclasses
import os

from data import schema
from data.sources import registry
from trainer.settings import fields


@dataclasses.dataclass(frozen=True)
class DataConfig(fields.Section):
    """Which examples, and how they become arrays of one size."""

    dataset: str = fields.setting(
        "synthetic",
        f"The data set. {registry.describe()}.",
        identity=True,
        describes_data=True,
    )
    data_dir: str = fields.setting(
        "",
        "Folder of your images and masks, or of the TFDS data sets; empty: TFDS's own "
        "default. A URL (s3://, gs://, ...) is downloaded once; TFDS reads gs:// by "
        "itself.",
        only_with={"dataset": ("folder", "coco", "labelme", "tfds")},
        describes_data=True,
    )
    # What the next five say is part of the fingerprint of the examples, and with it
    # of the run's identity; the paths themselves may change.
    images: str = fields.setting(
        "",
        "Pattern of the images of --dataset=folder, below --data_dir, e.g. "
        "'photos/**/*.jpg'; {split} stands for the name of the split. Empty: a known "
        "layout.",
        only_with={"dataset": ("folder",)},
        describes_data=True,
    )
    masks: str = fields.setting(
        "",
        "Pattern of the masks. An image and a mask are a pair if the wildcards of "
        "both patterns stand for the same text.",
        only_with={"dataset": ("folder",)},
        describes_data=True,
    )
    label_colors: str = fields.setting(
        "",
        "Classes of coloured masks: a CSV file (name,r,g,b) or a JSON file, or voc, "
        "cityscapes, camvid.",
        only_with={"dataset": ("folder", "tfds")},
        describes_data=True,
    )
    label_map: str = fields.setting(
        "",
        "CSV or JSON file that merges and drops classes. Each row has an old mask "
        "value or class name, and the new class name or ignore.",
        describes_data=True,
    )
    train_fraction: float | None = fields.setting(
        None,
        "Share of a folder without splits to train on; the rest is for evaluation. A "
        "hash of each file's name and --seed decides. Default: none; a folder without "
        "splits needs it.",
        minimum=0.0,
        maximum=1.0,
        identity=True,
        only_with={"dataset": ("folder", "coco", "labelme")},
        describes_data=True,
    )
    train_split: str = fields.setting(
        "",
        "Split to train on; empty: train, or trainval of a folder without train.",
        identity=True,
        describes_data=True,
        unused_by=("evaluate",),
    )
    train_half: int | None = fields.setting(
        None,
        "Number of the half of the training split to train on, as --crossfit does. A "
        "hash of each photo's name decides which half has it, or with --dataset=tfds "
        "or synthetic of its number. Default: train on all of it.",
        minimum=0,
        maximum=1,
        identity=True,
        describes_data=True,
        unused_by=("evaluate", "predict"),
    )
    eval_split: str = fields.setting(
        "",
        "Split to evaluate on; all: every example; empty: the validation split of the "
        "data set, else its test split; of synthetic, its test split.",
        describes_data=True,
        unused_by=("train",),
    )
    image_key: str = fields.setting(
        "image",
        "TFDS feature that holds the image.",
        only_with={"dataset": ("tfds",)},
        describes_data=True,
    )
    label_key: str = fields.setting(
        "segmentation_mask",
        "TFDS feature that holds the mask.",
        only_with={"dataset": ("tfds",)},
        describes_data=True,
    )
    image_size: tuple[int, ...] = fields.setting(
        (128,),
        "Height[,width] that images are resized to.",
        minimum=8,
        identity=True,
        maximum=16384,
    )
    resize: str = fields.setting(
        "stretch",
        "How images are brought to --image_size. stretch: each side by itself; pad: "
        "keep the aspect ratio, and ignore the margin that is added; crop: keep the "
        "aspect ratio, and cut out the middle.",
        choices=("stretch", "pad", "crop"),
        identity=True,
    )
    image_channels: int = fields.setting(
        3,
        "Channels that the network sees: 1 (gray), 2 (gray and alpha), 3 (RGB), 4 "
        "(RGB and alpha); images of all kinds are converted to these. TIFF files with "
        "as many bands are taken as they are; more than 4 channels are always such "
        "bands.",
        minimum=1,
        maximum=1024,
        identity=True,
        shapes_model=True,
    )
    image_range: tuple[int, ...] | None = fields.setting(
        None,
        "LOW,HIGH: the values in the files that are black and white, e.g. 0,4095 for "
        "12 bits in 16. Values beyond them are clipped. With a range within 0..255, "
        "the upper 8 of 16 bits are taken. Default: the range of the files' bits, "
        "0,255 or 0,65535.",
        minimum=0,
        maximum=65535,
        identity=True,
        legacy=(0, 255),
    )
    eval_native_size: bool = fields.setting(
        False,
        "Score each evaluation example at the size that its mask has on disk, not at "
        "--image_size. The logits are interpolated.",
        only_with={"resize": ("stretch", "pad")},
        unused_by=("train", "doctor"),
    )
    num_classes: int | None = fields.setting(
        None,
        "Number of classes: the background counts, ignored pixels do not. Default: "
        "the data set's.",
        minimum=2,
        maximum=schema.MAX_CLASSES,
        identity=True,
        describes_data=True,
        replaces=("class_names",),
    )
    class_names: tuple[str, ...] | None = fields.setting(
        None,
        "Names of the classes with commas between them, or a file with one name a "
        "line. Default: the data set's, else class_0, class_1, ...",
        identity=True,
        describes_data=True,
        replaces=("num_classes",),
    )
    label_offset: int | None = fields.setting(
        None,
        "Number that is added to each mask value to get the class index, e.g. -1 for "
        "masks that count from 1. Default: the data set's.",
        minimum=-255,
        maximum=255,
        identity=True,
        only_with={"label_colors": ("",)},
        describes_data=True,
    )
    ignore_label: int = fields.setting(
        schema.IGNORE_LABEL,
        "Mask value, as it is in the files, of pixels that count in no loss and no "
        "score.",
        minimum=0,
        maximum=65535,
        identity=True,
        only_with={"label_colors": ("",)},
        describes_data=True,
    )
    on_bad_example: str = fields.setting(
        "stop",
        "What happens if the files of an example cannot be used. stop: end the run, "
        "and name the files; replace: warn, and ignore all pixels of this example.",
        choices=("stop", "replace"),
        unused_by=("doctor",),
    )
    max_bad_examples: int = fields.setting(
        10,
        "How many examples of a split --on_bad_example=replace may replace; one more "
        "ends the run.",
        minimum=0,
        only_with={"on_bad_example": ("replace",)},
        maximum=10**9,
    )
    cache: str = fields.setting(
        "memory",
        "Where decoded examples are kept: in memory (decoded at each start), on disk "
        "(memory-mapped, decoded once), on each device (decoded at each start; the "
        "host sends ids alone), or none: files are read for each batch.",
        choices=("memory", "disk", "device", "none"),
        unused_by=("doctor",),
    )
    cache_dir: str = fields.setting(
        "",
        "Folder of the disk cache; empty: $XDG_CACHE_HOME/segloop.",
        only_with={"cache": ("disk",)},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            registry.parse(self.dataset)
        except ValueError as error:
            fields.reject("dataset", self.dataset, str(error))
        self._check_folder()
        if len(self.image_size) not in (1, 2):
            fields.reject("image_size", self.image_size, "give HEIGHT or HEIGHT,WIDTH")
        if len(self.image_size) == 1:
            object.__setattr__(self, "image_size", self.image_size * 2)
        if self.image_range is not None and (
            len(self.image_range) != 2 or self.image_range[0] >= self.image_range[1]
        ):
            fields.reject(
                "image_range",
                self.image_range,
                "give LOW,HIGH, the lower number first, e.g. 0,4095",
            )
        if self.class_names is not None:
            self._check_class_names(self.class_names)

    def _check_folder(self) -> None:
        if self.dataset in ("coco", "labelme") and not self.data_dir:
            fields.reject("dataset", self.dataset, "name the folder with --data_dir")
        if self.train_fraction in (0.0, 1.0):
            fields.reject(
                "train_fraction",
                self.train_fraction,
                "must leave something for both sides, e.g. 0.8",
            )
        if self.dataset != "folder":
            return
        if bool(self.images) != bool(self.masks):
            fields.reject(
                "images", self.images, "give --images and --masks, or neither"
            )
        if ("{split}" in self.images) != ("{split}" in self.masks):
            fields.reject(
                "images", self.images, "--masks must have {split} if this has"
            )
        if not self.data_dir and not (
            os.path.isabs(self.images) and os.path.isabs(self.masks)
        ):
            fields.reject("dataset", self.dataset, "name the folder with --data_dir")

    def _check_class_names(self, names: tuple[str, ...]) -> None:
        if len(names) == 1 and (os.path.isfile(names[0]) or "://" in names[0]):
            return  # Names to be read where the data set is.
        if len(set(names)) != len(names) or not all(names):
            fields.reject("class_names", names, "give each class a name of its own")
        if not 2 <= len(names) <= schema.MAX_CLASSES:
            fields.reject(
                "class_names", names, f"name 2 to {schema.MAX_CLASSES} classes"
            )
        if self.num_classes is not None and len(names) != self.num_classes:
            fields.reject(
                "class_names",
                names,
                f"these are {len(names)} names, but --num_classes={self.num_classes}; "
                "make the two agree or leave --num_classes out",
            )
