"""One step is what it says, on every number of replicas."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from data import pipeline
from data.stores import store
from models import layers
from tests import helpers, shallow
from trainer import errors
from trainer.losses import cross_entropy, term, weighted_sum
from trainer.losses import registry as loss_registry
from trainer.metrics import confusion as confusion_lib
from trainer.optimizing import optimization
from trainer.steps import gradients


def _only(loss_term: term.Term) -> weighted_sum.WeightedSum:
    """Makes a loss of one term."""
    return weighted_sum.WeightedSum({"ce": weighted_sum.Weighted(1.0, loss_term)})


def _assert_close(actual, expected, rtol):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


def _tutorial_model(decoder_filters=(16, 8, 8, 8)):
    """Builds the tutorial's model as the tutorial does, in plain Keras."""
    base = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), alpha=0.35, include_top=False, weights=None
    )
    names = ["block_1_expand_relu", "block_3_expand_relu", "block_6_expand_relu"]
    names += ["block_13_expand_relu", "block_16_project"]
    down = keras.Model(base.input, [base.get_layer(name).output for name in names])
    down.trainable = False
    inputs = keras.Input((32, 32, 3))
    *skips, x = down(keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs))
    for filters, skip in zip(decoder_filters, reversed(skips), strict=True):
        up = keras.Sequential()
        up.add(
            keras.layers.Conv2DTranspose(
                filters, 3, strides=2, padding="same", use_bias=False
            )
        )
        up.add(keras.layers.BatchNormalization())
        up.add(keras.layers.ReLU())
        x = keras.layers.Concatenate()([up(x), skip])
    x = keras.layers.Conv2DTranspose(3, 3, strides=2, padding="same")(x)
    return keras.Model(inputs, x)


def _fit(initial, examples, optimizer, *, perturb=False):
    """Runs `model.fit` for five batches; returns their losses and the weights."""
    model = _tutorial_model()
    model.set_weights(initial)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    def as_pair(batch):
        image = tf.cast(batch["image"], keras.config.floatx())
        if perturb:  # By one unit in the last place.
            image = image * (1 + np.finfo(keras.config.floatx()).eps)
        return image, batch["label"]

    dataset = pipeline.make_train_dataset(examples, global_batch_size=4, seed=0)
    history = model.fit(
        dataset.map(as_pair), steps_per_epoch=1, epochs=5, verbose=0, shuffle=False
    )
    return history.history["loss"], model.get_weights()


def _build_frozen(replicas):
    return helpers.build_unet(replicas=replicas, freeze_encoder=True)


def _five_steps(examples, optimizer, policy):
    """Runs this package's loop; returns initial weights, losses and weights."""
    rig = helpers.Rig(
        examples,
        build=_build_frozen,
        optimizer=optimizer,
        learning_rate=0.01,
        batch_size=4,
        policy=policy,
        average_warmup=False,
    )
    initial = rig.model.get_weights()
    return initial, rig.train(5), rig.model.get_weights()


def _keras_optimizer(name, beta_2=0.999):
    if name == "sgd":
        return keras.optimizers.SGD(0.01, momentum=0.9)
    return keras.optimizers.Adam(0.01, beta_2=beta_2)


@pytest.mark.cross_section
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_five_steps_equal_model_fit_in_float64(optimizer):
    keras.config.set_floatx("float64")
    examples = helpers.make_store()
    initial, our_losses, ours = _five_steps(examples, optimizer, "float64")
    fit_losses, theirs = _fit(initial, examples, _keras_optimizer(optimizer))
    np.testing.assert_allclose(our_losses, fit_losses, rtol=1e-9)
    _assert_close(ours, theirs, 1e-7)
    assert np.abs(ours[-1] - initial[-1]).max() > 1e-3  # Training moved them.


