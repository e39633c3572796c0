"""From encoded examples to uint8 arrays of one size, checked."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from data import schema

_VALID, _SIZES_DIFFER, _LABEL_OUT_OF_RANGE, _NOT_GRAY_PNG = range(4)

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_GRAY_8_BIT = (8, 0)
"""Bit depth and colour type, bytes 24 and 25 of a PNG file, that decode as they are.
TensorFlow turns a palette into luminance and cuts 16 bits to 8 without a word."""


@dataclasses.dataclass(frozen=True)
class Preprocessor:
    """Decodes and resizes an example and maps its labels.

    Attributes:
      image_size: height and width of what comes out.
      num_classes: classes that masks may hold.
      label_offset: added to each mask value to get the class.
      ignore_label: mask value, before the offset, that becomes
        `schema.IGNORE_LABEL`.
    """

    image_size: tuple[int, int]
    num_classes: int
    label_offset: int = 0
    ignore_label: int = schema.IGNORE_LABEL

    def __call__(self, example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Preprocesses one example, in a graph.

        Args:
          example: `image` and `label` as bytes of a file or as uint8 pixels; see
            `schema.Source.examples`.

        Returns:
          `image`, uint8 [height, width, 3], by antialiased bilinear resizing;
          `label`, uint8 [height, width], by nearest-neighbour resizing;
          `name`, a string; and `problem`, an int32 that is 0 if all is well and
          otherwise what `explain` puts into words.
        """
        image, label = _decode_image(example["image"]), _decode_label(example["label"])
        classes, is_known = self._map_labels(label)
        problem = tf.where(tf.reduce_all(is_known), _VALID, _LABEL_OUT_OF_RANGE)
        same_size = tf.reduce_all(tf.shape(image)[:2] == tf.shape(label)[:2])
        problem = tf.where(same_size, problem, _SIZES_DIFFER)
        if example["label"].dtype == tf.string:
            problem = tf.where(_is_plain(example["label"]), problem, _NOT_GRAY_PNG)
        return {
            "image": self._resize_image(image),
            "label": self._resize_label(classes),
            "name": example["name"],
            "problem": problem,
        }

    def explain(self, example: dict[str, Any]) -> str:
        """Says what is wrong with an example whose `problem` is not 0.

        Args:
          example: what went into the call, as NumPy values.
        """
        example = {key: tf.constant(value) for key, value in example.items()}
        problem = int(self(example)["problem"])
        if problem == _NOT_GRAY_PNG:
            return (
                "the mask is a PNG with a palette, with colours or not of 8 bits: "
                "decoding would change its values; store masks as 8-bit grayscale"
            )
        image, label = _decode_image(example["image"]), _decode_label(example["label"])
        if problem == _SIZES_DIFFER:
            return (
                f"the image has {image.shape[0]}x{image.shape[1]} pixels, its mask "
                f"{label.shape[0]}x{label.shape[1]}; the two must agree"
            )
        values = [int(value) for value in np.unique(label)]
        rest = [value for value in values if value != self.ignore_label]
        advice = ""
        if rest and rest[-1] - rest[0] < self.num_classes:
            advice = f"; did you mean --label_offset={-rest[0]}?"
        return (
            f"the mask holds the values {', '.join(map(str, values))}; with "
            f"--label_offset={self.label_offset} and --ignore_label="
            f"{self.ignore_label} they must give classes 0 to {self.num_classes - 1} "
            f"(--num_classes={self.num_classes}){advice}"
        )

    def _map_labels(self, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the class of each pixel, and whether its value is allowed."""
        raw = tf.cast(label, tf.int32)
        is_ignored = raw == self.ignore_label
        classes = raw + self.label_offset
        is_known = is_ignored | ((classes >= 0) & (classes < self.num_classes))
        classes = tf.where(is_ignored, schema.IGNORE_LABEL, classes)
        return tf.cast(classes, tf.uint8), is_known

    def _resize_image(self, image: tf.Tensor) -> tf.Tensor:
        if image.shape[:2] == self.image_size:
            return image
        resized = tf.image.resize(image, self.image_size, "bilinear", antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)

    def _resize_label(self, label: tf.Tensor) -> tf.Tensor:
        # Any other method would invent labels between those of the mask.
        resized = tf.image.resize(label[..., tf.newaxis], self.image_size, "nearest")
        return resized[..., 0]


def _decode_image(image: tf.Tensor) -> tf.Tensor:
    """Returns uint8 [height, width, 3]."""
    if image.dtype != tf.string:
        return image
    decoded = tf.io.decode_image(image, channels=3, expand_animations=False)
    return tf.ensure_shape(decoded, [None, None, 3])


def _decode_label(label: tf.Tensor) -> tf.Tensor:
    """Returns uint8 [height, width]."""
    if label.dtype != tf.string:
        return label
    decoded = tf.io.decode_image(label, channels=1, expand_animations=False)
    return tf.ensure_shape(decoded, [None, None, 1])[..., 0]


def _is_plain(label: tf.Tensor) -> tf.Tensor:
    """Tells whether decoding an encoded mask keeps its values as they are."""
    is_png = tf.strings.substr(label, 0, 8) == _PNG_SIGNATURE
    header = tf.io.decode_raw(tf.strings.substr(label, 24, 2), tf.uint8)
    return ~is_png | tf.reduce_all(header == tf.constant(_PNG_GRAY_8_BIT, tf.uint8))
