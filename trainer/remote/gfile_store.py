"""Folders of TensorFlow's own file systems."""

import pathlib
import posixpath

import tensorflow as tf

from trainer.remote import stores

_KINDS = {
    tf.errors.NotFoundError: FileNotFoundError,
    tf.errors.PermissionDeniedError: PermissionError,
    tf.errors.UnauthenticatedError: PermissionError,
}


class GfileStore(stores.Store):
    """A folder that `tf.io.gfile` reaches; see `stores.Store`."""

    _WHOLE_SCHEMES = ("gs",)

    def _kind_of(self, error: Exception) -> type[OSError]:
        return _KINDS.get(type(error), OSError)

    def _list(self) -> dict[str, stores.Entry]:
        found = {}
        for folder, _, names in tf.io.gfile.walk(self.url):
            inner = folder.removeprefix(self.url).strip("/")
            for name in filter(None, names):  # A folder may be an object, too.
                path = posixpath.join(inner, name)
                found[path] = self._look(path)
        return found

    def _look(self, name: str) -> stores.Entry:
        status = tf.io.gfile.stat(self._path(name))
        tag = f"{status.length}:{status.mtime_nsec}"
        return stores.Entry(status.length, tag, status.mtime_nsec / 1e9)

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
        return f"{self.url}/{name}"

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
