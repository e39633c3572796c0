"""Folders of the file systems of fsspec, S3's among them."""

import contextlib
import datetime
import io
import pathlib
from collections.abc import Mapping
from typing import Any

from trainer import errors
from trainer.remote import failures, stores
from trainer.settings import fields

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs"}
"""What the extra brings."""
_GENERAL = ("fsspec.spec", "fsspec.asyn")
"""What all file systems share."""
_TIMES = ("LastModified", "last_modified", "mtime", "modified", "created", "updated")


class FsspecStore(stores.Store):
    """A folder that fsspec reaches; see `stores.Store`."""

    _WHOLE_SCHEMES = ("abfs", "abfss", "az", "gcs", "memory", "oci", "oss", "s3", "s3a")

    def __init__(self, url: str, file_system: Any, root: str):
        """Makes a store; touches no file.

        Args:
          url: of the folder.
          file_system: of fsspec.
          root: the folder's path there.
        """
        super().__init__(url)
        self._fs = file_system
        self._root = root.rstrip("/")

    def _kind_of(self, error: Exception) -> type[OSError]:
        is_lacking = isinstance(error, NotImplementedError)
        return io.UnsupportedOperation if is_lacking else OSError

    def _list(self) -> dict[str, stores.Entry]:
        self._fs.invalidate_cache()  # Others write there, too.
        try:
            if _has_own_find(type(self._fs)):
                found = self._fs.find(self._root, detail=True)
            else:
                found = self._walk()
        except FileNotFoundError:
            return {}
        start = f"{self._root}/"
        return {
            path.removeprefix(start): _describe(info)
            for path, info in found.items()
            if path.startswith(start) and info["type"] == "file"
        }

    def _walk(self) -> dict[str, Mapping[str, Any]]:
        """Returns what there is to say of each file, by its path."""
        found, folders = {}, [self._root]
        while folders:
            folder = folders.pop()
            infos = []
            with contextlib.suppress(FileNotFoundError):  # Somebody has removed it.
                infos = self._fs.ls(folder, detail=True)
            for info in infos:
                path = info["name"].rstrip("/")
                if info["type"] != "directory":
                    found[path] = info
                elif path != folder:
                    folders.append(path)
        return found

    def _look(self, name: str) -> stores.Entry:
        self._fs.invalidate_cache()
        return _describe(self._fs.info(self._path(name)))

    def _get(self, name: str, path: pathlib.Path) -> None:
        self._fs.get_file(self._path(name), str(path))

    def _put(self, path: pathlib.Path, name: str) -> None:
        self._fs.put_file(str(path), self._path(name))

    def _read(self, name: str) -> bytes:
        return self._fs.cat_file(self._path(name))

    def _write(self, name: str, data: bytes) -> None:
        self._fs.pipe_file(self._path(name), data)

    def _rename(self, old: str, new: str) -> None:
        self._fs.mv(self._path(old), self._path(new))

    def _delete(self, name: str) -> None:
        self._fs.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def open_store(url: str, flag: str) -> FsspecStore:
    """Makes the store of a URL; see `stores.open_store`."""
    scheme = stores.scheme_of(url)
    package = _PACKAGES.get(scheme, "fsspec")
    try:
        import fsspec

        options = {"auto_mkdir": True} if scheme in ("file", "local") else {}
        with failures.explaining(flag, url):  # Some kinds ask a server at once.
            file_system, root = fsspec.core.url_to_fs(url, **options)
    except errors.RunError:
        raise
    except ImportError as error:
        if scheme in _PACKAGES or error.name == "fsspec":
            fields.reject_missing(flag, url, f"{scheme}://", package, "cloud")
        fields.reject(flag, url, f"{error}; install that, and start again")
    except Exception as error:  # Of whatever kind the libraries have.
        fields.reject(
            flag,
            url,
            f"{str(error).rstrip('.')}; use gs://, s3://, or another scheme of "
            "TensorFlow or fsspec",
        )
    return FsspecStore(url, file_system, root)


def _has_own_find(kind: type) -> bool:
    """Whether a file system lists all below a folder in a way of its own.

    That of fsspec leaves out a folder that cannot be listed, as if it were empty.
    """
    own = [base for base in kind.__mro__ if base.__module__ not in _GENERAL]
    return any({"find", "_find"} & vars(base).keys() for base in own)


def _describe(info: Mapping[str, Any]) -> stores.Entry:
    modified = _seconds(next((info[key] for key in _TIMES if info.get(key)), 0.0))
    tag = str(info.get("ETag") or f"{modified:.6f}")
    return stores.Entry(int(info["size"]), f"{info['size']}:{tag}", modified)


def _seconds(time: Any) -> float:
    """Returns a time, of whatever kind, in seconds since 1970; 0 if it is none."""
    if isinstance(time, str):
        try:
            time = datetime.datetime.fromisoformat(time)
        except ValueError:
            return 0.0
    if isinstance(time, datetime.datetime):
        return time.timestamp()
    return float(time) if isinstance(time, int | float) else 0.0
