"""Command-line flags: one for each setting of `trainer.config`."""

import dataclasses
from typing import Any

from absl import flags

from trainer import config


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
        return config.format_value(value)


def define_flags(flag_values: flags.FlagValues, module_name: str) -> None:
    """Defines a flag for each setting.

    Args:
      flag_values: where to define them; `flags.FLAGS` in a program, a fresh
        `flags.FlagValues()` in a test.
      module_name: the module under which `--help` lists them.
    """
    for _, field in config.setting_fields():
        flags.DEFINE_flag(_make_flag(field), flag_values, module_name=module_name)
        flag_values.register_key_flag_for_module(module_name, flag_values[field.name])


def _make_flag(field: dataclasses.Field) -> flags.Flag:
    scalar, is_list = config.value_type(field)
    name, help_text = field.name, field.metadata["help"]
    if is_list:
        parser, serializer = _TupleParser(scalar), _TupleSerializer()
        return flags.Flag(parser, serializer, name, field.default, help_text)
    if scalar is bool:
        return flags.BooleanFlag(name, field.default, help_text)
    if field.metadata["choices"]:
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


def config_from_flags(flag_values: flags.FlagValues) -> config.Config:
    """Makes the `Config` that parsed flags ask for.

    Raises:
      errors.ConfigError: if a value or a combination cannot work.
    """
    return config.from_dict(
        {
            field.name: flag_values[field.name].value
            for _, field in config.setting_fields()
        }
    )
