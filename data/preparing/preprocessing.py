"""From encoded examples to arrays of small integers, of one size, checked."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from data import schema
from data.files import decoding, graph_decoding, mask_values, palettes
from data.preparing import resizing

UNKNOWN = -1
"""What `Preprocessor.class_table` has for a value that is no class."""


def clip_image(image: tf.Tensor, image_format: schema.ImageFormat) -> tf.Tensor:
    """Takes values beyond the range for the nearest in it.

    Args:
      image: of the type that the format names, of any shape.
      image_format: whose range it is.
    """
    if image_format.is_whole:
        return image
    return tf.clip_by_value(
        image, *np.array(image_format.value_range, image_format.dtype)
    )


@dataclasses.dataclass(frozen=True)
class Preprocessor:
    """Decodes and resizes an example and maps its labels.

    Attributes:
      image_size: height and width of what comes out; None: of the example itself.
      num_classes: classes that masks may hold.
      label_offset: added to each mask value to get the class.
      ignore_label: mask value, before the offset, that becomes
        `schema.IGNORE_LABEL`.
      label_map: pairs of a mask value and its class or `schema.IGNORE_LABEL`; if not
        empty, in place of `label_offset`, and before `ignore_label` unless there is a
        `reordered_offset`.
      label_colors: colours of the masks and the value of each, if they hold colours.
      resize: how examples come to that size; one of `resizing.METHODS`.
      image_format: what images are decoded to; values beyond its range count as the
        nearest in it.
      reordered_offset: see `schema.DatasetInfo`.
    """

    image_size: tuple[int, int] | None
    num_classes: int
    label_offset: int = 0
    ignore_label: int = schema.IGNORE_LABEL
    label_map: tuple[tuple[int, int], ...] = ()
    label_colors: tuple[palettes.ColorValue, ...] = ()
    resize: str = "stretch"
    image_format: schema.ImageFormat = schema.RGB
    reordered_offset: int | None = None

    def __call__(
        self, example: dict[str, tf.Tensor], *, catches_errors: bool = False
    ) -> dict[str, tf.Tensor]:
        """Preprocesses one example, in a graph.

        Args:
          example: `image` and `label` as bytes of a file or as pixels; see
            `schema.Source.examples`.
          catches_errors: see `graph_decoding.decode_pair_in_graph`.

        Returns:
          `image`, uint8 or uint16 [height, width, channels] as `image_format` says, and
          `label`, uint8 [height, width]; both of `image_size`, or of the example's own
          size if that is None. `name`, a string. `problem`, an int32: 0 if all is
          well, else 1; then the image is blank, all pixels are ignored, and `explain`
          says in words what is wrong.
        """
        image, values, is_valid = graph_decoding.decode_pair_in_graph(
            example["image"],
            example["label"],
            self.label_colors,
            self.image_format,
            catches_errors=catches_errors,
        )
        is_valid &= self._has_classes(values)
        fill_value = self.image_format.fill_value
        if self.image_size:
            # Before the look-up, which takes longer than all the rest of a mask.
            image = resizing.resize_image(
                image, self.image_size, self.resize, fill_value=fill_value
            )
            values = resizing.resize_labels(
                values, self.image_size, self.resize, ignored=palettes.IGNORED_VALUE
            )
        image = clip_image(image, self.image_format)
        label = tf.cast(tf.gather(self.class_table, values), tf.uint8)
        # Not `tf.where`, which takes as long as decoding.
        image, label = tf.cond(
            is_valid,
            lambda: (image, label),
            lambda: (
                tf.fill(tf.shape(image), tf.cast(fill_value, image.dtype)),
                tf.fill(tf.shape(label), np.uint8(schema.IGNORE_LABEL)),
            ),
        )
        return {
            "image": image,
            "label": label,
            "name": example["name"],
            "problem": tf.where(is_valid, 0, 1),
        }

    def _has_classes(self, values: tf.Tensor) -> tf.Tensor:
        """Tells, bool scalar, whether every value of a mask has a class."""
        values = tf.reshape(values, [-1])
        size = tf.reduce_max(values) + 1
        is_present = tf.raw_ops.DenseBincount(
            input=values, size=size, weights=tf.zeros([0], tf.int32), binary_output=True
        )
        is_known = tf.constant(self.class_table != UNKNOWN)[:size]
        return tf.reduce_all(is_known | (is_present == 0))

    def explain(self, example: dict[str, Any]) -> schema.DataError | None:
        """Says what is wrong with an example, whether its `problem` is known or not.

        Values that have no class get no remedy here: what suits one mask may lose the
        labels of others.

        Args:
          example: what goes into the call, as NumPy values.

        Returns:
          An error of one sentence without a full stop; None if all is well.
        """
        try:
            _, values = decoding.decode_pair(
                example["image"],
                example["label"],
                self.label_colors,
                self.image_format,
            )
        except schema.DataError as error:
            return error
        diagnosis = self.diagnose(mask_values.count(values))
        if diagnosis is None:
            return None
        message = str(diagnosis)
        if diagnosis.kind in mask_values.KINDS:
            message = f"{diagnosis.sentence}; {mask_values.SEE_DOCTOR}"
        return schema.DataError(message, kind=diagnosis.kind)

    def diagnose(
        self, counts: Mapping[int, int], **details: Any
    ) -> mask_values.Diagnosis | None:
        """Says what is wrong with mask values; `details` as `mask_values.diagnose`."""
        unknown = [value for value in counts if self.class_table[value] == UNKNOWN]
        return mask_values.diagnose(counts, unknown, self.convention, **details)

    @property
    def convention(self) -> mask_values.Convention:
        """What the settings say of mask values."""
        is_reordered = self.reordered_offset is not None
        return mask_values.Convention(
            num_classes=self.num_classes,
            label_offset=self.reordered_offset if is_reordered else self.label_offset,
            ignore_label=self.ignore_label,
            has_label_map=bool(self.label_map) and not is_reordered,
            order=self.label_map if is_reordered else (),
            label_colors=self.label_colors,
        )

    @functools.cached_property
    def class_table(self) -> np.ndarray:
        """The class of each mask value, int32 [65537], or `UNKNOWN`."""
        table = np.full(palettes.IGNORED_VALUE + 1, UNKNOWN, np.int32)
        table[palettes.IGNORED_VALUE] = schema.IGNORE_LABEL
        if not self.label_map:
            for label in range(self.num_classes):
                value = label - self.label_offset
                if 0 <= value < palettes.IGNORED_VALUE:
                    table[value] = label
        table[self.ignore_label] = schema.IGNORE_LABEL
        for value, label in self.label_map:
            table[value] = label
        if self.reordered_offset is not None:
            # Who only puts classes in another order has not said that this is one.
            table[self.ignore_label] = schema.IGNORE_LABEL
        return table
