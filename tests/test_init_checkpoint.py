"""`--init_checkpoint`: a run begins with the weights of another one."""

import dataclasses
import importlib
import logging
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from data import schema
from data.sources import synthetic
from models import factory
from tests import helpers, shallow
from trainer import errors, flags, load_run
from trainer.assembly import initializing, restoring, training
from trainer.assembly import model as model_lib
from trainer.assembly import state as state_lib
from trainer.remote import mirrors, stores
from trainer.run_folder import checkpointing, run_settings
from trainer.settings import modes

_NAMES = ("a", "b", "c")


@pytest.fixture(scope="module", autouse=True)
def _short_encoder():
    with pytest.MonkeyPatch.context() as patch:
        shallow.shorten(patch)
        patch.setattr(synthetic, "NUM_EXAMPLES", {"train": 8, "test": 2})
        yield


def _read(*arguments, model_dir="x"):
    return flags.read_config(
        [
            f"--model_dir={model_dir}",
            "--mode=train",
            "--image_size=32",
            "--encoder_alpha=0.35",
            "--nofreeze_encoder",
            "--decoder_filters=8,8,8,8",
            "--batch_size=4",
            *arguments,
        ]
    ).config


def _make_state(config, info, seed, strategy=None):
    keras.utils.set_random_seed(seed)
    return state_lib.make_state(
        strategy or helpers.make_strategy(1),
        lambda: model_lib.build_model(
            config.model,
            image_size=config.data.image_size,
            image_format=info.image_format,
            num_classes=info.num_classes,
            num_replicas=1,
            has_checkpoint=True,
        ),
        lambda: model_lib.build_optimizer(config.optimizer, 10),
        ema_decay=config.train.ema_decay,
    )


def _info(names=_NAMES, channels=3):
    return schema.DatasetInfo(names, image_format=schema.ImageFormat(channels))


def _write_run(folder, *arguments, channels=3):
    """Writes a run of the classes a, b and c that made no step."""
    config = _read(*arguments, model_dir=folder)
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, image_range=(0, 255))
    )
    state = _make_state(config, _info(channels=channels), seed=1)
    for average in state.ema.averages if state.ema else ():
        average.assign(average + 0.5)
    checkpointing.Checkpointer(
        str(folder),
        state=state.to_save(),
        identity={**config.identity(), "class_names": list(_NAMES)},
        max_to_keep=1,
    ).save()
    run_settings.write(str(folder), config)
    return folder


@pytest.fixture(scope="module", name="old")
def _old(tmp_path_factory):
    """Returns the folder of a run with averages."""
    return _write_run(tmp_path_factory.mktemp("init") / "old", "--ema_decay=0.9")


def _take_over(folder, *arguments, names=_NAMES, channels=3):
    """Returns the state of a new run, and what it was before."""
    config = _read(f"--init_checkpoint={folder}", *arguments)
    info = _info(names, channels)
    initializing.check(config, names)
    strategy = helpers.make_strategy(1)
    state = _make_state(config, info, seed=2, strategy=strategy)
    before = [weight.numpy() for weight in state.model.weights]
    initializing.take_over(state, strategy, config, info)
    return state, before


def _assert_equal(weights, others):
    for weight, other in zip(weights, others, strict=True):
        np.testing.assert_array_equal(weight, other)


@pytest.mark.parametrize("is_checkpoint", [False, True])
def test_weights_are_the_averages_of_the_other_run(old, is_checkpoint):
    folder = old / "checkpoints" / "step-00000000" if is_checkpoint else old

    state, before = _take_over(folder, "--ema_decay=0.5")

    expected = load_run(old).model.get_weights()
    _assert_equal(state.model.get_weights(), expected)
    # Kernels and biases: 0.5 was added to each average. So all of them are others.
    assert not any(np.array_equal(x, y) for x, y in zip(before, expected, strict=True))
    # Averages begin with what was copied.
    _assert_equal(
        [average.numpy() for average in state.ema.averages],
        [v.numpy() for v in state.model.variables if tf.as_dtype(v.dtype).is_floating],
    )


