"""The weights that a new run takes over from another run."""

import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from data import schema
from models import factory
from trainer import errors
from trainer.assembly import restoring
from trainer.assembly import state as state_lib
from trainer.remote import mirrors, stores
from trainer.run_folder import checkpoint_folders, run_settings
from trainer.settings import config as config_lib
from trainer.settings import fields

_LOGITS = "logits"
"""The name of the layer of every decoder that has a channel for each class."""
_CHECKPOINT = re.compile(r"(.*[^/])/+checkpoints/+(step-\d+)/*")


class _Source(NamedTuple):
    """Where weights come from.

    Attributes:
      model_dir: the folder of the other run.
      checkpoint: as `restoring.load_run` takes it.
    """

    model_dir: str
    checkpoint: str


def check(config: config_lib.Config, class_names: Sequence[str]) -> None:
    """Checks that a new run can take over what its settings say, before it is built.

    Args:
      config: all settings.
      class_names: of the new run.

    Raises:
      errors.RunError: if there is no such run, or its model does not fit.
    """
    name = config.model.init_checkpoint
    if not name:
        return
    source = _find(name)
    run = restoring.find_run(source.model_dir, source.checkpoint)
    _check_parts(config, {**config_lib.legacy_values(), **run.identity})
    if config.model.init_scope == "all" and set(run.class_names) != set(class_names):
        logging.info(
            "The classes of %s (%s) are others than those of this run (%s): its logits "
            "are not taken over.",
            name,
            ", ".join(run.class_names),
            ", ".join(class_names),
        )


def folder_of(config: config_lib.Config) -> str:
    """Returns the folder of the run that a new one takes over; empty: there is none."""
    name = config.model.init_checkpoint
    return _find(name).model_dir if name else ""


def take_over(
    state: state_lib.State,
    strategy: tf.distribute.Strategy,
    config: config_lib.Config,
    info: schema.DatasetInfo,
) -> None:
    """Gives a new run the weights of another one, which `check` has found to fit.

    Weights are matched by their order: the names of some layers differ from one start
    to the next.

    Args:
      state: of the new run.
      strategy: on whose devices it is.
      config: all settings.
      info: the classes of the new run.

    Raises:
      errors.RunError: if the other run cannot be read, or does not fit after all.
    """
    source = _find(config.model.init_checkpoint)
    trained = restoring.load_run(source.model_dir, source.checkpoint)
    theirs, ours = trained.model, state.model
    what = "Encoder and decoder start"
    if config.model.init_scope == "encoder":
        theirs, ours = factory.find_encoder(theirs), factory.find_encoder(ours)
        what = "The encoder starts"
    with strategy.scope():
        _copy(theirs, ours, trained.class_names, info.class_names)
        if state.ema:
            state.ema.start_over()
    logging.info("%s as in %s.", what, trained.checkpoint)


def _find(name: str) -> _Source:
    """Returns what is meant by a value of `--init_checkpoint`."""
    found = _CHECKPOINT.fullmatch(name)
    if found and stores.scheme_of(name):
        # The checkpoint alone would come without the settings of its run.
        model_dir = pathlib.Path(mirrors.fetch(found[1], "init_checkpoint"))
        path = model_dir / "checkpoints" / found[2]
        checkpoint = str(path)
    else:
        path = pathlib.Path(mirrors.fetch(name, "init_checkpoint"))
        model_dir, checkpoint = path, "last"
        if checkpoint_folders.is_checkpoint(path) and not stores.scheme_of(name):
            # RUN/checkpoints/step-00000375
            path = path.absolute()
            model_dir, checkpoint = path.parents[1], str(path)
    rule = ""
    if not path.is_dir():
        rule = "there is no such folder"
    elif not run_settings.exist(str(model_dir)):
        rule = f"there is no config.json in {model_dir}, so that is not a run's folder"
    elif not checkpoint_folders.has_any(str(model_dir)):
        rule = "the run has no checkpoint yet"
    if rule:
        remedy = "name the folder of a run, or that of one of its checkpoints"
        fields.reject("init_checkpoint", name, f"{rule}; {remedy}")
    return _Source(str(model_dir), checkpoint)


