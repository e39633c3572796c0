"""Errors that end a run on purpose, with the exit code each one ends it with.

A message of one of these names the flag or file, the value, the rule and the remedy;
`trainer.main` prints it without a traceback.
"""


class RunError(Exception):
    """A run that cannot go on, for a reason the user can mend."""

    exit_code = 1


class ConfigError(RunError, ValueError):
    """A flag, or a combination of flags, that cannot work."""

    exit_code = 2


class CheckpointError(RunError):
    """A model dir whose checkpoints do not fit this run, or cannot be read."""

    exit_code = 3


class NonFiniteError(RunError):
    """A loss or gradient that is NaN or infinite."""

    exit_code = 4
