"""What scores a model, made from the settings."""

import concurrent.futures
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from data import pipeline, schema
from data.preparing import resizing
from trainer import tensorflow_private
from trainer.assembly import inputs, restoring, trained_model
from trainer.distributing import cluster
from trainer.losses import registry as loss_registry
from trainer.losses import weighted_sum
from trainer.metrics import confusion as confusion_lib
from trainer.metrics import groups as groups_lib
from trainer.metrics import image_scores as image_scores_lib
from trainer.metrics import merging
from trainer.metrics import registry as metric_registry
from trainer.optimizing import ema as ema_lib
from trainer.run_folder import checkpoint_folders
from trainer.settings import config as config_lib
from trainer.settings import fields
from trainer.settings import variants as variants_lib
from trainer.steps import averaging
from trainer.steps import evaluation as evaluation_steps


@dataclasses.dataclass(frozen=True)
class EvalSetup:
    """What scoring a model needs.

    Attributes:
      strategy: the devices.
      info: classes of the data set, as the labels in the stores have them.
      examples: the split to evaluate on.
      model: from images to logits, a Keras model or what is called as one.
      eval_loop: scores batches.
      confusion: that of the metrics of `eval_loop` that is always there.
      ema: moving averages to evaluate in place of the weights, or None.
      batch_size: rows of a batch over all replicas.
      batches_per_call: how many batches a call of the devices scores.
    """

    strategy: tf.distribute.Strategy
    info: schema.DatasetInfo
    examples: pipeline.Examples
    model: Callable[..., tf.Tensor]
    eval_loop: evaluation_steps.EvalLoop
    confusion: confusion_lib.ConfusionMatrix
    ema: ema_lib.ExponentialMovingAverage | None
    batch_size: int
    batches_per_call: int

    @property
    def num_batches(self) -> int:
        """Batches of one pass."""
        return pipeline.num_eval_batches(len(self.examples), self.batch_size)

    @functools.cached_property
    def iterator(self) -> Iterator:
        """Distributed evaluation batches, pass after pass.

        One for all evaluations: making one takes a third of a second.
        """
        return self.make_iterator()

    def make_iterator(self) -> Iterator:
        """Returns an iterator of one's own, from the first batch on."""
        return tensorflow_private.distribute(
            self.strategy,
            lambda context: pipeline.make_eval_dataset(
                self.examples,
                global_batch_size=self.batch_size,
                shard=pipeline.Shard.from_context(context),
                num_passes=-1,
            ),
        )

    def read_again(self, start: int, stop: int) -> None:
        """Reads the examples of batches of which one failed.

        Raises:
          schema.DataError: if an example is to blame; it names the first such.
        """
        batch_size = self.batch_size
        for first in range(start * batch_size, stop * batch_size, batch_size):
            last = min(first + batch_size, len(self.examples))
            self.examples.read(np.arange(first, last))


def prepare_evaluation(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    run: restoring.SavedRun,
) -> tuple[EvalSetup, checkpoint_folders.Origin]:
    """Makes what `--mode=evaluate` needs, the model restored.

    Args:
      config: all settings.
      strategy: of `devices.prepare_devices`.
      run: whose model is to be scored.

    Returns:
      The setup, and the checkpoint.

    Raises:
      errors.RunError: if settings do not fit the devices, files or classes, no
        checkpoint can be restored, or other workers have restored another one.
      schema.DataError: if examples cannot be used.
    """
    groups, info, opening = _open(config, strategy, run.class_names)
    run = _choose_as_chief(config, strategy, run)
    with strategy.scope():
        restored = restoring.restore(
            run,
            config,
            info.image_format,
            num_replicas=strategy.num_replicas_in_sync,
            takes_any_size=bool(config.evaluation.variants.scales),
        )
    cluster.check_model(strategy, restored.origin.step, restored.origin.weights)
    setup = make_eval_setup(
        config,
        strategy,
        info,
        opening.result(),
        restored.model,
        restored.ema,
        groups=groups,
        scores_images=True,
    )
    return setup, restored.origin


def _choose_as_chief(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    run: restoring.SavedRun,
) -> restoring.SavedRun:
    """Returns a run with the checkpoints that the chief has found, in its order.

    A training beside saves and removes some before the next worker looks for them.
    """
    is_named = config.run.checkpoint not in checkpoint_folders.CHOICES
    if is_named or cluster.num_workers(strategy) == 1:
        return run  # A name may be a path, which may differ from host to host.
    folder, names = run.paths[0].parent, [path.name for path in run.paths]
    chosen = json.loads(cluster.gather(strategy, json.dumps(names))[0])
    return run._replace(paths=[folder / name for name in chosen])


