"""What the model of a run, or two that are trained for it, make of the masks."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from absl import logging

from data import schema
from data.sources import halves
from trainer.assembly import inputs, restoring, trained_model
from trainer.predicting import predictor
from trainer.run_folder import checkpoint_folders
from trainer.settings import config as config_lib
from trainer.settings import fields, layers
from trainer.suspecting import acquaintance, judging, predicting

_FOLDER = "doctor"


def can_judge(config: config_lib.Config) -> bool:
    """Tells whether there is a model, or is to be one.

    Raises:
      errors.ConfigError: if settings do not fit each other.
    """
    has_model = checkpoint_folders.newest_step(config.run.model_dir) is not None
    if config.doctor.crossfit:
        if config.data.train_half is not None:
            fields.reject(
                "train_half",
                config.data.train_half,
                "--crossfit trains on each half; leave one of the two out",
            )
        if config.run.checkpoint != "last":
            fields.reject(
                "checkpoint",
                config.run.checkpoint,
                "--crossfit takes the last ones of the runs that it trains; leave it "
                "out",
            )
    elif not has_model:
        if config.run.checkpoint != "last":
            fields.reject(
                "checkpoint",
                config.run.checkpoint,
                f"there is no checkpoint in {config.run.model_dir}; leave it out, or "
                "name the folder of a run with --model_dir",
            )
        return False
    if config.runtime.distribution_strategy == "multi_worker_mirrored":
        fields.reject(
            "distribution_strategy",
            "multi_worker_mirrored",
            "the doctor uses the devices of one host; leave it out",
        )
    return True


def ask(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    sources: Sequence[schema.Source],
    train: Callable[[config_lib.Config], None],
) -> str:
    """Has every mask judged, and writes MODEL_DIR/doctor/ranking.csv and others.

    Args:
      config: all settings.
      strategy: of `devices.prepare_devices`.
      sources: the split to train on, and if there is one, that to evaluate on.
      train: trains a run to its end, with `--crossfit`.

    Returns:
      What to say of it.

    Raises:
      errors.RunError: if a model cannot be trained or restored.
      schema.DataError: if settings, model and files do not fit each other.
    """
    # Both roles may have one split, whose masks are to be judged once.
    sources = list({source.name: source for source in sources}.values())
    folders, seen = [config.run.model_dir], [False] * len(sources)
    if config.doctor.crossfit:
        folders = _train_halves(config, train)
    else:
        saved = restoring.find_run(config.run.model_dir, config.run.checkpoint)
        for remark in layers.check_trained_with(config, saved.identity, folders[0]):
            logging.warning("%s", remark)
        seen = acquaintance.find_seen(config, saved.identity, sources)
    judges, trained = _restore(config, strategy, sources[0], folders)
    judgement = judging.judge(
        judges,
        sources,
        class_names=trained.class_names,
        image_format=trained.image_format,
        seen=seen,
    )
    names = [s.name for s, is_seen in zip(sources, seen, strict=True) if is_seen]
    note = _describe_judges(config, names)
    folder = pathlib.Path(config.run.model_dir) / _FOLDER
    judging.write(folder, judgement, judges, sources, trained, [note])
    return (
        f"Masks that are doubted most. {note}\n\n"
        f"{judging.format_judgement(judgement)}\n\n"
        f"All masks: {folder / 'ranking.csv'}\n"
        f"The first, with disputed pixels: {folder / 'ranking.html'}"
    )


def _train_halves(
    config: config_lib.Config, train: Callable[[config_lib.Config], None]
) -> list[str]:
    """Trains a run on each half, or goes on with it; returns their folders."""
    folders = []
    for half in range(halves.COUNT):
        folder = str(pathlib.Path(config.run.model_dir) / "crossfit" / str(half))
        given = {
            **config.as_dict(),
            "mode": "train",
            "model_dir": folder,
            "train_half": half,
            "crossfit": False,
        }
        logging.info("Training on half %d of the training split.", half)
        train(config_lib.from_dict(given))
        folders.append(folder)
    return folders


def _restore(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    source: schema.Source,
    folders: Sequence[str],
) -> tuple[predicting.Judges, trained_model.TrainedModel]:
    """Returns what predicts, and one of the models."""
    predictors = []
    with strategy.scope():
        for folder in folders:
            trained = restoring.load_run(
                folder,
                config.run.checkpoint,
                image_size=config.data.image_size,
                precision=keras.config.dtype_policy().name,
            )
            rows = config.train.batch_size // strategy.num_replicas_in_sync
            predictors.append(
                predictor.Predictor(
                    strategy,
                    trained,
                    tta=config.evaluation.tta,
                    rows_per_replica=rows,
                    tile_size=0,
                    tile_overlap=0.0,
                )
            )
    info = inputs.resolve_info(config, source, trained.class_names)
    info = dataclasses.replace(info, image_format=trained.image_format)
    preprocessor = inputs.make_preprocessor(config, info)
    return predicting.Judges(predictors, preprocessor), trained


def _describe_judges(config: config_lib.Config, seen: Sequence[str]) -> str:
    """Says what the models know of the masks; `seen` names splits trained on."""
    if config.doctor.crossfit:
        return "Each is judged by a model that has not seen it."
    if seen:
        return (
            f"Those of {' and '.join(seen)} are judged by a model that was trained on "
            "them, and may have learned their mistakes; with --crossfit each is judged "
            "by a model that has not seen it."
        )
    return "They are judged by a model that was trained on other data."
