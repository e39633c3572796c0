"""Which range of values the images of a data set are kept in."""

import contextlib
from collections.abc import Iterator

from absl import logging

from data import schema
from data.files import images
from data.preparing import samples

_RANGES = {8: (0, 255), 16: (0, 65535)}


def find_range(source: schema.Source) -> tuple[int, int]:
    """Returns the range of values that a source's images are kept in.

    It is that of 16 bits if all images that are looked at have 16 bits, else that of 8
    bits. If any image has 16 bits, the log says what is done.

    Args:
      source: the examples, of which a few are looked at; see `samples.read_some`.
    """
    bits = list(_read_bits(source))
    num_wide = sum(one > 8 for one in bits)
    if not num_wide:
        return _RANGES[8]
    if num_wide == len(bits):
        logging.info(
            "%s: the images have 16 bits and are kept so; --image_range=0,65535 unless "
            "you give another.",
            source.name,
        )
        return _RANGES[16]
    logging.warning(
        "%s: of %d images that were looked at, %d have 16 bits and the others 8. All "
        "are kept in 8, of 16 bits the upper 8; to keep 16, write all with 16.",
        source.name,
        len(bits),
        num_wide,
    )
    return _RANGES[8]


def _read_bits(source: schema.Source) -> Iterator[int]:
    """Yields the bits of some images; what cannot be read is passed over."""
    for example in samples.read_some(source):
        image = example["image"]
        if not isinstance(image, bytes):  # All are of one type.
            yield 8 * image.dtype.itemsize
            return
        with contextlib.suppress(schema.DataError):  # Decoding says what is wrong.
            yield images.read_header(image).bits
