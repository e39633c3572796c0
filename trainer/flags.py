"""Command-line flags: one for each setting of `trainer.settings.config`.

They live in `FlagValues` of their own: packages that this one imports define flags of
theirs in `absl.flags.FLAGS`, `tensorflow_examples` even a `batch_size`. absl expands no
flagfile here, so that what was typed can be told from what a file said.
"""

import dataclasses
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

from trainer import errors
from trainer.remote import mirrors, stores
from trainer.run_folder import checkpoint_folders, run_settings, waiting
from trainer.settings import config, fields, flagfiles, joining, layers

_HELP_FLAGS = ("--help", "-help", "--helpfull", "--helpshort", "-h", "-?")
_VERSION_FLAGS = ("--version", "-version")
_LOCAL = {
    "checkpoint": "name it as in its run, e.g. step-00000375, or say last or best",
    "cache_dir": "it is memory-mapped; name a folder of this machine",
    "output": "name a folder of this machine, and copy it when it is whole",
    "export_dir": "leave it out, and the export goes to --model_dir",
    "images": "name the folder with --data_dir, and what is below it here",
    "masks": "name the folder with --data_dir, and what is below it here",
}
"""Settings that take no URL, and what to do instead."""
_REMOTE = (
    "model_dir",
    "data_dir",
    "model",
    "input",
    "encoder_weights",
    "init_checkpoint",
    "label_colors",
    "label_map",
)
"""Settings that take one."""


class _TupleParser(flags.ArgumentParser):
    """Parses comma-separated items of one type; an empty string is no item."""

    def __init__(self, item_type: type):
        super().__init__()
        self._item_type = item_type
        self.syntactic_help = f"comma-separated {item_type.__name__} values"

    def parse(self, argument: Any) -> tuple:
        items = argument
        if isinstance(argument, str):
            items = argument.split(",") if argument else ()
        try:
            return tuple(
                self._item_type(item.strip() if isinstance(item, str) else item)
                for item in items
            )
        except ValueError as error:
            raise ValueError(f"give {self.syntactic_help}") from error

    def flag_type(self) -> str:
        return self.syntactic_help


class _TupleSerializer(flags.ArgumentSerializer):
    def serialize(self, value: tuple) -> str:
        return fields.format_value(value)


class Given(NamedTuple):
    """Settings by name, by where they were given.

    Attributes:
      typed: on the command line itself.
      from_files: in flagfiles, those of the one that counts most at the end.
    """

    typed: dict[str, Any]
    from_files: list[dict[str, Any]]


def is_help(arguments: Sequence[str]) -> bool:
    """Tells whether a command line asks for the list of flags."""
    return any(argument in _HELP_FLAGS for argument in arguments)


def is_version(arguments: Sequence[str]) -> bool:
    """Tells whether a command line asks for the versions of what is installed."""
    return any(argument in _VERSION_FLAGS for argument in arguments)


def read_config(arguments: Sequence[str]) -> layers.Resolved:
    """Makes the settings that a command line asks for.

    Args:
      arguments: the command line without the program.

    Raises:
      errors.ConfigError: if a flag is unknown, or a value or a combination cannot work.
      errors.CheckpointError: if the mode uses a trained run and `--model_dir` is none.
    """
    given = _localize(parse(arguments))
    read = run_settings.read
    if joining.join_command(given.from_files, given.typed).get("watch"):
        read = _read_when_there
    return layers.resolve(*given, read, run_settings.exist, checkpoint_folders.has_any)


def _localize(given: Given) -> Given:
    """Puts paths of local copies in place of the URLs of runs and exported files."""
    counting = joining.join_command(given.from_files, given.typed)
    urls = {
        name: value
        for name, value in counting.items()
        if isinstance(value, str) and stores.scheme_of(value)
    }
    for name in filter(urls.get, _LOCAL):
        fields.reject(name, urls[name], f"this is no place for a URL; {_LOCAL[name]}")
    for name in _REMOTE:
        if stores.is_broken(value := counting.get(name) or ""):
            start, _, rest = value.partition(":/")
            fields.reject(name, value, f"a URL has two slashes: {start}://{rest}")
    paths = {}
    if any(map(stores.scheme_of, _list_runs(counting))):
        paths["model_dir"] = _open_runs(counting)
    for name in ("model", "input"):
        if name in urls:
            paths[name] = mirrors.fetch(urls[name], name)
    typed, *from_files = (
        {name: paths.get(name, value) for name, value in place.items()}
        for place in (given.typed, *given.from_files)
    )
    return Given(typed, from_files)


def _list_runs(given: Mapping[str, Any]) -> list[str]:
    """Returns the paths and URLs in --model_dir, of which a report takes several."""
    names = given.get("model_dir") or ""
    if given.get("mode") != "report":
        return [names]
    return [name.strip() for name in names.split(",")]