def shared_settings(config: config_lib.Config) -> dict[str, Any]:
    """Returns the settings that a new run must have as the one that it takes over.

    Args:
      config: all settings of the new run.

    Returns:
      Their values by name; nothing, if the run takes over none.

    Raises:
      errors.RunError: if there is no such run, or if a setting is given otherwise.
    """
    if not config.model.init_checkpoint:
        return {}
    source = _find(config.model.init_checkpoint)
    run = restoring.find_run(source.model_dir, source.checkpoint)
    settings, given = config_lib.fields_by_name(), config.given()
    trained = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in {**config_lib.legacy_values(), **run.identity}.items()
        if name in settings
    }
    shared = {}
    for name in _names_of_parts(config):
        value = trained[name]
        if value is None or fields.unmet_condition(name, settings, trained):
            continue
        if given.get(name, value) != value:
            _reject_part(config, name, given[name], value)
        shared[name] = value
    return shared


def _names_of_parts(config: config_lib.Config) -> Iterator[str]:
    """Yields the settings that shape the parts which are taken over."""
    for name, field in config_lib.fields_by_name().items():
        is_of_decoder = name.startswith("decoder")
        if field.metadata["shapes_model"] and (
            config.model.init_scope == "all" or not is_of_decoder
        ):
            yield name


def _check_parts(config: config_lib.Config, trained: dict[str, Any]) -> None:
    """Checks that the parts to take over are the same in both runs."""
    present = config.identity()
    for name in _names_of_parts(config):
        if present[name] == trained[name]:
            continue
        if None in (present[name], trained[name]):
            continue  # Derived of the encoder; `_copy` compares what came of it.
        _reject_part(config, name, present[name], trained[name])


def _reject_part(
    config: config_lib.Config, name: str, value: Any, trained: Any
) -> NoReturn:
    """Raises the error of a setting that the weights of the other run do not fit."""
    was, value = (
        fields.format_value(tuple(v) if isinstance(v, list) else v)
        for v in (trained, value)
    )
    remedy = ", or --init_scope=encoder for its encoder alone"
    raise errors.ConfigError(
        f"--{name}={value}: the run of "
        f"--init_checkpoint={config.model.init_checkpoint} has --{name}={was}, and "
        f"its weights fit no other; say --{name}={was}"
        f"{remedy if name.startswith('decoder') else ''}."
    )


def _copy(
    theirs: keras.Model,
    ours: keras.Model,
    old_names: Sequence[str],
    new_names: Sequence[str],
) -> None:
    """Copies all weights, those of the logits in the order of the classes."""
    same_classes = set(old_names) == set(new_names)
    for (layer, weight), (_, variable) in zip(
        _list_weights(theirs), _list_weights(ours), strict=True
    ):
        value = weight.numpy()
        if layer.name == _LOGITS:
            if not same_classes:
                continue
            order = [list(old_names).index(name) for name in new_names]
            value = np.take(value, order, axis=_class_axis(layer, value))
        if value.shape != tuple(variable.shape):
            raise errors.CheckpointError(
                f"--init_checkpoint: a weight of {layer.name} has the shape "
                f"{list(value.shape)} there and {list(variable.shape)} here; leave the "
                "flag out, or use the segloop that trained that run."
            )
        variable.assign(value)


def _list_weights(
    model: keras.Model,
) -> Iterator[tuple[keras.layers.Layer, Any]]:
    for layer in model.layers:
        for weight in layer.weights:
            yield layer, weight


def _class_axis(layer: keras.layers.Layer, weight: np.ndarray) -> int:
    """Returns the axis of a weight of the logits that has the classes."""
    # A transposed convolution's kernel is [height, width, out, in].
    is_transposed = isinstance(layer, keras.layers.Conv2DTranspose)
    return -2 if is_transposed and weight.ndim == 4 else -1
