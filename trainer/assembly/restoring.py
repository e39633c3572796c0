"""Trained models, restored from the folders of their runs alone."""

import contextlib
import dataclasses
import functools
import pathlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from data import schema
from data.preparing import resizing
from trainer.assembly import model as model_lib
from trainer.assembly import state as state_lib
from trainer.metrics import predictions
from trainer.optimizing import ema as ema_lib
from trainer.run_folder import checkpoint_folders, run_settings, saved_weights
from trainer.run_folder import dataset as dataset_lib
from trainer.settings import config as config_lib
from trainer.settings import variants as variants_lib
from trainer.steps import averaging

_BATCH_SIZE = 16


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
      path: the folder of the checkpoint.
    """

    model: keras.Model
    ema: ema_lib.ExponentialMovingAverage | None
    path: pathlib.Path


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


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A trained model and what its input and output mean.

    Attributes:
      model: from images, [batch, *image_size, channels], to logits, float32 [batch,
        *image_size, classes].
      class_names: one for each class.
      palette: a colour of each, (red, green, blue) in 0..255.
      image_size: height and width of what the model was trained on.
      image_format: channels and values of that.
      resize: how images come to that size; one of `resizing.METHODS`.
      checkpoint: the folder that the weights are from.
      build_for_any_size: builds the model anew, with other weights, for images of any
        size.
    """

    model: keras.Model
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    image_size: tuple[int, int]
    image_format: schema.ImageFormat
    resize: str
    checkpoint: pathlib.Path
    build_for_any_size: Callable[[], keras.Model]

    def predict(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        *,
        probabilities: bool = False,
        tta: Sequence[str] = (),
    ) -> np.ndarray | list[np.ndarray]:
        """Predicts the class of each pixel, at the images' own sizes.

        Images are resized as in training, and the logits resized back.

        Args:
          images: one image, [height, width, channels] of the type that `image_format`
            names; several of one size, [images, height, width, channels]; or a list of
            images of any sizes.
          probabilities: whether to return those of all classes, in place of the
            likeliest class.
          tta: `flip` for the mean of the probabilities for the image and its mirror
            image, and numbers as text for those for the image resized by each, too;
            see `averaging.Averaged`.

        Returns:
          Classes, uint8 [height, width], or probabilities, float32 [height, width,
          classes]: of one image, of several of one size with a first axis for these,
          or a list.

        Raises:
          ValueError: if images are of another kind, or, of a model trained with
            `--resize=crop`, of another size than the model's; if `tta` has words that
            `--tta` does not take.
        """
        model = self._averaged(tta)
        if isinstance(images, np.ndarray) and images.ndim == 3:
            return self._predict([images], probabilities, model)[0]
        results = self._predict(list(images), probabilities, model)
        return np.stack(results) if isinstance(images, np.ndarray) else results

    def _predict(
        self,
        images: list[np.ndarray],
        probabilities: bool,
        model: Callable[..., tf.Tensor],
    ) -> list[np.ndarray]:
        for image in images:
            self._check(image)
        results = []
        for first in range(0, len(images), _BATCH_SIZE):
            batch = images[first : first + _BATCH_SIZE]
            shown = tf.stack([self._resize(image) for image in batch])
            logits = model(shown, training=False)
            for image, scores in zip(batch, logits, strict=True):
                results.append(self._restore(scores, image.shape[:2], probabilities))
        return results

    def _averaged(self, tta: Sequence[str]) -> Callable[..., tf.Tensor]:
        """Returns what gives the logits of images, of variants if there are words."""
        if not tta:
            return self.model
        try:
            variants = variants_lib.parse(tta)
        except ValueError as error:
            raise ValueError(f"tta={','.join(tta)}: {error}") from error
        model = self._any_size_model if variants.scales else self.model
        return averaging.Averaged(model, variants)

    @functools.cached_property
    def _any_size_model(self) -> keras.Model:
        """The model for images of any size; not made before a scale asks for it."""
        model = self.build_for_any_size()
        model.set_weights(self.model.get_weights())
        return model

    def _check(self, image: np.ndarray) -> None:
        dtype, channels = self.image_format.dtype, self.image_format.num_channels
        is_image = isinstance(image, np.ndarray) and image.dtype == dtype
        if not (is_image and image.ndim == 3 and image.shape[-1] == channels):
            kind = (
                f"{image.dtype} {list(image.shape)}"
                if isinstance(image, np.ndarray)
                else type(image).__name__
            )
            raise ValueError(
                f"an image is a NumPy array, {dtype} [height, width, {channels}], not "
                f"{kind}"
            )
        if self.resize == "crop" and image.shape[:2] != self.image_size:
            raise ValueError(
                f"an image has {image.shape[0]}x{image.shape[1]} pixels, and the model "
                f"was trained with --resize=crop at {self.image_size[0]}x"
                f"{self.image_size[1]}: of what is cropped away there are no labels; "
                "give images of that size"
            )

    def _resize(self, image: np.ndarray) -> tf.Tensor:
        """Brings an image to the model's size, as training does."""
        return resizing.resize_image(
            tf.constant(image),
            self.image_size,
            self.resize,
            fill_value=self.image_format.fill_value,
        )

    def _restore(
        self, logits: tf.Tensor, size: tuple[int, int], probabilities: bool
    ) -> np.ndarray:
        """Makes the result for an image of a size, of logits at the model's size."""
        if size != self.image_size:
            logits = resizing.restore_size(logits, tf.constant(size), self.resize)
        if probabilities:
            return tf.nn.softmax(logits).numpy()
        classes = predictions.most_likely_class(logits[tf.newaxis])[0]
        return classes.numpy().astype(np.uint8)


