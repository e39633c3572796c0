"""What holds for every member of a registry that has no file of such tests.

Encoders are in `test_encoders`, decoders in `test_decoders`, the terms of losses in
`test_loss_registry`.
"""

import importlib
import inspect

import numpy as np
import pytest
import tensorflow as tf

from data.sources import registry as source_registry
from trainer.metrics import registry as metric_registry
from trainer.settings import modes

_NAMES = ("a", "b", "c")
_IGNORED = 255


@pytest.mark.parametrize("mode", modes.MODES)
def test_a_mode_is_a_function_of_the_settings(mode):
    module = importlib.import_module(modes.MODES[mode].module)
    parameters = inspect.signature(module.run).parameters.values()
    needed = [one.name for one in parameters if one.default is one.empty]
    assert needed == ["config"]


@pytest.mark.parametrize("kind", source_registry.SOURCES)
def test_a_source_opens_a_split(kind):
    module = importlib.import_module(source_registry.SOURCES[kind].module)
    assert list(inspect.signature(module.open_split).parameters) == ["request"]


def _make(name):
    (metric,) = metric_registry.make([name], _NAMES)
    return metric


def _draw():
    """Draws labels, uint8 [4, 20, 24], and logits of three classes."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 3, (4, 5, 6))
    labels = np.kron(blocks, np.ones((1, 4, 4), int)).astype(np.uint8)
    labels[random.random(labels.shape) < 0.1] = _IGNORED
    return labels, random.normal(size=(*labels.shape, 3)).astype(np.float32)


@pytest.mark.parametrize("name", metric_registry.METRICS)
def test_counts_of_batches_add_up_until_they_are_reset(name):
    labels, logits = _draw()
    whole, parts = _make(name), _make(name)
    whole.update(labels, logits)
    for rows in (slice(0, 1), slice(1, 4)):
        parts.update(labels[rows], logits[rows])
    assert whole.counts().any()
    np.testing.assert_array_equal(parts.counts(), whole.counts())
    scores = whole.result()
    assert all(isinstance(value, float) for value in scores.values())
    assert whole.titles.keys() <= scores.keys()
    whole.reset()
    assert not whole.counts().any()
    assert all(np.isnan(value) for value in whole.result().values())


@pytest.mark.parametrize("name", metric_registry.METRICS)
def test_logits_of_ignored_pixels_change_no_count(name):
    labels, logits = _draw()
    expected, metric = _make(name), _make(name)
    expected.update(labels, logits)
    is_ignored = (labels == _IGNORED)[..., np.newaxis]
    metric.update(labels, np.where(is_ignored, 9 - 50 * logits, logits))
    np.testing.assert_array_equal(metric.counts(), expected.counts())


@pytest.mark.parametrize("name", metric_registry.METRICS)
def test_a_metric_is_traced_for_any_size(name):
    labels, logits = _draw()
    expected, metric = _make(name), _make(name)
    expected.update(labels, logits)
    update = tf.function(
        metric.update,
        input_signature=[
            tf.TensorSpec([None, None, None], tf.uint8),
            tf.TensorSpec([None, None, None, 3], tf.float32),
        ],
    )
    update(labels, logits)
    np.testing.assert_array_equal(metric.counts(), expected.counts())
