"""Data that settings name by URLs, as local files."""

import os
import re
from typing import Any

from data.sources import registry
from trainer.remote import mirrors, stores
from trainer.settings import data as data_settings


def find_folder(settings: data_settings.DataConfig) -> str:
    """Returns the folder of the data, downloaded if it is a remote one.

    Raises:
      errors.RunError: if it cannot be.
    """
    kind, name = registry.parse(settings.dataset)
    folder = settings.data_dir
    if kind != "tfds":
        return mirrors.fetch(folder, "data_dir")
    if stores.scheme_of(folder) in ("", "gs"):
        return folder  # TFDS reads and writes there by itself.
    # Of all data sets there, this one.
    url = f"{folder.rstrip('/')}/{re.split('[/:]', name)[0]}"
    return os.path.dirname(mirrors.fetch(url, "data_dir"))


def find_label_files(settings: data_settings.DataConfig) -> dict[str, Any]:
    """Returns the settings that may name files, by their names, the files downloaded.

    Raises:
      errors.RunError: if they cannot be.
    """
    names = settings.class_names
    if names and len(names) == 1:  # A file of names.
        names = (mirrors.fetch_file(names[0], "class_names"),)
    return {
        "class_names": names,
        "label_colors": mirrors.fetch_file(settings.label_colors, "label_colors"),
        "label_map": mirrors.fetch_file(settings.label_map, "label_map"),
    }
