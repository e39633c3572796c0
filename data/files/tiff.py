"""TIFF files that Pillow does not read: of many bands, or of 16 bits in colour."""

import contextlib
import io
import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data import schema

if TYPE_CHECKING:
    import tifffile

_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of TIFF and BigTIFF files, of either order of bytes."""

_KINDS = {1: "", 2: "signed ", 3: "float "}
"""What to call the values by the tag SampleFormat (TIFF 6.0, section 19)."""

_ONE_BAND_AFTER_THE_OTHER = 2
"""A value of the tag PlanarConfiguration (TIFF 6.0, section 8)."""

_WHITE_IS_ZERO = 0
"""A value of the tag PhotometricInterpretation (TIFF 6.0, section 3)."""

_ASSOCIATED_ALPHA = 1
"""A value of the tag ExtraSamples (TIFF 6.0, section 18)."""


class Layout(NamedTuple):
    """What the tags of the first picture in a TIFF file say.

    Attributes:
      size: height and width as stored.
      num_bands: values of each pixel.
      bits: of each value.
      kind: of the values: `signed `, `float ` or nothing for the usual ones.
      orientation: how viewers turn it; see `images.Header`.
      is_planar: whether each band is stored as a picture of its own.
      is_premultiplied: whether one of the bands is alpha, by which the others are
        multiplied.
      is_inverted: whether 0 is white.
    """

    size: tuple[int, int]
    num_bands: int
    bits: int
    kind: str
    orientation: int
    is_planar: bool = False
    is_premultiplied: bool = False
    is_inverted: bool = False

    @property
    def is_signed(self) -> bool:
        """Whether values may be negative."""
        return self.kind == _KINDS[2]

    @property
    def has_usual_values(self) -> bool:
        """Whether images and masks may have them: unsigned, of 8 or 16 bits."""
        return not self.kind and self.bits in (8, 16)

    def __str__(self) -> str:
        height, width = self.size
        bands = f"{self.num_bands} band{'s' * (self.num_bands > 1)}"
        return (
            f"a TIFF file of {height}x{width} pixels with {bands} of {self.bits} "
            f"{self.kind}bits"
        )


def read_layout(encoded: bytes) -> Layout | None:
    """Reads the tags of a TIFF file; returns None for another or a damaged one."""
    if encoded[:4] not in _SIGNATURES:
        return None
    try:
        with _first_page(encoded) as page:
            orientation = page.tags.valueof(274, 1)
            # Of a damaged file, a number can be a row of numbers: an error here.
            layout = Layout(
                size=(
                    operator.index(page.imagelength),
                    operator.index(page.imagewidth),
                ),
                num_bands=operator.index(page.samplesperpixel),
                bits=operator.index(page.bitspersample),
                kind=_KINDS.get(int(page.sampleformat), "unusual "),
                orientation=orientation if orientation in range(1, 9) else 1,
                is_planar=page.planarconfig == _ONE_BAND_AFTER_THE_OTHER,
                is_premultiplied=_ASSOCIATED_ALPHA in page.extrasamples,
                is_inverted=page.photometric == _WHITE_IS_ZERO,
            )
    except Exception:  # A damaged file shows as many kinds of error.
        return None
    return layout if min(layout.size) > 0 else None


def load_bands(encoded: bytes) -> np.ndarray:
    """Decodes the first picture of a TIFF file, as it is stored, without turning it.

    Strips and tiles are read, bands stored pixel by pixel or one after the other,
    uncompressed or by deflate, LZMA or PackBits; for LZW, JPEG and others the package
    `imagecodecs` must be installed. Of several pictures, this is the first.

    Returns:
      uint8 or uint16 [height, width, bands].

    Raises:
      schema.DataError: if the file is damaged, of a compression that cannot be read, or
        of values that are not 8 or 16 bits.
    """
    layout = read_layout(encoded)
    if layout is None or not layout.has_usual_values:
        raise schema.DataError(
            f"it is {layout or 'a damaged TIFF file'}; store images with 8 or 16 bits",
            kind="image_format",
        )
    compression = ""
    try:
        with _first_page(encoded) as page:
            compression = getattr(page.compression, "name", str(page.compression))
            pixels = page.asarray()
            axes = page.axes
    except Exception as error:  # As above.
        if _lacks_codec(error):
            raise schema.DataError(
                f"it is compressed by {compression}, which only the package "
                "imagecodecs reads; run `pip install imagecodecs`, or write the file "
                "with deflate",
                kind="image_format",
            ) from error
        raise schema.DataError(
            f"it cannot be decoded ({error})", kind="damaged_file"
        ) from error
    if axes.startswith("S"):  # One band after the other.
        pixels = np.moveaxis(pixels, 0, -1)
    shape = (*layout.size, layout.num_bands)
    if pixels.size != np.prod(shape):
        raise schema.DataError(
            f"it is {layout}, but holds {pixels.size:,} values", kind="damaged_file"
        )
    return np.ascontiguousarray(pixels.reshape(shape))  # [height, width, bands]


@contextlib.contextmanager
def _first_page(encoded: bytes) -> "Iterator[tifffile.TiffPage]":
    import tifffile

    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        yield file.pages[0]


def _lacks_codec(error: Exception) -> bool:
    """Tells whether an error is of a compression that tifffile needs a package for.

    Of Zstandard, it asks for a module that Python has from version 3.14 on.
    """
    return isinstance(error, ImportError) or "imagecodecs" in str(error)
