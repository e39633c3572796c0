"""Which copy of a remote run has published last."""

import json
import socket

from trainer.remote import roles, stores


def read(store: stores.Store) -> str:
    """Returns the `Index.copy_id` of the copy; "": nobody has published yet.

    Raises:
      OSError: if the remote folder does not answer.
    """
    try:
        return str(json.loads(store.read(roles.OWNER) or b"{}").get("copy", ""))
    except (ValueError, AttributeError):
        return ""


def write(store: stores.Store, copy_id: str) -> None:
    """Notes the copy that publishes from now on.

    Raises:
      OSError: if the remote folder cannot be written.
    """
    owner = {"copy": copy_id, "host": socket.gethostname()}
    store.write(roles.OWNER, json.dumps(owner).encode())
