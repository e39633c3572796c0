"""Whether a model was trained on the masks that it is to judge."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data import schema
from data.sources import halves
from data.stores import fingerprints
from trainer import errors
from trainer.assembly import inputs
from trainer.run_folder import dataset as dataset_lib
from trainer.run_folder import identities, run_settings
from trainer.settings import config as config_lib


@dataclasses.dataclass(frozen=True)
class _Training:
    """What a run was trained on.

    Attributes:
      config: its settings.
      fingerprint: of the examples, None of a run that is older than these.
      split: the name of the source, "" likewise.
    """

    config: config_lib.Config
    fingerprint: str | None
    split: str


def find_seen(
    config: config_lib.Config,
    identity: Mapping[str, Any],
    sources: Sequence[schema.Source],
) -> list[bool]:
    """Tells for each split whether a run was trained on some of it.

    It was if the run's identity holds the fingerprint of the split, wherever the files
    lie now. It was, too, if the split has the same place and name: files may have been
    mended since, which changes the fingerprint.

    Args:
      config: the settings by which the splits were opened.
      identity: of the run in `--model_dir`, as its checkpoints hold it.
      sources: the splits.

    Raises:
      errors.CheckpointError: if the run's settings cannot be read.
    """
    training = _read(config.run.model_dir, identity)
    return [_is_seen(config, training, source) for source in sources]


def _read(model_dir: str, identity: Mapping[str, Any]) -> _Training:
    settings = config_lib.fields_by_name()
    values = {
        name: value
        for name, value in run_settings.read(model_dir).items()
        if not settings[name].metadata["is_local"]
    }
    described = dataset_lib.read(model_dir, identity["class_names"])
    return _Training(
        config=config_lib.from_dict({**values, "model_dir": model_dir}),
        fingerprint=identity.get(identities.TRAIN_EXAMPLES),
        split=described.label_source.get("split", ""),
    )


def _is_seen(
    config: config_lib.Config, training: _Training, source: schema.Source
) -> bool:
    parts = list(_find_parts(source, training.config.data.train_half))
    if training.fingerprint and any(
        _make_fingerprint(training.config, part) == training.fingerprint
        for part in parts
    ):
        return True
    if _describe_place(config) != _describe_place(training.config):
        return False
    if not training.split:  # Which one it was is not known: rather too careful.
        return True
    is_all = schema.ALL_SPLITS in (
        training.config.data.train_split,
        source.name.rpartition("/")[2],
    )
    return is_all or training.split in [part.name for part in parts]


def _find_parts(source: schema.Source, half: int | None) -> Iterator[schema.Source]:
    """Yields a split, and the half of it that a run may have been trained on."""
    yield source
    if half is not None and not isinstance(source, halves.HalfSource) and len(source):
        try:
            yield halves.HalfSource(source, half)
        except schema.DataError:
            return  # There is no example in it.


def _make_fingerprint(config: config_lib.Config, source: schema.Source) -> str | None:
    """Makes that which a run of these settings has; None if it cannot be made here."""
    try:
        info = inputs.resolve_info(config, source)
    except (schema.DataError, errors.RunError, OSError):
        return None  # Other classes, or a file that describes them is gone.
    return fingerprints.make_fingerprint(source, inputs.make_preprocessor(config, info))


def _describe_place(config: config_lib.Config) -> tuple[str, ...]:
    """Says where examples are, whatever the folder is called."""
    data = config.data
    folder = os.path.realpath(data.data_dir) if data.data_dir else ""
    return data.dataset, folder, data.images, data.masks, data.image_key, data.label_key
