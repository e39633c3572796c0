"""Random changes to training examples, in batches, on the device.

Each draw is keyed by seed, step, position in the global batch and name of the change:
an example is changed in the same way whichever replica has it, and again after a
resume, and a change that is added moves none of the others.
"""

import zlib
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from data import schema
from data.augmentation import (
    color,
    kinds,
    maps,
    rare_classes,
    registry,
    resampling,
    windows,
)


def random_uniform(
    counters: tf.Tensor,
    num_draws: Mapping[str, int],
    *,
    global_batch_size: int,
    seed: int,
) -> dict[str, tf.Tensor]:
    """Draws numbers for each example of a replica's rows of a batch.

    The numbers of the whole global batch are drawn, and a replica keeps those of its
    rows: some hundred numbers cost nothing, and the result does not depend on how the
    rows are shared out. XLA makes other numbers of the same seed, so a training step
    must draw outside of what it compiles.

    Args:
      counters: int64 [rows], the example counters of `data.pipeline`, of one step.
      num_draws: by name of a change, how many numbers each example gets. A change that
        gets more numbers has the same first ones, whatever else is drawn.
      global_batch_size: rows of a step, over all replicas.
      seed: of the draws, less than 2**31.

    Returns:
      By name, float32 [rows, num_draws], uniform in [0, 1).
    """
    step = counters[0] // global_batch_size
    draws = [
        tf.random.stateless_uniform(
            [count, global_batch_size],
            seed=tf.stack([tf.constant(_key(seed, name), tf.int64), step]),
        )
        for name, count in num_draws.items()
    ]
    draws = tf.gather(tf.transpose(tf.concat(draws, 0)), counters % global_batch_size)
    return dict(zip(num_draws, tf.split(draws, [*num_draws.values()], 1), strict=True))


def _key(seed: int, name: str) -> int:
    """Returns the key of the draws of a change, the same with each Python."""
    # The whole seed in the upper half, so that no seed has a key of another one.
    return (seed << 32) + zlib.crc32(name.encode())


class RandomAugment:
    """Changes each example at random, as the changes of `registry.CHANGES` say.

    Geometry comes before colour. So the grey around an example that was made smaller is
    coloured like the rest, and counts in the mean that contrast is measured from.
    Changes of the kind `kinds.Pixels` come last, in the order of the registry.
    """

    def __init__(
        self,
        strengths: Mapping[str, Any],
        *,
        global_batch_size: int,
        seed: int,
        image_format: schema.ImageFormat = schema.RGB,
        crop_size: tuple[int, int] | None = None,
        crop_rare_classes: float = 0.0,
        num_classes: int = schema.MAX_CLASSES,
    ):
        """Makes the augmentation.

        Args:
          strengths: by name of a change; see `registry.CHANGES`.
          global_batch_size: rows of a step, over all replicas.
          seed: of the draws.
          image_format: of the images. Its middle fills what lies outside of an
            example, and colours are clipped to its range.
          crop_size: height and width of the window that is cut out of each example at
            random, after all other geometry; None: no window.
          crop_rare_classes: the share of the windows that hold a pixel of a class drawn
            among those of the example; see `data.augmentation.rare_classes`.
          num_classes: of the labels.

        Raises:
          ValueError: if a name is unknown, or a change is not for such images.
        """
        self._changes: dict[str, Any] = registry.make(strengths, image_format)
        if crop_size:
            self._changes[windows.NAME] = windows.make(crop_size)
        if crop_size and crop_rare_classes:
            self._changes[rare_classes.NAME] = rare_classes.make(
                crop_rare_classes, crop_size, num_classes
            )
        self._global_batch_size = global_batch_size
        self._seed = seed
        self._image_format = image_format

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, counters: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Augments a replica's rows of a batch.

        Args:
          images: uint8 or uint16 [rows, height, width, channels].
          labels: uint8 [rows, height, width].
          counters: int64 [rows]; see `random_uniform`.

        Returns:
          Images and labels, [rows, height, width, channels] and [rows, height, width],
          of `crop_size` if there is one. Labels are uint8. Images stay uint8 if their
          pixels are at most rearranged; otherwise they are float32.
        """
        if images.dtype == tf.uint16:  # GPUs cannot mirror or pad it.
            images = tf.cast(images, tf.float32)
        draws = random_uniform(
            counters,
            {name: change.num_draws for name, change in self._changes.items()},
            global_batch_size=self._global_batch_size,
            seed=self._seed,
        )
        images, labels = self._move(images, labels, draws)
        images = self._recolor(images, draws)
        for name, change in self._of_kind(kinds.Pixels).items():
            rows = kinds.Rows(
                step=counters[0] // self._global_batch_size,
                first_row=counters[0] % self._global_batch_size,
                key=_key(self._seed, name),
            )
            images, labels = change.change(images, labels, draws[name], rows)
        return images, labels

    @property
    def mixers(self) -> tuple[str, ...]:
        """The names of the changes that need both rows of each pair."""
        pixels = self._of_kind(kinds.Pixels)
        return tuple(name for name, change in pixels.items() if change.mixes_pairs)

    def _of_kind(self, kind: type) -> dict[str, Any]:
        return {n: c for n, c in self._changes.items() if isinstance(c, kind)}

    def _move(
        self, images: tf.Tensor, labels: tf.Tensor, draws: Mapping[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Makes all changes of geometry by one resampling."""
        changes = self._of_kind(kinds.Geometry)
        if not changes:
            return images, labels
        size = tuple(images.shape[1:3])
        composed = maps.identity(tf.shape(images)[0])
        for name, change in changes.items():
            composed = maps.compose(composed, change.map_back(draws[name], size))
        for name, change in self._of_kind(kinds.Placement).items():
            placed = change.map_back(draws[name], labels, composed)
            composed = maps.compose(composed, placed)
        target = {
            "size": next((c.new_size for c in changes.values() if c.new_size), size),
            "fill_value": self._image_format.fill_value,
        }
        is_square = size[0] == size[1]
        if not all(
            c.keeps_axes or (c.rearranges and is_square) for c in changes.values()
        ):
            return resampling.resample(images, labels, composed, **target)
        rearranges = {how for c in changes.values() for how in c.rearranges}
        if "swap" in rearranges:
            images, labels, composed = resampling.swap_axes(images, labels, composed)
        if all(c.rearranges for c in changes.values()):
            return resampling.mirror(images, labels, composed, axes=rearranges)
        return resampling.resample_lines(images, labels, composed, **target)

    def _recolor(self, images: tf.Tensor, draws: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Makes all affine changes of colours by one product."""
        changes = self._of_kind(kinds.Color)
        if not changes:
            return images
        shape = [tf.shape(images)[0], images.shape[-1]]
        means = tf.zeros(shape)
        if any(change.needs_means for change in changes.values()):
            means = color.channel_means(images)
        composed = None
        for name, change in changes.items():
            step = change.map_colors(draws[name], means)
            # The mean of what the steps so far made of the image.
            means = color.transform_means(step, means)
            composed = color.compose(step, composed) if composed else step
        return color.apply(images, composed, self._image_format.value_range)


def keep(
    images: tf.Tensor, labels: tf.Tensor, counters: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Changes nothing: the augmentation of a run without one."""
    del counters
    return images, labels
