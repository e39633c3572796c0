"""What part a file has in a run, by its name: whether it is published, and when."""

import re
from collections.abc import Iterable

from trainer import files
from trainer.remote import lines

OWNER = ".segloop-owner.json"
"""Says which copy has published last."""
METADATA = "metadata.json"
"""Of a checkpoint, which does not count without it."""
_LOCKS = ("run.lock", "watch.lock")
_TRIAL = re.compile(r"(.*/)?\.rehearsal/.*")
_HALF_SAVED = re.compile(r"(.*/)?checkpoints/[^/]+\.partial/.*")
_CHECKPOINT = re.compile(r"((?:.*/)?checkpoints/step-\d+/).+")
_ADDED = re.compile(r"(.*/)?((evaluations|export|doctor)/.*|report\.html)")
_LAST = ("watch.json",)
"""It names the best checkpoint, which has to be there by then."""


def is_copied(name: str) -> bool:
    """Tells whether a file is the same here and there, after a save."""
    last = name.rpartition("/")[2]
    is_of_one_side = (
        last in (OWNER, *_LOCKS)
        or any(map(files.is_partial, name.split("/")))  # A folder may be, too.
        or is_of_trial(name)
        or _HALF_SAVED.fullmatch(name)
        or lines.file_of(name) not in ("", name)
    )
    return not is_of_one_side


def is_of_trial(name: str) -> bool:
    """Tells whether a file was only written to be timed."""
    return bool(_TRIAL.fullmatch(name))


def is_added(name: str) -> bool:
    """Tells whether a file is none of a training: another mode adds it to the run."""
    return bool(lines.file_of(name) or _ADDED.fullmatch(name))


def checkpoint_of(name: str) -> str:
    """Returns the checkpoint that a file is of, as `checkpoints/step-1/`; or ""."""
    match = _CHECKPOINT.fullmatch(name)
    return match[1] if match else ""


def without_unfinished(names: Iterable[str]) -> list[str]:
    """Leaves out what belongs to checkpoints that nobody has finished publishing."""
    names = set(names)
    folders = {name: checkpoint_of(name) for name in names}
    return sorted(n for n in names if not folders[n] or folders[n] + METADATA in names)


def order(name: str) -> tuple[int, str]:
    """Returns a key to sort files by, those first that are published first."""
    folder = checkpoint_of(name)
    if folder and name == folder + METADATA:
        return 1, name
    return (2 if name in _LAST else 0), name
