"""Splits of TensorFlow Datasets."""

import functools
from typing import TYPE_CHECKING

import numpy as np
from absl import logging

from data import schema
from data.sources import registry

if TYPE_CHECKING:
    import tensorflow as tf
    import tensorflow_datasets as tfds
    from etils import epath

KNOWN_INFOS = {
    # Parkhi et al., "Cats and Dogs", CVPR 2012. The trimaps hold 1, 2 and 3.
    "oxford_iiit_pet": schema.DatasetInfo(
        class_names=("pet", "background", "border"),
        label_offset=-1,
        palette=((230, 120, 60), (40, 70, 110), (250, 235, 190)),
    ),
}
"""What TFDS itself does not record of a data set: the meaning of its mask values."""

_EVAL_SPLITS = ("validation", "test")


class TfdsSource:
    """A split of a TFDS data set, its image files left encoded.

    Examples come in the order of the records on disk. Attributes as `schema.Source`.
    """

    def __init__(
        self,
        name: str,
        split: str,
        *,
        data_dir: str = "",
        image_key: str = "image",
        label_key: str = "segmentation_mask",
    ):
        """Opens the split; downloads and prepares the data set if it is not there.

        Args:
          name: `NAME[/CONFIG][:VERSION]` of the data set.
          split: in TFDS's split language, e.g. `train` or `train[:80%]`.
          data_dir: folder of the data sets; empty for TFDS's default.
          image_key: feature that holds the image: an `Image`, or a `Tensor` of uint8
            pixels.
          label_key: feature that holds the mask: an `Image`, or a `Tensor` of integers.

        Raises:
          schema.DataError: if the data set, split or a feature is not there, the split
            is empty, or a feature is of another kind.
        """
        self._builder = _open_builder(name, data_dir)
        self._split = split
        self._image_key, self._label_key = image_key, label_key
        self.name = f"{self._builder.info.full_name}/{split}"
        try:
            self._split_info = self._builder.info.splits[split]
        except (KeyError, ValueError) as error:
            reason = str(error.args[0]).strip().partition("\n")[0].removesuffix(".")
            splits = ", ".join(
                f"{name} (of size {found.num_examples})"
                for name, found in self._builder.info.splits.items()
            )
            raise schema.DataError(
                f"{self._builder.info.full_name} has no split {split!r} ({reason}); it "
                f"has {splits}."
            ) from error
        if self._split_info.num_examples <= 0:  # Of [80%:20%], less than none.
            raise schema.DataError(
                f"{self.name} holds no example; name more of the split by "
                "--train_split or --eval_split."
            )
        for flag, key in (("image_key", image_key), ("label_key", label_key)):
            _check_feature(self._builder.info, flag, key)
        self.info = KNOWN_INFOS.get(self._builder.name)
        names = getattr(self._builder.info.features[label_key], "names", None)
        if self.info is None and names:
            self.info = schema.DatasetInfo(tuple(names))

    @property
    def fingerprint(self) -> str:
        """Names version, split, size and features of what is read."""
        return (
            f"{self.name}:{len(self)}:{self._builder.info.dataset_size}:"
            f"{self._image_key}:{self._label_key}"
        )

    def __len__(self) -> int:
        return self._split_info.num_examples

    def examples(self, start: int = 0, stop: int | None = None) -> "tf.data.Dataset":
        """Reads examples in the order of the records; see `schema.Source`."""
        import tensorflow as tf
        import tensorflow_datasets as tfds

        has_file_name = "file_name" in self._builder.info.features
        keys = {self._image_key, self._label_key}
        keys |= {"file_name"} if has_file_name else set()
        features = self._builder.info.features
        images = [
            key
            for key in (self._image_key, self._label_key)
            if isinstance(features[key], tfds.features.Image)
        ]
        dataset = self._builder.as_dataset(
            split=self._split,
            shuffle_files=False,
            decoders=tfds.decode.PartialDecoding(
                dict.fromkeys(keys, True),
                decoders={key: tfds.decode.SkipDecoding() for key in images},
            ),
            read_config=tfds.ReadConfig(
                interleave_cycle_length=1,  # The records' own order.
                try_autocache=False,  # The store keeps what is decoded of it.
                add_tfds_id=True,
            ),
        )
        stop = len(self) if stop is None else stop

        @tf.autograph.experimental.do_not_convert
        def rename(example: "dict[str, tf.Tensor]") -> "dict[str, tf.Tensor]":
            return {
                "image": example[self._image_key],
                "label": example[self._label_key],
                "name": example["file_name" if has_file_name else "tfds_id"],
            }

        return dataset.skip(start).take(stop - start).map(rename)


