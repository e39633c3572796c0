"""Learning-rate schedules."""

import math

import keras
import tensorflow as tf


class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up, then a constant, cosine or polynomial course.

    With w warm-up steps, n steps in all and peak p, step k = 0, 1, ... has

        k < w:   p * (k + 1) / w
        k >= w:  p * decay((k - w) / (n - w)),

    where decay(x) is 1 (constant), (1 + cos(pi x)) / 2 (cosine; Loshchilov & Hutter,
    ICLR 2017, without restarts) or (1 - x)^power (polynomial). Past step n it stays at
    decay(1).

    The length may be a variable, so that a step that is traced serves any length.

    A schedule, even of a constant, is no variable: a checkpoint does not hold it, so
    that `--learning_rate` counts after a resume as well.
    """

    def __init__(
        self,
        peak: float,
        *,
        decay: str,
        num_steps: int | tf.Variable,
        warmup_steps: int = 0,
        power: float = 1.0,
    ):
        """Makes a schedule.

        Args:
          peak: the highest learning rate.
          decay: `constant`, `cosine` or `polynomial`.
          num_steps: length of the run, more than `warmup_steps`; an integer variable
            counts as it is when the rate is asked for.
          warmup_steps: length of the warm-up.
          power: exponent of the polynomial.
        """
        self._peak = peak
        self._decay = decay
        self._num_steps = num_steps
        self._warmup_steps = warmup_steps
        self._power = power

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, keras.config.floatx())
        span = tf.cast(self._num_steps - self._warmup_steps, step.dtype)
        span = tf.maximum(span, 1.0)
        x = tf.clip_by_value((step - self._warmup_steps) / span, 0.0, 1.0)
        factor = {
            "constant": lambda: tf.ones_like(x),
            "cosine": lambda: (1 + tf.cos(math.pi * x)) / 2,
            "polynomial": lambda: (1 - x) ** self._power,
        }[self._decay]()
        warmup = (step + 1) / max(self._warmup_steps, 1)
        return self._peak * tf.where(step < self._warmup_steps, warmup, factor)

    def get_config(self):
        return {
            "peak": self._peak,
            "decay": self._decay,
            "num_steps": int(self._num_steps),
            "warmup_steps": self._warmup_steps,
            "power": self._power,
        }
