"""Features in 8 bits have the range of the least error."""

import numpy as np
import pytest

from trainer.exporting import feature_ranges, lite_layers

_NUM_BINS = 1400


def _error(values, low, high):
    """Rounds to 255 steps from low to high, 0 among them; returns the squared error."""
    step = (high - low) / 255
    zero = round(low / step)
    rounded = np.clip(np.round(values / step), zero, zero + 255) * step
    return ((values - rounded) ** 2).mean()


_DRAWN = np.random.default_rng(0).laplace(size=200_000)  # A few values are large.
_EVEN = np.linspace(0, 1, 200_000)


@pytest.mark.parametrize(
    ("values", "is_narrower"),
    [(_DRAWN, True), (np.maximum(_DRAWN, 0), True), (_EVEN, False)],
    ids=["both", "relu", "even"],
)
def test_no_other_share_of_the_range_makes_a_smaller_error(values, is_narrower):
    low, high = values.min(), values.max()
    counts, _ = np.histogram(values, _NUM_BINS, (low, high))
    start, end = feature_ranges.choose_range(counts, low, high)
    share = end / high
    assert start == pytest.approx(low * share)
    assert (share < 0.9) == is_narrower
    shares = np.linspace(0.3, 1.0, 36)
    errors = [_error(values, low * share, high * share) for share in shares]
    assert _error(values, start, end) == pytest.approx(min(errors))


def test_what_the_converter_took_for_values_is_measured_anew(monkeypatch):
    flatbuffers = pytest.importorskip("flatbuffers")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    tensor = schema.TensorT()
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.min, tensor.quantization.max = [-50.0], [70.0]
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.buffers, model.subgraphs, graph.tensors = (
        [schema.BufferT()],
        [graph],
        [tensor],
    )
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    photos = np.stack([_EVEN, -_EVEN / 2])
    monkeypatch.setattr(
        lite_layers,
        "run",
        lambda content, photos: ([photo].__getitem__ for photo in photos),
    )
    narrowed = feature_ranges.narrow(bytes(builder.Output()), photos)
    (tensor,) = schema.ModelT.InitFromPackedBuf(narrowed).subgraphs[0].tensors
    assert tensor.quantization.min == pytest.approx([-0.5])
    assert tensor.quantization.max == pytest.approx([1.0])
