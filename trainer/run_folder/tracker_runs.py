"""Which runs of trackers a run's folder belongs to: RUN/trackers.json."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from absl import logging

from trainer import files

FILE = "trackers.json"


class Note(NamedTuple):
    """What is noted of the trackers of a run.

    Attributes:
      run_ids: by the name of the tracker.
      sent: the last step of each split that each has got.
      settings: as they were sent.
    """

    run_ids: Mapping[str, str]
    sent: Mapping[str, Mapping[str, int]]
    settings: Mapping[str, Any]


def read(model_dir: str) -> Note | None:
    """Reads the note; None if there is none, or none that can be used."""
    path = pathlib.Path(model_dir) / FILE
    try:
        note = Note(**json.loads(path.read_text("utf-8")))
        steps = [step for of_one in note.sent.values() for step in of_one.values()]
        if not all(isinstance(text, str) for text in note.run_ids.values()):
            raise ValueError("a run has no id")
        if not all(type(step) is int for step in steps):
            raise ValueError("a step is no number")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        logging.warning("%s cannot be read (%s); trackers get a new run.", path, error)
        return None
    return note


def write(model_dir: str, note: Note) -> None:
    """Writes the note.

    Raises:
      errors.WriteError: if that fails.
    """
    text = json.dumps(note._asdict(), indent=2) + "\n"
    files.write_text(pathlib.Path(model_dir) / FILE, text)
