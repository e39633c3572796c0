"""Settings of segloop from flags, without starting it."""

from collections.abc import Sequence

from absl import flags as absl_flags

from trainer import config, errors, flags


def parse(arguments: Sequence[str]) -> config.Config:
    """Returns the settings that flags of `trainer.main` ask for.

    Raises:
      errors.ConfigError: for flags that are unknown or cannot work.
    """
    flag_values = absl_flags.FlagValues()
    flags.define_flags(flag_values, __name__)
    try:
        rest = flag_values([__name__, *arguments])[1:]
    except absl_flags.Error as error:
        raise errors.ConfigError(str(error)) from error
    if rest:
        raise errors.ConfigError(f"Not a flag: {' '.join(rest)}.")
    return flags.config_from_flags(flag_values)
