"""A trained model in use, from wherever it was loaded."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from data import schema
from data.preparing import preprocessing, resizing
from trainer.metrics import predictions
from trainer.settings import variants as variants_lib
from trainer.steps import averaging

_BATCH_SIZE = 16


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A trained model and what its input and output mean.

    Attributes:
      model: from images, [batch, *image_size, channels], to logits, float32 [batch,
        *image_size, classes]: a Keras model, or what is called as one.
      class_names: one for each class.
      palette: a colour of each, (red, green, blue) in 0..255.
      image_size: height and width of what the model was trained on.
      image_format: channels and values of that.
      resize: how images come to that size; one of `resizing.METHODS`.
      checkpoint: the folder that the weights are from, of a run or of an exported file.
      step: steps done by then.
      weights: a short hash of these.
      uses_averages: whether the weights are moving averages of those that training had.
      build_for_any_size: builds the model anew, for images of any size.
      gives_probabilities: whether the softmax of the logits are probabilities; of some
        exported files only the likeliest class means anything.
    """

    model: Callable[..., tf.Tensor]
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    image_size: tuple[int, int]
    image_format: schema.ImageFormat
    resize: str
    checkpoint: pathlib.Path
    step: int
    weights: str
    uses_averages: bool
    build_for_any_size: Callable[[], Callable[..., tf.Tensor]]
    gives_probabilities: bool = True

    def predict(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        *,
        probabilities: bool = False,
        tta: Sequence[str] = (),
    ) -> np.ndarray | list[np.ndarray]:
        """Predicts the class of each pixel, at the images' own sizes.

        Images are resized as in training, and the logits resized back. The first call,
        and the first with other variants, traces the model, which takes seconds.

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
        run = self._trace(tuple(tta))
        if isinstance(images, np.ndarray) and images.ndim != 4:
            return self._predict([images], probabilities, run)[0]
        results = self._predict(list(images), probabilities, run)
        if not isinstance(images, np.ndarray):
            return results
        return np.stack(results) if results else self._of_none(images, probabilities)

    def _of_none(self, images: np.ndarray, probabilities: bool) -> np.ndarray:
        """Returns the result for a batch without an image."""
        self.check(np.zeros(images.shape[1:], images.dtype))
        if probabilities:
            return np.zeros((*images.shape[:3], len(self.class_names)), np.float32)
        return np.zeros(images.shape[:3], np.uint8)

    def _predict(
        self,
        images: list[np.ndarray],
        probabilities: bool,
        run: Callable[[tf.Tensor], tf.Tensor],
    ) -> list[np.ndarray]:
        for image in images:
            self.check(image)
        results = []
        for first in range(0, len(images), _BATCH_SIZE):
            batch = images[first : first + _BATCH_SIZE]
            shown = tf.stack([self.resize_image(image) for image in batch])
            logits = run(shown)
            for image, scores in zip(batch, logits, strict=True):
                results.append(self._restore(scores, image.shape[:2], probabilities))
        return results

    def _trace(self, tta: tuple[str, ...]) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns a graph from images to logits, kept for batches of all sizes.

        Layer by layer, a small network would wait for Python most of the time.
        """
        if tta not in self._traced:
            model = self._averaged(tta)
            shape = [None, *self.image_size, self.image_format.num_channels]
            self._traced[tta] = tf.function(
                lambda images: model(images, training=False),
                input_signature=[tf.TensorSpec(shape, self.image_format.dtype)],
                autograph=False,
            )
        return self._traced[tta]

    @functools.cached_property
    def _traced(self) -> dict[tuple[str, ...], Callable[[tf.Tensor], tf.Tensor]]:
        return {}

    def _averaged(self, tta: tuple[str, ...]) -> Callable[..., tf.Tensor]:
        """Returns what gives the logits of images, of variants if there are words."""
        if not tta:
            return self.model
        try:
            variants = variants_lib.parse(tta)
        except ValueError as error:
            raise ValueError(f"tta={','.join(tta)}: {error}") from error
        model = self.any_size_model if variants.scales else self.model
        return averaging.Averaged(model, variants)

    @functools.cached_property
    def any_size_model(self) -> Callable[..., tf.Tensor]:
        """The model for images of any size; not made before a scale asks for it."""
        return self.build_for_any_size()

    def check(self, image: np.ndarray) -> None:
        """Raises a `ValueError` if an image is of another kind than the model takes."""
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

    def resize_image(self, image: np.ndarray) -> tf.Tensor:
        """Brings an image to the model's size and range, as training does."""
        image = resizing.resize_image(
            tf.constant(image),
            self.image_size,
            self.resize,
            fill_value=self.image_format.fill_value,
        )
        # The model does that, too, but variants of the image are resized before.
        return preprocessing.clip_image(image, self.image_format)

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
