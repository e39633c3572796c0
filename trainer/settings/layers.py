"""Which settings count where several places give them.

What was typed counts before what flagfiles say, wherever they stand on the line, and
that before what the folder of a trained run says. A setting that loses its meaning by
one of more weight is left out: the `--momentum` of a flagfile with `--optimizer=sgd`
where `--optimizer=adam` was typed. Only what somebody typed is refused for it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from trainer import errors
from trainer.exporting import description
from trainer.settings import config as config_lib
from trainer.settings import fields, file_limits, joining, modes
from trainer.settings import model as model_settings

_IN_FILE = frozenset(
    {"ema_decay", "mixed_precision"}
    | {field.name for field in dataclasses.fields(model_settings.ModelConfig)}
)
"""What an exported file has in it, and nobody can change."""


class Resolved(NamedTuple):
    """The settings that count.

    Attributes:
      config: all of them.
      remarks: sentences on what was given and does not count.
    """

    config: config_lib.Config
    remarks: list[str]


def resolve(
    typed: Mapping[str, Any],
    from_files: Sequence[Mapping[str, Any]],
    read_run: Callable[[str], Mapping[str, Any]],
    has_run: Callable[[str], bool],
    has_checkpoint: Callable[[str], bool],
) -> Resolved:
    """Makes the settings of what was typed, flagfiles and, if need be, a run's folder.

    Args:
      typed: settings by name, of the command line itself.
      from_files: settings by name, of each flagfile; the last one counts most.
      read_run: reads the settings of the run in a model dir.
      has_run: tells whether there is one.
      has_checkpoint: tells whether there is a checkpoint in a model dir, from which
        training goes on.

    Raises:
      errors.ConfigError: if a value or a combination cannot work.
      errors.ExportError: if `--model` is no folder of an export, or damaged.
      errors.RunError: of `read_run`.
    """
    given = joining.join_command(from_files, typed)
    mode = given.get("mode", config_lib.fields_by_name()["mode"].default)
    model_dir = given.get("model_dir")
    remarks, of_run = [], {}
    # An unknown mode, or no model dir, is an error of the settings below.
    kind = modes.MODES.get(mode)
    is_used = kind and kind.may_use_run and model_dir and has_run(model_dir)
    if is_used or (kind and kind.uses_run and model_dir):
        of_run = _take_over(read_run(model_dir), given, remarks)
    elif _goes_on(kind, model_dir, has_run, has_checkpoint):
        try:
            of_run = _take_young(read_run(model_dir))
        except errors.CheckpointError as error:  # Training writes the file anew.
            remarks.append(str(error))
    of_file = {}
    if kind and kind.uses_run and given.get("model"):
        about = description.read_model(given["model"])
        of_file = _take_file(about, typed)
        names = file_limits.ASKED.get(mode, ())
        of_run = _drop_too_much(of_run, about, given, names, remarks)
    if kind and kind.uses_run:  # It trains nothing.
        of_run, *from_files = map(config_lib.without_training, (of_run, *from_files))
    values, meaningless = joining.join([of_run, *from_files, of_file, typed])
    _refuse(typed, meaningless)
    remarks += _describe_unused(of_run, from_files, typed, meaningless)
    config = config_lib.from_dict(values)
    does = _find_uses(config, mode, is_used)
    unused = [
        f"--{name}"
        for name in typed
        if all(_is_unused(name, use, values) for use in does)
        and not fields.is_off(typed[name])
    ]
    if unused:
        remarks.append(f"--mode={mode} does not use {', '.join(unused)}.")
    return Resolved(config, remarks)


def _goes_on(
    kind: modes.Mode | None,
    model_dir: str | None,
    has_run: Callable[[str], bool],
    has_checkpoint: Callable[[str], bool],
) -> bool:
    """Tells whether a mode goes on with the run in a folder.

    A run that died before its first save has left settings and no checkpoint. A new run
    begins there, and it has its own settings alone.
    """
    if not (kind and kind.resumes_run and model_dir):
        return False
    return has_run(model_dir) and has_checkpoint(model_dir)


def _find_uses(
    config: config_lib.Config, mode: str, has_model: bool
) -> tuple[str, ...]:
    """Returns the modes whose settings a mode uses: its own, and those it runs."""
    if mode != "doctor":
        return (mode,)
    if config.doctor.crossfit:
        return ("doctor", "predict", "train")
    return ("doctor", "predict") if has_model else ("doctor",)


def _is_unused(name: str, mode: str, values: Mapping[str, Any]) -> bool:
    """Tells whether a mode has no use for a setting, beside the others."""
    kind = modes.MODES[mode]
    for other, names in kind.uses_with.items():
        if name in names and not values.get(other, True):
            return True
    metadata = config_lib.fields_by_name()[name].metadata
    if values.get("model") and name in _IN_FILE:
        return True
    if values.get(metadata["used_with"]):
        return False
    if kind.only_uses is not None:
        return name not in kind.only_uses
    return mode in metadata["unused_by"]


def _take_file(about: description.Model, typed: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of the images that an exported file takes.

    Raises:
      errors.ConfigError: if others were typed.
    """
    values = about.settings
    for name, value in values.items():
        wanted = typed.get(name, value)
        if name == "image_size" and len(wanted) == 1:
            wanted *= 2  # One side stands for both.
        if wanted != value:
            fields.reject(
                name,
                typed[name],
                f"the exported model in {about.folder} takes "
                f"{fields.format_value(value)} alone; leave the flag out",
            )
    return values


