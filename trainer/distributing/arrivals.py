"""The arrival of all workers of a cluster."""

import contextlib
import errno
import socket
import time

import tensorflow as tf
from absl import logging

from trainer import errors

_POLL_SECS = 0.2


def wait_for_all(
    resolver: tf.distribute.cluster_resolver.ClusterResolver, timeout_secs: float
) -> None:
    """Waits until every worker of the cluster answers on its port.

    TensorFlow itself would wait for over ten minutes, deaf to signals, and not say for
    whom. Each worker listens on its own port, and leaves it to TensorFlow when all the
    others have answered.

    Raises:
      errors.PeerError: if a worker does not come in time, with its address, or if
        another process has this worker's port all the time.
      errors.ConfigError: if this worker may not have its port.
    """
    spec = resolver.cluster_spec()
    own = spec.task_address(resolver.task_type, resolver.task_id)
    missing = [a for job in spec.jobs for a in spec.job_tasks(job) if a != own]
    deadline = time.monotonic() + timeout_secs
    logging.info("Waiting for %d other workers.", len(missing))
    with _listen(int(own.rsplit(":", 1)[1]), deadline, timeout_secs) as listener:
        while missing := [address for address in missing if not _answers(address)]:
            if time.monotonic() > deadline:
                raise errors.PeerError(
                    f"Worker {', '.join(missing)} did not come within "
                    f"--startup_timeout={timeout_secs} seconds; start all workers, or "
                    "mend TF_CONFIG."
                )
            time.sleep(_POLL_SECS)
            _take_callers(listener)


def _listen(port: int, deadline: float, timeout_secs: float) -> socket.socket:
    """Opens a port; one that the last start's process has is free once that has ended.

    Raises:
      errors.PeerError: if another process has it until the deadline.
      errors.ConfigError: if this process may not have it.
    """
    while True:
        try:
            listener = _open(port)
            listener.setblocking(False)
            return listener
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise errors.ConfigError(
                    f"This worker cannot listen on port {port} ({error.strerror}); "
                    "name another one in TF_CONFIG."
                ) from error
            if time.monotonic() > deadline:
                raise errors.PeerError(
                    f"Port {port} of this worker is another process's, and was for "
                    f"--startup_timeout={timeout_secs} seconds; end that process, or "
                    "name another port in TF_CONFIG."
                ) from error
        time.sleep(_POLL_SECS)


def _open(port: int) -> socket.socket:
    """Opens a port to callers over IPv4 and, where the host knows it, IPv6."""
    if socket.has_dualstack_ipv6():
        family, is_dual = socket.AF_INET6, True
    else:
        family, is_dual = socket.AF_INET, False
    return socket.create_server(
        ("", port), family=family, backlog=socket.SOMAXCONN, dualstack_ipv6=is_dual
    )


def _take_callers(listener: socket.socket) -> None:
    """Takes the calls of all who have seen by now that this worker is there.

    Of calls that nobody takes, the kernel keeps some, and then answers no more.
    """
    with contextlib.suppress(OSError):  # Nobody else calls, or who did is gone.
        while True:
            listener.accept()[0].close()


def _answers(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        # The brackets around an IPv6 address, [::1]:8000, are no part of it.
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except OSError:
        return False
