"""Trained models, restored from the folders of their runs alone."""

import contextlib
import pathlib
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

from data import schema
from trainer.assembly import model as model_lib
from trainer.assembly import state as state_lib
from trainer.assembly import trained_model
from trainer.optimizing import ema as ema_lib
from trainer.remote import mirrors
from trainer.run_folder import checkpoint_folders, run_settings, saved_weights
from trainer.run_folder import dataset as dataset_lib
from trainer.settings import config as config_lib


class SavedRun(NamedTuple):
    """The checkpoints of a run.

    Attributes:
      paths: folders of checkpoints that will do, in order of preference.
      identity: what the run is, by the first of them that tells.
    """

    paths: list[pathlib.Path]
    identity: dict[str, Any]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that the model was trained with."""
        return tuple(self.identity["class_names"])


class Restored(NamedTuple):
    """A model with the weights of a checkpoint.

    Attributes:
      model: from images to logits.
      ema: moving averages to use in place of the weights, or None.
      origin: the checkpoint.
    """

    model: keras.Model
    ema: ema_lib.ExponentialMovingAverage | None
    origin: checkpoint_folders.Origin


def find_run(model_dir: str, checkpoint: str = "last") -> SavedRun:
    """Finds the checkpoints of a run.

    Args:
      model_dir: the folder of the run.
      checkpoint: `last`, `best`, or a checkpoint's name or folder.

    Raises:
      errors.CheckpointError: if there is none.
    """
    paths = checkpoint_folders.find(model_dir, checkpoint)
    return SavedRun(paths, checkpoint_folders.read_identity(paths))


def restore(
    run: SavedRun,
    config: config_lib.Config,
    image_format: schema.ImageFormat,
    *,
    num_replicas: int = 1,
    takes_any_size: bool = False,
) -> Restored:
    """Builds the model of a run and restores it; call it in the scope of the strategy.

    Args:
      run: its checkpoints.
      config: its settings.
      image_format: of the images it takes.
      num_replicas: devices that share each batch, on all hosts.
      takes_any_size: whether the model is for images of any size, rather than of
        `--image_size` alone.

    Raises:
      errors.CheckpointError: if no checkpoint can be read, or none fits.
    """
    model = _build(
        run,
        config,
        image_format,
        num_replicas=num_replicas,
        takes_any_size=takes_any_size,
    )
    ema = state_lib.make_ema(model, config.train.ema_decay)
    return Restored(model, ema, saved_weights.restore_model(model, ema, run.paths))


def _build(
    run: SavedRun,
    config: config_lib.Config,
    image_format: schema.ImageFormat,
    *,
    num_replicas: int = 1,
    takes_any_size: bool = False,
) -> keras.Model:
    """Builds the model of a run; arguments as for `restore`."""
    return model_lib.build_model(
        config.model,
        image_size=(None, None) if takes_any_size else config.data.image_size,
        image_format=image_format,
        num_classes=len(run.class_names),
        num_replicas=num_replicas,
        has_checkpoint=True,
        preset=model_lib.open_preset(config.model, config.run.model_dir),
    )


def load_run(
    model_dir: str,
    checkpoint: str = "last",
    *,
    image_size: tuple[int, int] | None = None,
    precision: str = "float32",
) -> trained_model.TrainedModel:
    """Restores the model of a run from its folder, wherever that lies.

    No data set is opened and no other weights are looked for. The model is built in the
    scope of the strategy in which this is called, if any. Where the run kept moving
    averages of the weights, they are the weights.

    >>> trained = load_run("runs/tutorial")  # doctest: +SKIP
    >>> labels = trained.predict(photo)  # doctest: +SKIP

    Args:
      model_dir: the folder of the run, or its URL.
      checkpoint: `last`, `best`, or a checkpoint's name or folder.
      image_size: height and width that images are brought to; None: as in training.
      precision: Keras' dtype policy of the model.

    Raises:
      errors.CheckpointError: if it is no run, has no checkpoint that can be read, or is
        of a later version of this package.
    """
    model_dir = mirrors.fetch(str(model_dir), "model_dir")
    config = _read_settings(model_dir, image_size)
    run = find_run(model_dir, checkpoint)
    dataset = dataset_lib.read(model_dir, run.class_names)
    # A run's settings have the range.
    image_format = schema.ImageFormat(
        config.data.image_channels, config.data.image_range
    )

    def build_for_any_size() -> keras.Model:
        with _building_in(precision):
            built = _build(run, config, image_format, takes_any_size=True)
        built.set_weights(restored.model.get_weights())
        return built

    with _building_in(precision):
        restored = restore(run, config, image_format)
    if restored.ema:
        restored.ema.copy_to_model()
    return trained_model.TrainedModel(
        model=restored.model,
        class_names=dataset.class_names,
        palette=dataset.palette,
        image_size=config.data.image_size,
        image_format=image_format,
        resize=config.data.resize,
        checkpoint=restored.origin.path,
        step=restored.origin.step,
        weights=restored.origin.weights,
        uses_averages=restored.ema is not None,
        build_for_any_size=build_for_any_size,
    )


def _read_settings(
    model_dir: str, image_size: tuple[int, int] | None
) -> config_lib.Config:
    """Returns the settings of a run's model, for images of a size."""
    settings = config_lib.fields_by_name()
    values = {
        name: value
        for name, value in config_lib.without_training(
            run_settings.read(model_dir)
        ).items()
        # Without what describes the data: a file that it names may be gone.
        if not settings[name].metadata["describes_data"]
        and not settings[name].metadata["is_local"]
    }
    if image_size:
        values["image_size"] = image_size
    return config_lib.from_dict({**values, "model_dir": model_dir})


@contextlib.contextmanager
def _building_in(precision: str) -> Iterator[None]:
    """Lets Keras build in a precision; puts back what that changes for the process."""
    policy, drawn = keras.config.dtype_policy(), random.getstate()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        random.setstate(drawn)  # Keras draws the seeds of initial weights from it.
