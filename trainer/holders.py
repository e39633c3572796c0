"""Who holds a lock, as the file of the lock says it."""

import dataclasses
import datetime
import json
import os
import socket
from typing import Any, Self


@dataclasses.dataclass(frozen=True)
class Holder:
    """What the file says of the process that has the lock.

    Attributes:
      token: random; no two processes have the same.
      host: name of its host, for people.
      pid: its id there, for people.
      started: when it took the lock, for people.
    """

    token: str
    host: str
    pid: int
    started: str

    @classmethod
    def of_this_process(cls, token: str, **more: Any) -> Self:
        """Describes this process, which takes a lock now.

        Args:
          token: its own.
          **more: the fields that a kind of lock adds.
        """
        now = datetime.datetime.now(datetime.UTC)
        return cls(
            token=token,
            host=socket.gethostname(),
            pid=os.getpid(),
            started=f"{now:%Y-%m-%d %H:%M:%S} UTC",
            **more,
        )

    @classmethod
    def parse(cls, data: bytes) -> Self | None:
        """Reads what a file of a lock holds; None if it says nothing.

        What a later version of this package adds is passed over.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        try:
            values = json.loads(data)
            return cls(**{n: value for n, value in values.items() if n in names})
        except (ValueError, TypeError, AttributeError):
            return None

    def format(self) -> str:
        """Returns what `parse` reads."""
        return json.dumps(dataclasses.asdict(self))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.started}"
