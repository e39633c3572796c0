"""A stand-in is like the real thing, wherever that is there."""

import importlib
import importlib.util

import numpy as np
import pytest
from absl import flags as absl_flags

from tests import stand_ins


def _describe(pix2pix, flags_before):
    """Returns a block's output and the shapes of its weights, and all flags defined."""
    block = pix2pix.upsample(4, 3)
    block.build((None, 5, 6, 3))
    random = np.random.default_rng(0)
    weights = [random.uniform(0.5, 1.5, w.shape) for w in block.get_weights()]
    block.set_weights(weights)
    output = block(random.normal(size=(2, 5, 6, 3)).astype(np.float32))
    defined = set(absl_flags.FLAGS) - flags_before
    return output, [w.shape for w in weights], defined


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_examples") is None,
    reason="needs the package tensorflow_examples, which is on GitHub only",
)
def test_the_stand_in_for_tensorflow_examples_does_what_that_does(
    tmp_path, monkeypatch
):
    flags_before = set(absl_flags.FLAGS)
    with stand_ins.forgetting_imports():
        expected = _describe(importlib.import_module(stand_ins.MODULE), flags_before)
    stand_ins.install(tmp_path, monkeypatch)
    with stand_ins.forgetting_imports():
        found = _describe(importlib.import_module(stand_ins.MODULE), flags_before)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-5)
    assert found[1:] == expected[1:]
