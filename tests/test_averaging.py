"""Test-time augmentation: the mean of the probabilities for variants of an image."""

import importlib
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from data import pipeline
from data.preparing import bad_examples, preprocessing, resizing
from data.stores import native, store
from tests import helpers, shallow
from trainer import flags
from trainer.settings import modes
from trainer.settings import variants as variants_lib
from trainer.steps import averaging

_WORDS = ("flip", "0.75", "1.6")


def _run(*arguments):
    config, _ = flags.read_config(arguments)
    with pytest.MonkeyPatch.context() as patch:
        shallow.shorten(patch)
        importlib.import_module(modes.MODES[config.run.mode].module).run(config)


@pytest.fixture(name="model")
def _model():
    keras.utils.set_random_seed(0)
    return helpers.build_tiny()


def _draw_images(dtype="uint8", shape=(2, 20, 30, 3)):
    return np.random.default_rng(5).uniform(0, 255, shape).astype(dtype)


def _softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _mean_probabilities(model, images, words):
    """Takes the mean as the definition says, one variant after the other."""
    size, dtype = images.shape[1:3], images.dtype
    scales = [1.0, *(float(word) for word in words if word != "flip")]
    found = []
    for scale in scales:
        for is_mirrored in {False, "flip" in words}:
            shape = [math.floor(side * scale + 0.5) for side in size]
            shown = tf.image.resize(images, shape, antialias=True).numpy()
            if dtype != np.float32:
                shown = shown.round().astype(dtype)
            if is_mirrored:
                shown = shown[:, :, ::-1]
            logits = model.predict(shown, verbose=0)
            probabilities = _softmax(tf.image.resize(logits, size).numpy())
            found.append(probabilities[:, :, ::-1] if is_mirrored else probabilities)
    return np.mean(found, axis=0)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("words", [("flip",), ("0.75", "1.6"), _WORDS], ids=",".join)
def test_it_is_the_mean_over_the_variants_one_by_one(model, words, dtype):
    images = _draw_images(dtype)
    averaged = averaging.Averaged(model, variants_lib.parse(words))
    found = averaged(tf.constant(images), training=False)
    expected = _mean_probabilities(model, images, words)
    np.testing.assert_allclose(np.exp(found), expected, atol=2e-4)
    np.testing.assert_allclose(tf.nn.softmax(found), expected, atol=2e-4)
    assert abs(expected - _mean_probabilities(model, images, ())).max() > 0.01


def test_the_mirror_image_gives_the_mirrored_prediction(model):
    images = tf.constant(_draw_images())
    averaged = averaging.Averaged(model, variants_lib.parse(_WORDS))
    mirrored = averaged(images[:, :, ::-1])
    np.testing.assert_allclose(mirrored[:, :, ::-1], averaged(images), atol=1e-3)
    assert (
        abs(model(images[:, :, ::-1])[:, :, ::-1] - model(images)).numpy().max() > 0.1
    )


@pytest.mark.parametrize("size", [(5, 8), (9, 29), (20, 30), (33, 61), (80, 120)])
def test_images_are_resized_as_tensorflow_does(size):
    images = tf.constant(_draw_images("float32"))
    expected = tf.image.resize(images, size, "bilinear", antialias=True)
    np.testing.assert_allclose(averaging._resize(images, size), expected, atol=1e-2)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_variants_are_of_the_type_of_the_images(dtype):
    images = np.arange(24).reshape(1, 2, 4, 3).astype(dtype)
    seen = []

    def model(images, training):
        seen.append(images)
        return tf.cast(images, tf.float32)

    averaged = averaging.Averaged(model, variants_lib.parse(("flip", "0.5")))
    averaged(tf.constant(images))
    assert [shown.dtype for shown in seen] == 4 * [images.dtype]
    np.testing.assert_array_equal(seen[1], images[:, :, ::-1])


def test_sizes_are_rounded_to_whole_pixels():
    assert averaging.scaled_size((45, 70), 0.75) == (34, 53)  # Of 33.75 and 52.5.
    assert averaging.scaled_size((1, 2), 0.25) == (1, 1)


