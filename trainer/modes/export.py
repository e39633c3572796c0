"""`--mode=export`: writes a trained model as files that other programs run."""

import dataclasses
import importlib
import pathlib
import time

import numpy as np
import tensorflow as tf
from absl import logging

from data import schema
from trainer import errors, files
from trainer.assembly import exported, exporting, photos, restoring, trained_model
from trainer.distributing import distribution
from trainer.evaluating import export_scores
from trainer.exporting import description, proof, publishing, registry
from trainer.exporting import network as network_lib
from trainer.run_folder import environment, golden
from trainer.running import memory
from trainer.settings import config as config_lib
from trainer.settings import fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Subject:
    """What is exported, and what proves it.

    Attributes:
      config: all settings.
      trained: the model in float32.
      network: what the formats are written of.
      examples: photos that a file is tried with.
      reference: labels of these by the model.
      precision: what there is to say of the precision that it was trained in.
      comparison: of the scores.
    """

    config: config_lib.Config
    trained: trained_model.TrainedModel
    network: network_lib.Network
    examples: golden.Golden
    reference: np.ndarray
    precision: dict[str, object]
    comparison: export_scores.Comparison


def run(config: config_lib.Config) -> None:
    """Writes a checkpoint in all formats asked for, and proves each file.

    Raises:
      errors.ConfigError: if a format's packages are not installed, or files are in the
        way that no export wrote.
      errors.RunError: if there is no checkpoint, or a file does not compute what was
        trained; the other files are published.
    """
    _check_packages(config)
    for name in config.export.export_format:
        publishing.check_place(_folder_of(config, name))
    policy = _trained_precision(config)
    if tf.config.list_physical_devices("GPU"):
        # The file is the same wherever it is made, and runs where there is no GPU.
        tf.config.set_visible_devices([], "GPU")
    trained = restoring.load_run(config.run.model_dir, config.run.checkpoint)
    config = _with_settings_of(config, trained)
    examples = photos.find_golden(config, trained)
    _check_photos(config, trained, examples)
    reference = exporting.label(trained, examples.images)
    # Soon: it reads the checkpoint again, which a training that goes on may remove.
    precision = _compare_precision(config, policy, examples, reference)
    network = exporting.make_network(
        trained,
        gives_probabilities=config.export.export_probabilities,
        read_photos=lambda: photos.find_calibration(config, trained, examples),
    )
    subject = _Subject(
        config=config,
        trained=trained,
        network=network,
        examples=examples,
        reference=reference,
        precision=precision,
        comparison=export_scores.Comparison(config, trained),
    )
    failures = []
    for name in config.export.export_format:
        try:
            _export(name, subject)
        except errors.ExportError as error:
            failures.append(error)
            logging.error("%s", error)
    if failures:
        raise failures[0]


def _with_settings_of(
    config: config_lib.Config, trained: trained_model.TrainedModel
) -> config_lib.Config:
    """Returns the settings for the model that was loaded, whatever was typed.

    A training that goes on may have saved a newer checkpoint, which is `last` now.
    """
    data = dataclasses.replace(
        config.data,
        image_size=trained.image_size,
        resize=trained.resize,
        image_channels=trained.image_format.num_channels,
        image_range=trained.image_format.value_range,
    )
    run = dataclasses.replace(config.run, checkpoint=str(trained.checkpoint))
    return dataclasses.replace(config, data=data, run=run)


def _check_packages(config: config_lib.Config) -> None:
    """Checks that what writes and runs the formats is installed."""
    for name in config.export.export_format:
        if package := registry.find_missing_package(name):
            formats = config.export.export_format
            fields.reject_missing(
                "export_format", formats, name, package, registry.EXTRA
            )


def _check_photos(
    config: config_lib.Config,
    trained: trained_model.TrainedModel,
    examples: golden.Golden,
) -> None:
    """Checks that the photos are such as the model takes."""
    expected = (*trained.image_size, trained.image_format.num_channels)
    if examples.images.shape[1:] != expected:
        raise errors.CheckpointError(
            f"The photos in {config.run.model_dir}/golden are of the shape "
            f"{examples.images.shape[1:]}, and the model takes {expected}; remove that "
            "folder, and the evaluation split takes its place."
        )


def _trained_precision(config: config_lib.Config) -> str | None:
    """Names the Keras dtype policy of the training; None: it is not known.

    `auto` meant what the machine of the training computes fast.
    """
    name = config.runtime.mixed_precision
    if name == "auto":
        return environment.read_precision(config.run.model_dir)
    return distribution.resolve_precision(name)


def _compare_precision(
    config: config_lib.Config,
    policy: str | None,
    examples: golden.Golden,
    reference: np.ndarray,
) -> dict[str, object]:
    """Says how far the model in float32 agrees with that of the trained precision."""
    share = 1.0 if policy else None
    if policy not in (None, "float32"):
        original = restoring.load_run(
            config.run.model_dir, config.run.checkpoint, precision=policy
        )
        labels = exporting.label(original, examples.images)
        is_valid = examples.labels != schema.IGNORE_LABEL
        share = proof.agreement(reference, labels, is_valid)
    return {"trained_precision": policy, "agreement_with_trained_precision": share}