def test_five_steps_in_float32_are_as_near_to_model_fit_as_one_ulp():
    examples = helpers.make_store()
    initial, our_losses, ours = _five_steps(examples, "adam", "float32")
    fit_losses, theirs = _fit(initial, examples, _keras_optimizer("adam"))
    # Keras rounds 1 - 0.999, TensorFlow's op rounds 0.999.
    beta_2 = np.nextafter(np.float32(0.999), np.float32(1))
    shaken_optimizer = _keras_optimizer("adam", beta_2=float(beta_2))
    _, shaken = _fit(initial, examples, shaken_optimizer, perturb=True)

    def distance(a, b):
        return max(
            np.abs(x - y).max() / np.abs(y).max()
            for x, y in zip(a, b, strict=True)
            if np.abs(y).max() > 0
        )

    np.testing.assert_allclose(our_losses, fit_losses, rtol=1e-4)
    assert distance(ours, theirs) <= 4 * distance(shaken, theirs)


@pytest.mark.parametrize("replicas", [2, 4])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_replicas_train_as_one_device(replicas, optimizer):
    # Ignored pixels are spread unevenly over the rows: means of means would differ.
    examples = helpers.make_store(ignored=0.3)
    examples = helpers.relabel(examples, np.s_[::3, :20], 255)
    kwargs = {"optimizer": optimizer, "flip": True, "global_clipnorm": 0.05}
    one = helpers.Rig(examples, **kwargs)
    several = helpers.Rig(examples, replicas=replicas, **kwargs)
    np.testing.assert_allclose(several.train(6), one.train(6), rtol=2e-5)
    _assert_close(several.weights(), one.weights(), 2e-3)
    np.testing.assert_array_equal(several.confusion.counts(), one.confusion.counts())


def test_replicas_train_as_one_device_with_class_weights():
    # Class 2, the heaviest, is in the upper rows of some examples only.
    examples = helpers.relabel(helpers.make_store(), np.s_[::3, :20], 2)
    weights = (0.01, 0.1, 5.0)
    one = helpers.Rig(examples, class_weights=weights)
    several = helpers.Rig(examples, class_weights=weights, replicas=2)
    unweighted = helpers.Rig(examples)
    np.testing.assert_allclose(several.train(6), one.train(6), rtol=2e-5)
    _assert_close(several.weights(), one.weights(), 2e-3)
    assert not np.allclose(unweighted.train(6), one.train(6), rtol=0.05)


@pytest.mark.parametrize("replicas", [2, 4])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_replicas_train_as_one_device_in_reduced_precision(replicas, policy):
    """Up to the rounding of 8 and 11 bits: sums are taken in another order."""
    examples = helpers.make_store(ignored=0.3)
    examples = helpers.relabel(examples, np.s_[::3, :20], 255)
    one = helpers.Rig(examples, policy=policy, flip=True)
    several = helpers.Rig(examples, policy=policy, flip=True, replicas=replicas)
    rtol = 2e-2 if policy == "mixed_bfloat16" else 2e-3
    np.testing.assert_allclose(several.train(5), one.train(5), rtol=rtol)
    scales = [rig.loss_scale.scale.numpy() for rig in (one, several)]
    assert scales[0] == scales[1]


def test_a_mean_of_means_would_not_train_as_one_device():
    """The control of the test above: each replica divides by its own count."""

    class MeanOfMeans(cross_entropy.CrossEntropy):
        def sums(self, logits, labels):
            return tf.stack([self.number(super().sums(logits, labels)), 1])

    examples = helpers.make_store(ignored=0.3)
    examples = helpers.relabel(examples, np.s_[::3, :20], 255)
    loss = _only(MeanOfMeans(3))
    one = helpers.Rig(examples, loss=loss).train(6)
    two = helpers.Rig(examples, loss=loss, replicas=2).train(6)
    assert np.abs(np.array(one) - two).max() > 1e-3


def test_a_requested_stop_ends_the_loop_after_the_step():
    rig = helpers.Rig(helpers.make_store())
    rig.stop_requested.assign(True)
    rig.train(50, steps_per_loop=50)
    assert bool(rig.result.is_stopped)
    assert int(rig.global_step.numpy()) == 1