def test_a_class_without_a_chance_has_a_finite_logarithm():
    averaged = averaging.Averaged(
        lambda images, training: tf.constant([500.0, -500.0]) * images,
        variants_lib.Variants(is_mirrored=True),
    )
    found = averaged(tf.ones([1, 2, 2, 2]))
    np.testing.assert_allclose(found[0, 0, 0], [0, -1000])


def _score(replicas, examples, words):
    strategy = helpers.make_strategy(replicas)
    model, loop, confusion = helpers.make_eval_loop(strategy, examples, tta=words)
    num_batches = pipeline.num_eval_batches(len(examples), 4)
    loop.score(helpers.evaluation_batches(strategy, examples, 4), num_batches)
    return model, loop, confusion


def test_evaluation_scores_the_mean_on_any_number_of_replicas():
    examples = helpers.make_store(num_examples=10)
    words = ("flip", "0.75")
    model, loop, confusion = _score(1, examples, words)
    _, other_loop, other_confusion = _score(2, examples, words)

    expected = _mean_probabilities(model, examples.images, words)
    predicted = expected.argmax(axis=-1)
    counts = np.zeros([3, 3], np.int64)
    np.add.at(counts, (examples.labels, predicted), 1)
    assert abs(confusion.counts() - counts).sum() <= 4  # Of 10,240 pixels, near ties.
    np.testing.assert_array_equal(confusion.counts(), other_confusion.counts())
    likelihoods = np.take_along_axis(expected, examples.labels[..., None], axis=-1)
    loss = -np.log(likelihoods).mean()
    for scored in (loop, other_loop):
        np.testing.assert_allclose(scored.result()["loss"], loss, rtol=1e-4)
    drawn = loop.predict(tf.constant(examples.images))
    assert (drawn.numpy() != predicted).sum() <= 4


def test_native_sizes_are_restored_from_the_mean(tmp_path):
    source = helpers.FileSource(tmp_path, 3)
    preprocessor = preprocessing.Preprocessor((32, 32), 3)
    policy = bad_examples.STOP
    examples = store.open_store(source, preprocessor, bad_examples=policy)
    examples = native.add_native_labels(examples, source, preprocessor, policy)
    model, _, confusion = _score(1, examples, ("flip",))
    averaged = averaging.Averaged(model, variants_lib.parse(("flip",)))
    expected = np.zeros([3, 3], np.int64)
    for index, mask in enumerate(source.masks):
        label = tf.io.decode_png(tf.io.read_file(mask))[..., 0].numpy()
        image = examples.examples.images[index : index + 1]
        native_logits = resizing.restore_size(
            averaged(tf.constant(image))[0], tf.constant(label.shape), "stretch"
        )
        np.add.at(expected, (label, native_logits.numpy().argmax(axis=-1)), 1)
    np.testing.assert_array_equal(confusion.counts(), expected)


def test_training_scores_other_sizes_than_it_trains_on_in_half_precision(tmp_path):
    shallow.write_weights(tmp_path / "encoder.weights.h5")
    common = [f"--model_dir={tmp_path / 'run'}", "--mixed_precision=bfloat16"]
    _run(
        *common,
        "--dataset=synthetic",
        "--image_size=32,40",
        "--encoder_alpha=0.35",
        f"--encoder_weights={tmp_path / 'encoder.weights.h5'}",
        "--decoder_filters=8,8,8,8",
        "--batch_size=8",
        "--train_steps=1",
        "--learning_rate=1e-3",
        "--summary_images=0",
        "--tta=0.5",
    )
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    trained = json.loads(text.splitlines()[-1])
    _run("--mode=evaluate", *common, "--tta=")
    plain = json.loads((tmp_path / "run" / "evaluations.jsonl").read_text())
    assert np.isfinite(trained["loss"])
    tag = "iou/background"
    assert abs(plain["scores"][tag] - trained[tag]) > 0.01
