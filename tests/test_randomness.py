"""Random numbers belong to the rows of the global batch, whoever has these."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import layers, randomness

_ROWS = 8


def _keyed(step=3, first_row=0, num_rows=_ROWS, seed=0):
    counters = step * _ROWS + first_row + tf.range(num_rows, dtype=tf.int64)
    return randomness.keyed_by_row(counters, global_batch_size=_ROWS, seed=seed)


def _draw(row_shape=(5, 3), *, stream="a", num_rows=_ROWS, **kwargs):
    with _keyed(num_rows=num_rows, **kwargs):
        return randomness.uniform(num_rows, row_shape, stream=stream).numpy()


@pytest.mark.parametrize("row_shape", [(), (1,), (4,), (5, 3), (2, 3, 4)])
def test_a_part_of_the_rows_gets_its_part_of_the_numbers(row_shape):
    whole = _draw(row_shape)
    assert whole.shape == (_ROWS, *row_shape)
    for first, last in ((0, 4), (4, 8), (2, 4), (7, 8)):
        part = _draw(row_shape, first_row=first, num_rows=last - first)
        np.testing.assert_array_equal(part, whole[first:last])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_numbers_are_the_same_to_the_bit_with_and_without_xla(jit_compile):
    # Of what is known ahead, TensorFlow draws for XLA.
    @tf.function(input_signature=[tf.TensorSpec([], tf.int64)], jit_compile=jit_compile)
    def draw(step):
        with _keyed(step, first_row=2, num_rows=2, seed=1):
            return randomness.uniform(2, [3], stream="a")

    # As runs that were begun before have them.
    expected = [[0x48B3F9, 0x5C3FD0, 0x6504DC], [0x375372, 0x625EA4, 0x0BC0F9]]
    np.testing.assert_array_equal(draw(3), np.float32(expected) / 2**23)


@pytest.mark.parametrize(
    "change",
    [{"step": 4}, {"seed": 1}, {"stream": "b"}],
    ids=["step", "seed", "stream"],
)
def test_numbers_of_anything_else_are_others(change):
    numbers, others = _draw((500,)), _draw((500,), **change)
    assert (numbers == others).mean() < 0.001


def test_numbers_are_uniform_and_independent_from_row_to_row():
    numbers = _draw((10_000,))
    assert numbers.min() >= 0 and numbers.max() < 1
    np.testing.assert_allclose(numbers.mean(axis=1), 0.5, atol=0.02)
    correlations = np.corrcoef(numbers) - np.eye(_ROWS)
    assert np.abs(correlations).max() < 0.05


def test_sizes_that_are_known_only_later_make_no_difference():
    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
    def draw(images):
        num_rows, width = tf.unstack(tf.shape(images))
        return randomness.uniform(num_rows, [width], stream="a")

    with _keyed():
        np.testing.assert_array_equal(draw(tf.zeros([_ROWS, 7], tf.int32)), _draw((7,)))


def test_nothing_is_drawn_for_rows_that_nobody_named():
    with pytest.raises(RuntimeError, match=r"within randomness\.keyed_by_row"):
        layers.RowDropout(0.5, stream="a")(tf.ones([2, 3]), training=True)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_dropout_drops_its_share_and_scales_the_rest(policy):
    layer = layers.RowDropout(0.75, stream="a", dtype=policy)
    with _keyed():
        outputs = layer(tf.ones([_ROWS, 25, 40]), training=True)
    assert outputs.dtype == layer.compute_dtype
    np.testing.assert_array_equal(
        tf.cast(outputs, tf.float32), np.where(_draw((25, 40)) >= 0.75, 4.0, 0.0)
    )


def test_a_noise_shape_of_rows_drops_whole_rows():
    layer = layers.RowDropout(0.5, stream="a", noise_shape=(None, 1, 1, 1))
    inputs = 1 + np.arange(_ROWS * 12, dtype=np.float32).reshape(_ROWS, 2, 2, 3)
    with _keyed():
        outputs = layer(inputs, training=True)
    is_kept = _draw((1, 1, 1)) >= 0.5
    assert 0 < is_kept.sum() < _ROWS
    np.testing.assert_array_equal(outputs, np.where(is_kept, 2 * inputs, 0))


@pytest.mark.parametrize("what", ["inference", "frozen", "no rate"])
def test_nothing_is_dropped(what):
    layer = layers.RowDropout(0.0 if what == "no rate" else 0.5, stream="a")
    layer.trainable = what != "frozen"
    inputs = np.arange(6, dtype=np.float32)
    with _keyed():
        np.testing.assert_array_equal(
            layer(inputs, training=what != "inference"), inputs
        )


def test_a_layer_is_made_again_of_its_settings():
    layer = layers.RowDropout(0.5, stream="a", noise_shape=(None, 1))
    assert (
        keras.layers.deserialize(
            keras.layers.serialize(layer),
            custom_objects={"RowDropout": layers.RowDropout},
        ).get_config()
        == layer.get_config()
    )
