"""The ImageNet weights that Keras has downloaded already."""

import os
import pathlib
import re
from collections.abc import Collection
from typing import NamedTuple

from models import registry
from models.encoders import applications
from trainer.settings import model as model_settings


class Cached(NamedTuple):
    """What there is of the weights of an encoder.

    Attributes:
      is_there: whether there are any, so that none need to be downloaded.
      file: what to name with `--encoder_weights`, where the files of some sizes are
        missing; empty: they are all there, or Keras has one file for all sizes.
    """

    is_there: bool
    file: str = ""


def find(
    settings: model_settings.ModelConfig,
    image_sizes: Collection[tuple[int | None, int | None]],
) -> Cached:
    """Looks for the initial weights that a model asks for.

    Args:
      settings: of the model; only ImageNet weights of Keras are looked for, as a run,
        a preset and a file bring their own.
      image_sizes: heights and widths of what the model may be built for; None: any.
    """
    if settings.init_checkpoint:
        return Cached(True)
    if settings.encoder_weights != "imagenet" or registry.library_of(settings.encoder):
        return Cached(settings.encoder_weights != "none")
    paths = _list_files(settings)
    sizes = applications.APPLICATIONS[settings.encoder].weight_sizes
    if not paths or not sizes:
        return Cached(bool(paths))
    by_size = {n: path for path in paths for n in sizes if f"_{n}_" in path.name}
    # Images that are no square of one of these sizes get the weights of the largest.
    needed = {
        height if height == width and height in sizes else max(sizes)
        for height, width in image_sizes
    }
    if needed <= by_size.keys():
        return Cached(True)
    return Cached(bool(by_size), str(by_size[max(by_size)]) if by_size else "")


def _list_files(settings: model_settings.ModelConfig) -> list[pathlib.Path]:
    """Lists the files of an encoder's weights, of its width, without the classifier."""
    home = os.environ.get("KERAS_HOME", os.path.expanduser("~/.keras"))
    name = settings.encoder.replace("_", "")
    # What follows in the names of Keras' files: of resnet50 there is a second version.
    pattern = re.compile(f"{name}(weights|notop|224)")
    width = ""
    if "alpha" in registry.options_of(settings.encoder):
        width = f"_{float(settings.encoder_alpha)}_"
    return [
        path
        for path in sorted(pathlib.Path(home, "models").glob("*.h5"))
        if "notop" in (plain := re.sub(r"[^a-z0-9]", "", path.name))
        and pattern.search(plain)
        and width in path.name
    ]
