"""`--mode=evaluate`: scores a checkpoint of a run, on its own data or on other.

With `--watch`, each new one of a training that runs beside it.
"""

from absl import logging

from trainer import scoring, watching
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
    if config.evaluation.watch:
        watching.run(config)
        return
    model_dir = config.run.model_dir
    saved = restoring.find_run(model_dir, config.run.checkpoint)
    for remark in layers.check_trained_with(config, saved.identity, model_dir):
        logging.warning("%s", remark)
    setup, path = evaluation.prepare_evaluation(
        config, devices.prepare_devices(config), saved
    )
    outcome = scoring.score_all(setup)
    if cluster.worker_index(setup.strategy) > 0:
        return
    print(f"{path.name} of {model_dir} on {setup.examples.name}:\n")
    counts = outcome.confusion
    print(scoring.format_table(outcome.scores, setup.eval_loop.metrics, counts))
    if table := scoring.format_confusion(counts, setup.confusion.class_names):
        print(f"\n{table}")
    picture = scoring.record(
        config,
        setup,
        evaluations.describe(path),
        scoring.describe(config, setup),
        outcome,
    )
    print()
    if picture:
        print(f"Photos, truths, predictions: {picture}")
    print(f"All scores:                  {model_dir}/evaluations.jsonl")
    print(f"A page of all this:          --mode=report --model_dir={model_dir}")
