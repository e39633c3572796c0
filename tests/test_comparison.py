"""`--against=fit` gives Keras the examples of the run, each once in an evaluation."""

import types

import numpy as np

from data import pipeline
from tests import helpers
from trainer import comparison


def _make_datasets(num_examples, batch_size):
    examples = helpers.make_store(num_examples=num_examples, ignored=0.2)
    config = types.SimpleNamespace(
        train=types.SimpleNamespace(batch_size=batch_size),
        run=types.SimpleNamespace(seed=3),
    )
    setup = types.SimpleNamespace(
        config=config,
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
