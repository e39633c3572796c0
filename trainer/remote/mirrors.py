"""The local copies of remote folders that this process works in.

What names a folder or a file by a URL, `--model_dir` above all, gets a local path here.
All else in this package knows local paths alone.
"""

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Collection, Iterator

from absl import logging

from data.stores import user_cache
from trainer import errors
from trainer.remote import copies, failures, leases, stores
from trainer.settings import fields

_mirrors: dict[pathlib.Path, copies.Copy] = {}
"""Those of runs, by their local folder; what is added to them is published."""
_fetched: dict[str, copies.Copy] = {}
"""Those of files that are only read, by their URL."""
_urls: dict[str, str] = {}
"""Of all runs that were opened, by the value of --model_dir that they got."""


@contextlib.contextmanager
def session() -> Iterator[None]:
    """Publishes, in the end, what was added to the runs that are opened inside.

    Raises:
      errors.RemoteError: if that fails.
    """
    try:
        with _publishing_rest(_mirrors.values()):
            yield
    finally:
        for copy in (*_mirrors.values(), *_fetched.values()):
            copy.close()
        _mirrors.clear()
        _fetched.clear()


@contextlib.contextmanager
def publishing(model_dir: str | os.PathLike, *, is_chief: bool) -> Iterator[None]:
    """Makes this process the one that publishes a run, if that is a remote one.

    Enter it with the lock of the run held: it downloads what another trainer published
    until then.

    Args:
      model_dir: the local folder.
      is_chief: whether this is the process that writes there; others publish nothing.

    Raises:
      errors.RemoteError: if the remote folder cannot be read, or, in the end, not
        written.
    """
    copy = _find(model_dir)
    if copy is None:
        yield
        return
    copy.is_read_only = not is_chief
    if is_chief:
        with failures.explaining("model_dir", copy.store.url, cache_root()):
            copy.download()
        with failures.explaining("model_dir", copy.store.url):
            copy.claim()
    with _publishing_rest([copy]):
        yield


def catch_up(model_dir: str | os.PathLike) -> None:
    """Downloads what has been published of a remote run since it was opened.

    Call it in the workers that publish nothing, once all have met: until then, the
    chief of the last start may have published its last save.

    Args:
      model_dir: the local folder.

    Raises:
      errors.RunError: as `open_run`.
    """
    copy = _find(model_dir)
    if copy and copy.is_read_only:
        with failures.explaining("model_dir", copy.store.url, cache_root()):
            copy.catch_up()


def open_run(url: str, *, keeps_own: bool = True) -> str:
    """Downloads a run, or what there is of it.

    Args:
      url: of its folder.
      keeps_own: whether files count that this machine has not published yet, should it
        be the last one that published some.

    Returns:
      The local folder, whose changes `session` and `publish` publish.

    Raises:
      errors.RunError: if the URL cannot work, or does not answer.
    """
    store = stores.open_store(url, "model_dir")
    copy = copies.Copy(store, _place_of(url), keeps_own=keeps_own)
    with failures.explaining("model_dir", url, cache_root()):
        copy.open()
    logging.info("Working in %s, a copy of %s.", copy.folder, url)
    _mirrors[copy.folder] = copy
    _urls[str(copy.folder)] = copy.store.url
    return str(copy.folder)


def fetch(path: str, flag: str) -> str:
    """Downloads a folder that is only read, once; a local path stays what it is.

    Args:
      path: a path or a URL.
      flag: the setting that names it.

    Returns:
      The local folder.

    Raises:
      errors.RunError: if the URL cannot work, does not answer, or names nothing.
    """
    if not stores.scheme_of(path):
        return path
    copy = _fetch(path, flag)
    if not any(copy.folder.iterdir()):
        fields.reject(flag, path, "there is no file; name a folder that holds some")
    return str(copy.folder)


def fetch_file(path: str, flag: str) -> str:
    """Downloads a file that is only read, as `fetch` does a folder."""
    if not stores.scheme_of(path):
        return path
    folder, _, name = path.rpartition("/")
    if not name:
        fields.reject(flag, path, "this is a folder; name a file in it")
    return str(_fetch(folder, flag, only=name).folder / name)


