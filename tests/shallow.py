"""Networks of one block a stage, for tests of all that happens around a network.

MobileNetV2 is traced in half the time, and has every kind of layer of the whole one,
its names, strides and options. `tests.test_encoders`, `tests.test_models`,
`tests.test_steps` and the first tests of `tests.test_main` have the whole one. ConvNeXt
is here for its strides, which begin at 4.
"""

import pathlib
import sys

import keras
import pytest

from models import scaling
from models.encoders import applications, mobilenet_v2

_STAGES = (
    # As in `mobilenet_v2`: a stage of stride 1 goes, and the repetitions of others, but
    # for one with the sum of its input and its output.
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 1, 2),
    (6, 64, 1, 2),
    (6, 160, 1, 2),
    (6, 320, 1, 1),
)


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Makes every encoder `mobilenet_v2` a short one until the patch is undone."""
    patch.setattr(mobilenet_v2, "_STAGES", _STAGES)


def shorten_convnext(patch: pytest.MonkeyPatch) -> None:
    """Makes every encoder `convnext_tiny` a short, narrow one, as `shorten` does."""
    module = sys.modules[keras.applications.ConvNeXtTiny.__module__]
    sizes = module.MODEL_CONFIGS["tiny"]
    patch.setitem(sizes, "depths", [1, 1, 1, 1])
    patch.setitem(sizes, "projection_dims", [8, 8, 16, 16])


def write_weights(path: pathlib.Path, seed: int = 3) -> None:
    """Writes random weights of the short encoder of `alpha` 0.35.

    A frozen encoder, which only one with weights can be, is traced much faster.
    """
    keras.utils.set_random_seed(seed)
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        images = keras.Input((32, 32, 3))
        image_scaling = scaling.make_image_scaling(
            applications.APPLICATIONS["mobilenet_v2"].scaling,
            scaling.RGB,
            multiple=32,
        )
        mobilenet_v2.build_mobilenet_v2(images, image_scaling, alpha=0.35).save_weights(
            path
        )
