"""Folders of TensorFlow's own file systems."""

import io
import pathlib
import posixpath
from typing import Any

import tensorflow as tf

from trainer.remote import stores

_KINDS = {
    tf.errors.NotFoundError: FileNotFoundError,
    tf.errors.PermissionDeniedError: PermissionError,
    tf.errors.UnauthenticatedError: PermissionError,
    tf.errors.UnimplementedError: io.UnsupportedOperation,
}


class GfileStore(stores.Store):
    """A folder that `tf.io.gfile` reaches; see `stores.Store`."""

    _WHOLE_SCHEMES = ("gs",)

    def _kind_of(self, error: Exception) -> type[OSError]:
        return _KINDS.get(type(error), OSError)

    def _list(self) -> dict[str, stores.Entry]:
        found, folders = {}, [""]
        while folders:
            folder = folders.pop()
            for name in self._list_folder(folder):
                path = posixpath.join(folder, name)
                status = tf.io.gfile.stat(self._path(path))
                if status.is_directory:
                    folders.append(path)
                else:
                    found[path] = _describe(status)
        return found

    def _list_folder(self, name: str) -> list[str]:
        """Returns the names in a folder; none if it is not there.

        `tf.io.gfile.walk` would also find nothing where no server answers.
        """
        path = self._path(name)
        try:
            if not tf.io.gfile.stat(path).is_directory:
                return []
        except tf.errors.NotFoundError:
            return []
        try:
            names = tf.io.gfile.listdir(path)
        except tf.errors.NotFoundError as error:  # It says so whatever the reason.
            raise OSError(f"{path} cannot be listed ({error})") from error
        # Those of folders end with a slash; a folder may be an object of no name, too.
        return [name for name in (name.rstrip("/") for name in names) if name]

    def _look(self, name: str) -> stores.Entry:
        return _describe(tf.io.gfile.stat(self._path(name)))

    def _get(self, name: str, path: pathlib.Path) -> None:
        tf.io.gfile.copy(self._path(name), str(path), overwrite=True)

    def _put(self, path: pathlib.Path, name: str) -> None:
        tf.io.gfile.copy(str(path), self._make_way(name), overwrite=True)

    def _read(self, name: str) -> bytes:
        with tf.io.gfile.GFile(self._path(name), "rb") as file:
            return file.read()

    def _write(self, name: str, data: bytes) -> None:
        with tf.io.gfile.GFile(self._make_way(name), "wb") as file:
            file.write(data)

    def _rename(self, old: str, new: str) -> None:
        tf.io.gfile.rename(self._path(old), self._path(new), overwrite=True)

    def _delete(self, name: str) -> None:
        tf.io.gfile.remove(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def _make_way(self, name: str) -> str:
        """Makes a file's folder, where there are folders; returns its path."""
        path = self._path(name)
        if not self._writes_whole:
            tf.io.gfile.makedirs(posixpath.dirname(path))
        return path


def open_store(url: str, flag: str) -> GfileStore:
    """Makes the store of a URL; see `stores.open_store`."""
    del flag  # Nothing is missing where TensorFlow is.
    return GfileStore(url)


def _describe(status: Any) -> stores.Entry:
    tag = f"{status.length}:{status.mtime_nsec}"
    return stores.Entry(status.length, tag, status.mtime_nsec / 1e9)