def _folder_of(config: config_lib.Config, name: str) -> pathlib.Path:
    """Returns the folder that a format is published as."""
    parent = config.export.export_dir or f"{config.run.model_dir}/export"
    return pathlib.Path(parent) / name


def _export(name: str, subject: _Subject) -> None:
    """Writes one format, proves it and publishes it."""
    folder = _folder_of(subject.config, name)
    started = time.monotonic()
    with publishing.staging(folder) as stage:
        inputs = _write(name, subject.network, stage)
        proved = _prove(name, subject, stage)
        described = _describe(name, subject, inputs)
        described |= {"proof": {**proved, **subject.precision}}
        description.write(stage, described)
        scores = subject.comparison.score(
            name, lambda: exported.load(description.read_model(str(stage)))
        )
        if scores:
            description.write(stage, {**described, "scores": scores})
        publishing.publish(stage, folder)
    print(
        f"{name}: {folder}, {proved['agreement']:.4%} of {proved['pixels']:,} labels "
        f"as in float32{export_scores.describe(scores)}, in "
        f"{time.monotonic() - started:.0f} s",
        flush=True,
    )


def _write(
    name: str, network: network_lib.Network, stage: pathlib.Path
) -> dict[str, str]:
    """Writes the files of a format; returns what goes into them.

    Raises:
      errors.ExportError: if the format cannot say what the model computes.
      errors.WriteError: if there is no room.
    """
    module = importlib.import_module(registry.FORMATS[name].module)
    try:
        return module.write(network, str(stage))
    except (schema.DataError, errors.RunError):
        raise
    except Exception as error:  # Of converters, which raise what they like.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if files.is_full(error):
            raise errors.WriteError(
                f"--export_format={name}: there is no room to write it ({reason}); "
                "make room and start again."
            ) from error
        if isinstance(error, OSError) or memory.is_out_of_memory(error):
            raise
        raise errors.ExportError(
            f"--export_format={name}: this model could not be converted ({reason}); "
            "use another format."
        ) from error


def _prove(name: str, subject: _Subject, stage: pathlib.Path) -> dict[str, object]:
    """Runs the written file in a fresh process, and compares its labels.

    Raises:
      errors.ExportError: if too few are those of the model.
    """
    kind, examples = registry.FORMATS[name], subject.examples
    batches = {"agreement": examples.images}
    references = {"agreement": subject.reference}
    valid = {"agreement": examples.labels != schema.IGNORE_LABEL}
    if kind.takes_any_size and subject.network.any_size:
        key = "agreement_at_other_size"
        batches[key] = _enlarge(examples.images)
        references[key] = subject.trained.predict(batches[key])
        valid[key] = _enlarge(valid["agreement"])
    labels = proof.run_alone(name, str(stage), batches)
    shares = {
        key: proof.agreement(labels[key], references[key], valid[key])
        for key in batches
    }
    least = min(shares.values())
    if least < kind.least_agreement:
        raise errors.ExportError(
            f"--export_format={name}: {least:.3%} of the labels of "
            f"{len(examples.images)} photos are those of the trained model, and "
            f"{kind.least_agreement:.1%} must be; it was not published, use another "
            "format."
        )
    return {
        "photos": len(examples.images),
        "pixels": int(valid["agreement"].sum()),
        **shares,
        "least_agreement": kind.least_agreement,
    }


def _enlarge(pixels: np.ndarray) -> np.ndarray:
    """Makes images half as high again, and a quarter wider; [batch, height, width]."""
    height, width = pixels.shape[1:3]
    rows, columns = np.arange(height * 3 // 2) * 2 // 3, np.arange(width * 5 // 4)
    return pixels[:, rows][:, :, columns * 4 // 5]


def _describe(
    name: str, subject: _Subject, inputs: dict[str, str]
) -> dict[str, object]:
    """Says what there is to know of a file to use it."""
    kind, trained, network = registry.FORMATS[name], subject.trained, subject.network
    image_format = trained.image_format
    return {
        "format": name,
        "class_names": trained.class_names,
        "palette": trained.palette,
        "image_size": trained.image_size,
        "image_channels": image_format.num_channels,
        "image_dtype": image_format.dtype,
        "image_range": image_format.value_range,
        "resize": trained.resize,
        "fill_value": image_format.fill_value,
        "takes_any_size": kind.takes_any_size and network.any_size,
        "inputs": inputs,
        "gives_probabilities": network.gives_probabilities,
        "checkpoint": trained.checkpoint.name,
        "step": trained.step,
        "uses_averages": trained.uses_averages,
        "versions": description.versions(
            ["segloop", "tensorflow", "keras", kind.runtime]
        ),
    }
