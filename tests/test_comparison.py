"""`--against=fit` gives Keras the examples of the run, each once in an evaluation."""

import dataclasses
import types

import keras
import numpy as np
import pytest

from data import pipeline, schema
from models import scaling
from tests import helpers
from trainer import errors
from trainer.assembly import model as model_lib
from trainer.benchmarking import comparison
from trainer.settings import config as config_lib
from trainer.settings import fields

_RUN = {"model_dir": "x", "mode": "benchmark", "against": "fit"}


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


_MIRRORED = {
    # By Keras' twin of the model, by its optimizer, and by the datasets that it gets.
    "model": {
        "encoder_alpha", "encoder_drop_connect", "encoder_weights",
        "image_normalization", "freeze_encoder", "decoder_filters",
    },
    "loss": set(),
    "optimizer": {"learning_rate"},
    "train": {"batch_size"},
    "augmentation": set(),
}  # fmt: skip
_NO_MATTER = {
    # Used only with others that are refused.
    "polynomial_power", "momentum", "weight_decay", "focal_gamma", "boundary_weight",
    "boundary_width", "tversky_alpha", "tversky_beta", "init_scope",
    "crop_rare_classes",
    # How long a run is, and what happens between its steps.
    "train_epochs", "train_steps", "time_budget", "steps_per_loop",
    "epochs_between_evals", "log_steps", "checkpoint_interval", "max_to_keep",
    "summary_images", "keep_golden",
    # On by default; Keras is spared them, which is no advantage of ours.
    "moving_average_warmup",
    # A name of others.
    "augment",
}  # fmt: skip


def test_each_setting_of_a_step_is_mirrored_or_refused():
    for section, mirrored in _MIRRORED.items():
        (kind,) = (
            field.type
            for field in dataclasses.fields(config_lib.Config)
            if field.name == section
        )
        for field in dataclasses.fields(kind):
            is_known = field.name in mirrored | _NO_MATTER
            assert is_known == (field.metadata["in_fit"] is None), field.name


@pytest.mark.parametrize(
    "settings",
    [
        {"encoder": "keras_hub:resnet_50_imagenet"},
        {"decoder": "fpn"},
        {"decoder_norm": "group"},
        {"init_checkpoint": "runs/other"},
        {"decoder_dropout": 0.5},
        {"optimizer": "sgd"},
        {"class_weights": ("balanced",)},
        {"freeze_encoder": False, "encoder_bn_momentum": 0.9},
        {"freeze_encoder": False, "encoder_lr_multiplier": 0.1},
        {"freeze_encoder": False, "freeze_encoder_stages": 2},
        {"freeze_encoder": False, "unfreeze_encoder_at": 2},
    ],
)
def test_what_keras_twin_does_not_have_is_refused(settings):
    name, value = list(settings.items())[-1]
    value = fields.format_value(value)
    with pytest.raises(errors.ConfigError, match=f"^--{name}={value}: --against=fit"):
        config_lib.from_dict({**_RUN, **settings})


@pytest.mark.parametrize(
    ("encoder", "is_frozen"),
    [
        ("mobilenet_v2", False),
        ("efficientnetv2_b0", False),  # Has dropout of its own.
        ("efficientnetv2_b0", True),
        ("convnext_tiny", False),  # Has grouped convolutions, and no batch norm.
    ],
)
def test_keras_twin_takes_the_weights(encoder, is_frozen):
    settings = {"encoder": encoder, "freeze_encoder": is_frozen}
    config = config_lib.from_dict({**_RUN, **settings})
    shape = {"image_size": (32, 32), "num_classes": 3}

    model = model_lib.build_model(
        config.model,
        image_format=schema.ImageFormat(),
        num_replicas=1,
        has_checkpoint=True,  # No weights are looked for.
        **shape,
    )
    twin = comparison.build_twin(config.model, images=scaling.RGB, **shape)

    comparison.give_weights(model, twin)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    expected = model(images, training=False).numpy()
    np.testing.assert_allclose(twin(images), expected, rtol=1e-3, atol=1e-4)
    (network,) = (layer for layer in twin.layers if isinstance(layer, keras.Model))
    rates = [x.rate for x in network.layers if isinstance(x, keras.layers.Dropout)]
    assert any(rates) == (encoder == "efficientnetv2_b0" and not is_frozen)
