"""The same U-Net in plain Keras, trained by `model.fit`: what a tutorial's reader has.

    python -m tests.benchmarks.fit_tutorial --dataset=tfds:oxford_iiit_pet

Uses nothing of segloop but, with `--dataset=synthetic`, the built-in pictures. Trains
for `--steps` steps and says so when the first is done. `tests.benchmarks.startup` takes
the time until then.
"""

import argparse

import keras
import tensorflow as tf

_NUM_CLASSES = 3
_SKIPS = (
    "block_1_expand_relu",
    "block_3_expand_relu",
    "block_6_expand_relu",
    "block_13_expand_relu",
)
_SHUFFLE_BUFFER = 1000


class _SayFirstStep(keras.callbacks.Callback):
    """Prints a line at the end of the first batch."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            print("\nThe first step is done.", flush=True)


def load_pets(name: str, data_dir: str) -> tf.data.Dataset:
    """Returns pairs of image and mask, the classes counted from 0."""
    import tensorflow_datasets as tfds

    examples = tfds.load(name, split="train", data_dir=data_dir or None)
    return examples.map(
        lambda example: (example["image"], example["segmentation_mask"] - 1),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def load_synthetic(size: int) -> tf.data.Dataset:
    """Returns pairs of image and mask of the built-in pictures."""
    from data.sources import synthetic

    source = synthetic.SyntheticSource("train", size=size)
    return source.examples().map(
        lambda example: (example["image"], example["label"][..., tf.newaxis]),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def make_batches(
    examples: tf.data.Dataset, *, size: int, batch_size: int
) -> tf.data.Dataset:
    """Resizes, scales to -1..1, keeps the result, shuffles and batches."""

    def preprocess(image, mask):
        image = tf.image.resize(image, (size, size))
        mask = tf.image.resize(mask, (size, size), method="nearest")
        return image / 127.5 - 1, mask

    return (
        examples.map(preprocess, num_parallel_calls=tf.data.AUTOTUNE)
        .cache()
        .shuffle(_SHUFFLE_BUFFER)
        .batch(batch_size)
        .repeat()
        .prefetch(tf.data.AUTOTUNE)
    )


def build_model(size: int, weights: str) -> keras.Model:
    """Builds the U-Net on a frozen MobileNetV2."""
    base = keras.applications.MobileNetV2(
        input_shape=(size, size, 3), include_top=False, weights=weights
    )
    names = (*_SKIPS, "block_16_project")
    encoder = keras.Model(base.input, [base.get_layer(name).output for name in names])
    encoder.trainable = False
    images = keras.Input((size, size, 3))
    *skips, features = encoder(images)
    for filters, skip in zip((512, 256, 128, 64), reversed(skips), strict=True):
        features = keras.layers.Conv2DTranspose(
            filters,
            3,
            strides=2,
            padding="same",
            use_bias=False,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
        )(features)
        features = keras.layers.BatchNormalization()(features)
        features = keras.layers.ReLU()(features)
        features = keras.layers.Concatenate()([features, skip])
    logits = keras.layers.Conv2DTranspose(_NUM_CLASSES, 3, strides=2, padding="same")
    return keras.Model(images, logits(features))


def main() -> None:
    """Trains for some steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="synthetic", help="or tfds:NAME")
    parser.add_argument("--data_dir", default="", help="of TFDS")
    parser.add_argument("--encoder_weights", default="imagenet", help="or a file")
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=1)
    arguments = parser.parse_args()
    kind, _, name = arguments.dataset.partition(":")
    size = arguments.image_size
    if kind == "tfds":
        examples = load_pets(name, arguments.data_dir)
    else:
        examples = load_synthetic(size)
    batches = make_batches(examples, size=size, batch_size=arguments.batch_size)
    model = build_model(size, arguments.encoder_weights)
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(batches, steps_per_epoch=arguments.steps, callbacks=[_SayFirstStep()])


if __name__ == "__main__":
    main()
