"""The formats that models can be exported to, by names alone."""

import importlib.util
from typing import NamedTuple

EXTRA = "export"
"""Of this package, that brings what the formats need."""


class Format(NamedTuple):
    """A format of exported files.

    Attributes:
      module: what to import when it is asked for; see `trainer.exporting.formats`.
      about: what `--help` says of it.
      packages: those that write and run it, beside TensorFlow, as they are imported.
      runtime: the package that runs it, as pip knows it.
      least_agreement: share of the valid pixels whose label must be that of the model
        that it is made of, or the file is not published.
      takes_any_size: whether images may have other sizes than the model's.
      is_calibrated: whether it is made with the help of training photos.
      runs_in_graph: whether TensorFlow runs it, by `load_graph` of its module, as a
        part of what it computes.
      always_gives_scores: whether a file gives the scores of all classes without
        `--export_probabilities`, too.
    """

    module: str
    about: str
    packages: tuple[str, ...] = ()
    runtime: str = "tensorflow"
    least_agreement: float = 0.999
    takes_any_size: bool = False
    is_calibrated: bool = False
    runs_in_graph: bool = False
    always_gives_scores: bool = False


FORMATS = {
    "saved_model": Format(
        "trainer.exporting.formats.saved_model",
        "for TensorFlow and its Serving; takes photos of any size",
        takes_any_size=True,
        runs_in_graph=True,
    ),
    "keras": Format(
        "trainer.exporting.formats.keras_file",
        "a file of Keras' own layers",
        runtime="keras",
        runs_in_graph=True,
        always_gives_scores=True,
    ),
    "litert": Format(
        "trainer.exporting.formats.litert",
        "LiteRT, the former TensorFlow Lite",
        packages=("ai_edge_litert",),
        runtime="ai-edge-litert",
    ),
    "litert_int8": Format(
        "trainer.exporting.formats.litert_int8",
        "LiteRT in 8 bits, calibrated by training photos",
        packages=("ai_edge_litert",),
        runtime="ai-edge-litert",
        least_agreement=0.99,
        is_calibrated=True,
    ),
    "onnx": Format(
        "trainer.exporting.formats.onnx_file",
        "ONNX",
        packages=("tf2onnx", "onnx", "onnxruntime"),
        runtime="onnxruntime",
    ),
}


def find_missing_package(name: str) -> str:
    """Returns a package that a format lacks here; "" if there are all."""
    for package in FORMATS[name].packages:
        if importlib.util.find_spec(package) is None:
            return package
    return ""


def describe() -> str:
    """Lists the formats for `--help`."""
    return ", ".join(f"{name} ({kind.about})" for name, kind in FORMATS.items())
