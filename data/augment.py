"""Random changes to training examples, in batches, on the device.

Each draw is keyed by seed, step and position in the global batch, so an example is
changed in the same way whichever replica has it, and again after a resume.
"""

import tensorflow as tf


def random_uniform(
    counters: tf.Tensor, num_draws: int, *, global_batch_size: int, seed: int
) -> tf.Tensor:
    """Draws numbers for each example of a replica's rows of a batch.

    The numbers of the whole global batch are drawn, and a replica keeps those of its
    rows: some hundred numbers cost nothing, and the result does not depend on how the
    rows are shared out.

    Args:
      counters: int64 [rows], the example counters of `data.pipeline`, of one step.
      num_draws: numbers for each example.
      global_batch_size: rows of a step, over all replicas.
      seed: of the draws.

    Returns:
      float32 [rows, num_draws], uniform in [0, 1).
    """
    step = counters[0] // global_batch_size
    draws = tf.random.stateless_uniform(
        [global_batch_size, num_draws], seed=tf.stack([tf.cast(seed, tf.int64), step])
    )
    return tf.gather(draws, counters % global_batch_size)


class RandomFlip:
    """Mirrors each example left to right with probability 1/2."""

    def __init__(self, *, global_batch_size: int, seed: int):
        """Makes the augmentation.

        Args:
          global_batch_size: rows of a step, over all replicas.
          seed: of the draws.
        """
        self._global_batch_size = global_batch_size
        self._seed = seed

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, counters: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Augments a replica's rows of a batch.

        Args:
          images: [rows, height, width, channels].
          labels: [rows, height, width].
          counters: int64 [rows]; see `random_uniform`.

        Returns:
          Images and labels of the same shapes and dtypes.
        """
        draws = random_uniform(
            counters, 1, global_batch_size=self._global_batch_size, seed=self._seed
        )
        is_flipped = draws[:, 0] < 0.5
        # `Select` with one condition for each row is four times faster than
        # broadcasting the condition to every pixel, as `tf.where` does.
        return (
            tf.raw_ops.Select(
                condition=is_flipped, x=tf.reverse(images, [2]), y=images
            ),
            tf.raw_ops.Select(
                condition=is_flipped, x=tf.reverse(labels, [2]), y=labels
            ),
        )


def keep(
    images: tf.Tensor, labels: tf.Tensor, counters: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Changes nothing: the augmentation of a run without one."""
    del counters
    return images, labels
