"""What each pair of parts must get through: built, trained, saved, restored, used.

One step of training, of the same global batch on one replica and on two, must leave
the same weights. The run folder of the two then gives a model that takes images of any
size, and predicts what the trained one does. All of it is done by what the modes do it
by, at a size that no stride divides.

In float64: gradients through fifty batch norms of few pixels magnify rounding. And
without graphs, which take longer to trace than to run once.
"""

import contextlib
import gc
import pathlib
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.sources import synthetic
from models import registry
from tests import helpers
from trainer import flags
from trainer.assembly import inputs, restoring, training
from trainer.run_folder import checkpointing, dataset, run_settings
from trainer.settings import config as config_lib
from trainer.steps import training as training_steps

_IMAGE_SIZE = (45, 61)
_FLAGS = (
    "--dataset=synthetic",
    f"--image_size={_IMAGE_SIZE[0]},{_IMAGE_SIZE[1]}",
    "--nofreeze_encoder",
    "--encoder_weights=none",
    "--batch_size=2",
    "--optimizer=sgd",
    "--momentum=0",
    "--learning_rate=0.01",  # More, and the statistics no longer fit the weights.
    "--train_epochs=0",
    "--train_steps=1",
)
_FILTERS = (8, 6, 4, 4)


class Pair(NamedTuple):
    """An encoder and a decoder.

    Attributes:
      encoder: a key of `registry.ENCODERS`.
      decoder: a key of `registry.DECODERS`.
      output_stride: bound on the encoder's strides; None: its own.
    """

    encoder: str
    decoder: str
    output_stride: int | None = None

    def flags(self) -> list[str]:
        """Returns the flags that ask for it, narrow where it can be."""
        strides = registry.strides_of(
            self.encoder, {"output_stride": self.output_stride}
        )
        count = len(registry.DECODERS[self.decoder].default_filters(strides))
        filters = ",".join(str(number) for number in _FILTERS[:count])
        bound = self.output_stride
        is_scaled = self.encoder in registry.encoders_with("alpha")
        return [
            f"--encoder={self.encoder}",
            f"--decoder={self.decoder}",
            f"--decoder_filters={filters}",
            *(["--encoder_alpha=0.5"] if is_scaled else []),
            *([f"--encoder_output_stride={bound}"] if bound else []),
        ]


@contextlib.contextmanager
def cheaply() -> Iterator[None]:
    """Gives a context for `check` and `check_folder`: few examples, no graphs."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not apply to tf.data functions")
        patch.setattr(synthetic, "NUM_EXAMPLES", {"train": 2, "test": 1})
        # It traces the step ahead.
        patch.setattr(training_steps.TrainLoop, "prepare", lambda *_: None)
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(False)
            gc.collect()  # Models refer to themselves, and may fill a GB.


def check(pair: Pair, folder: pathlib.Path) -> None:
    """Takes a pair through all that a run does with a model; call it in `cheaply`.

    Sets Keras' policy to float64.

    Args:
      pair: of parts.
      folder: for the files of the run; there is none yet.

    Raises:
      errors.ConfigError: if the pair is refused.
      AssertionError: if it does not give the numbers that it must.
    """
    config = _read_config(pair, folder)
    one = _prepare(config, num_replicas=1)
    before = one.state.model.get_weights()
    _train_a_step(one)
    two = _prepare(config, num_replicas=2)
    _train_a_step(two)
    after = one.state.model.get_weights()
    _assert_moved_alike(before, after, two.state.model.get_weights())
    _save(config, two)
    _assert_restored_predicts_as(two, folder)


def check_folder(pair: Pair, folder: pathlib.Path) -> None:
    """Saves a model of a pair and takes it from its run's folder, as `check` does.

    Where others have tested how the parts are trained: it has weights of no training.
    """
    config = _read_config(pair, folder)
    setup = _prepare(config, num_replicas=1)
    model, generator = setup.state.model, np.random.default_rng(6)
    # Moving statistics, too, are then others than those of a new model.
    shaken = [w + generator.uniform(0, 0.1, w.shape) for w in model.get_weights()]
    model.set_weights(shaken)
    _save(config, setup)
    _assert_restored_predicts_as(setup, folder)


def _read_config(pair: Pair, folder: pathlib.Path) -> config_lib.Config:
    arguments = [f"--model_dir={folder}", "--mode=train", *_FLAGS, *pair.flags()]
    return flags.read_config(arguments).config


def _prepare(config: config_lib.Config, *, num_replicas: int) -> training.TrainSetup:
    keras.config.set_dtype_policy("float64")
    keras.utils.set_random_seed(config.run.seed)
    strategy = helpers.make_strategy(num_replicas)
    stop_requested = tf.Variable(False, trainable=False)
    return training.prepare_training(config, strategy, stop_requested)


def _train_a_step(setup: training.TrainSetup) -> None:
    result = setup.train_loop.run(setup.make_iterator(0), tf.constant(1))
    assert bool(result.is_finite)


def _assert_moved_alike(
    before: list[np.ndarray], one: list[np.ndarray], two: list[np.ndarray]
) -> None:
    """Asserts that weights have moved, on two replicas as on one up to rounding."""
    moves = [np.abs(b - a).max() for a, b in zip(before, one, strict=True)]
    assert np.mean(np.array(moves) > 0) > 0.9
    for move, value, other in zip(moves, one, two, strict=True):
        # Some gradients are sums that come to nothing, but for rounding.
        tolerance = 1e-5 * move + 1e-9
        np.testing.assert_allclose(other, value, rtol=0, atol=tolerance)


def _save(config: config_lib.Config, setup: training.TrainSetup) -> None:
    """Writes the folder of a run, as training does."""
    config = inputs.with_image_range(config, setup.info)
    folder = config.run.model_dir
    checkpointing.Checkpointer(
        folder,
        state=setup.state.to_save(),
        identity={
            **config.identity(),
            "class_names": list(setup.info.class_names),
            "train_examples": setup.examples.fingerprint,
        },
        max_to_keep=1,
    ).save()
    run_settings.write(folder, config)
    described = dataset.describe(
        setup.info,
        dataset=config.data.dataset,
        split=setup.examples.name,
        ignore_label=config.data.ignore_label,
    )
    dataset.write(folder, described)


def _assert_restored_predicts_as(
    setup: training.TrainSetup, folder: pathlib.Path
) -> None:
    """Asserts that the folder alone gives a model with the trained one's logits."""
    config = flags.read_config([f"--model_dir={folder}", "--mode=evaluate"]).config
    restored = restoring.restore(
        restoring.find_run(str(folder)),
        config,
        setup.info.image_format,
        takes_any_size=True,
    )
    images = np.random.default_rng(4).integers(0, 256, (2, *_IMAGE_SIZE, 3), np.uint8)
    expected = np.asarray(setup.state.model(images, training=False))
    logits = np.asarray(restored.model(images, training=False))
    assert expected.shape == (2, *_IMAGE_SIZE, setup.info.num_classes)
    assert np.std(expected) > 0 and np.isfinite(expected).all()
    tolerance = 1e-6 * np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=tolerance)
