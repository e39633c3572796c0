"""What the headers of TIFF files say that Pillow does not open."""

import struct

_FORMATS = {3: "H", 4: "I"}
"""SHORT and LONG, of all types of entries."""
_WIDTH, _HEIGHT, _BITS, _BANDS, _SAMPLE_FORMAT = 256, 257, 258, 277, 339


def describe(encoded: bytes) -> str:
    """Describes the first picture of a TIFF file; nothing of another or damaged one.

    A directory is a list of entries of 12 bytes: tag, type, count, and the value or
    where it is (TIFF 6.0, section 2).
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(encoded[:4])
    if order is None:
        return ""
    try:
        tags = _read_directory(encoded, order)
    except struct.error:
        return ""
    if _WIDTH not in tags or _HEIGHT not in tags:
        return ""
    bands, bits = tags.get(_BANDS, 1), tags.get(_BITS, 1)
    kind = {2: "signed ", 3: "float "}.get(tags.get(_SAMPLE_FORMAT, 1), "")
    return (
        f"a TIFF file of {tags[_HEIGHT]}x{tags[_WIDTH]} pixels with {bands} "
        f"band{'s' if bands > 1 else ''} of {bits} {kind}bits"
    )


def _read_directory(encoded: bytes, order: str) -> dict[int, int]:
    """Returns the first number of each entry by its tag.

    Raises:
      struct.error: if it leads out of the file.
    """
    (place,) = struct.unpack_from(f"{order}I", encoded, 4)
    (count,) = struct.unpack_from(f"{order}H", encoded, place)
    tags = {}
    for start in range(place + 2, place + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", encoded, start)
        if kind not in _FORMATS or not number:
            continue
        code, where = order + _FORMATS[kind], start + 8
        if number * struct.calcsize(code) > 4:
            (where,) = struct.unpack_from(f"{order}I", encoded, where)
        (tags[tag],) = struct.unpack_from(code, encoded, where)
    return tags
