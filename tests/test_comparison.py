"""`--against=fit` gives Keras the examples of the run, each once in an evaluation."""

import types

import numpy as np
import pytest

from data import pipeline
from tests import helpers
from trainer import errors
from trainer.benchmarking import comparison
from trainer.settings import config as config_lib


def _make_datasets(num_examples, batch_size):
    examples = helpers.make_store(num_examples=num_examples, ignored=0.2)
    setup = types.SimpleNamespace(
        batch_size=batch_size,
        seed=3,
        examples=examples,
        evaluation=types.SimpleNamespace(examples=examples),
    )
    return examples, *comparison.make_datasets(setup)


def _without_ignored(labels):
    return np.where(labels == 255, 0, labels)


def test_keras_trains_on_the_batches_of_the_run():
    examples, training, _ = _make_datasets(num_examples=6, batch_size=4)

    for step, (images, labels) in enumerate(training.take(3).as_numpy_iterator()):
        ids = pipeline.step_ids(step, num_examples=6, global_batch_size=4, seed=3)
        np.testing.assert_array_equal(images, examples.images[ids])
        np.testing.assert_array_equal(labels, _without_ignored(examples.labels[ids]))


def test_keras_evaluates_each_example_once():
    examples, _, evaluation = _make_datasets(num_examples=6, batch_size=4)

    batches = list(evaluation.as_numpy_iterator())

    assert [len(images) for images, _ in batches] == [4, 2]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    np.testing.assert_array_equal(images, examples.images)
    np.testing.assert_array_equal(labels, _without_ignored(examples.labels))


def test_the_end_of_keras_iterators_waits_for_no_tuner():
    _, *datasets = _make_datasets(num_examples=6, batch_size=4)
    assert [d.options().autotune.enabled for d in datasets] == [False, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoder": "fpn"}, "^--decoder=fpn: --against=fit .* use --decoder=pix2pix"),
        ({"decoder_norm": "group"}, "^--decoder_norm=group: .* with batch norm; leave"),
        ({"decoder_dropout": 0.5}, "^--decoder_dropout=0.5: .* without dropout; leave"),
    ],
)
def test_what_keras_twin_does_not_have_is_refused(settings, message):
    config = config_lib.from_dict({"model_dir": "x", **settings})
    with pytest.raises(errors.ConfigError, match=message):
        comparison.check(config)


@pytest.mark.parametrize("encoder", ["mobilenet_v2", "resnet50", "efficientnetv2_b0"])
@pytest.mark.parametrize("decoder", ["pix2pix", "tensorflow_examples"])
def test_what_keras_twin_has_is_compared(encoder, decoder):
    settings = {"model_dir": "x", "encoder": encoder, "decoder": decoder}
    comparison.check(config_lib.from_dict(settings))
