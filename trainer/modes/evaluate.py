"""`--mode=evaluate`: scores a checkpoint of a run, on its own data or on other."""

from absl import logging

from trainer import scoring
from trainer.assembly import devices, evaluation, restoring
from trainer.distributing import cluster
from trainer.run_folder import evaluations
from trainer.settings import config as config_lib
from trainer.settings import layers


def run(config: config_lib.Config) -> None:
    """Scores a checkpoint on the evaluation split, and prints, notes and draws it.

    The settings have those of the run's folder in them; see `trainer.settings.layers`.

    Raises:
      errors.RunError: if there is no checkpoint that fits.
      schema.DataError: if examples cannot be used.
    """
    model_dir = config.run.model_dir
    saved = restoring.find_run(model_dir, config.run.checkpoint)
    for remark in layers.check_trained_with(config, saved.identity, model_dir):
        logging.warning("%s", remark)
    setup, path = evaluation.prepare_evaluation(
        config, devices.prepare_devices(config), saved
    )
    scores = scoring.evaluate(setup)
    counts, class_names = setup.confusion.counts(), setup.confusion.class_names
    details = setup.eval_loop.details()
    image_scores = setup.eval_loop.image_scores.result()
    if cluster.worker_index(setup.strategy) > 0:
        return
    print(f"{path.name} of {model_dir} on {setup.examples.name}:\n")
    print(scoring.format_table(scores, setup.eval_loop.metrics, counts))
    if table := scoring.format_confusion(counts, class_names):
        print(f"\n{table}")
    pictures = None
    if config.train.keep_golden:
        pictures = evaluations.Pictures(
            overview=scoring.draw_examples(setup),
            examples=scoring.draw_ranked(setup, image_scores),
        )
    picture = evaluations.record(
        model_dir,
        path,
        _describe(config, setup),
        scores,
        confusion=counts,
        class_names=class_names,
        details=details,
        image_scores=image_scores,
        pictures_to_keep=pictures,
    )
    print()
    if picture:
        print(f"Photos, truths, predictions: {picture}")
    print(f"All scores:                  {model_dir}/evaluations.jsonl")
    print(f"A page of all this:          --mode=report --model_dir={model_dir}")


def _describe(
    config: config_lib.Config, setup: evaluation.EvalSetup
) -> evaluations.Scored:
    """Says what was scored."""
    return evaluations.Scored(
        dataset=config.data.dataset,
        data_dir=config.data.data_dir,
        split=setup.examples.name,
        num_examples=len(setup.examples),
        fingerprint=setup.examples.fingerprint,
        image_size=config.data.image_size,
        eval_native_size=config.data.eval_native_size,
        uses_averages=setup.ema is not None,
        precision=setup.model.dtype_policy.name,
        tta=config.evaluation.tta,
        merge_classes=config.evaluation.merge_classes,
    )
