"""The loss of another worker, said in one sentence."""

import contextlib
from collections.abc import Iterator

from trainer import errors


@contextlib.contextmanager
def explaining_loss(distribution_strategy: str) -> Iterator[None]:
    """Turns errors of TensorFlow inside the context into one about another worker.

    Workers talk to each other from the moment on at which there are devices. Enter this
    before, and let it decide by the setting: a worker that dies during the start leaves
    no strategy to ask.

    Args:
      distribution_strategy: the setting.

    Raises:
      errors.PeerError: in place of any error of TensorFlow, if there are other workers.
    """
    try:
        yield
    except Exception as error:
        if distribution_strategy != "multi_worker_mirrored" or not _may_be_lost(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        # Whatever the collective that failed says: its peer is gone.
        raise errors.PeerError(
            "Another worker went away, or does not answer; start all workers again, "
            f"and a training goes on from its last checkpoint ({reason})"
        ) from error


def _may_be_lost(error: Exception) -> bool:
    """Tells whether an error can be that of a worker that misses another one."""
    # Here alone: what rejects a flag is to answer at once.
    import tensorflow as tf

    from trainer.distributing import cluster, membership

    if not isinstance(error, tf.errors.OpError):
        return False
    return cluster.count(membership.resolve()) > 1