def _open_runs(given: Mapping[str, Any]) -> str:
    """Returns --model_dir with the local folders of remote runs in place of URLs."""
    if given.get("watch"):
        fields.reject(
            "model_dir",
            given["model_dir"],
            "--watch looks at a folder of this machine; leave it out, and evaluate "
            "when the training has ended",
        )
    # Other workers may be on other machines, which see what was published alone.
    keeps_own = given.get("distribution_strategy") != "multi_worker_mirrored"
    return ",".join(
        mirrors.open_run(run, keeps_own=keeps_own) if stores.scheme_of(run) else run
        for run in _list_runs(given)
    )


def _read_when_there(model_dir: str) -> dict[str, Any]:
    """Reads the settings of a run that may be just about to begin."""
    waiting.wait(model_dir, "run", lambda: run_settings.exist(model_dir))
    return run_settings.read(model_dir)


def parse(arguments: Sequence[str]) -> Given:
    """Parses a command line, and the flagfiles that it names.

    Among flagfiles the later one counts; what was typed counts before all of them.

    Raises:
      errors.ConfigError: if a flag is unknown, a value is none, or a flagfile cannot be
        read.
    """
    typed, parts = flagfiles.split(arguments)
    from_files = []
    for path, lines in parts:
        from_files.append({})
        for line in lines:
            from_files[-1] |= _parse_values([line], f"{path}: ")
    return Given(_parse_values(typed), from_files)


def format_help() -> str:
    """Lists all flags, section by section."""
    lines = [
        "Trains, evaluates and examines segmentation models.",
        "",
        "    python -m trainer.main --FLAG=VALUE ... [--flagfile=FILE]",
        "",
        "A flagfile holds one flag a line; what is typed counts before it. These come",
        f"with segloop: {', '.join(flagfiles.list_ours())}.",
        "Name them without a folder.",
        "",
        "  --help, --version: this list; the versions of what is installed",
    ]
    for section in dataclasses.fields(config.Config):
        lines += ["", inspect.getdoc(section.type).partition("\n")[0]]
        for field in dataclasses.fields(section.type):
            lines += _describe(field)
    return "\n".join(lines)


def _describe(field: dataclasses.Field) -> Iterator[str]:
    """Yields the lines of one flag."""
    scalar, _ = fields.value_type(field)
    name = f"[no]{field.name}" if scalar is bool else field.name
    choices = field.metadata["choices"] and fields.list_choices(field)
    kind = f" <{'|'.join(choices)}>" if choices else ""
    yield f"  --{name}:{kind}"
    text = field.metadata["help"]
    if field.default is not None:
        text += f" (default: {fields.format_value(field.default) or 'empty'})"
    for line in textwrap.wrap(text, 80):
        yield f"      {line}"


def _make_flag(field: dataclasses.Field) -> flags.Flag:
    scalar, is_list = fields.value_type(field)
    name, help_text = field.name, field.metadata["help"]
    if is_list:
        parser, serializer = _TupleParser(scalar), _TupleSerializer()
        return flags.Flag(parser, serializer, name, field.default, help_text)
    if scalar is bool:
        return flags.BooleanFlag(name, field.default, help_text)
    # With a prefix there are more values than can be listed, and of a refused value the
    # reason is to be said; there the section checks them.
    is_listed = not (field.metadata["prefixes"] or field.metadata["refused"])
    if field.metadata["choices"] and is_listed:
        return flags.EnumFlag(
            name, field.default, help_text, list(field.metadata["choices"])
        )
    parser = {
        int: flags.IntegerParser(),
        float: flags.FloatParser(),
        str: flags.ArgumentParser(),
    }[scalar]
    return flags.Flag(
        parser, flags.ArgumentSerializer(), name, field.default, help_text
    )


def _parse_values(arguments: Sequence[str], where: str = "") -> dict[str, Any]:
    """Returns the settings that some arguments give, by name."""
    flag_values = flags.FlagValues()
    for _, field in config.setting_fields():
        flags.DEFINE_flag(_make_flag(field), flag_values, module_name="segloop")
    try:
        rest = flag_values(["segloop", *arguments])[1:]
    except flags.Error as error:
        reason = str(error).rstrip(" .?") + ("?" if "?" in str(error) else "")
        raise errors.ConfigError(
            f"{where}{reason} (--help lists all flags)."
        ) from error
    if rest:
        raise errors.ConfigError(
            f"{where}Not a flag: {' '.join(rest)}. All settings are flags, "
            "--name=value."
        )
    return {
        name: flag_values[name].value
        for name in flag_values
        if flag_values[name].present
    }
