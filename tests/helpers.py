"""Small objects that many tests need."""

import dataclasses
import pathlib
import random
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import pytest
import tensorflow as tf

from data import pipeline, schema
from data.augmentation import augment
from data.stores import store
from models import factory, registry, scaling
from models.encoders import applications
from models.fast import normalization
from trainer.assembly import evaluation, state, train_loop
from trainer.exporting import network
from trainer.losses import registry as loss_registry
from trainer.losses import weighted_sum
from trainer.metrics import confusion, predictions
from trainer.optimizing import optimization, schedules
from trainer.steps import evaluation as evaluation_steps

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"

needs_pets = pytest.mark.skipif(
    not (SHARED / "tfds" / "oxford_iiit_pet").is_dir(),
    reason="needs the prepared part of Oxford-IIIT Pet in ../shared/tfds",
)
needs_weights = pytest.mark.skipif(
    not (SHARED / "weights").is_dir(),
    reason="needs the MobileNetV2 weights in ../shared/weights",
)


def make_store(
    num_examples: int = 12, size: int = 32, num_classes: int = 3, ignored: float = 0.0
) -> store.Store:
    """Makes examples whose classes can be seen in the colours, of fixed noise."""
    random = np.random.default_rng(7)
    blocks = random.integers(0, num_classes, (num_examples, size // 8, size // 8))
    labels = np.kron(blocks, np.ones((1, 8, 8), np.int64)).astype(np.uint8)
    noise = random.integers(0, 60, (num_examples, size, size, 3))
    images = (labels[..., None] * 60 + noise).astype(np.uint8)
    labels[random.random(labels.shape) < ignored] = 255
    names = tuple(f"example {i}" for i in range(num_examples))
    return store.Store("test", images, labels, names, "fingerprint")


class FileSource:
    """A source of JPEG photos and PNG masks of noise in a folder, read at random."""

    info = schema.DatasetInfo(class_names=("a", "b", "c"))

    def __init__(self, folder: pathlib.Path, num_examples: int = 10):
        self.name = f"files/{folder.name}"
        self.fingerprint = f"{num_examples}"
        self.images = [str(folder / f"{i}.jpg") for i in range(num_examples)]
        self.masks = [str(folder / f"{i}.png") for i in range(num_examples)]
        random = np.random.default_rng(3)
        for image, mask in zip(self.images, self.masks, strict=True):
            size = tuple(random.integers(20, 60, 2))
            pixels = random.integers(0, 256, (*size, 3), np.uint8)
            tf.io.write_file(image, tf.io.encode_jpeg(pixels))
            classes = random.integers(0, 3, (*size, 1), np.uint8)
            tf.io.write_file(mask, tf.io.encode_png(classes))

    def __len__(self):
        return len(self.images)

    def examples(self, start=0, stop=None):
        ids = np.arange(len(self), dtype=np.int64)[start:stop]
        return tf.data.Dataset.from_tensor_slices(ids).map(self.load)

    def load(self, index):
        index = tf.ensure_shape(index, [])
        image = tf.gather(self.images, index)
        return {
            "image": tf.io.read_file(image),
            "label": tf.io.read_file(tf.gather(self.masks, index)),
            "name": tf.strings.split(image, "/")[-1],
        }


def relabel(examples: store.Store, where, label: int) -> store.Store:
    """Returns a store in which the labels at `where`, an index, are `label`."""
    labels = examples.labels.copy()
    labels[where] = label
    return dataclasses.replace(examples, labels=labels)


def build_unet(
    *,
    size: int = 32,
    num_classes: int = 3,
    replicas: int = 1,
    encoder_alpha: float = 0.35,
    decoder_dropout: float = 0.0,
    **kwargs,
):
    """Builds a model small enough to train in a test, by default a U-Net."""
    decoder = registry.DECODERS[kwargs.get("decoder", "pix2pix")]
    num_filters = len(decoder.default_filters((2, 4, 8, 16, 32)))
    settings = {
        "encoder": "mobilenet_v2",
        "encoder_options": {"alpha": encoder_alpha},
        "encoder_weights": "none",
        "encoder_bn_momentum": None,
        "freeze_encoder": False,
        "decoder": "pix2pix",
        "decoder_filters": (16, 8, 8, 8)[:num_filters],
        "decoder_options": {"dropout": decoder_dropout} if decoder_dropout else {},
        "image_size": (size, size),
        "num_classes": num_classes,
        "synchronized_batch_norm": replicas > 1,
    }
    return factory.build_model(**{**settings, **kwargs})


def build_tiny(*, num_classes: int = 3, replicas: int = 1) -> keras.Model:
    """Builds a model of two convolutions and batch norm, which any size fits."""
    images = keras.Input((None, None, 3))
    features = keras.layers.Rescaling(1 / 127.5, -1)(images)
    features = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(features)
    features = normalization.BatchNormalization(synchronized=replicas > 1)(features)
    features = keras.layers.ReLU()(features)
    logits = keras.layers.Conv2D(num_classes, 3, padding="same")(features)
    logits = keras.layers.Activation("linear", dtype="float32")(logits)
    return keras.Model(images, logits)


def make_strategy(replicas: int) -> tf.distribute.Strategy:
    """Makes a strategy over logical CPU devices."""
    return tf.distribute.MirroredStrategy(
        [f"CPU:{index}" for index in range(replicas)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def make_eval_loop(
    strategy: tf.distribute.Strategy,
    examples: pipeline.Examples,
    **kwargs,
) -> tuple[keras.Model, evaluation_steps.EvalLoop, confusion.ConfusionMatrix]:
    """Makes a tiny model of three classes, always the same, and what scores it."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = build_tiny()
    settings = {"metrics": (), "resize": "stretch", **kwargs}
    loss = loss_registry.make(settings.pop("loss", "ce"), 3)
    loop, counts = evaluation.make_eval_loop(
        strategy,
        examples=examples,
        model=model,
        class_names=("a", "b", "c"),
        loss=loss,
        **settings,
    )
    return model, loop, counts


def evaluation_batches(
    strategy: tf.distribute.Strategy, examples: pipeline.Examples, batch_size: int
):
    """Returns a distributed iterator over one pass."""
    return iter(
        strategy.distribute_datasets_from_function(
            lambda context: pipeline.make_eval_dataset(
                examples,
                global_batch_size=batch_size,
                shard=pipeline.Shard.from_context(context),
            )
        )
    )


def remember_networks(patch: pytest.MonkeyPatch) -> None:
    """Makes Keras' networks, which take seconds to make, once each: they are only read.

    Those of one encoder, the last one that was asked for: some fill hundreds of MB.
    """
    make, made = applications.make_network, {}

    def make_once(name, image_size, images=scaling.RGB, *, weights=None, options):
        policy = keras.config.dtype_policy().name
        key = (name, image_size, images, policy, *options.items())
        if any(name != other for other, *_ in made):
            made.clear()
        if key not in made or weights:
            # What it draws would move the weights of whatever is built after it, and
            # the next time it is not built.
            drawn = random.getstate()
            made[key] = make(name, image_size, images, weights=weights, options=options)
            random.setstate(drawn)
        return made[key]

    patch.setattr(applications, "make_network", make_once)


class Rig:
    """A training loop with all its parts."""

    def __init__(
        self,
        examples: pipeline.Examples,
        *,
        replicas: int = 1,
        build=build_tiny,
        optimizer: str = "sgd",
        learning_rate: float = 0.1,
        batch_size: int = 8,
        flip: bool = False,
        seed: int = 0,
        policy: str = "float32",
        ema_decay: float = 0.0,
        average_warmup: bool = True,
        loss: str | weighted_sum.WeightedSum = "ce",
        class_weights: Sequence[float] | None = None,
        encoder_start: int = 0,
        encoder_lr_multiplier: float = 1.0,
        optimizer_settings: Mapping[str, float] | None = None,
        **kwargs,
    ):
        keras.utils.set_random_seed(seed)
        keras.config.set_dtype_policy(policy)
        self.strategy = make_strategy(replicas)
        self.examples, self.batch_size, self.seed = examples, batch_size, seed
        if isinstance(loss, str):
            loss = loss_registry.make(loss, 3, class_weights)
        self.loss = loss
        schedule = schedules.WarmupSchedule(
            learning_rate, decay="constant", num_steps=1000
        )
        self.state = state.make_state(
            self.strategy,
            lambda: build(replicas=replicas),
            lambda: optimization.build_optimizer(
                optimizer, schedule, **(optimizer_settings or {})
            ),
            ema_decay=ema_decay,
            encoder_lr_multiplier=encoder_lr_multiplier,
            starts_encoder_late=encoder_start > 0,
        )
        self.model, self.optimizer = self.state.model, self.state.optimizer
        self.loss_scale, self.ema = self.state.loss_scale, self.state.ema
        self.global_step = self.state.global_step
        self.stop_requested = tf.Variable(False, trainable=False)
        flipper = augment.RandomAugment(
            {"horizontal_flip": True}, global_batch_size=batch_size, seed=seed
        )
        self.loop, self.confusion = train_loop.make_train_loop(
            self.strategy,
            self.state,
            fetch=examples.fetch,
            loss=loss,
            augment=flipper if flip else augment.keep,
            class_names=("a", "b", "c"),
            stop_requested=self.stop_requested,
            batch_size=batch_size,
            seed=seed,
            has_average_warmup=average_warmup,
            encoder_start=encoder_start,
            **kwargs,
        )

    def batches(self, start_step: int = 0):
        """Returns a distributed iterator from a step on."""
        return iter(
            self.strategy.distribute_datasets_from_function(
                lambda context: pipeline.make_train_dataset(
                    self.examples,
                    global_batch_size=self.batch_size,
                    seed=self.seed,
                    start_step=start_step,
                    shard=pipeline.Shard.from_context(context),
                )
            )
        )

    def train(self, num_steps: int, *, steps_per_loop: int = 1) -> list[float]:
        """Trains on from `global_step`; returns the mean loss of each loop."""
        iterator = self.batches(int(self.global_step.numpy()))
        results = []
        for _ in range(0, num_steps, steps_per_loop):
            self.result = self.loop.run(iterator, tf.constant(steps_per_loop))
            results.append(self.loss.scores(self.result.sums.numpy())["loss"])
        return results

    def weights(self) -> list[np.ndarray]:
        """Returns the values of all variables of model and optimizer."""
        variables = self.model.variables + self.optimizer.variables
        return [variable.numpy() for variable in variables]


def network_to_export(model: keras.Model, photos: np.ndarray) -> network.Network:
    """Makes what formats are written of: a model for images as large as photos.

    Args:
      model: gives logits.
      photos: uint8 [photos, height, width, channels], those to measure with.
    """
    return network.Network(
        model=model,
        make_stock=lambda: model,
        image_size=photos.shape[1:3],
        num_channels=photos.shape[3],
        dtype="uint8",
        gives_probabilities=True,
        any_size=False,
        resize=lambda image: image,
        restore=lambda scores, size: scores,
        classify=predictions.most_likely_class,
        read_photos=lambda: photos,
    )