def publish(model_dir: str | os.PathLike) -> None:
    """Publishes what has changed in a run, if it is a remote one.

    What fails is published the next time; a run is not lost for it.

    Raises:
      errors.LockLostError: if another process has taken the remote run over.
    """
    copy = _find(model_dir)
    if copy is None or copy.is_read_only:
        return
    try:
        copy.publish()
    except OSError as error:
        logging.warning(
            "%s: not all could be published (%s); the run goes on in %s, and the next "
            "save tries again.",
            copy.store.url,
            error,
            copy.folder,
        )


def try_upload(folder: str | os.PathLike) -> None:
    """Uploads a folder as a save would, and removes it there, to be timed.

    Nothing is done if it is not in a remote run, or if others publish that.

    Args:
      folder: a local one in the run, of what is not published.

    Raises:
      errors.RemoteError: if the remote folder does not answer.
    """
    copy = _find(folder)
    if copy is None or copy.is_read_only:
        return
    with failures.explaining("model_dir", copy.store.url):
        copy.try_upload(pathlib.Path(folder).absolute())


def as_typed(text: str) -> str:
    """Returns a text for people in which --model_dir has the URL of a remote run."""
    for folder, url in _urls.items():
        text = text.replace(f"--model_dir={folder}", f"--model_dir={url}")
    return text


def make_lease(model_dir: str | os.PathLike, file_name: str) -> leases.Lease | None:
    """Makes the lock of a remote run; None if the folder is none of a remote run.

    Args:
      model_dir: the local folder.
      file_name: of the lock there.
    """
    copy = _find(model_dir)
    if copy is None:
        return None
    path = pathlib.Path(model_dir).absolute() / file_name
    return leases.Lease(copy, path.relative_to(copy.folder).as_posix())


def num_transfers() -> int:
    """Returns how many files were uploaded and downloaded, which is progress, too."""
    return sum(copy.num_transfers for copy in _mirrors.values())


def cache_root() -> pathlib.Path:
    """Returns the folder of all copies.

    Raises:
      errors.ConfigError: if nothing says where that is.
    """
    try:
        base = user_cache.find_folder(os.environ.get("SEGLOOP_CACHE", ""))
    except RuntimeError as error:
        raise errors.ConfigError(
            f"Copies of remote folders have no place ({error}); name a folder by the "
            "variable SEGLOOP_CACHE."
        ) from error
    return base.absolute() / "remote"


def _place_of(url: str) -> pathlib.Path:
    return cache_root() / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


def _find(model_dir: str | os.PathLike) -> copies.Copy | None:
    path = pathlib.Path(model_dir).absolute()
    return next((_mirrors[p] for p in (path, *path.parents) if p in _mirrors), None)


def _fetch(url: str, flag: str, *, only: str = "") -> copies.Copy:
    name = f"{url}/{only}" if only else url
    if name not in _fetched:
        store = stores.open_store(url, flag)
        copy = copies.Copy(store, _place_of(name), only=only, keeps_own=False)
        with failures.explaining(flag, name, cache_root()):
            copy.open()
        _fetched[name] = copy
    return _fetched[name]


@contextlib.contextmanager
def _publishing_rest(used: Collection[copies.Copy]) -> Iterator[None]:
    """Publishes what is left when the inside ends, also when it ends with an error."""
    try:
        yield
        for copy in used:
            _finish(copy)
    except (errors.ConfigError, errors.LockLostError):
        for copy in used:
            copy.is_read_only = True  # What lies there may be another's.
        raise
    except Exception:
        for copy in used:
            _try_to_publish(copy)
            copy.is_read_only = True  # The lock is about to be given up.
        raise


def _finish(copy: copies.Copy) -> None:
    """Publishes the rest."""
    if copy.is_read_only:
        return
    url = copy.store.url
    try:
        copy.publish()
    except OSError as error:
        copy.is_read_only = True  # It was tried for long enough.
        raise errors.RemoteError(
            f"--model_dir={url}: not all could be published ({error}). The whole run "
            f"is in {copy.folder}; when {url} can be written again, the same command "
            "publishes the rest."
        ) from error


def _try_to_publish(copy: copies.Copy) -> None:
    """Publishes what a run leaves that ends with another error."""
    if copy.is_read_only:
        return
    try:
        copy.publish()
    except (OSError, errors.LockLostError) as error:
        logging.warning("%s: not all could be published (%s).", copy.store.url, error)
