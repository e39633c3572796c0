"""`--mode=benchmark`: how fast a run is, and what it waits for."""

import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

import trainer
from data.stores import reading
from trainer import errors, files
from trainer.assembly import devices, training
from trainer.benchmarking import comparison, measuring, report
from trainer.distributing import cluster
from trainer.evaluating import scoring
from trainer.loop import feed
from trainer.run_folder import model_dir
from trainer.running import preemption
from trainer.settings import config as config_lib
from trainer.steps import phases
from trainer.steps import training as training_steps

_LAUNCHES = "small ops"

_UNCHANGED = "step without augmentation"
"""What is timed beside the step, if that changes its examples."""


def run(config: config_lib.Config) -> None:
    """Times the objects that training uses, and prints and writes what it found.

    Timed in turn are: the input alone, training steps on one batch that is there, with
    and without its random changes, training end to end, evaluation, and with
    `--against=fit` Keras' `model.fit` and `model.evaluate` of the same model and data.
    Where the encoder is trained from a
    later step on, training is timed with and without it. MODEL_DIR/benchmark.json holds
    the figures again.

    Raises:
      errors.RunError: if settings do not fit each other, the devices or files.
      errors.NonFiniteError: if loss or gradients are NaN or infinite: what a step that
        is not made takes, is no time of a step.
      schema.DataError: if examples cannot be used.
    """
    folder = model_dir.make(config.run.model_dir)
    strategy = devices.prepare_devices(config)
    if config.benchmark.against != "none" and strategy.num_replicas_in_sync > 1:
        raise errors.ConfigError(
            f"--against={config.benchmark.against} compares on one device; use "
            "--distribution_strategy=one_device."
        )
    stop_requested = preemption.StopRequest().variable
    setup = training.prepare_training(config, strategy, stop_requested)
    batches = feed.Feed(setup, 0)
    batches.train(setup.train_loop, 1)
    start_secs = time.perf_counter() - trainer.STARTED
    unchanged = training.make_loop_without_augmentation(config, setup, stop_requested)
    contenders = _make_contenders(config, setup, batches, unchanged)
    figures = _measure(config, setup, contenders, start_secs)
    if cluster.worker_index(strategy) > 0:
        return
    print(report.format_report(figures))
    path = folder / "benchmark.json"
    files.write_text(path, json.dumps(figures, indent=2) + "\n")
    print(f"\nThe figures: {path}")


def _measure(
    config: config_lib.Config,
    setup: training.TrainSetup,
    contenders: Mapping[str, Callable[[int], None]],
    start_secs: float,
) -> dict[str, Any]:
    """Returns the figures of the report, by name."""
    num_replicas = setup.strategy.num_replicas_in_sync
    compute_dtype = tf.as_dtype(setup.state.model.compute_dtype)
    calibrations = measuring.make_calibrations(compute_dtype)
    launch, num_launches = measuring.make_launches()
    timings = measuring.time_in_turn(
        {
            **contenders,
            **{name: run for name, (run, _) in calibrations.items()},
            _LAUNCHES: launch,
        },
        rounds=config.benchmark.benchmark_rounds,
        secs=config.benchmark.benchmark_secs,
        agree=lambda secs: cluster.from_chief(setup.strategy, secs),
    )
    peak = find_peak(timings, calibrations, measuring.count_devices(setup.strategy))
    step = _count_work(setup, config.training_size)
    launch_secs = timings[_LAUNCHES].best / num_launches
    images = dict.fromkeys(contenders, setup.batch_size)
    images.update({n: len(setup.evaluation.examples) for n in images if "eval" in n})
    device = setup.strategy.extended.worker_devices[0].rpartition("device:")[2]
    secs = timings["step only"].best
    augmentation = measure_augmentation(timings)
    return {
        "device": f"{num_replicas} x {device}",
        "precision": setup.state.model.dtype_policy.name,
        "batch_size": setup.batch_size,
        "start_to_first_step_secs": start_secs,
        "peak_gflops": peak / 1e9,
        "step_gflop": step.flops / 1e9,
        "step_ops": step.num_ops,
        "launch_secs": launch_secs,
        "share_of_peak": step.flops / secs / peak,
        "augmentation": augmentation,
        "peak_memory_bytes": measuring.peak_memory_bytes(device),
        "timings": {
            name: {
                "best_secs": timings[name].best,
                "median_secs": timings[name].median,
                "images_per_sec": count / timings[name].best,
            }
            for name, count in images.items()
        },
        "limiter": report.find_limiter(
            input_secs=timings["input only"].best,
            step_secs=secs,
            share_of_peak=step.flops / secs / peak,
            num_ops=step.num_ops,
            launch_secs=launch_secs,
            has_half_precision=compute_dtype.size == 2,
            is_compiled=config.runtime.enable_xla,
            augmentation_share=augmentation["best_share"],
        ),
    }


def find_peak(
    timings: Mapping[str, measuring.Timing],
    calibrations: Mapping[str, tuple[Callable[[int], None], int]],
    num_devices: int,
) -> float:
    """Returns the FLOPs a second of all devices at their best.

    Args:
      timings: of the calibrations, which one device computes.
      calibrations: of `measuring.make_calibrations`.
      num_devices: on which the replicas are, whose FLOPs are counted together.
    """
    return num_devices * max(
        flops / timings[name].best for name, (_, flops) in calibrations.items()
    )


