"""CutMix: a box of each example comes from another one."""

import tensorflow as tf

from data import schema
from data.augmentation import kinds, mixing


def make(strength: float, image_format: schema.ImageFormat) -> kinds.Pixels:
    """Returns the change that pastes a box of the other row with that probability.

    The box has the shape of the example, and a share of its area that is uniform from 0
    to 1; its centre is drawn from all of the example. Image and label change alike (Yun
    et al., "CutMix: Regularization Strategy to Train Strong Classifiers with
    Localizable Features", ICCV 2019; of labels by pixels in French et al.,
    "Semi-supervised semantic segmentation needs strong, varied perturbations", 2020).
    """
    del image_format

    def change(
        images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor, rows: kinds.Rows
    ) -> tuple[tf.Tensor, tf.Tensor]:
        del rows
        is_mixed = tf.cast(draws[:, 0] < strength, tf.float32)
        sides = tf.sqrt(draws[:, 1]) * is_mixed
        is_pasted = mixing.boxes(draws[:, 2:], sides, tuple(images.shape[1:3]))
        others = mixing.partners(images), mixing.partners(labels)
        return mixing.paste(is_pasted, others, (images, labels))

    return kinds.Pixels(4, change, mixes_pairs=True)