@pytest.mark.cross_section
def test_unet_trains_alike_on_two_replicas(monkeypatch):
    """`test_encoders` and `test_decoders` have the gradients of each whole part."""
    shallow.shorten(monkeypatch)
    examples = helpers.make_store()
    build = functools.partial(helpers.build_unet, decoder_dropout=0.3)
    kwargs = {"build": build, "learning_rate": 0.01, "flip": True}
    one = helpers.Rig(examples, **kwargs)
    two = helpers.Rig(examples, replicas=2, **kwargs)
    np.testing.assert_allclose(two.train(4), one.train(4), rtol=1e-3)


def _build_dropping(replicas):
    """Builds a model that drops pixels, and whole images."""
    images = keras.Input((None, None, 3))
    features = keras.layers.Rescaling(1 / 127.5, -1)(images)
    features = keras.layers.Conv2D(8, 3, padding="same")(features)
    features = layers.RowDropout(0.5, stream="pixels")(features)
    deep = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(features)
    rows = (None, 1, 1, 1)
    deep = layers.RowDropout(0.5, stream="images", noise_shape=rows)(deep)
    features = keras.layers.Add()([features, deep])
    return keras.Model(images, keras.layers.Conv2D(3, 1)(features))


@pytest.mark.parametrize("replicas", [2, 4])
def test_dropout_is_the_same_on_any_number_of_replicas(replicas):
    examples = helpers.make_store()
    one = helpers.Rig(examples, build=_build_dropping)
    several = helpers.Rig(examples, build=_build_dropping, replicas=replicas)
    one.train(3)
    several.train(3)
    for value, other in zip(several.weights(), one.weights(), strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-6)


class _Idle(keras.layers.Layer):
    """Has a weight that nothing depends on."""

    def build(self, shape):
        """Makes the weight."""
        self.add_weight(shape=(3,), name="idle")

    def call(self, features):
        """Returns what it is given."""
        return features


def _build_idle(**kwargs):
    tiny = helpers.build_tiny(**kwargs)
    return keras.Model(tiny.input, _Idle(dtype="float32")(tiny.output))


@pytest.mark.parametrize("replicas", [1, 2])
def test_weights_that_nothing_depends_on_are_named(replicas):
    rig = helpers.Rig(helpers.make_store(), build=_build_idle, replicas=replicas)
    with pytest.raises(errors.ConfigError, match="not depend on 1 of .*/idle among"):
        rig.train(1)


