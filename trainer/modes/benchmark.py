"""`--mode=benchmark`: how fast a run is, and what it waits for."""

import json
import time
from collections.abc import Callable, Iterator
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
from trainer.steps import training as training_steps

_LAUNCHES = "small ops"


def run(config: config_lib.Config) -> None:
    """Times the objects that training uses, and prints and writes what it found.

    Timed in turn are: the input alone, training steps on one batch that is there,
    training end to end, evaluation, and with `--against=fit` Keras' `model.fit` and
    `model.evaluate` of the same model and data. Where the encoder is trained from a
    later step on, training is timed with and without it. MODEL_DIR/benchmark.json holds
    the figures again.

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
    setup = training.prepare_training(
        config, strategy, preemption.StopRequest().variable
    )
    iterator = setup.make_iterator(0)
    setup.train_loop.run(iterator, tf.constant(1)).sums.numpy()
    start_secs = time.perf_counter() - trainer.STARTED
    figures = _measure(config, setup, iterator, start_secs)
    print(format_report(figures))
    path = folder / "benchmark.json"
    files.write_text(path, json.dumps(figures, indent=2) + "\n")
    print(f"\nThe figures: {path}")


def _measure(
    config: config_lib.Config,
    setup: training.TrainSetup,
    iterator: Iterator,
    start_secs: float,
) -> dict[str, Any]:
    """Returns the figures of the report, by name."""
    num_replicas = setup.strategy.num_replicas_in_sync
    contenders = _make_contenders(config, setup, iterator)
    compute_dtype = tf.as_dtype(setup.state.model.compute_dtype)
    calibrations = measuring.make_calibrations(compute_dtype)
    contenders.update({name: run for name, (run, _) in calibrations.items()})
    contenders[_LAUNCHES], num_launches = measuring.make_launches()
    timings = measuring.time_in_turn(
        contenders,
        rounds=config.benchmark.benchmark_rounds,
        secs=config.benchmark.benchmark_secs,
    )
    peak = max(flops / timings[name].best for name, (_, flops) in calibrations.items())
    step = _count_work(setup, config.training_size)
    launch_secs = timings[_LAUNCHES].best / num_launches
    others = {*calibrations, _LAUNCHES}
    images = {name: setup.batch_size for name in contenders if name not in others}
    images.update({n: len(setup.evaluation.examples) for n in images if "eval" in n})
    device = setup.strategy.extended.worker_devices[0].rpartition("device:")[2]
    secs = timings["step only"].best
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
            launch_secs=launch_secs,
        ),
    }


def _make_contenders(
    config: config_lib.Config, setup: training.TrainSetup, iterator: Iterator
) -> dict[str, Callable[[int], None]]:
    """Returns what is timed, by name: functions of the number of steps or passes."""
    steps_per_loop = config.train.steps_per_loop
    take = _make_taker(setup)
    resident = setup.make_iterator(0, is_one_batch=True)
    inputs = setup.make_iterator(0)
    contenders = {"input only": lambda steps: take(inputs, tf.constant(steps)).numpy()}
    for name, loop in _loops(setup).items():
        contenders[f"step only{name}"] = _make_trainer(loop, resident, steps_per_loop)
        contenders[f"end to end{name}"] = _make_trainer(loop, iterator, steps_per_loop)
    contenders["evaluation"] = _make_evaluator(setup)
    if config.benchmark.against == "fit":
        contenders.update(_make_fits(config, setup))
    return contenders


def _loops(setup: training.TrainSetup) -> dict[str, training_steps.TrainLoop]:
    """Returns the loop of each phase of a run, by what follows the names of its times.

    Nothing follows those of the last one, of which all other figures are.
    """
    *earlier, last = setup.train_loop.phases
    return {"": last.loop, **{f", {phase.name}": phase.loop for phase in earlier}}


def _count_work(
    setup: training.TrainSetup, image_size: tuple[int, int]
) -> measuring.Work:
    """Counts what forward and backward pass of a step compute, on all replicas."""
    num_replicas = setup.strategy.num_replicas_in_sync
    rows, image_format = setup.batch_size // num_replicas, setup.info.image_format
    gradients = _loops(setup)[""].gradients

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
    loop: training_steps.TrainLoop, iterator: Iterator, steps_per_loop: int
) -> Callable[[int], None]:
    def train(steps: int) -> None:
        for first in range(0, steps, steps_per_loop):
            count = min(steps_per_loop, steps - first)
            loop.run(iterator, tf.constant(count)).sums.numpy()

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
    launch_secs: float,
) -> str:
    """Says in one sentence what a run waits for, and what helps.

    Args:
      input_secs: for a batch, without training on it.
      step_secs: for a training step on a batch that is there.
      share_of_peak: FLOPs per second of the step, over those of the calibration.
      num_ops: ops that the step executes.
      launch_secs: what it takes to start an op that computes nothing much.
    """
    if input_secs > 0.9 * step_secs:
        return (
            "Limited by the input: a batch takes longer than the step that trains on "
            "it; keep the examples decoded (--cache=memory or disk)."
        )
    if num_ops * launch_secs > 0.5 * step_secs:
        return (
            f"Limited by launching {num_ops} ops a step: use a larger --batch_size, "
            "more --steps_per_loop, or --enable_xla."
        )
    if share_of_peak < 0.35:
        return (
            "Limited by memory traffic: the arithmetic runs at "
            f"{share_of_peak:.0%} of its peak; half the bytes help "
            "(--mixed_precision=bfloat16 or float16), and fused ops (--enable_xla on "
            "a GPU)."
        )
    return (
        f"Limited by arithmetic, at {share_of_peak:.0%} of this device's peak: only "
        "another number format, a smaller model or more devices are faster."
    )


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
    lines += [
        f"start to first finished step: {figures['start_to_first_step_secs']:.1f} s",
        f"a step: {figures['step_gflop']:.1f} GFLOP in {figures['step_ops']} ops (each "
        f"takes {1e6 * figures['launch_secs']:.1f} us to start), at "
        f"{figures['share_of_peak']:.0%} of the {figures['peak_gflops']:.0f} GFLOP/s "
        "of the calibration",
        f"peak memory: {figures['peak_memory_bytes'] / 2**20:.0f} MiB",
        figures["limiter"],
    ]
    return "\n".join(lines)
