"""`--mode=doctor`: what is wrong with a data set, and what mends it."""

import collections
import contextlib
import json
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tqdm

from data import schema
from data.doctor import class_findings, findings, image_findings, inspection
from data.doctor import facts as facts_lib
from data.files import file_traits
from trainer import errors, files
from trainer.assembly import devices, inputs
from trainer.drawing import pictures
from trainer.modes import train as train_mode
from trainer.run_folder import model_dir
from trainer.settings import config as config_lib
from trainer.suspecting import second_opinion

_NUM_PICTURES = 12
_NUM_NAMED = 3
_AXES = ("height", "width")


class Examination(NamedTuple):
    """What a look through a data set has found.

    Attributes:
      setup: what was needed for it.
      splits: that to train on, and if there is one, that to evaluate on.
      findings: what is wrong with them.
    """

    setup: inputs.InspectionSetup
    splits: list[facts_lib.Split]
    findings: list[findings.Finding]


def run(config: config_lib.Config) -> None:
    """Looks at every example of both splits, and prints, writes and draws what it saw.

    MODEL_DIR/doctor.json holds facts and findings with all files; MODEL_DIR/doctor.png
    shows examples as training sees them. Where MODEL_DIR holds a trained run, or with
    `--crossfit`, MODEL_DIR/doctor holds which masks are most likely wrong: a suspicion,
    and no finding.

    Raises:
      errors.FindingsError: if anything was found.
      errors.RunError: if the settings do not fit each other.
      schema.DataError: if there is nothing to look at.
    """
    folder = model_dir.make(config.run.model_dir)
    strategy = None
    if second_opinion.can_judge(config):
        strategy = devices.prepare_devices(config, trains=config.doctor.crossfit)
    else:
        with contextlib.suppress(RuntimeError):  # They may be in use in this process.
            # Another program may have the GPUs, and there is nothing to do for them.
            tf.config.set_visible_devices([], "GPU")
    setup, splits, found = examine(config)
    report = {
        "splits": [_summarize(split, setup.info) for split in splits],
        "findings": [vars(finding) for finding in found],
    }
    path = folder / "doctor.json"
    files.write_text(path, json.dumps(report, indent=2) + "\n")
    print(format_report(report))
    if setup.preprocessor and (picture := _draw(config, setup, splits[0], folder)):
        print(f"\nExamples as training sees them: {picture}")
    print(f"\nAll figures: {path}")
    if strategy:
        print(f"\n{_judge_masks(config, strategy, setup, found)}")
    if found:
        num_errors = sum(finding.severity == "error" for finding in found)
        counts = (("error", num_errors), ("warning", len(found) - num_errors))
        summary = " and ".join(f"{n} {word}{'s' * (n != 1)}" for word, n in counts)
        raise errors.FindingsError(
            f"--mode=doctor found {summary}; {path} names all files."
        )


def _judge_masks(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    setup: inputs.InspectionSetup,
    found: list[findings.Finding],
) -> str:
    """Returns what to say of masks that are most likely wrong."""
    is_lenient = config.data.on_bad_example == "replace"
    stops_training = any(
        finding.severity == "error" and finding.kind != "no_eval_split"
        for finding in found
    )
    if config.doctor.crossfit and stops_training and not is_lenient:
        return (
            "No mask was judged: training would end with the errors above; mend them "
            "and start again."
        )
    sources = [setup.train]
    if setup.evaluation is not None:
        sources.append(setup.evaluation)
    return second_opinion.ask(config, strategy, sources, _train_half)


def _train_half(config: config_lib.Config) -> None:
    """Trains a run; of a `--time_budget` it has the whole, whatever came before it."""
    train_mode.run(config, started=time.perf_counter())


def examine(config: config_lib.Config) -> Examination:
    """Looks at every example of both splits, or of all where there are none.

    Raises:
      errors.RunError: if the settings do not fit each other.
      schema.DataError: if there is nothing to look at.
    """
    setup = inputs.prepare_inspection(config)
    sources = [setup.train]
    if setup.evaluation is not None:  # One without an example is false.
        sources.append(setup.evaluation)
    splits = [
        _inspect(source, setup, is_training=source is setup.train) for source in sources
    ]
    found = findings.merge(list(_judge(config, setup, sources, splits)))
    return Examination(setup, splits, found)


def _inspect(
    source: schema.Source, setup: inputs.InspectionSetup, *, is_training: bool
) -> facts_lib.Split:
    bar = tqdm.tqdm(
        inspection.walk(source, setup.preprocessor, image_format=setup.image_format),
        total=len(source),
        desc=f"Looking at {source.name}",
        unit=" images",
        disable=None,  # No bar where nobody watches, in a log file for instance.
    )
    return facts_lib.summarize(
        source.name, bar, setup.preprocessor, is_training=is_training
    )


def _judge(
    config: config_lib.Config,
    setup: inputs.InspectionSetup,
    sources: Sequence[schema.Source],
    splits: Sequence[facts_lib.Split],
) -> Iterator[findings.Finding]:
    """Yields all findings."""
    for role, error in setup.errors:
        yield findings.Finding(error.kind, "error", role, str(error))
    for source in sources:
        yield from findings.judge_problems(source.name, getattr(source, "problems", ()))
    yield from findings.judge_errors(splits, setup.convention)
    yield from findings.judge_values(splits, setup.preprocessor, setup.convention)
    if setup.info:
        for split in splits:
            yield from class_findings.judge(
                split,
                info=setup.info,
                convention=setup.convention,
                all_values=frozenset().union(*(s.value_counts for s in splits)),
                is_weighted=bool(config.loss.class_weights),
            )
    yield from image_findings.judge(
        splits,
        image_size=config.data.image_size,
        image_format=setup.image_format,
        is_stretched=config.data.resize == "stretch",
        has_label_colors=bool(setup.info and setup.info.label_colors),
    )
    if len(splits) == 2:
        yield from image_findings.judge_both(*splits)