@pytest.mark.parametrize(
    "arguments", [(), ("--decoder=fpn", "--decoder_filters=8")], ids=["unet", "fpn"]
)
def test_classes_in_another_order_keep_their_logits(old, tmp_path, arguments):
    """Kernels have their classes at different axes; so many as other channels, here."""
    folder = _write_run(tmp_path / "other", *arguments) if arguments else old

    state, _ = _take_over(folder, *arguments, names=("c", "a", "b"))

    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    expected = load_run(folder).model(images, training=False).numpy()
    logits = state.model(images, training=False).numpy()
    assert np.ptp(expected, axis=-1).min() > 0
    np.testing.assert_allclose(logits, expected[..., [2, 0, 1]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("names", [("a", "b", "x"), ("a", "b", "c", "d")])
def test_of_other_classes_all_but_the_logits_is_taken(old, caplog, names):
    with caplog.at_level(logging.INFO):
        state, before = _take_over(old, names=names)

    *copied, kernel, bias = (weight.numpy() for weight in state.model.weights)
    _assert_equal(copied, load_run(old).model.get_weights()[:-2])
    _assert_equal([kernel, bias], before[-2:])
    assert "(a, b, c) are others than those of this run (a, b, " in caplog.text
    assert "its logits are not taken over" in caplog.text


def test_encoder_alone_goes_below_another_decoder(old):
    flags_of_decoder = ("--decoder=fpn", "--decoder_filters=8")

    state, before = _take_over(
        old, "--init_scope=encoder", *flags_of_decoder, names=("x", "y")
    )

    trained = factory.find_encoder(load_run(old).model).get_weights()
    _assert_equal(factory.find_encoder(state.model).get_weights(), trained)
    rest = state.model.get_weights()[len(trained) :]
    _assert_equal(rest, before[len(trained) :])


def test_statistics_of_images_are_taken_over(tmp_path):
    arguments = ("--image_channels=4",)
    folder = _write_run(tmp_path / "bands", *arguments, channels=4)
    trained = load_run(folder).model
    (mean, *_), (ours, *_) = (
        [w for w in model.weights if w.path.endswith("scaling/mean")]
        for model in (
            trained,
            _take_over(folder, *arguments, channels=4)[0].model,
        )
    )
    np.testing.assert_array_equal(mean, ours)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--decoder=unet",),
            "--decoder=unet: the run of --init_checkpoint=.* has --decoder=pix2pix, "
            "and its weights fit no other; say --decoder=pix2pix, or "
            "--init_scope=encoder for its encoder alone",
        ),
        (
            ("--decoder_filters=8,8,8,4",),
            "--decoder_filters=8,8,8,4: .* has --decoder_filters=8,8,8,8, .*; say "
            "--decoder_filters=8,8,8,8, or --init_scope=encoder",
        ),
        (
            ("--encoder_alpha=0.5", "--init_scope=encoder"),
            r"--encoder_alpha=0\.5: .* has --encoder_alpha=0\.35, and its weights fit "
            r"no other; say --encoder_alpha=0\.35\.$",
        ),
        (
            ("--image_channels=4", "--init_scope=encoder"),
            r"--image_channels=4: .*; say --image_channels=3\.$",
        ),
    ],
)
def test_another_model_is_refused(old, arguments, message):
    config = _read(f"--init_checkpoint={old}", *arguments)
    with pytest.raises(errors.ConfigError, match=message):
        initializing.check(config, _NAMES)


def _write_settings(path):
    path.mkdir()
    run_settings.write(str(path), _read(model_dir=path))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no such folder; name the folder of a run, or"),
        (lambda path: path.mkdir(), r"there is no config\.json in .*other, so that is"),
        (
            _write_settings,
            "the run has no checkpoint yet; name",
        ),
    ],
)
def test_folder_without_a_trained_model_is_refused(tmp_path, make, message):
    path = tmp_path / "other"
    make(path)
    config = _read(f"--init_checkpoint={path}")
    expected = f"^--init_checkpoint={path}: {message}"
    with pytest.raises(errors.ConfigError, match=expected):
        initializing.check(config, _NAMES)


@pytest.mark.parametrize(
    ("end", "checkpoint"),
    [
        ("", "last"),
        ("/checkpoints/step-00000000", "step-00000000"),
        ("//checkpoints/step-00000000//", "step-00000000"),
        ("/checkpoints/step-00000007", None),
        ("/checkpoints", None),
    ],
)
def test_a_run_and_a_checkpoint_may_be_at_a_url(
    old, tmp_path, monkeypatch, end, checkpoint
):
    monkeypatch.setenv("SEGLOOP_CACHE", str(tmp_path))
    url = "memory://init/old"
    there = stores.open_store(url, "init_checkpoint")
    for path in old.rglob("*"):
        if path.is_file():
            there.put(path, str(path.relative_to(old)))
    config = _read(f"--init_checkpoint={url}{end}")
    with mirrors.session():
        if not checkpoint:
            with pytest.raises(errors.ConfigError, match=f"^--init_checkpoint={url}"):
                initializing.check(config, _NAMES)
            return
        initializing.check(config, _NAMES)
        source = initializing._find(config.model.init_checkpoint)
        run = restoring.find_run(source.model_dir, source.checkpoint)
    assert pathlib.Path(source.checkpoint).name == checkpoint
    assert [path.name for path in run.paths] == ["step-00000000"]


def test_only_the_beginning_of_a_run_takes_weights_over(old, tmp_path, monkeypatch):
    """Which then needs the other run no more, nor ever weights of an encoder."""
    other = shutil.copytree(old, tmp_path / "other")
    arguments = (
        f"--init_checkpoint={other}",
        "--freeze_encoder",
        "--class_names=c,b,a",
        "--learning_rate=0",
        "--optimizer=sgd",
    )

    def train(num_steps):
        given = (*arguments, f"--train_steps={num_steps}")
        config = _read(*given, model_dir=tmp_path / "new")
        importlib.import_module(modes.MODES["train"].module).run(config)

    train(1)
    trained = load_run(tmp_path / "new").model
    expected = load_run(old).model
    # Of the decoder; the norms' statistics follow, though nothing is learned.
    *ours, bias = [weight.numpy() for weight in trained.trainable_weights]
    *theirs, old_bias = [
        w.numpy() for w in expected.trainable_weights[-len(ours) - 1 :]
    ]
    _assert_equal(ours[:-1], theirs[:-1])
    np.testing.assert_array_equal(bias, old_bias[::-1])
    encoders = [factory.find_encoder(model) for model in (trained, expected)]
    _assert_equal(*(encoder.get_weights() for encoder in encoders))

    shutil.rmtree(other)
    monkeypatch.setattr(training.initializing, "take_over", None)
    train(2)
    assert (tmp_path / "new" / "checkpoints" / "step-00000002").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--init_checkpoint=runs/a", "--encoder_weights=none"),
            "--encoder_weights=none: it has no meaning beside --init_checkpoint=runs/a",
        ),
        (
            ("--init_scope=encoder",),
            "--init_scope=encoder: it has a meaning only with a run in "
            "--init_checkpoint, and here is --init_checkpoint=",
        ),
    ],
)
def test_flags_without_a_meaning_are_refused(arguments, message):
    with pytest.raises(errors.ConfigError, match=message):
        _read(*arguments)
