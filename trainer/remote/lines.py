"""Remote files of lines to which several machines add, at the same time, too.

Nobody has such a file to himself, and a remote folder knows no appending. So whoever
adds lines to NAME first writes them to a file of its own, NAME.new-RANDOM. Then it
writes NAME anew, with the lines of all such files in it, and again until no further
one has come meanwhile.

Whoever is killed has left its lines in its own file, and the next one takes them in.
Of two who write NAME at once, the second may have read it before the first had written;
but then it finds the own file of the first, which was there even before that.
"""

import re
import uuid
from collections.abc import Callable, Iterable

from trainer.remote import stores

_NAME = re.compile(r"(.*/)?(export_)?evaluations\.jsonl")
_OWN = re.compile(r"(.+)\.new-[0-9a-f]{32}")
_KEPT_SECS = 3600
"""Nobody takes so long from reading the file of lines to writing it."""


def file_of(name: str) -> str:
    """Returns the file of lines that a file is, or whose lines it holds; "": none."""
    match = _OWN.fullmatch(name)
    whole = match[1] if match else name
    return whole if _NAME.fullmatch(whole) else ""


def join(texts: Iterable[bytes]) -> bytes:
    """Returns the lines of all texts, each once, in the order in which they come."""
    found = dict.fromkeys(line for text in texts for line in text.split(b"\n") if line)
    return b"".join(line + b"\n" for line in found)


def read(store: stores.Store, name: str, there: Iterable[str]) -> tuple[bytes, bytes]:
    """Reads a file of lines.

    Args:
      store: where it is.
      name: of the file.
      there: the names of all files, those that hold lines to be added among them.

    Returns:
      What the file holds, and that with all lines that are to be added.
    """
    own = sorted(other for other in there if file_of(other) == name != other)
    # The file itself last: it has the lines of those that are removed meanwhile.
    *others, text = (store.read(n) or b"" for n in (*own, name))
    return text, join([text, *others])


def add(store: stores.Store, name: str, text: bytes, guard: Callable[[], None]) -> None:
    """Adds lines to a file, and leaves none out that another machine adds meanwhile.

    Args:
      store: where it is.
      name: of the file.
      text: its lines here; those that are not there are added.
      guard: called before each change; raises an error if this process has lost the
        right to it.
    """
    known = (store.read(name) or b"").split(b"\n")
    rest = [line for line in text.split(b"\n") if line and line not in known]
    own = f"{name}.new-{uuid.uuid4().hex}"
    if rest:
        guard()
        store.write(own, join(rest))
    seen: set[str] = set()
    while True:
        there = {n: e for n, e in store.list().items() if file_of(n) == name != n}
        before, whole = read(store, name, there)
        whole = join([whole, text])
        if whole != before:
            guard()
            store.write(name, whole)
        if there.keys() <= seen:
            break
        seen |= there.keys()
    newest = max((entry.modified for entry in there.values()), default=0.0)
    for other, entry in there.items():
        if 0 < entry.modified < newest - _KEPT_SECS:
            guard()
            store.delete(other)