def _summarize(split: facts_lib.Split, info: schema.DatasetInfo | None) -> dict:
    """Returns the facts of a split for the report."""
    sizes = np.array([fact.size for fact in split.examples if fact.size])
    facts = {
        "name": split.name,
        "num_examples": len(split.examples),
        "num_usable": sum(not fact.kind for fact in split.examples),
        "values": {str(v): n for v, n in sorted(split.value_counts.items())},
    }
    stored = collections.Counter(fact.traits.stored for fact in split.examples)
    facts["images"] = [
        {**kind._asdict(), "num_examples": stored[kind]}
        for kind in sorted(filter(None, stored))
    ]
    for axis, name in enumerate(_AXES):
        if len(sizes):
            least, median, greatest = np.percentile(
                sizes[:, axis], (0, 50, 100), method="nearest"
            )
            facts[name] = {
                "least": int(least),
                "median": int(median),
                "greatest": int(greatest),
            }
    if info:
        names = dict(enumerate(info.class_names)) | {schema.IGNORE_LABEL: "(ignored)"}
        facts["classes"] = [
            {
                "name": name,
                "pixels": int(split.class_pixels[label]),
                "examples": int(split.class_examples[label]),
            }
            for label, name in names.items()
        ]
    return facts


def _draw(
    config: config_lib.Config,
    setup: inputs.InspectionSetup,
    split: facts_lib.Split,
    folder: pathlib.Path,
) -> pathlib.Path | None:
    """Draws usable examples from all over the training split, if there are any."""
    usable = [fact.index for fact in split.examples if not fact.kind]
    if not usable:
        return None
    places = np.linspace(0, len(usable) - 1, min(_NUM_PICTURES, len(usable)))
    ids = [usable[place] for place in places.round().astype(int)]
    preprocess = tf.function(setup.preprocessor, autograph=False)
    examples = [
        preprocess({key: tf.constant(value) for key, value in example.items()})
        for example in inspection.read_examples(setup.train, ids)
    ]
    images, labels = (
        np.stack([example[key].numpy() for example in examples])
        for key in ("image", "label")
    )
    batch_size, changed = config.train.batch_size, []
    for start in range(0, len(images), batch_size):  # The draws are those of a step.
        rows = slice(start, start + batch_size)
        counters = tf.range(start, start + len(images[rows]), dtype=tf.int64)
        changed.append(
            setup.augment(
                tf.constant(images[rows]), tf.constant(labels[rows]), counters
            )
        )
    changed_images, changed_labels = (
        _surround(np.concatenate(parts), labels.shape[1:], value)
        for parts, value in zip(
            zip(*changed, strict=True),
            (setup.image_format.fill_value, schema.IGNORE_LABEL),
            strict=True,
        )
    )
    sheet = pictures.draw_contact_sheet(
        pictures.to_rgb(images, setup.image_format),
        labels,
        pictures.to_rgb(changed_images, setup.image_format),
        changed_labels,
        class_names=setup.info.class_names,
        palette=setup.info.palette,
    )
    path = folder / "doctor.png"
    pictures.write_png(path, sheet)
    return path


def _surround(windows: np.ndarray, size: tuple[int, int], value: int) -> np.ndarray:
    """Puts windows, [n, height, width, ...], in the middle of pictures of one value."""
    margins = [(0, 0)] * windows.ndim
    for axis, length in enumerate(size, start=1):
        before = (length - windows.shape[axis]) // 2
        margins[axis] = (before, length - windows.shape[axis] - before)
    return np.pad(windows, margins, constant_values=value)


def format_report(report: dict) -> str:
    """Lays out what `doctor.json` holds for people."""
    lines = []
    for split in report["splits"]:
        sizes = [_format_range(split[axis]) for axis in _AXES if axis in split]
        pixels = f", {' x '.join(sizes)} pixels" if sizes else ""
        lines.append(f"{split['name']}: {split['num_examples']:,} examples{pixels}")
        lines += [_format_images(split["images"])] if split["images"] else []
        classes = split.get("classes", [])
        total = sum(item["pixels"] for item in classes)
        width = max((len(item["name"]) for item in classes), default=0)
        for item in classes:
            if item["pixels"] or item["name"] != "(ignored)":
                lines.append(
                    f"    {item['name']:{width}}  {item['pixels'] / max(total, 1):7.2%}"
                    f" of the pixels, in {item['examples']:,} examples"
                )
    for finding in report["findings"]:
        where = f"{finding['severity']}, {finding['split']}"
        lines += ["", f"{where}: {finding['message']}"]
        files = finding["files"]
        lines += [f"    {file}" for file in files[:_NUM_NAMED]]
        if files[_NUM_NAMED:]:
            lines.append(f"    and {len(files) - _NUM_NAMED:,} more")
    if not report["findings"]:
        lines += ["", "Nothing is wrong with them."]
    return "\n".join(lines)


def _format_images(kinds: list[dict]) -> str:
    """Says what the images have of each pixel."""
    parts = []
    for kind in kinds:
        stored = {name: kind[name] for name in file_traits.Stored._fields}
        count = f"{kind['num_examples']:,} with " if len(kinds) > 1 else ""
        parts.append(f"{count}{file_traits.Stored(**stored)}")
    return f"    images: {'; '.join(parts)}"


def _format_range(numbers: dict[str, int]) -> str:
    least, greatest = numbers["least"], numbers["greatest"]
    return str(least) if least == greatest else f"{least}-{greatest}"