def _drop_too_much(
    of_run: Mapping[str, Any],
    about: description.Model,
    given: Mapping[str, Any],
    names: Sequence[str],
    remarks: list[str],
) -> dict[str, Any]:
    """Returns the settings of a run without those that its exported file cannot do.

    Nobody typed them, so that nobody can leave them out, either.

    Args:
      of_run: the settings.
      about: the file.
      given: the settings that count in place of those of the run.
      names: the settings that the mode uses, and that may ask too much of a file.
      remarks: gets a sentence on each setting that is dropped.
    """
    kept = dict(of_run)
    for name in names:
        if name in given or name not in kept:
            continue
        limit = file_limits.find(
            name,
            kept[name],
            about.settings["image_size"],
            gives_scores=about.gives_scores,
        )
        if limit:
            remarks.append(
                f"--{name}={fields.format_value(kept.pop(name))} of the run does not "
                f"count for {about.folder}, which {limit.reason}."
            )
    return kept


def _take_over(
    saved: Mapping[str, Any], given: Mapping[str, Any], remarks: list[str]
) -> dict[str, Any]:
    """Returns the settings of a run that count for what it is to be used on now."""
    settings = config_lib.fields_by_name()
    values = {n: v for n, v in saved.items() if not settings[n].metadata["is_local"]}
    dataset = given.get("dataset", values.get("dataset"))
    is_other_data = dataset != values.get("dataset") or (
        "dataset" in given and "data_dir" in given
    )
    if not is_other_data:
        return values
    dropped = [
        name
        for name in values
        if settings[name].metadata["describes_data"]
        and name not in ("dataset", "data_dir", *given)
        and values[name] != settings[name].default
    ]
    if dropped:
        names = ", ".join(f"--{name}" for name in dropped)
        remarks.append(
            f"--dataset={dataset} is other data than that of the run, whose {names} "
            f"{'do' if len(dropped) > 1 else 'does'} not count for it."
        )
    return {
        n: v for n, v in values.items() if not settings[n].metadata["describes_data"]
    }


def _take_young(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that an old run had by default, and a new one has not.

    So the command that began such a run goes on with it, though it does not name them.
    """
    settings = config_lib.fields_by_name()
    return {
        name: value
        for name, value in saved.items()
        if settings[name].metadata["legacy"] != settings[name].default
        and not settings[name].metadata["follows"]
    }


def _refuse(typed: Mapping[str, Any], meaningless: Mapping[str, str]) -> None:
    """Refuses what was typed, asks for something, and has no meaning.

    Raises:
      errors.ConfigError: if there is some.
    """
    for name, value in typed.items():
        if name in meaningless and not fields.is_off(value):
            fields.reject(name, value, f"{meaningless[name]}; leave it out")


def _describe_unused(
    of_run: Mapping[str, Any],
    from_files: Sequence[Mapping[str, Any]],
    typed: Mapping[str, Any],
    meaningless: Mapping[str, str],
) -> list[str]:
    """Returns a sentence on each setting of a flagfile that has no meaning.

    Of one that has lost it by a place of more weight there is nothing to say.
    """
    settings = config_lib.fields_by_name()
    remarks = []
    for number, place in enumerate(from_files, 1):
        had_none = joining.join([of_run, *from_files[:number]]).meaningless
        later = set().union(*from_files[number:], typed)
        for name, value in place.items():
            if name in later or name not in meaningless or name not in had_none:
                continue
            # A flagfile of all settings has the defaults, too.
            if value != settings[name].default and not fields.is_off(value):
                remarks.append(
                    f"--{name}={fields.format_value(value)} of the flagfile does not "
                    f"count: {meaningless[name]}."
                )
    return remarks


def check_trained_with(
    config: config_lib.Config, trained: Mapping[str, Any], model_dir: str
) -> list[str]:
    """Compares settings with those that a model was trained with.

    Args:
      config: the settings to use the model with.
      trained: the identity of the run, as its checkpoints hold it.
      model_dir: the folder of the run.

    Returns:
      Sentences on differences in what the model is shown.

    Raises:
      errors.ConfigError: if the weights do not fit these settings.
    """
    trained = {**config_lib.legacy_values(), **trained}
    present = config.identity()
    remarks = []
    for name, field in config_lib.fields_by_name().items():
        if name not in present or present[name] == trained[name]:
            continue
        was, value = (
            fields.format_value(tuple(v) if isinstance(v, list) else v)
            for v in (trained[name], present[name])
        )
        if field.metadata["shapes_model"]:
            raise errors.ConfigError(
                f"--{name}={value}: the model in {model_dir} was trained with "
                f"--{name}={was}, and its weights fit no other; leave the flag out."
            )
        if name in ("image_size", "resize", "image_range"):
            remarks.append(f"Trained with --{name}={was}, used with --{name}={value}.")
    if config.train.ema_decay and not trained["ema_decay"]:
        raise errors.ConfigError(
            f"--ema_decay={config.train.ema_decay}: the run in {model_dir} kept no "
            "averages of its weights; leave the flag out."
        )
    return remarks
