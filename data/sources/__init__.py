"""Sources of labelled images, by the word that `--dataset` starts with."""

from data import schema
from data.sources import folder, layouts, synthetic, tfds

FolderSource = folder.FolderSource
"""The one source whose examples are files."""

ALL = layouts.ALL
"""The split of all examples, of any data set."""


def open_source(
    dataset: str,
    *,
    split: str,
    is_training: bool,
    image_size: tuple[int, int],
    data_dir: str = "",
    image_key: str = "image",
    label_key: str = "segmentation_mask",
    image_pattern: str = "",
    mask_pattern: str = "",
    train_fraction: float | None = None,
    seed: int = 0,
    allow_problems: bool = False,
) -> schema.Source:
    """Opens a split of a data set.

    Args:
      dataset: `synthetic`, `folder`, or `tfds:NAME[/CONFIG][:VERSION]`.
      split: name of the split; empty for the data set's own split of that role; `ALL`
        for every example.
      is_training: whether an empty `split` means the one to train on, rather than
        the one to evaluate on.
      image_size: height and width that the model wants; synthetic pictures are drawn
        in a square of the shorter side.
      data_dir: the folder of images and masks; or that of the TFDS data sets, empty
        for TFDS's default.
      image_key: TFDS feature that holds the image.
      label_key: TFDS feature that holds the mask.
      image_pattern: of the images in a folder; see `layouts.find_split`.
      mask_pattern: of the masks in a folder.
      train_fraction: share of an undivided folder to train on.
      seed: of that division.
      allow_problems: whether to open a folder also where names or places of files do
        not fit; see `folder.FolderSource`.

    Raises:
      schema.DataError: if the data set or the split is not there.
    """
    if dataset == "folder":
        return folder.FolderSource(
            data_dir,
            split,
            is_training=is_training,
            image_pattern=image_pattern,
            mask_pattern=mask_pattern,
            train_fraction=train_fraction,
            seed=seed,
            allow_problems=allow_problems,
        )
    kind, _, name = dataset.partition(":")
    if kind == "tfds":
        return tfds.TfdsSource(
            name,
            split or tfds.default_split(name, data_dir, is_training=is_training),
            data_dir=data_dir,
            image_key=image_key,
            label_key=label_key,
        )
    return synthetic.SyntheticSource(
        split or ("train" if is_training else "test"), size=min(image_size)
    )
