"""Exported files as trained models: what a run's model does, they do in its place."""

import importlib
import threading

import numpy as np
import tensorflow as tf

from data import schema
from trainer import errors
from trainer.assembly import trained_model
from trainer.exporting import description, registry
from trainer.settings import config as config_lib
from trainer.settings import fields, file_limits


def load(about: description.Model) -> trained_model.TrainedModel:
    """Loads an exported file, by the format's own runtime; not in a strategy's scope.

    Args:
      about: the file; see `description.read_model`.

    Raises:
      errors.ConfigError: if a package that runs the format is not installed.
      errors.ExportError: if it cannot be run here.
    """
    if package := registry.find_missing_package(about.format):
        fields.reject_missing(
            "model", str(about.folder), about.format, package, registry.EXTRA
        )
    settings = about.settings
    image_format = schema.ImageFormat(
        settings["image_channels"], settings["image_range"]
    )
    model = _FileModel(about, image_format)
    return trained_model.TrainedModel(
        model=model,
        class_names=about.class_names,
        palette=about.palette,
        image_size=settings["image_size"],
        image_format=image_format,
        resize=settings["resize"],
        checkpoint=about.folder,
        step=about.step,
        weights=about.weights,
        uses_averages=about.uses_averages,
        build_for_any_size=lambda: model,  # `check` lets it see its own alone.
        gives_probabilities=model.gives_probabilities,
    )


class _FileModel:
    """What is in a file, called as a Keras model is.

    Attributes:
      gives_probabilities: whether the softmax of what it gives are probabilities.
    """

    def __init__(self, about: description.Model, image_format: schema.ImageFormat):
        kind = registry.FORMATS[about.format]
        module = importlib.import_module(kind.module)
        load_file = module.load_graph if kind.runs_in_graph else module.load
        shape = (1, *about.settings["image_size"], image_format.num_channels)
        blank = np.zeros(shape, image_format.dtype)
        try:
            self._run = load_file(str(about.folder))
            outputs = self._run(tf.constant(blank) if kind.runs_in_graph else blank)
        except Exception as error:  # Of runtimes, which raise what they like.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise errors.ExportError(
                f"--model={about.folder}: {about.format} cannot be run here "
                f"({reason}); export the model again."
            ) from error
        self._is_graph = kind.runs_in_graph
        self._num_classes = len(about.class_names)
        self._output = next(
            name for name in ("logits", "probabilities", "labels") if name in outputs
        )
        self.gives_probabilities = self._output != "labels"
        self._lock = threading.Lock()  # One interpreter for all replicas.

    def __call__(self, images: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        """Returns logits, float32 [batch, height, width, classes].

        Of a file that gives labels alone, they are 1 for the label and 0 for the
        others.
        """
        del training
        if self._is_graph:
            output = self._run(images)[self._output]
        else:
            dtype = tf.float32 if self.gives_probabilities else tf.uint8
            output = tf.numpy_function(self._run_alone, [images], dtype)
        if self._output == "labels":
            output = tf.one_hot(output, self._num_classes)
        elif self._output == "probabilities":
            # The logarithm of 0 would be no number to resize.
            output = tf.math.log(tf.maximum(output, np.finfo(np.float32).tiny))
        return tf.ensure_shape(output, [*images.shape[:3], self._num_classes])

    def _run_alone(self, images: np.ndarray) -> np.ndarray:
        with self._lock:
            return self._run(images)[self._output]


def check(config: config_lib.Config, trained: trained_model.TrainedModel) -> None:
    """Checks that a file can do what the settings of the mode ask for.

    Raises:
      errors.ConfigError: if it cannot.
    """
    settings = config.as_dict()
    for name in file_limits.ASKED[config.run.mode]:
        limit = file_limits.find(
            name,
            settings[name],
            trained.image_size,
            gives_scores=trained.gives_probabilities,
        )
        if limit:
            rule = f"{config.run.model} {limit.reason}; {limit.remedy}"
            fields.reject(name, settings[name], rule)
