"""`--mode=evaluate`: scores a checkpoint of a run, on its own data or on other.

With `--watch`, each new one of a training that runs beside it; with `--model`, an
exported file in its place.
"""

import pathlib

from absl import logging

from trainer.assembly import devices, evaluation, exported, restoring
from trainer.distributing import cluster
from trainer.evaluating import score_tables, scoring, watching
from trainer.exporting import description, registry
from trainer.remote import mirrors
from trainer.run_folder import evaluations
from trainer.settings import config as config_lib
from trainer.settings import layers


def run(config: config_lib.Config) -> None:
    """Scores a model on the evaluation split, and prints, notes and draws it.

    The settings have those of the run's folder in them; see `trainer.settings.layers`.

    Raises:
      errors.RunError: if there is no model that fits.
      schema.DataError: if examples cannot be used.
    """
    if config.evaluation.watch:
        watching.run(config)
    elif config.run.model:
        _score_file(config)
    else:
        _score_checkpoint(config)


def _score_checkpoint(config: config_lib.Config) -> None:
    model_dir = config.run.model_dir
    saved = restoring.find_run(model_dir, config.run.checkpoint)
    for remark in layers.check_trained_with(config, saved.identity, model_dir):
        logging.warning("%s", remark)
    setup, origin = evaluation.prepare_evaluation(
        config, devices.prepare_devices(config, trains=False), saved
    )
    outcome = scoring.score_all(setup)
    if cluster.worker_index(setup.strategy) == 0:
        scored = scoring.describe(
            config,
            setup,
            precision=setup.model.dtype_policy.name,
            uses_averages=setup.ema is not None,
        )
        subject = evaluations.describe(origin)
        _report(config, setup, outcome, subject, model_dir, scored)
    cluster.wait_for_chief(setup.strategy)


def _score_file(config: config_lib.Config) -> None:
    strategy = devices.prepare_devices(config, trains=False)
    about = description.read_model(config.run.model)
    cluster.check_model(strategy, about.step, about.weights)
    trained = exported.load(about)
    exported.check(config, trained)
    setup = evaluation.prepare_evaluation_of(
        config, strategy, trained, scores_images=True
    )
    outcome = scoring.score_all(setup)
    if not trained.gives_probabilities:  # Of these is the loss.
        scores = outcome.scores.items()
        scores = {n: v for n, v in scores if n.partition("/")[0] != "loss"}
        outcome = outcome._replace(scores=scores)
    if cluster.worker_index(strategy) == 0:
        subject = evaluations.Subject(
            about.format,
            about.step,
            about.weights,
            export=str(pathlib.Path(config.run.model).absolute()),
        )
        is_short = registry.FORMATS[about.format].is_calibrated
        scored = scoring.describe(
            config,
            setup,
            precision="int8" if is_short else "float32",
            uses_averages=trained.uses_averages,
        )
        _report(config, setup, outcome, subject, config.run.model, scored)
    cluster.wait_for_chief(strategy)


def _report(
    config: config_lib.Config,
    setup: evaluation.EvalSetup,
    outcome: scoring.Outcome,
    subject: evaluations.Subject,
    place: str,
    scored: evaluations.Scored,
) -> None:
    """Prints the scores, and notes them in the run's folder if there is one."""
    model_dir = config.run.model_dir
    counts = outcome.confusion
    print(f"{subject.name} of {place} on {setup.examples.name}:\n")
    print(score_tables.format_table(outcome.scores, setup.eval_loop.metrics, counts))
    if table := score_tables.format_confusion(counts, setup.confusion.class_names):
        print(f"\n{table}")
    if not model_dir:
        return
    picture = scoring.record(config, setup, subject, scored, outcome)
    print()
    if picture:
        print(f"Photos, truths, predictions: {picture}")
    print(f"All scores:                  {evaluations.path_of(model_dir, subject)}")
    if not subject.export:  # Of exported files, a report says nothing.
        report = mirrors.as_typed(f"--mode=report --model_dir={model_dir}")
        print(f"A page of all this:          {report}")