def _check_feature(info: "tfds.core.DatasetInfo", flag: str, key: str) -> None:
    """Refuses a feature that cannot hold an image, or a mask."""
    import tensorflow_datasets as tfds

    features = ", ".join(
        f"{name} ({type(feature).__name__})"
        for name, feature in sorted(info.features.items())
    )
    if key not in info.features:
        raise schema.DataError(
            f"--{flag}={key}: {info.full_name} has no such feature; it has {features}."
        )
    feature = info.features[key]
    if not isinstance(feature.shape, tuple):  # A group of features.
        is_usable = False
    elif isinstance(feature, tfds.features.Image):
        is_usable = feature.np_dtype in (np.uint8, np.uint16)
    elif flag == "label_key":
        is_integer = np.issubdtype(feature.np_dtype, np.integer)
        is_usable = is_integer and len(feature.shape) in (2, 3)
    else:
        is_usable = feature.np_dtype == np.uint8 and len(feature.shape) == 3
    if not is_usable:
        description = " ".join(repr(feature).split())
        raise schema.DataError(
            f"--{flag}={key}: that feature of {info.full_name} is a {description}; "
            "name an Image of 8 or 16 bits, or a Tensor of "
            f"{'integers' if flag == 'label_key' else 'uint8 pixels'}. There are "
            f"{features}."
        )


def open_split(request: registry.SplitRequest) -> TfdsSource:
    """Opens a split; see `registry`."""
    return TfdsSource(
        request.name,
        request.split or _default_split(request),
        data_dir=request.data_dir,
        image_key=request.image_key,
        label_key=request.label_key,
    )


def _default_split(request: registry.SplitRequest) -> str:
    """Returns the split to train on, or the first one to evaluate on.

    Raises:
      schema.DataError: if the data set is not there, or has no split of that role.
    """
    splits = _open_builder(request.name, request.data_dir).info.splits
    wanted = ("train",) if request.is_training else _EVAL_SPLITS
    for split in wanted:
        if split in splits:
            return split
    flag = "train_split" if request.is_training else "eval_split"
    raise schema.DataError(
        f"tfds:{request.name} has no split named {' or '.join(wanted)}; name one of "
        f"{', '.join(splits)} with --{flag}."
    )


@functools.lru_cache(maxsize=4)
def _open_builder(name: str, data_dir: str) -> "tfds.core.DatasetBuilder":
    """Returns a TFDS builder whose data set is prepared."""
    import tensorflow_datasets as tfds

    if folder := _find_prepared(name, data_dir):
        try:
            return tfds.builder_from_directory(folder)
        except Exception as error:  # A part of a folder shows as many kinds of error.
            reason = str(error).strip().partition("\n")[0]
            raise schema.DataError(
                f"{folder} is no whole data set of TFDS ({type(error).__name__}: "
                f"{reason}); copy all of the folder again, or take it away to have it "
                "prepared anew."
            ) from error
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
    except (tfds.core.DatasetNotFoundError, AssertionError, ValueError) as error:
        raise schema.DataError(
            f"--dataset=tfds:{name}: TFDS knows no such data set or version "
            f"({str(error).strip().splitlines()[0]}); tensorflow.org/datasets/catalog "
            "lists them."
        ) from error
    if not builder.data_path.exists():
        logging.info("Downloading and preparing %s into %s.", name, builder.data_path)
    try:
        builder.download_and_prepare()
    except Exception as error:  # Anything that a download can meet.
        raise schema.DataError(
            f"--data_dir={data_dir or builder.data_dir} holds no prepared {name}, and "
            f"preparing it failed ({type(error).__name__}: {str(error).strip()}). "
            "Point --data_dir at the folder that holds "
            f"{builder.info.full_name}, or run `tfds build {name}` where there is a "
            "network and copy the folder."
        ) from error
    return builder


def _find_prepared(name: str, data_dir: str) -> "epath.Path | None":
    """Returns the folder in `data_dir` of the one prepared version, None if not one.

    What lies there needs none of TFDS's code for the data set, which TFDS searches
    among that of all others, and which may be of another version by now.
    """
    import tensorflow_datasets as tfds
    from etils import epath

    name, _, version = name.partition(":")
    if not data_dir:
        return None
    folder = epath.Path(data_dir).expanduser() / name
    found = [
        file.parent
        for file in folder.glob(f"{version or '*'}/features.json")
        if tfds.core.Version.is_valid(file.parent.name)  # No half prepared one.
    ]
    return found[0] if len(found) == 1 else None
