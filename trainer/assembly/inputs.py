"""The examples of a run, opened as its settings say."""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from absl import logging

from data import pipeline, schema
from data.doctor import advice, class_findings
from data.files import labels, mask_values
from data.preparing import bad_examples, image_formats, preprocessing
from data.sources import registry
from data.stores import balance, device_store, fingerprints, native, store, streaming
from trainer.assembly import augmenting, remote_data
from trainer.distributing import cluster
from trainer.settings import config as config_lib


def open_source(
    config: config_lib.Config, *, is_training: bool, allow_problems: bool = False
) -> schema.Source:
    """Opens the split of one role.

    Args:
      config: all settings.
      is_training: whether it is the split to train on.
      allow_problems: whether a folder may have files that fit nowhere.

    Raises:
      schema.DataError: if the data set or the split is not there.
    """
    data = config.data
    request = registry.SplitRequest(
        split=data.train_split if is_training else data.eval_split,
        is_training=is_training,
        image_size=data.image_size,
        data_dir=remote_data.find_folder(data),
        image_key=data.image_key,
        label_key=data.label_key,
        image_pattern=data.images,
        mask_pattern=data.masks,
        train_fraction=data.train_fraction,
        seed=config.run.seed,
        half=data.train_half if is_training else None,
        allow_problems=allow_problems,
    )
    return registry.open_source(data.dataset, request)


def resolve_info(
    config: config_lib.Config,
    source: schema.Source,
    trained_names: tuple[str, ...] | None = None,
) -> schema.DatasetInfo:
    """Returns classes and kind of images, by the source and by the settings.

    Args:
      config: all settings.
      source: a split.
      trained_names: the classes of the model that is to be used on the split, if there
        is one already; a set without names of its own has these.

    Raises:
      schema.DataError: if these contradict each other, or none names any.
    """
    data = config.data
    resolve = functools.partial(
        labels.resolve_info,
        source.info,
        num_classes=data.num_classes,
        label_offset=data.label_offset,
        **remote_data.find_label_files(data),
    )
    try:
        info = resolve()
    except schema.DataError as error:
        if error.kind != "classes_unknown" or trained_names is None:
            raise
        info = resolve(class_names=trained_names)
    info = dataclasses.replace(info, image_format=_find_image_format(config, source))
    if trained_names is None:
        return info
    return labels.match_classes(info, trained_names, subject=source.name)


def with_image_range(
    config: config_lib.Config, info: schema.DatasetInfo
) -> config_lib.Config:
    """Returns the settings with the range that the images turned out to have."""
    data = dataclasses.replace(config.data, image_range=info.image_format.value_range)
    return dataclasses.replace(config, data=data)


def _find_image_format(
    config: config_lib.Config, source: schema.Source
) -> schema.ImageFormat:
    value_range = config.data.image_range or image_formats.find_range(source)
    return schema.ImageFormat(config.data.image_channels, value_range)


def open_in_background(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    info: schema.DatasetInfo,
    used: Mapping[str, schema.Source],
) -> list[concurrent.futures.Future]:
    """Opens splits one after the other, while the caller builds the model.

    Args:
      config: all settings.
      strategy: the devices.
      info: the classes.
      used: sources by role, `train` or `eval`.

    Returns:
      A future `pipeline.Examples` for each; a `schema.DataError` if they cannot be
      used.

    Raises:
      errors.ConfigError: if other workers found other examples.
    """
    # Before any are exchanged: of other numbers of examples that would fail, or hang.
    preprocessor = make_preprocessor(config, info)
    found = {
        f"the fingerprint of {source.name}": fingerprints.make_fingerprint(
            source, preprocessor
        )
        for source in used.values()
    }
    cluster.check_data(strategy, {"the classes": info.class_names, **found})
    executor = concurrent.futures.ThreadPoolExecutor(max_workers=1)
    openings = [
        executor.submit(_open_examples, config, strategy, info, role, used)
        for role in used
    ]
    if cluster.num_workers(strategy) > 1:
        # Workers exchange what they decoded, and the variables of the model: all must
        # come in the same order everywhere.
        concurrent.futures.wait(openings)
    executor.shutdown(wait=False)
    return openings


@dataclasses.dataclass(frozen=True)
class InspectionSetup:
    """What looking through a data set needs.

    Attributes:
      train: the split to train on, or all of a folder without splits; its files may
        have problems.
      evaluation: the one to evaluate on, None if it cannot be opened.
      errors: what training would end with before it reads a file; each with the name of
        the split.
      info: classes of the data set; None if it is not known how many there are.
      preprocessor: how examples become arrays; None without `info`.
      image_format: what images are decoded to.
      convention: what the settings say of mask values.
      augment: the random changes to training examples.
    """

    train: schema.Source
    evaluation: schema.Source | None
    errors: tuple[tuple[str, schema.DataError], ...]
    info: schema.DatasetInfo | None
    preprocessor: preprocessing.Preprocessor | None
    image_format: schema.ImageFormat
    convention: mask_values.Convention
    augment: Callable


