"""A local copy of a remote folder: downloaded at the start, published after each save.

    CACHE/remote/HASH/NAME/...       the files
    CACHE/remote/HASH/index.json     what was last the same here and there
    CACHE/remote/HASH/lock           held by the processes that use the copy
    CACHE/remote/HASH/lock.download  held by a worker that brings it up to date

Order of publishing, an invariant: what a checkpoint is made of, and all other files;
then the `metadata.json` of each checkpoint, without which it does not count; then what
names the best one; then deletions, `metadata.json` first. So the remote folder holds a
run that goes on, whenever the publishing process is killed.

The copy that has published last owns the remote run, and .segloop-owner.json there says
which one that is. Of what it has not published yet, it loses nothing. In any other copy
the remote files count, and what was never published is set aside. Of files of lines to
which all copies add, the lines of all count; see `trainer.remote.lines`.
"""

import concurrent.futures
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping

from absl import logging

from data.stores import file_locks
from trainer import files
from trainer.remote import indexes, lines, owners, roles, stores

_NUM_THREADS = 8
_MAX_TRIES = 5
"""So often a folder may change while it is downloaded."""


class Copy:
    """A remote folder and its local copy.

    Attributes:
      store: the remote folder.
      folder: the local one.
      index: what is known of the files of both.
      guard: called before each upload and deletion; raises an error if this process
        has lost the right to it.
      keeps_own: whether files count that this copy, if it owns the remote run, has not
        published yet.
      is_read_only: whether this process publishes nothing.
      num_transfers: files that were uploaded and downloaded by now.
    """

    def __init__(
        self,
        store: stores.Store,
        place: pathlib.Path,
        *,
        only: str = "",
        keeps_own: bool = True,
    ):
        """Makes a copy; touches no file.

        Args:
          store: the remote folder.
          place: the folder for the copy and what is known of it.
          only: the one file of the remote folder that is wanted; empty: all of them.
          keeps_own: see above.
        """
        self.store = store
        self.folder = place / _name_of(store.url)
        self.index = indexes.Index(place / "index.json", store.url)
        self.guard: Callable[[], None] = lambda: None
        self.keeps_own = keeps_own
        self.is_read_only = False
        self.num_transfers = 0
        self._place, self._only = place, only
        self._lock: int | None = None
        self._owns = False
        self._seen: set[str] = set()
        self._unfinished: set[str] = set()

    def open(self) -> None:
        """Downloads what is new, unless a process of this machine uses the copy.

        That one has all there is: it may be the one that publishes.

        Raises:
          OSError: if the remote folder cannot be read, or the local one not written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._place / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        is_alone = file_locks.try_lock(self._lock) is not False
        try:
            self.index.read()
            if is_alone:
                self.download()
        finally:
            file_locks.share_lock(self._lock)
        if not is_alone:
            self.index.read()
            self._seen = set(self._scan())
            logging.info("Another process uses %s; nothing is downloaded.", self.folder)

    def close(self) -> None:
        """Lets other processes of this machine download into the copy."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def download(self) -> None:
        """Brings the local folder to what the remote one holds.

        Raises:
          OSError: if one cannot be read, or the other not written.
        """
        for _ in range(_MAX_TRIES):
            try:
                return self._download()
            except FileNotFoundError as error:
                if self._only:
                    raise
                reason = error  # Somebody publishes meanwhile.
        raise OSError(f"it changes faster than it can be read ({reason})")

    def catch_up(self) -> None:
        """Does as `download`, unless this is the copy of the one that publishes."""
        if self._is_owner():
            return
        with (self._place / "lock.download").open("w") as file:
            file_locks.wait_for_lock(file.fileno())  # For workers beside this one.
            self.index.read()
            self.download()

    def claim(self) -> None:
        """Makes this copy the owner of the remote run.

        Raises:
          OSError: if that cannot be written.
        """
        if not self._is_owner():
            owners.write(self.store, self.index.copy_id)
        self._owns = self.index.is_trained_in = True
        self.index.write()

    def publish(self) -> None:
        """Uploads what has changed here, and deletes what was removed here.

        Raises:
          errors.LockLostError: if another run has taken the remote folder over.
          OSError: if something cannot be read or written; the next call goes on.
        """
        if not self._owns:
            self.index.read()  # The process that trains in this copy writes it, too.
        here = self._scan()
        changed = [name for name in here if not self._is_clean(name)]
        gone = self._seen - here
        self._seen |= here
        if not (changed or gone or self._unfinished):
            return
        self.guard()
        if self._is_superseded():
            changed = list(filter(roles.is_added, changed))
            gone = set(filter(roles.is_added, gone))
        self._withdraw(changed)
        for name in sorted(changed, key=roles.order):
            self.guard()  # An upload may take minutes.
            self._upload(name)
        if self._owns:
            gone |= self._unfinished - here
        for name in sorted(gone, key=roles.order, reverse=True):
            self.guard()
            self.store.delete(name)
            self.index.forget(name)
        self._seen, self._unfinished = here, set()

    def try_upload(self, folder: pathlib.Path) -> None:
        """Uploads what is in a folder that is not published, and removes it there.

        What a killed process leaves of it, the next one that trains removes.

        Raises:
          OSError: if something cannot be read or written.
        """
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        names = [path.relative_to(self.folder).as_posix() for path in paths]
        for path, name in zip(paths, names, strict=True):
            self.guard()
            self.store.put(path, name)
        for name in names:
            self.store.delete(name)

    def _download(self) -> None:
        listed = self._list()
        there = {name: entry for name, entry in listed.items() if roles.is_copied(name)}
        whole = {name: there[name] for name in roles.without_unfinished(there)}
        self._unfinished = there.keys() - whole.keys()
        self._unfinished |= set(filter(roles.is_of_trial, listed))
        is_own = self.keeps_own and self._owns_what_is(there)
        here = self._scan()
        clean = {name for name in here if self._is_clean(name)}
        wanted = [
            name
            for name, entry in whole.items()
            if not (name in clean and self.index.tag_of(name) == entry.tag)
            and not (is_own and name in here - clean)
            and not lines.file_of(name)
        ]
        removed = here - (there if is_own else whole).keys()
        if not is_own:
            changed = (here - clean) & self.index.names()  # Others may be as there.
            unpublished = (removed - clean) | changed.intersection(wanted)
            self._set_aside([n for n in unpublished if not lines.file_of(n)])
            self.index.is_trained_in = False
        with concurrent.futures.ThreadPoolExecutor(_NUM_THREADS) as pool:
            for future in [pool.submit(self._fetch, n, whole[n]) for n in wanted]:
                future.result()
        for name in removed & clean:
            self._remove(name)
        for name in set(filter(None, map(lines.file_of, listed))):
            self._join_lines(name, listed)
        self.index.write()
        self._seen = self._scan()
        if wanted:
            logging.info("Files downloaded from %s: %d.", self.store.url, len(wanted))

    def _list(self) -> dict[str, stores.Entry]:
        """Returns the remote files that are wanted."""
        if self._only:
            return {self._only: self.store.look(self._only)}
        return self.store.list()

    def _owns_what_is(self, there: Iterable[str]) -> bool:
        """Tells whether nobody else has published since this copy did."""
        is_new = not there and not self.index.names()  # Nobody has ever published.
        return is_new or self._is_owner()

    def _is_superseded(self) -> bool:
        """Tells whether what a trainer left here may be older than what is there."""
        if self._owns or not self.index.is_trained_in or self._is_owner():
            return False
        logging.warning(
            "%s has been taken over by another machine; of what a training in %s had "
            "not published, nothing is published.",
            self.store.url,
            self.folder,
        )
        return True

    def _is_owner(self) -> bool:
        return owners.read(self.store) == self.index.copy_id

    def _scan(self) -> set[str]:
        """Returns the names of the local files that are a matter of copies."""
        found = set()
        for folder, _, names in os.walk(self.folder):
            inner = pathlib.Path(folder).relative_to(self.folder)
            found |= {(inner / name).as_posix() for name in names}
        return {name for name in found if roles.is_copied(name)}

    def _is_clean(self, name: str) -> bool:
        return self.index.is_clean(name, self.folder / name)

    def _fetch(self, name: str, entry: stores.Entry) -> None:
        path = self.folder / name
        self.store.get(name, path, entry)
        self.index.note(name, path, entry.tag)
        self.num_transfers += 1

    def _join_lines(self, name: str, there: Mapping[str, stores.Entry]) -> None:
        """Gives a file of lines those that are there, and keeps those that are not."""
        path, is_clean = self.folder / name, self._is_clean(name)
        here = path.read_bytes() if path.exists() else b""
        published, known = lines.read(self.store, name, there)
        whole = lines.join([known, b"" if is_clean else here])
        if whole != here:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_bytes(path, whole)
            self.num_transfers += 1
        if whole == published:
            self.index.note(name, path, "")
        else:
            self.index.forget(name)  # So that it is published.

    def _upload(self, name: str) -> None:
        path = self.folder / name
        try:
            state = indexes.state_of(path)  # Before it is read: it may still grow.
            if lines.file_of(name):
                lines.add(self.store, name, path.read_bytes(), self.guard)
                tag = ""  # Each start reads it.
            else:
                tag = self.store.put(path, name).tag
        except FileNotFoundError as error:
            if path.exists():
                raise OSError(f"there is no such place ({error})") from error
            return  # Another process of this machine has removed it.
        self.index.note(name, path, tag, state=state)
        self.index.write()
        self.num_transfers += 1

    def _withdraw(self, changed: list[str]) -> None:
        """Takes checkpoints back whose files are about to be replaced by others."""
        for folder in set(filter(None, map(roles.checkpoint_of, changed))):
            metadata = folder + roles.METADATA
            parts = {n for n in changed if n.startswith(folder)} - {metadata}
            if metadata in self.index.names() and parts:
                self.store.delete(metadata)
                self.index.forget(metadata)
                if metadata not in changed:
                    changed.append(metadata)

    def _remove(self, name: str) -> None:
        """Removes a local file, and the folders that it leaves empty."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        self._prune_above(path)
        self.index.forget(name)

    def _prune_above(self, path: pathlib.Path) -> None:
        for folder in path.parents:
            if folder == self.folder or any(folder.iterdir()):
                return
            folder.rmdir()

    def _set_aside(self, names: Collection[str]) -> None:
        """Moves files out of the copy that were never published, nor will be."""
        if not names:
            return
        number = 1
        while (aside := self._place / f"unpublished-{number}").exists():
            number += 1
        for name in names:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(self.folder / name, aside / name)
            self._prune_above(self.folder / name)
        logging.warning(
            "%s has been written by another machine since this one published last; "
            "%d files that this one had not published are moved to %s.",
            self.store.url,
            len(names),
            aside,
        )


def _name_of(url: str) -> str:
    """Returns the last part of a URL as the name of a folder."""
    name = re.sub(r"[^\w.-]+", "_", url.rpartition("/")[2]).lstrip(".")
    return "files" if name in ("", "index.json", "lock", "lock.download") else name