def test_steps_per_loop_changes_nothing():
    examples = helpers.make_store()
    single, looped = helpers.Rig(examples), helpers.Rig(examples)
    losses_of_steps = single.train(6)
    (mean,) = looped.train(6, steps_per_loop=6)
    np.testing.assert_allclose(mean, np.mean(losses_of_steps), rtol=1e-6)
    for a, b in zip(looped.weights(), single.weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_are_clipped_by_their_global_norm_after_the_sum_over_replicas():
    # Plain SGD of learning rate 1 moves the weights by the clipped gradient.
    examples = helpers.make_store()
    for replicas in (1, 2):
        rig = helpers.Rig(
            examples, replicas=replicas, learning_rate=1.0, global_clipnorm=0.01
        )
        before = [v.numpy() for v in rig.model.trainable_variables]
        rig.train(1)
        moved = [
            v.numpy() - b
            for v, b in zip(rig.model.trainable_variables, before, strict=True)
        ]
        assert float(rig.result.gradient_norm) > 0.1
        np.testing.assert_allclose(
            np.sqrt(sum((m**2).sum() for m in moved)), 0.01, rtol=1e-4
        )


def _loss_that_overflows_on(example_value):
    """A loss whose gradient is infinite where an image row holds a marked label."""

    class Spiked(cross_entropy.CrossEntropy):
        def sums(self, logits, labels):
            marked = tf.reduce_any(labels == example_value)
            # Finite itself; its gradient overflows.
            logit = tf.reduce_mean(logits)
            spike = tf.where(marked, logit * 1e38, 0.0)
            total = tf.stack([spike - tf.stop_gradient(spike), 0])
            return super().sums(logits, labels) + total

    return _only(Spiked(3))


def _spiked_store():
    """Examples of two classes, and one example, in the last row, of class 2."""
    examples = helpers.make_store(num_examples=8, num_classes=2)
    ids = pipeline.shuffled_ids(tf.range(8, dtype=tf.int64), num_examples=8, seed=0)
    return helpers.relabel(examples, np.s_[int(ids[-1]), 0, 0], 2)


@pytest.mark.parametrize("replicas", [1, 2])
def test_float16_overflow_on_one_replica_skips_the_update_everywhere(replicas):
    rig = helpers.Rig(
        _spiked_store(),
        replicas=replicas,
        policy="mixed_float16",
        loss=_loss_that_overflows_on(2),
    )
    before = [v.numpy() for v in rig.model.trainable_variables]
    scale = float(rig.loss_scale.scale.numpy())
    rig.train(1)
    assert bool(rig.result.is_finite)
    assert float(rig.loss_scale.scale.numpy()) == scale / 2
    assert int(rig.optimizer.iterations.numpy()) == 0
    assert int(rig.global_step.numpy()) == 1
    for variable, value in zip(rig.model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_float16_loss_scale_doubles_after_finite_steps():
    rig = helpers.Rig(helpers.make_store(), policy="mixed_float16")
    rig.loss_scale.scale.assign(64.0)
    rig.loss_scale.finite_steps.assign(1997)  # Of 2000.
    rig.train(2)
    assert float(rig.loss_scale.scale.numpy()) == 64.0
    rig.train(1)
    assert float(rig.loss_scale.scale.numpy()) == 128.0


@pytest.mark.parametrize("replicas", [1, 2])
def test_non_finite_gradient_stops_before_the_update(replicas):
    rig = helpers.Rig(
        _spiked_store(), replicas=replicas, loss=_loss_that_overflows_on(2)
    )
    rig.loss_scale.scale.assign(2.0**15)  # What float16 has left in a checkpoint.
    before = [v.numpy() for v in rig.model.trainable_variables]
    rig.train(3, steps_per_loop=3)
    assert not bool(rig.result.is_finite)
    assert int(rig.global_step.numpy()) == 0
    for variable, value in zip(rig.model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_reduced_precision_trains_like_float32(policy):
    examples = helpers.make_store()
    expected = helpers.Rig(examples).train(10)
    actual = helpers.Rig(examples, policy=policy).train(10)
    # Later on, roundings have grown: CPUs without bfloat16 arithmetic round after
    # each operation.
    np.testing.assert_allclose(actual[:5], expected[:5], rtol=0.02)
    assert actual[-1] < 0.5 * actual[0]


@pytest.mark.parametrize("loss", ["ce", "lovasz"])
def test_float16_gradients_of_large_images_are_those_of_float32(loss):
    """What is scaled by the pixels twice is less than float16 can hold."""
    random = np.random.default_rng(0)
    batch = {
        "image": random.uniform(-1, 1, (1, 512, 512, 3)).astype(np.float32),
        "label": random.integers(0, 3, (1, 16, 16)).repeat(32, 1).repeat(32, 2),
        "counter": np.zeros([1], np.int64),
    }
    batch["label"] = batch["label"].astype(np.uint8)
    batch = {name: tf.constant(value) for name, value in batch.items()}
    found = []
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        images = keras.Input((512, 512, 3))
        logits = keras.layers.Conv2D(3, 1, kernel_initializer="ones")(images)
        logits = keras.layers.Activation("linear", dtype="float32")(logits)
        step = gradients.Gradients(
            tf.distribute.get_strategy(),
            fetch=lambda batch: batch,
            model=keras.Model(images, logits),
            loss=loss_registry.make(loss, 3),
            augment=lambda images, labels, _: (images, labels),
            confusion=confusion_lib.ConfusionMatrix("abc"),
            loss_scale=optimization.LossScale(is_dynamic=policy == "mixed_float16"),
            stop_requested=tf.Variable(False),
        )
        of_kernel, _ = step.of_batch(batch)[0]
        found.append(of_kernel.numpy())
    difference = np.linalg.norm(found[1] - found[0])
    assert difference < 0.02 * np.linalg.norm(found[0])


def test_xla_gives_the_same_losses():
    examples = helpers.make_store()
    expected = helpers.Rig(examples).train(4)
    actual = helpers.Rig(examples, enable_xla=True).train(4)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


@pytest.mark.parametrize("replicas", [1, 2])
def test_preparing_traces_ahead_and_makes_no_step(replicas):
    examples = helpers.make_store()
    expected = helpers.Rig(examples, replicas=replicas).train(3)
    rig = helpers.Rig(examples, replicas=replicas)
    before = rig.weights()
    blank = pipeline.make_blank_dataset(
        rig.batch_size // replicas, examples.images.shape[1:3]
    )
    rig.loop.prepare(
        iter(rig.strategy.distribute_datasets_from_function(lambda _: blank)), 0
    )
    assert int(rig.global_step.numpy()) == 0
    for a, b in zip(rig.weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert rig.train(3) == expected
    assert rig.loop.at(0).loop.run.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("freeze", [True, False])
def test_no_gradient_of_a_frozen_encoder_is_traced(freeze, monkeypatch):
    shallow.shorten(monkeypatch)
    rig = helpers.Rig(
        helpers.make_store(),
        build=functools.partial(helpers.build_unet, freeze_encoder=freeze),
        batch_size=2,
    )
    traced = rig.loop.at(0).loop.run.get_concrete_function(
        rig.batches(), tf.constant(1)
    )
    graph = traced.graph.as_graph_def()
    ops = {node.op for f in graph.library.function for node in f.node_def}
    assert ("DepthwiseConv2dNativeBackpropInput" in ops) == (not freeze)


def test_frozen_encoder_does_not_move(monkeypatch):
    shallow.shorten(monkeypatch)
    rig = helpers.Rig(helpers.make_store(), build=_build_frozen, learning_rate=0.01)
    encoder = rig.model.get_layer("mobilenet_v2")
    before = encoder.get_weights()
    rig.train(2)
    for a, b in zip(encoder.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [4, 8, 16])
def test_evaluation_counts_every_example_once(replicas, batch_size):
    examples = helpers.make_store(num_examples=13, ignored=0.1)
    strategy = helpers.make_strategy(replicas)
    model, loop, confusion = helpers.make_eval_loop(strategy, examples)
    iterator = helpers.evaluation_batches(strategy, examples, batch_size)
    loop.score(iterator, pipeline.num_eval_batches(13, batch_size))
    logits = model(examples.images.astype(np.float32))
    total, count = cross_entropy.CrossEntropy(3).sums(logits, examples.labels)
    expected = confusion_lib.count_confusions(examples.labels, logits, 3)
    np.testing.assert_array_equal(confusion.counts(), expected)
    assert confusion.counts().sum() == (examples.labels != 255).sum()
    np.testing.assert_allclose(loop.result()["loss"], total / count, rtol=1e-5)
    loop.reset()
    assert confusion.counts().sum() == 0
    assert np.isnan(loop.result()["loss"])


def test_batch_of_ignored_pixels_has_no_gradient():
    plain = helpers.make_store(num_examples=8)
    blank = store.Store(
        "blank", plain.images, np.full_like(plain.labels, 255), plain.names, "f"
    )
    rig = helpers.Rig(blank)
    assert np.isnan(rig.train(1)).all()  # There is nothing to make a loss of.
    assert float(rig.result.gradient_norm) == 0.0


def test_xla_computes_what_tensorflow_does_when_traced_again():
    examples = helpers.make_store()
    plain, compiled = helpers.Rig(examples), helpers.Rig(examples, enable_xla=True)
    compiled.loop.run(compiled.batches(), 0)  # A Python number: a graph of its own.
    np.testing.assert_allclose(compiled.train(3), plain.train(3), rtol=1e-4)
    _assert_close(compiled.weights(), plain.weights(), 1e-3)
