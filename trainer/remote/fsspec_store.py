"""Folders of the file systems of fsspec, S3's among them."""

import datetime
import pathlib
from collections.abc import Mapping
from typing import Any

from trainer.remote import stores
from trainer.settings import fields

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs"}
"""What the extra brings."""
_TIMES = ("LastModified", "last_modified", "mtime", "modified", "created", "updated")


class FsspecStore(stores.Store):
    """A folder that fsspec reaches; see `stores.Store`."""

    _WHOLE_SCHEMES = ("abfs", "abfss", "az", "memory", "oci", "oss", "s3", "s3a")

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
        return OSError

    def _list(self) -> dict[str, stores.Entry]:
        self._fs.invalidate_cache()  # Others write there, too.
        try:
            found = self._fs.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        start = f"{self._root}/"
        return {
            path.removeprefix(start): _describe(info)
            for path, info in found.items()
            if path.startswith(start) and info["type"] == "file"
        }

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
        file_system, root = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        if scheme in _PACKAGES or error.name == "fsspec":
            fields.reject_missing(flag, url, f"{scheme}://", package, "cloud")
        fields.reject(flag, url, f"{error}, and start again")
    except ValueError as error:
        fields.reject(
            flag,
            url,
            f"{str(error).rstrip('.')}; use gs://, s3://, or another scheme of "
            "TensorFlow or fsspec",
        )
    return FsspecStore(url, file_system, root)


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
