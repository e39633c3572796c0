"""BMP files that Pillow misreads: palettes of gray with other bits than it takes."""

from typing import TYPE_CHECKING

from data import schema

if TYPE_CHECKING:
    import PIL.Image

_BITS = {"1": 1, "L": 8}
"""How many bits a pixel Pillow reads, by the pixel format that it announces."""

_OLD_HEADER_SIZE = 12
"""Of OS/2 1.x, with two bytes for width and height in place of four."""


def check(image: "PIL.Image.Image", encoded: bytes) -> None:
    """Refuses a file of which Pillow would read other pixels, without an error.

    By a palette of black and white alone, or of the grays 0, 1, 2 and so on, it chooses
    1 or 8 bits a pixel, whatever the header says; it writes such files itself.

    Args:
      image: opened by Pillow, of format BMP.
      encoded: the file.

    Raises:
      schema.DataError: if the file has other bits.
    """
    header_size = int.from_bytes(encoded[14:18], "little")
    place = 24 if header_size == _OLD_HEADER_SIZE else 28
    bits = int.from_bytes(encoded[place : place + 2], "little")
    if image.info["compression"] == 0 and bits != _BITS.get(image.mode, bits):
        raise schema.DataError(
            f"it is a BMP file of {bits} bits a pixel and a gray palette, which Pillow "
            f"misreads as {_BITS[image.mode]} bit{'s' * (image.mode == 'L')} a pixel; "
            "write it as PNG",
            kind="unsupported_bits",
        )
