"""A fingerprint of decoded examples: it differs where any pixel may differ."""

import dataclasses
import hashlib
import json

from data import schema
from data.preparing import preprocessing

_FORMAT_VERSION = 3
"""Raise it when preprocessing gives other pixels, so that no old file is used."""


def make_fingerprint(
    source: schema.Source, preprocessor: preprocessing.Preprocessor
) -> str:
    """Returns hexadecimal digits that differ where any decoded pixel may differ."""
    settings = dataclasses.asdict(preprocessor)
    is_reordered = preprocessor.reordered_offset is not None
    if not is_reordered or preprocessor.ignore_label not in dict(
        preprocessor.label_map
    ):
        del settings["reordered_offset"]  # It changes no pixel then.
    description = [_FORMAT_VERSION, source.fingerprint, settings]
    return hashlib.sha256(json.dumps(description).encode()).hexdigest()[:16]