def prepare_inspection(config: config_lib.Config) -> InspectionSetup:
    """Makes what `--mode=doctor` needs.

    Args:
      config: all settings.

    Raises:
      schema.DataError: if there is no split to train on, or settings and files
        contradict each other.
    """
    train, evaluation, errors = _open_for_inspection(config)
    info, preprocessor = None, None
    convention = mask_values.Convention(None, ignore_label=config.data.ignore_label)
    try:
        info = resolve_info(config, train)
    except schema.DataError as error:
        if error.kind != "classes_unknown":
            raise
    else:
        preprocessor = make_preprocessor(config, info)
        convention = preprocessor.convention
    image_format = info.image_format if info else _find_image_format(config, train)
    return InspectionSetup(
        train=train,
        evaluation=evaluation,
        errors=errors,
        info=info,
        preprocessor=preprocessor,
        image_format=image_format,
        convention=convention,
        augment=augmenting.make_augment(
            config,
            image_format,
            num_classes=info.num_classes if info else schema.MAX_CLASSES,
            num_replicas=1,
        ),
    )


def _open_for_inspection(
    config: config_lib.Config,
) -> tuple[
    schema.Source, schema.Source | None, tuple[tuple[str, schema.DataError], ...]
]:
    """Returns the two splits, and why there is no second one.

    Raises:
      schema.DataError: if there is nothing to look at.
    """
    try:
        train = open_source(config, is_training=True, allow_problems=True)
    except schema.DataError as error:
        if error.kind != "undivided":
            raise
        data = dataclasses.replace(config.data, train_split=schema.ALL_SPLITS)
        config = dataclasses.replace(config, data=data)
        train = open_source(config, is_training=True, allow_problems=True)
        return train, None, ((train.name, error),)
    try:
        evaluation = open_source(config, is_training=False, allow_problems=True)
    except schema.DataError as error:
        error.kind = "no_eval_split"
        return train, None, (("evaluation", error),)
    return train, evaluation, ()


def _open_examples(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    info: schema.DatasetInfo,
    role: str,
    used: Mapping[str, schema.Source],
) -> pipeline.Examples:
    """Opens the examples of a split, and checks those to train on."""
    source, preprocessor = used[role], make_preprocessor(config, info)
    policy = bad_examples.BadExamples(
        replaces=config.data.on_bad_example == "replace",
        maximum=config.data.max_bad_examples,
    )
    for warning in advice.look_at_some(source, preprocessor):
        logging.warning("%s: %s.", source.name, warning)
    try:
        examples = _place_examples(config, strategy, source, preprocessor, policy)
        if role == "train":
            _check_classes(config, info, preprocessor, examples)
    except schema.DataError as error:
        if error.kind not in advice.KINDS:
            raise
        raise advice.complete(error, list(used.values()), preprocessor) from error
    if role == "eval" and config.data.eval_native_size:
        return native.add_native_labels(examples, source, preprocessor, policy)
    return examples


def _place_examples(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    source: schema.Source,
    preprocessor: preprocessing.Preprocessor,
    policy: bad_examples.BadExamples,
) -> pipeline.Examples:
    """Opens the examples of a source where `--cache` wants them."""
    if config.data.cache == "none":
        return streaming.StreamingStore(source, preprocessor, policy)
    examples = store.open_store(
        source,
        preprocessor,
        bad_examples=policy,
        cache="disk" if config.data.cache == "disk" else "memory",
        cache_dir=config.data.cache_dir,
        share=store.Share(
            index=cluster.worker_index(strategy),
            count=cluster.num_workers(strategy),
            add_up=functools.partial(cluster.sum_over_workers, strategy),
        ),
    )
    if config.data.cache == "device":
        return device_store.place(examples, strategy)
    return examples


def make_preprocessor(
    config: config_lib.Config, info: schema.DatasetInfo
) -> preprocessing.Preprocessor:
    """Returns what makes arrays of encoded examples."""
    return preprocessing.Preprocessor(
        image_size=config.data.image_size,
        num_classes=info.num_classes,
        label_offset=info.label_offset,
        ignore_label=config.data.ignore_label,
        label_map=info.label_map,
        reordered_offset=info.reordered_offset,
        label_colors=info.label_colors,
        resize=config.data.resize,
        image_format=info.image_format,
    )


def _check_classes(
    config: config_lib.Config,
    info: schema.DatasetInfo,
    preprocessor: preprocessing.Preprocessor,
    examples: pipeline.Examples,
) -> None:
    """Refuses to train on pixels of fewer than two classes, by a `DataError`."""
    if config.data.cache == "none":
        return  # To count is to decode the whole split.
    counts = balance.count_labels(examples)
    diagnosis = mask_values.diagnose_classes(
        counts,
        preprocessor.convention,
        class_names=info.class_names,
        has_label_colors=bool(info.label_colors),
    )
    if diagnosis:
        raise schema.DataError(
            f"{examples.name}: {diagnosis.sentence}; {mask_values.SEE_DOCTOR}.",
            kind=diagnosis.kind,
        )
    counts = counts[: info.num_classes]
    if not config.loss.class_weights and (
        imbalance := class_findings.describe_imbalance(counts, info.class_names)
    ):
        logging.warning("%s: %s.", examples.name, imbalance)
    absent = np.flatnonzero(counts == 0)
    if absent.size:
        logging.warning(
            "%s has no pixel of %s; nothing is learned of them. --mode=doctor tells "
            "more.",
            examples.name,
            ", ".join(info.class_names[label] for label in absent),
        )
