"""`--mode=plan`: what to train in a given time, on this data and this machine."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from data.doctor import facts as facts_lib
from data.files import palettes
from trainer import errors, files
from trainer.assembly import imagenet, initializing
from trainer.modes import doctor
from trainer.planning import notes, plan_file, probe, search, sizes
from trainer.run_folder import model_dir
from trainer.running import memory
from trainer.settings import config as config_lib
from trainer.settings import durations, fields

_FOLDERS = ("data_dir", "cache_dir", "init_checkpoint")
_FILES: dict[str, Collection[str]] = {
    "class_names": (),
    "encoder_weights": ("imagenet", "none"),
    "label_colors": palettes.PALETTES,
    "label_map": (),
}
"""Settings that name files, and which of their values are no paths, even if there is a
file of that name."""
_OF_THIS_COMMAND = ("mode", "model_dir", "time_budget")
_PLANNED = ("imbalance", "odd_aspect", "small_image")
"""Kinds of findings that the plan itself makes up for."""


def run(config: config_lib.Config) -> None:
    """Looks at the data, measures some settings, and writes MODEL_DIR/plan.flags.

    Raises:
      errors.FindingsError: if training on the data would end with an error.
      errors.RunError: if nothing fits into the time, or settings do not fit.
      schema.DataError: if there is nothing to look at.
    """
    budget = config.train.time_budget
    if not budget:
        raise errors.ConfigError(
            "--mode=plan plans for a time; give it, e.g. --time_budget=30m."
        )
    if config.runtime.distribution_strategy == "multi_worker_mirrored":
        fields.reject(
            "distribution_strategy",
            "multi_worker_mirrored",
            "--mode=plan measures one host; plan on one, with mirrored",
        )
    folder = model_dir.make(config.run.model_dir)
    shared = initializing.shared_settings(config)
    config, examined = _examine(config_lib.from_dict({**config.given(), **shared}))
    facts = find_facts(config, examined)
    given = {n: v for n, v in config.given().items() if n not in _OF_THIS_COMMAND}
    given = {n: v for n, v in given.items() if n not in shared}
    if not facts.has_weights and (count := given.get("freeze_encoder_stages")):
        fields.reject(
            "freeze_encoder_stages",
            count,
            "these maps would keep random weights for good: no ImageNet weights are "
            "there; name some with --encoder_weights=FILE, or leave this out",
        )
    with model_dir.rehearsing(config.run.model_dir, is_chief=True) as scratch:
        plan = _search(facts, {**given, **shared}, budget, scratch)
    if not plan.num_steps:
        raise errors.ConfigError(
            f"--time_budget={budget} is too short: on this machine the shortest run "
            f"{_describe_warmup(given)}needs "
            f"{durations.describe(plan.shortest_secs)}; give at least that."
        )
    plan = plan._replace(choices={**_explain(shared), **plan.choices})
    path = folder / "plan.flags"
    text = plan_file.describe(
        plan,
        _with_absolute_paths(given),
        path=str(path),
        time_budget=budget,
        machine=_describe_machine(facts),
        warnings=[f.message for f in examined.findings if f.kind not in _PLANNED],
    )
    files.write_text(path, text)
    print(text)
    print(f"The plan: {path}")


def _explain(shared: Mapping[str, Any]) -> dict[str, notes.Choice]:
    """Returns choices of settings that shape the model of another run."""
    choices = {name: notes.Choice(value, "") for name, value in shared.items()}
    for name in list(choices)[:1]:
        reason = "as the run of --init_checkpoint has it, whose weights fit no other"
        choices[name] = choices[name]._replace(reason=reason)
    return choices


def _examine(
    config: config_lib.Config,
) -> tuple[config_lib.Config, doctor.Examination]:
    """Looks at the data; where the number of classes is not known, the masks say it.

    Raises:
      errors.FindingsError: if training would end with an error.
    """
    with contextlib.suppress(RuntimeError):  # They are for what is measured.
        tf.config.set_visible_devices([], "GPU")
    examined = doctor.examine(config)
    if examined.setup.info is None and (count := _count_classes(examined.splits)):
        logging.info("The masks have the values 0 to %d: %d classes.", count - 1, count)
        given = {**config.given(), "num_classes": count}
        config = config_lib.from_dict(given)
        examined = doctor.examine(config)
    for finding in examined.findings:
        if finding.severity == "error" or examined.setup.info is None:
            where = f"{finding.split}: {', '.join(finding.files[:1])}".removesuffix(
                ": "
            )
            raise errors.FindingsError(
                f"{where}: {finding.message}. There is no plan for a data set "
                "that training would refuse; --mode=doctor names all files."
            )
    return config, examined


def _count_classes(splits: list[facts_lib.Split]) -> int:
    """Returns how many classes masks have that count from 0; 0: they do not."""
    values = set().union(*(split.value_counts for split in splits)) - {255}
    is_counted = values == set(range(len(values)))
    return len(values) if is_counted and len(values) > 1 else 0


def find_facts(config: config_lib.Config, examined: doctor.Examination) -> notes.Facts:
    """Returns what is known of data and machine before anything is measured.

    Args:
      config: all settings.
      examined: what a look through the data has found.
    """
    train, info = examined.splits[0], examined.setup.info
    file_sizes = np.array([fact.size for fact in train.examples if fact.size])
    height, width = np.median(file_sizes, axis=0)
    aspects = np.percentile(file_sizes[:, 0] / file_sizes[:, 1], (25, 50, 75))
    image_format = examined.setup.image_format
    num_gpus = len(tf.config.list_physical_devices("GPU"))
    if config.runtime.num_gpus >= 0:
        num_gpus = min(num_gpus, config.runtime.num_gpus)
    num_replicas = max(num_gpus, config.runtime.virtual_devices, 1)
    if config.runtime.distribution_strategy == "one_device":
        num_replicas = 1
    facts = notes.Facts(
        num_train=len(train.examples),
        num_eval=len(examined.splits[-1].examples),
        height=int(height),
        width=int(width),
        aspects=tuple(aspects.tolist()),
        class_names=info.class_names,
        class_pixels=tuple(train.class_pixels[: info.num_classes].tolist()),
        class_examples=tuple(train.class_examples[: info.num_classes].tolist()),
        pixel_bytes=image_format.num_channels * image_format.bits // 8 + 1,
        num_channels=image_format.num_channels,
        num_replicas=num_replicas,
        has_gpu=num_gpus > 0,
        memory_bytes=memory.free_bytes(),
        has_weights=False,
    )
    return _note_weights(config, facts)


def _note_weights(config: config_lib.Config, facts: notes.Facts) -> notes.Facts:
    """Adds to the facts which weights need not be downloaded."""
    takes_any_size = bool(config.evaluation.variants.scales)
    cached = imagenet.find(
        config.model,
        [
            (None, None) if shape.crop_size or takes_any_size else shape.image_size
            for shape in sizes.shapes_to_try(facts, config.given())
        ],
    )
    return dataclasses.replace(
        facts, has_weights=cached.is_there, weights_file=cached.file
    )


def _search(
    facts: notes.Facts, given: Mapping[str, Any], budget: str, scratch: pathlib.Path
) -> search.Plan:
    """Finds the plan.

    Raises:
      errors.OutOfMemoryError: if not even the least fits into the memory.
    """

    def measure(settings: Mapping[str, Any]) -> notes.Measured | None:
        shown = ("image_size", "crop_size", "mixed_precision", "freeze_encoder")
        text = ", ".join(
            f"--{name}={fields.format_value(settings[name])}"
            for name in shown
            if settings.get(name, ()) != ()
        )
        logging.info("Measuring %s.", text)
        found = probe.measure(
            config_lib.from_dict(
                {**settings, "model_dir": str(scratch), "time_budget": budget}
            )
        )
        if found:
            logging.info(
                "A step takes %.0f ms, an evaluation %.1f s, the start %.0f s; %.1f "
                "GiB of memory.",
                1000 * found.costs.step,
                found.costs.evaluation,
                found.costs.start,
                found.memory_bytes / 2**30,
            )
        return found

    try:
        return search.search(facts, given, measure, secs=durations.parse(budget))
    except MemoryError as error:
        parts = given.get("gradient_accumulation_steps")
        how, what = (
            "however the batch is split",
            "is smaller or can be halved more often",
        )
        if parts:
            how, what = f"with --gradient_accumulation_steps={parts}", "is smaller"
        raise errors.OutOfMemoryError(
            f"Not even the smallest images fit into the memory, {how}; give a smaller "
            f"--encoder, a --batch_size that {what}, or make room."
        ) from error


def _describe_warmup(given: Mapping[str, Any]) -> str:
    steps = given.get("warmup_steps")
    return f"with --warmup_steps={steps} " if steps else ""


def _with_absolute_paths(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings that mean the same from any folder."""
    return {name: _resolve(name, value) for name, value in given.items()}


def _resolve(name: str, value: Any) -> Any:
    """Makes an absolute path of the value of a setting, if that is a path here."""
    if isinstance(value, tuple) and len(value) == 1:
        return (_resolve(name, value[0]),)
    if not isinstance(value, str):
        return value
    if name == "encoder":  # A preset of a library may be a folder.
        library, _, preset = value.partition(":")
        is_there = os.path.isdir(preset)
        return f"{library}:{os.path.abspath(preset)}" if is_there else value
    is_folder = name in _FOLDERS and bool(value) and value[0] != "~"
    is_file = value not in _FILES.get(name, [value]) and os.path.isfile(value)
    if "://" in value or not (is_folder or is_file):
        return value
    return os.path.abspath(value)


def _describe_machine(facts: notes.Facts) -> str:
    count = facts.num_replicas if facts.has_gpu else os.cpu_count()
    kind = "GPU" if facts.has_gpu else "CPU core"
    return f"{count} {kind}{'s' * (count != 1)}"
