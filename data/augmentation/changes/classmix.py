"""ClassMix: some classes of each example come from another one."""

import tensorflow as tf

from data import schema
from data.augmentation import kinds, mixing

_NUM_LABELS = 256


def make(strength: float, image_format: schema.ImageFormat) -> kinds.Pixels:
    """Returns the change that pastes classes of the other row with that probability.

    Each class is pasted or not with probability 1/2: the pixels that have it in the
    other row, image and label. Ignored pixels never are (after Olsson et al.,
    "ClassMix: Segmentation-Based Data Augmentation for Semi-Supervised Learning", WACV
    2021, where it is half of the classes).
    """
    del image_format

    def change(
        images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor, rows: kinds.Rows
    ) -> tuple[tf.Tensor, tf.Tensor]:
        del rows
        is_mixed = draws[:, :1] < strength
        is_class = tf.range(_NUM_LABELS) != schema.IGNORE_LABEL
        is_chosen = (draws[:, 1:] < 0.5) & is_mixed & is_class
        others = mixing.partners(images), mixing.partners(labels)
        # GPUs have no kernel that gathers bool.
        chosen = tf.gather(
            tf.cast(is_chosen, tf.float32), tf.cast(others[1], tf.int32), batch_dims=1
        )
        return mixing.paste(chosen > 0, others, (images, labels))

    return kinds.Pixels(1 + _NUM_LABELS, change, mixes_pairs=True)
