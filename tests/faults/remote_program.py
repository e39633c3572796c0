"""The program of `tests.faults.short_program`, killed in the middle of an upload.

`tests.faults.remote` starts it. With KILL_AT_UPLOAD in the environment, it gets SIGKILL
so many seconds after the beginning of that upload as KILL_AFTER_SECS says. The number
of uploads so far is written to UPLOADS_FILE.
"""

import itertools
import os
import pathlib
import signal
import threading

import pytest

from tests import shallow
from trainer import main
from trainer.remote import fsspec_store, leases

_count = itertools.count(1)


def _watch_uploads(patch: pytest.MonkeyPatch) -> None:
    """Counts uploads, and ends the process in one of them."""
    kill_at = int(os.environ.get("KILL_AT_UPLOAD", "0"))
    delay_secs = float(os.environ.get("KILL_AFTER_SECS", "0"))
    log = pathlib.Path(os.environ["UPLOADS_FILE"])
    put = fsspec_store.FsspecStore._put

    def put_or_die(store, path, name):
        number = next(_count)
        log.write_text(str(number))
        if number == kill_at:
            arguments = (os.getpid(), signal.SIGKILL)
            threading.Timer(delay_secs, os.kill, arguments).start()
        put(store, path, name)

    patch.setattr(fsspec_store.FsspecStore, "_put", put_or_die)


if __name__ == "__main__":
    patch = pytest.MonkeyPatch()
    shallow.shorten(patch)
    _watch_uploads(patch)
    # As on a machine where nobody waits for a minute and a half.
    patch.setattr(leases, "_HEARTBEAT_SECS", 0.5)
    patch.setattr(leases, "_STALE_SECS", 3.0)
    patch.setattr(leases, "_POLL_SECS", 0.2)
    main.run()
