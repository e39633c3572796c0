"""Errors that end a run on purpose, with the exit code each one ends it with.

A message of one of these names the flag or file, the value, the rule and the remedy;
`trainer.main` prints it without a traceback.
"""


class RunError(Exception):
    """A run that cannot go on, for a reason the user can mend."""

    exit_code = 1


class FindingsError(RunError):
    """A data set in which the doctor found something, or the plan an error."""


class ConfigError(RunError, ValueError):
    """A flag, or a combination of flags, that cannot work."""

    exit_code = 2


class OutOfMemoryError(ConfigError):
    """Settings that need more memory than a device or the host has left."""


class CheckpointError(RunError):
    """A model dir whose checkpoints do not fit this run, or cannot be read."""

    exit_code = 3


class WriteError(RunError, OSError):
    """A file of the run that cannot be written, on a full disk for instance."""

    exit_code = 3


class LockLostError(RunError):
    """A model dir that another run has taken over from this one."""

    exit_code = 3


class ExportError(RunError):
    """A trained model that could not be exported as it is."""

    exit_code = 6


class NonFiniteError(RunError):
    """A loss or gradient that is NaN or infinite."""

    exit_code = 4


class Stopped(RunError):
    """A run that was asked to stop and has saved; start it again to go on."""

    exit_code = 128 + 15  # As the shell reports a process that SIGTERM ended.


class PeerError(RunError):
    """Another worker that did not come or went away; start all of them again."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again.


class RemoteError(RunError, OSError):
    """A folder on another machine that does not answer; start again to go on."""

    exit_code = PeerError.exit_code


class StallError(RunError):
    """A run that made no progress for too long."""

    exit_code = 70  # EX_SOFTWARE of sysexits.h.
