"""What a training says at its end: its scores, and where to look at the run."""

import pathlib
import shlex
from collections.abc import Sequence

from absl import logging

from trainer.assembly import training
from trainer.drawing import pictures
from trainer.evaluating import score_tables, scoring
from trainer.remote import mirrors
from trainer.run_folder import golden, run_settings, scalars
from trainer.settings import config as config_lib


def say_done(config: config_lib.Config, step: int, num_steps: int) -> None:
    """Says that there is nothing to train, and what to type for more.

    Args:
      config: all settings.
      step: of the last checkpoint.
      num_steps: length of the run, which may have ended early.
    """
    is_early = step < num_steps
    logging.info(
        "The run is done: %s holds step %d of %d. For more, raise %s.",
        config.run.model_dir,
        step,
        num_steps,
        "--early_stopping_patience" if is_early else "--train_epochs or --train_steps",
    )


def print_report(config: config_lib.Config, setup: training.TrainSetup) -> None:
    """Prints the scores of the last step, and draws what the model predicts.

    Args:
      config: all settings.
      setup: of the training that is done.

    Raises:
      errors.WriteError: if the picture cannot be written.
    """
    values = scalars.read_last_point(config.run.model_dir, "eval")
    flags = run_settings.find_other_scoring(config.run.model_dir, config)
    if setup.evaluation and values and flags:
        _warn_of_other_scores(config.run.model_dir, flags)
    elif setup.evaluation and values:
        speed = scalars.read_last_point(config.run.model_dir, "train") or {}
        if "images_per_sec" in speed:
            values["train_images_per_sec"] = speed["images_per_sec"]
        print(score_tables.format_table(values, setup.evaluation.eval_loop.metrics))
        print()
        if config.train.keep_golden:
            picture = pathlib.Path(config.run.model_dir) / "predictions.png"
            pictures.write_png(picture, scoring.draw_examples(setup.evaluation))
            print(f"Photos, truths, predictions: {picture}")
    print(f"Watch the curves:            tensorboard --logdir={config.run.model_dir}")


def warn_of_pictures(config: config_lib.Config) -> None:
    """Names photos of earlier starts that whoever gets the run shall not get now."""
    found = golden.list_pictures(config.run.model_dir)
    if found and not config.train.keep_golden:
        logging.warning(
            "--nokeep_golden: %s still holds photos, in %s; remove them before you "
            "hand it on.",
            config.run.model_dir,
            ", ".join(found),
        )


def _warn_of_other_scores(folder: str, flags: Sequence[str]) -> None:
    """Says why the scores of a run that was done before are not printed."""
    logging.warning(
        "The run was scored without %s, so its scores are not printed. To score it "
        "with that: %s %s",
        ", ".join(flags),
        mirrors.as_typed(f"--mode=evaluate --model_dir={shlex.quote(folder)}"),
        " ".join(flags),
    )
