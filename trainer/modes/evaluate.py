"""`--mode=evaluate`: scores a checkpoint of a run, on its own data or on other."""

from absl import logging

from trainer import scoring
from trainer.assembly import experiment
from trainer.distributing import cluster
from trainer.run_folder import checkpoint_folders, checkpointing, evaluations
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
    paths = checkpoint_folders.find(model_dir, config.run.checkpoint)
    trained = checkpoint_folders.read_identity(paths)
    for remark in layers.check_trained_with(config, trained, model_dir):
        logging.warning("%s", remark)
    setup = experiment.prepare_evaluation(
        config,
        experiment.prepare_devices(config),
        class_names=tuple(trained["class_names"]),
    )
    path = checkpointing.restore_model(setup.model, setup.ema, paths)
    scores = scoring.evaluate(setup)
    if cluster.worker_index(setup.strategy) > 0:
        return
    print(f"{path.name} of {model_dir} on {setup.examples.name}:\n")
    print(scoring.format_table(scores, setup.eval_loop.metrics))
    picture = evaluations.record(setup, scores, path)
    print(f"\nPhotos, truths, predictions: {picture}")
    print(f"All scores:                  {model_dir}/evaluations.jsonl")