def load_run(
    model_dir: str, checkpoint: str = "last", *, policy: str = "float32"
) -> TrainedModel:
    """Restores the model of a run from its folder, wherever that lies.

    No data set is opened and no other weights are looked for. The model is outside of
    any strategy. Where the run kept moving averages of the weights, they are
    the weights.

    >>> trained = load_run("runs/tutorial")  # doctest: +SKIP
    >>> labels = trained.predict(photo)  # doctest: +SKIP

    Args:
      model_dir: the folder of the run.
      checkpoint: `last`, `best`, or a checkpoint's name or folder.
      policy: the dtype policy that it computes by.

    Raises:
      errors.CheckpointError: if it is no run, has no checkpoint that can be read, or is
        of a later version of this package.
    """
    model_dir = str(model_dir)
    settings = config_lib.fields_by_name()
    # Without what describes the data: a file that it names need not be there any more.
    config = config_lib.from_dict(
        {
            **{
                name: value
                for name, value in run_settings.read(model_dir).items()
                if not settings[name].metadata["describes_data"]
                and not settings[name].metadata["is_local"]
            },
            "model_dir": model_dir,
        }
    )
    run = find_run(model_dir, checkpoint)
    dataset = dataset_lib.read(model_dir, run.class_names)
    # A run's settings have the range.
    image_format = schema.ImageFormat(
        config.data.image_channels, config.data.image_range
    )

    def build_for_any_size() -> keras.Model:
        with _dtype_policy(policy):
            return _build(run, config, image_format, takes_any_size=True)

    with _dtype_policy(policy):
        restored = restore(run, config, image_format)
    if restored.ema:
        restored.ema.copy_to_model()
    return TrainedModel(
        model=restored.model,
        class_names=dataset.class_names,
        palette=dataset.palette,
        image_size=config.data.image_size,
        image_format=image_format,
        resize=config.data.resize,
        checkpoint=restored.path,
        build_for_any_size=build_for_any_size,
    )


@contextlib.contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    """Lets Keras build by a policy; puts back what that changes for the process."""
    policy, drawn = keras.config.dtype_policy(), random.getstate()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        random.setstate(drawn)  # Keras draws the seeds of initial weights from it.
