"""`--mode=benchmark`: how fast a run is, and what it waits for."""

import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

import trainer
from trainer import errors, files, scoring
from trainer.assembly import devices, training
from trainer.benchmarking import comparison, measuring
from trainer.run_folder import model_dir
from trainer.running import preemption
from trainer.settings import config as config_lib
from trainer.steps import training as train_steps

_UNCHANGED = "step without augmentation"
"""What is timed beside the step, if that changes its examples."""

_DEAR_SHARE = 0.1
"""Of a step; what is in `--augment=strong` takes less."""

_LAUNCH_SECS = 5e-6
"""What it takes to start an op, about, on CPUs and GPUs alike."""


def run(config: config_lib.Config) -> None:
    """Times the objects that training uses, and prints and writes what it found.

    Timed in turn are: the input alone, training steps on one batch that is there, with
    and without its random changes, training end to end, evaluation, and with
    `--against=fit` Keras' `model.fit` and `model.evaluate` of the same model and data.
    MODEL_DIR/benchmark.json holds the figures again.

    Raises:
      errors.RunError: if settings do not fit each other, the devices or files.
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
    iterator = setup.make_iterator(0)
    setup.train_loop.run(iterator, tf.constant(1)).sums.numpy()
    start_secs = time.perf_counter() - trainer.STARTED
    unchanged = training.make_loop_without_augmentation(config, setup, stop_requested)
    contenders = _make_contenders(config, setup, iterator, unchanged)
    figures = _measure(config, setup, contenders, start_secs)
    print(format_report(figures))
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
    timings = measuring.time_in_turn(
        {**contenders, **{name: run for name, (run, _) in calibrations.items()}},
        rounds=config.benchmark.benchmark_rounds,
        secs=config.benchmark.benchmark_secs,
    )
    peak = max(flops / timings[name].best for name, (_, flops) in calibrations.items())
    step = _count_work(setup, config.training_size)
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
        "limiter": find_limiter(
            input_secs=timings["input only"].best,
            step_secs=secs,
            share_of_peak=step.flops / secs / peak,
            num_ops=step.num_ops,
            augmentation_share=augmentation["best_share"],
        ),
    }


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
    iterator: Iterator,
    unchanged: train_steps.TrainLoop | None,
) -> dict[str, Callable[[int], None]]:
    """Returns what is timed, by name: functions of the number of steps or passes."""
    make_trainer = functools.partial(
        _make_trainer, steps_per_loop=config.train.steps_per_loop
    )
    take = _make_taker(setup)
    resident = setup.make_iterator(0, is_one_batch=True)
    inputs = setup.make_iterator(0)
    contenders = {
        "input only": lambda steps: take(inputs, tf.constant(steps)).numpy(),
        "step only": make_trainer(setup.train_loop, resident),
    }
    if unchanged:
        contenders[_UNCHANGED] = make_trainer(unchanged, resident)
    contenders["end to end"] = make_trainer(setup.train_loop, iterator)
    contenders["evaluation"] = _make_evaluator(setup)
    if config.benchmark.against == "fit":
        contenders.update(_make_fits(config, setup))
    return contenders


def _count_work(
    setup: training.TrainSetup, image_size: tuple[int, int]
) -> measuring.Work:
    """Counts what forward and backward pass of a step compute, on all replicas."""
    num_replicas = setup.strategy.num_replicas_in_sync
    rows, image_format = setup.batch_size // num_replicas, setup.info.image_format
    gradients = setup.train_loop.gradients

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
    train_loop: train_steps.TrainLoop, iterator: Iterator, *, steps_per_loop: int
) -> Callable[[int], None]:
    def train(steps: int) -> None:
        for first in range(0, steps, steps_per_loop):
            count = min(steps_per_loop, steps - first)
            train_loop.run(iterator, tf.constant(count)).sums.numpy()

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

        contenders[f"model.fit {policy}"] = _make_fit(model, batches)
        contenders[f"model.evaluate {policy}"] = _make_fit_evaluator(model, evaluation)
    return contenders


def _make_fit(model: keras.Model, batches: tf.data.Dataset) -> Callable[[int], None]:
    def fit(steps: int) -> None:
        model.fit(batches, steps_per_epoch=steps, epochs=1, verbose=0)

    return fit


def _make_fit_evaluator(
    model: keras.Model, batches: tf.data.Dataset
) -> Callable[[int], None]:
    def evaluate(passes: int) -> None:
        for _ in range(passes):
            model.evaluate(batches, verbose=0)

    return evaluate


def find_limiter(
    *,
    input_secs: float,
    step_secs: float,
    share_of_peak: float,
    num_ops: int,
    augmentation_share: float | None = None,
) -> str:
    """Says in a sentence what a run waits for and what helps, and what changes cost.

    Args:
      input_secs: for a batch, without training on it.
      step_secs: for a training step on a batch that is there.
      share_of_peak: FLOPs per second of the step, over those of the calibration.
      num_ops: ops that the step executes.
      augmentation_share: of the step; None: it has no random changes.
    """
    if input_secs > 0.9 * step_secs:
        limit = (
            "Limited by the input: a batch takes longer than the step that trains on "
            "it; keep the examples decoded (--cache=memory or disk)"
        )
    elif num_ops * _LAUNCH_SECS > 0.5 * step_secs:
        limit = (
            f"Limited by launching {num_ops} ops a step: use a larger --batch_size, "
            "more --steps_per_loop, or --enable_xla"
        )
    elif share_of_peak < 0.35:
        limit = (
            "Limited by memory traffic: the arithmetic runs at "
            f"{share_of_peak:.0%} of its peak; half the bytes help "
            "(--mixed_precision=bfloat16 or float16), and fused ops (--enable_xla on "
            "a GPU)"
        )
    else:
        limit = (
            f"Limited by arithmetic, at {share_of_peak:.0%} of this device's peak: "
            "only another number format, a smaller model or more devices are faster"
        )
    if augmentation_share is None:
        return f"{limit}."
    remedy = ""
    if augmentation_share > _DEAR_SHARE:
        remedy = ", which a weaker --augment or fewer changes beside it save"
    share = max(0.0, augmentation_share)
    return f"{limit}; random changes take {share:.0%} of the step{remedy}."


def format_report(figures: dict) -> str:
    """Lays out the figures of `benchmark.json` for people."""
    timings = figures["timings"]
    width = max(map(len, timings))
    lines = [
        f"{figures['device']}, {figures['precision']}, batches of "
        f"{figures['batch_size']}",
        "",
        f"{'':{width}}   best ms  median ms  images/s",
    ]
    for name, timing in timings.items():
        best, median = 1000 * timing["best_secs"], 1000 * timing["median_secs"]
        speed = timing["images_per_sec"]
        lines.append(f"{name:{width}}  {best:8.2f}  {median:9.2f}  {speed:8.0f}")
    lines.append("")
    for ours, prefix in (("end to end", "model.fit"), ("evaluation", "model.evaluate")):
        for name in timings:
            if name.startswith(prefix):
                ratios = [
                    timings[name][key] / timings[ours][key]
                    for key in ("best_secs", "median_secs")
                ]
                lines.append(
                    f"{ours} is {ratios[0]:.2f}x as fast as {name} by the best round, "
                    f"{ratios[1]:.2f}x by the median"
                )
    shares = figures["augmentation"]
    if shares["best_share"] is not None:
        lines.append(
            f"random changes take {shares['best_share']:.1%} of a step by the best "
            f"round, {shares['median_share']:.1%} by the median"
        )
    lines += [
        f"start to first finished step: {figures['start_to_first_step_secs']:.1f} s",
        f"a step: {figures['step_gflop']:.1f} GFLOP in {figures['step_ops']} ops, at "
        f"{figures['share_of_peak']:.0%} of the {figures['peak_gflops']:.0f} GFLOP/s "
        "of the calibration",
        f"peak memory: {figures['peak_memory_bytes'] / 2**20:.0f} MiB",
        figures["limiter"],
    ]
    return "\n".join(lines)