def measure_augmentation(
    timings: Mapping[str, measuring.Timing],
) -> dict[str, float | None]:
    """Returns the share of a step that its random changes take; None: it has none.

    Args:
      timings: of the step, and if it has random changes, of one without them.
    """
    unchanged = timings.get(_UNCHANGED)
    if unchanged is None:
        return {"best_share": None, "median_share": None}
    whole = timings["step only"]
    return {
        "best_share": 1 - unchanged.best / whole.best,
        "median_share": 1 - unchanged.median / whole.median,
    }


def _make_contenders(
    config: config_lib.Config,
    setup: training.TrainSetup,
    batches: feed.Feed,
    unchanged: phases.PhasedLoop | None,
) -> dict[str, Callable[[int], None]]:
    """Returns what is timed, by name: functions of the number of steps or passes."""
    steps_per_loop = config.train.steps_per_loop
    take = _make_taker(setup)
    resident = feed.Feed(setup, 0, is_one_batch=True)
    inputs = feed.Feed(setup, 0)
    contenders = {"input only": lambda steps: inputs.take(take, steps).numpy()}
    for name, loop in _loops(setup.train_loop).items():
        contenders[f"step only{name}"] = _make_trainer(loop, resident, steps_per_loop)
        contenders[f"end to end{name}"] = _make_trainer(loop, batches, steps_per_loop)
    if unchanged:
        last = _loops(unchanged)[""]
        contenders[_UNCHANGED] = _make_trainer(last, resident, steps_per_loop)
    contenders["evaluation"] = _make_evaluator(setup)
    if config.benchmark.against == "fit":
        contenders.update(_make_fits(config, setup))
    return contenders


def _loops(loop: phases.PhasedLoop) -> dict[str, training_steps.TrainLoop]:
    """Returns the loop of each phase of a run, by what follows the names of its times.

    Nothing follows those of the last one, of which all other figures are.
    """
    *earlier, last = loop.phases
    return {"": last.loop, **{f", {phase.name}": phase.loop for phase in earlier}}


def _count_work(
    setup: training.TrainSetup, image_size: tuple[int, int]
) -> measuring.Work:
    """Counts what forward and backward pass of a step compute, on all replicas."""
    num_replicas = setup.strategy.num_replicas_in_sync
    rows, image_format = setup.batch_size // num_replicas, setup.info.image_format
    gradients = _loops(setup.train_loop)[""].gradients

    def backpropagate(
        images: tf.Tensor, labels: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        with gradients.drawing_for(tf.range(rows, dtype=tf.int64)):
            return gradients.backpropagate(images, labels, 1.0)[:2]

    work = measuring.count_work(
        backpropagate,
        tf.TensorSpec(
            [rows, *image_size, image_format.num_channels], image_format.dtype
        ),
        tf.TensorSpec([rows, *image_size], tf.uint8),
    )
    return work._replace(flops=work.flops * num_replicas)


def _make_taker(setup: training.TrainSetup) -> Callable:
    """Returns a function that takes batches to the devices and does nothing."""

    def touch(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        batch = setup.examples.fetch(batch)
        return tf.add_n([tf.cast(tf.size(x), tf.int32) for x in tf.nest.flatten(batch)])

    @tf.function
    def take(iterator: Iterator, num_steps: tf.Tensor) -> tf.Tensor:
        total = tf.constant(0)
        for _ in tf.range(num_steps):
            sizes = setup.strategy.run(touch, (next(iterator),))
            total += setup.strategy.experimental_local_results(sizes)[0]
        return total

    return take


def _make_trainer(
    loop: training_steps.TrainLoop, batches: feed.Feed, steps_per_loop: int
) -> Callable[[int], None]:
    def train(steps: int) -> None:
        for first in range(0, steps, steps_per_loop):
            count = min(steps_per_loop, steps - first)
            batches.train(loop, count)

    return train


def _make_evaluator(setup: training.TrainSetup) -> Callable[[int], None]:
    def evaluate(passes: int) -> None:
        for _ in range(passes):
            scoring.evaluate(setup.evaluation)

    return evaluate


def _make_fits(
    config: config_lib.Config, setup: training.TrainSetup
) -> dict[str, Callable[[int], None]]:
    """Makes contenders of `model.fit`: in float32, and in the precision of the run."""
    policies = dict.fromkeys(["float32", setup.state.model.dtype_policy.name])
    contenders = {}
    for policy in policies:
        model = comparison.build_model(config, setup, policy)
        batches, evaluation = comparison.make_datasets(setup)

        contenders[f"model.fit {policy}"] = _make_fit(setup, model, batches)
        contenders[f"model.evaluate {policy}"] = _make_fit_evaluator(model, evaluation)
    return contenders


def _make_fit(
    setup: training.TrainSetup, model: keras.Model, batches: tf.data.Dataset
) -> Callable[[int], None]:
    def fit(steps: int) -> None:
        # Keras makes an iterator for each call.
        with reading.naming_bad(functools.partial(setup.read_again, 0, steps)):
            model.fit(batches, steps_per_epoch=steps, epochs=1, verbose=0)

    return fit


def _make_fit_evaluator(
    model: keras.Model, batches: tf.data.Dataset
) -> Callable[[int], None]:
    def evaluate(passes: int) -> None:
        for _ in range(passes):
            model.evaluate(batches, verbose=0)

    return evaluate
