"""`--mode=predict`: masks of photos, by the model of a run, from its folder alone."""

import datetime
import math
import time
from collections.abc import Sequence

import keras
import tensorflow as tf
import tqdm
from absl import logging

from data import schema
from trainer import errors
from trainer.assembly import devices, exported, restoring, trained_model
from trainer.exporting import description
from trainer.predicting import flow, outputs, photos, predictor, reading, record
from trainer.settings import config as config_lib
from trainer.settings import fields

_LOG_SECS = 10.0
"""Between two lines of the log, where there is no bar."""
_MOST_NAMED = 20


def run(config: config_lib.Config) -> None:
    """Predicts the photos of `--input`; writes to `--output` what is not there yet.

    Raises:
      errors.RunError: if there is no model, nothing to predict, or no room.
      schema.DataError: in the end, if some photos could not be predicted.
    """
    for name, example in (("input", "photos"), ("output", "masks")):
        if not getattr(config.predict, name):
            raise errors.ConfigError(
                f"--mode=predict needs --input and --output; give --{name}, e.g. "
                f"--{name}={example}."
            )
    settings = config.predict
    if config.runtime.distribution_strategy == "multi_worker_mirrored":
        fields.reject(
            "distribution_strategy",
            "multi_worker_mirrored",
            "prediction uses the devices of one host; leave it out, and give each host "
            "photos of its own",
        )
    found = photos.find(settings.input, settings.output)
    strategy = devices.prepare_devices(config, trains=False)
    trained = _load(config, strategy)
    with strategy.scope():
        predict = predictor.Predictor(
            strategy,
            trained,
            tta=config.evaluation.tta,
            rows_per_replica=_rows_per_replica(config, strategy.num_replicas_in_sync),
            tile_size=settings.tile_size,
            tile_overlap=settings.tile_overlap,
        )
    output = outputs.Output(
        settings.output, settings.save, trained.class_names, trained.palette
    )
    todo = _prepare(config, trained, output, found)
    with _Progress(len(todo)) as progress:
        way = flow.Flow(
            predict,
            output,
            max_pixels=int(settings.max_megapixels * 1e6),
            mask_orientation=settings.mask_orientation,
            on_done=progress.advance,
        )
        failures = way.run(todo)
    for message in reading.describe_misfits(way.misfits, trained.image_format):
        logging.warning("%s.", message)
    _report(config, trained, len(todo), failures, progress.secs)


def _load(
    config: config_lib.Config, strategy: tf.distribute.Strategy
) -> trained_model.TrainedModel:
    """Loads an exported file if there is one, else a checkpoint of the run.

    Raises:
      errors.RunError: if it cannot be loaded, or not do what was asked for.
    """
    if config.run.model:
        trained = exported.load(description.read_model(config.run.model))
        exported.check(config, trained)
        return trained
    with strategy.scope():
        return restoring.load_run(
            config.run.model_dir,
            config.run.checkpoint,
            image_size=config.data.image_size,
            precision=keras.config.dtype_policy().name,
        )


def _prepare(
    config: config_lib.Config,
    trained: trained_model.TrainedModel,
    output: outputs.Output,
    found: Sequence[photos.Photo],
) -> list[photos.Photo]:
    """Returns the photos that are to be predicted, and makes the output ready.

    Raises:
      errors.ConfigError: if masks that were made otherwise would stay, or files in
        their place were not predicted.
    """
    described = record.describe(config, trained)
    differences = record.find_differences(output.folder, described)
    if config.predict.overwrite:
        todo = list(found)
        if differences or not record.exists(output.folder):
            rest = output.find_rest(found)
            record.refuse_rest(config.predict.output, differences, rest)
            # Now: those of photos that cannot be read any more are not replaced.
            output.remove(found)
    else:
        record.refuse(config.predict.output, differences)
        record.refuse_others(config.predict.output, output.all_paths(found))
        todo = [photo for photo in found if not output.is_done(photo)]
    if len(todo) < len(found):
        logging.info("%d of %d photos are done.", len(found) - len(todo), len(found))
    output.summary.start([p.name for p in todo], keeps_others=not differences)
    record.write(output.folder, described)
    return todo


def _rows_per_replica(config: config_lib.Config, num_replicas: int) -> int:
    """Returns the images of a call: of as many pixels as an evaluation's batch."""
    num_images = config.train.batch_size // num_replicas
    if tile_size := config.predict.tile_size:
        num_images = num_images * math.prod(config.data.image_size) // tile_size**2
    return max(num_images, 1)


def _report(
    config: config_lib.Config,
    trained: trained_model.TrainedModel,
    num_photos: int,
    failures: Sequence[flow.Failure],
    secs: float,
) -> None:
    """Says what was done.

    Raises:
      schema.DataError: if some photos could not be predicted.
    """
    num_done = num_photos - len(failures)
    speed = f", {num_done / secs:.1f} photos/s" if num_done else ""
    print(
        f"{num_done} photo{'s' * (num_done != 1)} by {trained.checkpoint.name} of "
        f"{config.run.model or config.run.model_dir}{speed}."
    )
    for kind in config.predict.save:
        print(f"{kind + ':':<15}{config.predict.output}/{kind}")
    print(f"{'summary:':<15}{config.predict.output}/summary.csv")
    if failures:
        lines = [f"{path}: {reason}." for path, reason in failures[:_MOST_NAMED]]
        if len(failures) > _MOST_NAMED:
            lines.append(f"And {len(failures) - _MOST_NAMED} more.")
        raise schema.DataError(
            "\n".join(
                [f"{len(failures)} of {num_photos} photos could not be predicted:"]
                + lines
            )
        )


class _Progress:
    """A bar on a terminal, lines in a log."""

    def __init__(self, num_photos: int):
        self._num_photos = num_photos
        self._num_done = 0
        self._started = self._logged = time.perf_counter()
        self.secs = 0.0

    def __enter__(self) -> "_Progress":
        self._bar = tqdm.tqdm(
            total=self._num_photos, desc="Predicting", unit=" photos", disable=None
        )
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()
        self.secs = time.perf_counter() - self._started

    def advance(self, count: int) -> None:
        """Counts photos that are done."""
        self._num_done += count
        self._bar.update(count)
        now = time.perf_counter()
        if not self._bar.disable or now - self._logged < _LOG_SECS:
            return
        self._logged = now
        speed = self._num_done / (now - self._started)
        left = round((self._num_photos - self._num_done) / speed)
        logging.info(
            "%d of %d photos, %.1f photos/s, %s left.",
            self._num_done,
            self._num_photos,
            speed,
            datetime.timedelta(seconds=left),
        )
