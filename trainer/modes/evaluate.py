"""`--mode=evaluate`."""

from trainer import checkpointing, cluster, experiment, scoring
from trainer import config as config_lib


def run(config: config_lib.Config) -> None:
    """Scores a checkpoint on the evaluation split, and prints and draws the result.

    Raises:
      errors.RunError: if there is no checkpoint that fits.
      schema.DataError: if examples cannot be used.
    """
    setup = experiment.prepare_evaluation(config, experiment.prepare_devices(config))
    checkpointing.restore_model(
        setup.model, setup.ema, config.run.model_dir, config.run.checkpoint
    )
    scores = scoring.evaluate(setup)
    if cluster.worker_index(setup.strategy) > 0:
        return
    print(scoring.format_table(scores, setup.info.class_names))
    print(f"\nPhotos, truths, predictions: {scoring.write_picture(setup)}")
