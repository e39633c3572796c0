"""Random changes to training examples, in batches, on the device.

Each draw is keyed by seed, step and position in the global batch, so an example is
changed in the same way whichever replica has it, and again after a resume.
"""

from collections.abc import Sequence

import tensorflow as tf

from data import schema
from data.augmentation import color, resampling

_NUM_DRAWS = 7


def random_uniform(
    counters: tf.Tensor, num_draws: int, *, global_batch_size: int, seed: int
) -> tf.Tensor:
    """Draws numbers for each example of a replica's rows of a batch.

    The numbers of the whole global batch are drawn, and a replica keeps those of its
    rows: some hundred numbers cost nothing, and the result does not depend on how the
    rows are shared out. XLA makes other numbers of the same seed, so a training step
    must draw outside of what it compiles.

    Args:
      counters: int64 [rows], the example counters of `data.pipeline`, of one step.
      num_draws: numbers for each example; the first ones do not depend on how many.
      global_batch_size: rows of a step, over all replicas.
      seed: of the draws.

    Returns:
      float32 [rows, num_draws], uniform in [0, 1).
    """
    step = counters[0] // global_batch_size
    draws = tf.random.stateless_uniform(
        [num_draws, global_batch_size], seed=tf.stack([tf.cast(seed, tf.int64), step])
    )
    return tf.gather(tf.transpose(draws), counters % global_batch_size)


class RandomAugment:
    """Mirrors, scales, crops and colours each example at random.

    Geometry comes before colour, so the grey around an example that was made smaller
    is coloured like the rest, and counts in the mean that contrast turns around. Labels
    see the geometry only.
    """

    def __init__(
        self,
        *,
        global_batch_size: int,
        seed: int,
        flip: bool = False,
        scale: Sequence[float] = (),
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        fill_value: int = schema.FILL_VALUE,
    ):
        """Makes the augmentation.

        Args:
          global_batch_size: rows of a step, over all replicas.
          seed: of the draws.
          flip: whether to mirror left to right with probability 1/2.
          scale: least and greatest factor of `resampling.scale_and_crop`, drawn
            uniformly, as is the place of the window; empty: no scaling.
          brightness: x, for a factor of `color.adjust` uniform in [1 - x, 1 + x];
            0 to 1.
          contrast: the same for contrast.
          saturation: the same for saturation.
          fill_value: of images, for what lies outside of an example.
        """
        self._global_batch_size = global_batch_size
        self._seed = seed
        self._flip = flip
        self._scale = tuple(scale)
        self._fill_value = fill_value
        self._color_strengths = (brightness, contrast, saturation)

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, counters: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Augments a replica's rows of a batch.

        Args:
          images: uint8 or uint16 [rows, height, width, channels]; of 3 channels and in
            0..255 if colours are changed.
          labels: uint8 [rows, height, width].
          counters: int64 [rows]; see `random_uniform`.

        Returns:
          Images and labels of the same shapes: the labels uint8, the images uint8, too,
          if they were and are mirrored at most, else float32.
        """
        if images.dtype == tf.uint16:  # GPUs cannot mirror or pad it.
            images = tf.cast(images, tf.float32)
        # All of them in any case, so that each change has its own ones whether the
        # others are asked for or not.
        draws = random_uniform(
            counters,
            _NUM_DRAWS,
            global_batch_size=self._global_batch_size,
            seed=self._seed,
        )
        is_mirrored = (draws[:, 0] < 0.5) & self._flip
        if self._scale:
            low, high = self._scale
            images, labels = resampling.scale_and_crop(
                images,
                labels,
                factors=low + (high - low) * draws[:, 1],
                places=draws[:, 2:4],
                is_mirrored=is_mirrored,
                fill_value=self._fill_value,
            )
        elif self._flip:
            images, labels = resampling.mirror(images, labels, is_mirrored)
        if any(self._color_strengths):
            # From [0, 1) to [1 - x, 1 + x).
            factors = 1 + (2 * draws[:, 4:] - 1) * self._color_strengths
            brightness, contrast, saturation = tf.unstack(factors, axis=1)
            images = color.adjust(
                images,
                brightness=brightness,
                contrast=contrast,
                saturation=saturation,
            )
        return images, labels


def keep(
    images: tf.Tensor, labels: tf.Tensor, counters: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Changes nothing: the augmentation of a run without one."""
    del counters
    return images, labels
