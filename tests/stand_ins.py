"""Stands in for the package `tensorflow_examples`, where that is not installed.

`test_stand_ins` compares it with the real one, which is on GitHub only.
"""

import contextlib
import importlib.util
import pathlib
import sys
from collections.abc import Iterator

import pytest
from absl import flags as absl_flags

MODULE = "tensorflow_examples.models.pix2pix.pix2pix"

_STAND_IN = '''
"""Stands in for the module of the `tensorflow_examples` package, flags included."""

import tensorflow as tf
from absl import flags

flags.DEFINE_integer("buffer_size", 400, "Shuffle buffer size")
flags.DEFINE_integer("batch_size", 1, "Batch Size")
flags.DEFINE_integer("epochs", 1, "Number of epochs")
flags.DEFINE_string("path", None, "Path to the data folder")
flags.DEFINE_boolean("enable_function", True, "Enable Function?")


def upsample(filters, size, norm_type="batchnorm", apply_dropout=False):
    assert norm_type == "batchnorm" and not apply_dropout
    result = tf.keras.Sequential()
    result.add(
        tf.keras.layers.Conv2DTranspose(
            filters,
            size,
            strides=2,
            padding="same",
            kernel_initializer=tf.random_normal_initializer(0.0, 0.02),
            use_bias=False,
        )
    )
    result.add(tf.keras.layers.BatchNormalization())
    result.add(tf.keras.layers.ReLU())
    return result
'''


def write_package(folder, code: str) -> None:
    """Writes a package `tensorflow_examples` with one module."""
    folder = folder / "tensorflow_examples"
    for part in ("models", "pix2pix"):
        folder.mkdir()
        (folder / "__init__.py").touch()
        folder = folder / part
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "pix2pix.py").write_text(code)


def install(folder: pathlib.Path, patch: pytest.MonkeyPatch) -> None:
    """Puts the stand-in, written into a folder, where Python looks first."""
    write_package(folder, _STAND_IN)
    patch.syspath_prepend(folder)


def install_if_missing(folder: pathlib.Path, patch: pytest.MonkeyPatch) -> None:
    """Installs the stand-in unless the real package is there."""
    if importlib.util.find_spec("tensorflow_examples") is None:
        install(folder, patch)


@contextlib.contextmanager
def forgetting_imports() -> Iterator[None]:
    """Forgets, at the end, a package that was imported in it, and its flags."""
    flags_before = set(absl_flags.FLAGS)
    yield
    for name in [n for n in sys.modules if n.startswith("tensorflow_examples")]:
        del sys.modules[name]
    for name in set(absl_flags.FLAGS) - flags_before:
        delattr(absl_flags.FLAGS, name)


@pytest.fixture
def forgetting():
    """Forgets, after the test, the package that it imported and the flags of that."""
    with forgetting_imports():
        yield


@pytest.fixture
def pix2pix(forgetting, tmp_path, monkeypatch):
    """Returns the module of `tensorflow_examples`, or a stand-in if that is not there.

    It is imported anew, and defines its flags, among which is a `batch_size`.
    """
    install_if_missing(tmp_path, monkeypatch)
    return importlib.import_module(MODULE)