def prepare_evaluation_of(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    trained: trained_model.TrainedModel,
    *,
    scores_images: bool = False,
) -> EvalSetup:
    """Makes what scoring a model needs that is loaded.

    Args:
      config: all settings, for images of the model's kind.
      strategy: of `devices.prepare_devices`.
      trained: the model.
      scores_images: whether to score each image, too.

    Raises:
      errors.RunError: as `prepare_evaluation`.
      schema.DataError: if examples cannot be used.
    """
    groups, info, opening = _open(config, strategy, trained.class_names)
    return make_eval_setup(
        config,
        strategy,
        info,
        opening.result(),
        trained.model,
        None,
        groups=groups,
        scores_images=scores_images,
    )


def _open(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    class_names: tuple[str, ...],
) -> tuple[groups_lib.Groups | None, schema.DatasetInfo, concurrent.futures.Future]:
    """Returns the classes to score, those of the data set, and the split as it opens.

    Args:
      config: all settings.
      strategy: the devices.
      class_names: those of the model.
    """
    groups = _resolve_groups(config.evaluation.merge_classes, class_names)
    source = inputs.open_source(config, is_training=False)
    info = inputs.resolve_info(config, source, class_names)
    (opening,) = inputs.open_in_background(config, strategy, info, {"eval": source})
    return groups, info, opening


def _resolve_groups(
    words: Sequence[str], class_names: Sequence[str]
) -> groups_lib.Groups | None:
    """Returns the classes to score; None: those that the model was trained with."""
    if not words:
        return None
    try:
        return groups_lib.resolve(groups_lib.parse(words), class_names)
    except ValueError as error:
        fields.reject("merge_classes", words, str(error))


def make_eval_setup(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    info: schema.DatasetInfo,
    examples: pipeline.Examples,
    model: Callable[..., tf.Tensor],
    ema: ema_lib.ExponentialMovingAverage | None,
    *,
    groups: groups_lib.Groups | None = None,
    scores_images: bool = False,
) -> EvalSetup:
    """Makes what scores a model that is there.

    Args:
      config: all settings.
      strategy: the devices.
      info: classes of the data set.
      examples: the split to evaluate on.
      model: from images to logits.
      ema: moving averages to evaluate in place of the weights, or None.
      groups: classes to score in place of the trained ones, or None.
      scores_images: whether to score each image, too.
    """
    eval_loop, confusion = make_eval_loop(
        strategy,
        examples=examples,
        model=model,
        class_names=info.class_names,
        # Without class weights, which belong to the training split.
        loss=loss_registry.make(
            config.loss.loss, info.num_classes, options=config.loss.options()
        ),
        metrics=config.evaluation.metrics,
        resize=config.data.resize,
        tta=config.evaluation.tta,
        groups=groups,
        scores_images=scores_images,
    )
    return EvalSetup(
        strategy=strategy,
        info=info,
        examples=examples,
        model=model,
        eval_loop=eval_loop,
        confusion=confusion,
        ema=ema,
        batch_size=pipeline.eval_batch_size(
            len(examples),
            max_batch_size=config.train.batch_size,
            num_replicas=strategy.num_replicas_in_sync,
        ),
        batches_per_call=config.train.steps_per_loop,
    )


def make_eval_loop(
    strategy: tf.distribute.Strategy,
    *,
    examples: pipeline.Examples,
    model: Callable[..., tf.Tensor],
    class_names: Sequence[str],
    loss: weighted_sum.WeightedSum,
    metrics: Sequence[str],
    resize: str,
    tta: Sequence[str] = (),
    groups: groups_lib.Groups | None = None,
    scores_images: bool = False,
) -> tuple[evaluation_steps.EvalLoop, confusion_lib.ConfusionMatrix]:
    """Makes what scores batches.

    Args:
      strategy: on whose replicas to run.
      examples: the split to evaluate on.
      model: from images to logits.
      class_names: the name of each class.
      loss: whose numbers are scores, too.
      metrics: names of metrics besides the confusion matrix.
      resize: how the examples were brought to one size.
      tta: names variants of each image, whose mean probabilities are scored.
      groups: classes to score in place of the trained ones, or None.
      scores_images: whether to score each image, too.

    Returns:
      The loop, and the confusion matrix among its metrics.
    """
    if groups:
        class_names = groups.names
    with strategy.scope():
        confusion = confusion_lib.ConfusionMatrix(class_names)
        image_scores = None
        if scores_images:
            image_scores = image_scores_lib.ImageScores(len(examples), len(class_names))
        loop = evaluation_steps.EvalLoop(
            strategy,
            fetch=examples.fetch,
            model=averaging.Averaged(model, variants_lib.parse(tta)) if tta else model,
            loss=loss,
            metrics=[confusion, *metric_registry.make(metrics, class_names)],
            merge=merging.Merging(groups) if groups else merging.keep,
            restore_size=functools.partial(resizing.restore_size, method=resize),
            image_scores=image_scores,
        )
    return loop, confusion
