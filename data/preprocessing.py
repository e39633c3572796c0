"""From encoded examples to uint8 arrays of one size, checked."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from data import decoding, palettes, schema

_UNKNOWN = -1
_MAX_VALUES_SHOWN = 12


@dataclasses.dataclass(frozen=True)
class Preprocessor:
    """Decodes and resizes an example and maps its labels.

    Attributes:
      image_size: height and width of what comes out.
      num_classes: classes that masks may hold.
      label_offset: added to each mask value to get the class.
      ignore_label: mask value, before the offset, that becomes
        `schema.IGNORE_LABEL`.
      label_map: pairs of a mask value and its class or `schema.IGNORE_LABEL`; if not
        empty, in place of `label_offset`, and before `ignore_label`.
      label_colors: colours of the masks and the value of each, if they hold colours.
    """

    image_size: tuple[int, int]
    num_classes: int
    label_offset: int = 0
    ignore_label: int = schema.IGNORE_LABEL
    label_map: tuple[tuple[int, int], ...] = ()
    label_colors: tuple[palettes.ColorValue, ...] = ()

    def __call__(self, example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Preprocesses one example, in a graph.

        Args:
          example: `image` and `label` as bytes of a file or as pixels; see
            `schema.Source.examples`.

        Returns:
          `image`, uint8 [height, width, 3], by antialiased bilinear resizing;
          `label`, uint8 [height, width], by nearest-neighbour resizing;
          `name`, a string; and `problem`, an int32 that is 0 if all is well and
          otherwise 1: `explain` puts it into words.
        """
        image, values, is_valid = decoding.decode(
            example["image"], example["label"], self.label_colors
        )
        classes = tf.gather(self._make_table(), values)
        is_valid &= tf.reduce_all(classes != _UNKNOWN)
        return {
            "image": self._resize_image(image),
            "label": self._resize_label(tf.cast(classes, tf.uint8)),
            "name": example["name"],
            "problem": tf.where(is_valid, 0, 1),
        }

    def explain(self, example: dict[str, Any]) -> str:
        """Says what is wrong with an example, whether its `problem` is known or not.

        Args:
          example: what goes into the call, as NumPy values.

        Returns:
          One sentence without a full stop, or nothing if all is well.
        """
        try:
            _, values = decoding.decode_pair(
                example["image"], example["label"], self.label_colors
            )
        except schema.DataError as error:
            return str(error)
        found = np.unique(values)
        unknown = found[self._make_table()[found] == _UNKNOWN]
        if not unknown.size:
            return ""
        if self.label_map:
            return (
                f"the mask holds the values {_join(found)}, of which --label_map does "
                f"not list {_join(unknown)}; add a row for each"
            )
        rest = [int(value) for value in found if value != self.ignore_label]
        advice = ""
        if rest[-1] - rest[0] < self.num_classes:
            advice = f"; did you mean --label_offset={-rest[0]}?"
        return (
            f"the mask holds the values {_join(found)}; with "
            f"--label_offset={self.label_offset} and --ignore_label="
            f"{self.ignore_label} they must give classes 0 to {self.num_classes - 1} "
            f"(--num_classes={self.num_classes}){advice}"
        )

    def _make_table(self) -> np.ndarray:
        """Returns the class of each mask value, int32, `_UNKNOWN` where it has none."""
        table = np.full(palettes.IGNORED_VALUE + 1, _UNKNOWN, np.int32)
        table[palettes.IGNORED_VALUE] = schema.IGNORE_LABEL
        if not self.label_map:
            for label in range(self.num_classes):
                value = label - self.label_offset
                if 0 <= value < palettes.IGNORED_VALUE:
                    table[value] = label
        table[self.ignore_label] = schema.IGNORE_LABEL
        for value, label in self.label_map:
            table[value] = label
        return table

    def _resize_image(self, image: tf.Tensor) -> tf.Tensor:
        if image.shape[:2] == self.image_size:
            return image
        resized = tf.image.resize(image, self.image_size, "bilinear", antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)

    def _resize_label(self, label: tf.Tensor) -> tf.Tensor:
        # Any other method would invent labels between those of the mask.
        resized = tf.image.resize(label[..., tf.newaxis], self.image_size, "nearest")
        return resized[..., 0]


def _join(values: np.ndarray) -> str:
    """Lists mask values, an ignored colour left out."""
    shown = [str(value) for value in values if value != palettes.IGNORED_VALUE]
    rest = len(shown) - _MAX_VALUES_SHOWN
    if rest > 0:
        shown = [*shown[:_MAX_VALUES_SHOWN], f"{rest} more up to {shown[-1]}"]
    return ", ".join(shown)
