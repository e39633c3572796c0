"""An op that cannot be deterministic, said in one sentence."""

import contextlib
from collections.abc import Iterator

from trainer import errors
from trainer.settings import config as config_lib


@contextlib.contextmanager
def explaining_refusal(config: config_lib.Config) -> Iterator[None]:
    """Turns a refusal of `--deterministic` inside the context into one with a remedy.

    TensorFlow refuses an op without a deterministic kernel when it is to run: the
    gradient of max-pooling, for instance, on a GPU with XLA.

    Args:
      config: all settings.

    Raises:
      errors.ConfigError: in place of such an error.
    """
    try:
        yield
    except Exception as error:
        reason = _refusal(error) if config.run.deterministic else None
        if reason is None:
            raise
        flags = "--deterministic"
        if config.runtime.enable_xla:
            flags = f"--enable_xla or {flags}"
        raise errors.ConfigError(
            "--deterministic: on these devices, TensorFlow cannot compute all of this "
            f"run deterministically ({reason}); leave {flags} out."
        ) from error


def _refusal(error: Exception) -> str | None:
    """Returns the sentence in which TensorFlow refuses an op; None if it is another."""
    if isinstance(error, errors.RunError):
        return None
    import tensorflow as tf  # Where the error comes from, it is loaded.

    if not isinstance(error, tf.errors.UnimplementedError):
        return None
    told = [line for line in str(error).splitlines() if "determinis" in line.lower()]
    if not told:
        return None
    # Names of nodes and of ops say nothing to the user.
    return told[0].rpartition("}} ")[2].partition(" [Op:")[0].strip().rstrip(".")
