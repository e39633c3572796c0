"""Images and masks in folders, as people keep them."""

import hashlib
import os
from typing import TYPE_CHECKING

from absl import logging

from data import schema
from data.sources import layouts, listing, paired, registry

if TYPE_CHECKING:
    import tensorflow as tf


class FolderSource(paired.PairedSource):
    """A split of a folder, its files left encoded; attributes as `schema.Source`.

    Examples come in the order of their keys: the stems of the files, or what the
    wildcards of the patterns stand for. Starting lists folders and asks for sizes and
    times of files; a file is read when its example is.

    Attributes:
      problems: files whose names or places do not fit; empty unless they are allowed.
    """

    def __init__(
        self,
        data_dir: str,
        split: str = "",
        *,
        is_training: bool = True,
        image_pattern: str = "",
        mask_pattern: str = "",
        train_fraction: float | None = None,
        seed: int = 0,
        allow_problems: bool = False,
    ) -> None:
        """Finds the pairs of the split; arguments as `layouts.find_split`.

        With `allow_problems` the source holds the pairs that lie in the folder, for
        somebody to look at: some files may not be there, and then there is no
        fingerprint.

        Raises:
          schema.DataError: if the split is not there, or, unless problems are
            allowed, with all that is wrong with the names and places of its files.
        """
        found = layouts.find_split(
            data_dir,
            split,
            is_training=is_training,
            image_pattern=image_pattern,
            mask_pattern=mask_pattern,
            train_fraction=train_fraction,
            seed=seed,
        )
        if found.problems and not allow_problems:
            problems = ". Also, ".join(map(str, found.problems))
            raise schema.DataError(
                f"--data_dir={data_dir}, split {found.name}: {problems}.",
                kind=found.problems[0].kind,
            )
        root = found.folder.path
        self.name = f"{root.resolve().name}/{found.name}"
        self.info = found.info
        self.problems = found.problems
        pairs = found.pairs
        if allow_problems:
            pairs = tuple(
                pair
                for pair in pairs
                if not found.folder.find_problems((pair.image, pair.mask))
            )
        try:
            self.fingerprint = make_fingerprint(found.folder, pairs)
        except schema.DataError:
            if not allow_problems:
                raise
            self.fingerprint = ""
        super().__init__(str(root), pairs)
        logging.info("Found %d pairs of %s in %s.", len(self), self.name, root)

    def load(self, index: "tf.Tensor") -> dict[str, "tf.Tensor"]:
        """Reads one example, in a graph or not; see `schema.Source.examples`.

        Args:
          index: int64 scalar, 0..len-1.

        Returns:
          `image` and `label`, the bytes of the two files, `name` and `label_name`,
          their paths relative to the folder; string scalars all.
        """
        import tensorflow as tf

        image, mask, root = self._find(index)
        return {
            "image": tf.io.read_file(root + image),
            "label": tf.io.read_file(root + mask),
            "name": image,
            "label_name": mask,
        }


def open_split(request: registry.SplitRequest) -> FolderSource:
    """Opens a split; see `registry`."""
    return FolderSource(
        request.data_dir,
        request.split,
        is_training=request.is_training,
        image_pattern=request.image_pattern,
        mask_pattern=request.mask_pattern,
        train_fraction=request.train_fraction,
        seed=request.seed,
        allow_problems=request.allow_problems,
    )


def make_fingerprint(folder: listing.Folder, pairs: tuple[listing.Pair, ...]) -> str:
    """Makes a number of the paths, sizes and times of change of files.

    Times count in whole seconds, which survive copying (`cp -a`, `rsync -a`, `tar`);
    where the folder lies does not count.

    Raises:
      schema.DataError: if a file is not there or not readable.
    """
    digest = hashlib.sha256()
    for pair in pairs:
        for path in (pair.image, pair.mask):
            whole = folder.path / path
            try:
                status = os.stat(whole)
            except OSError as error:
                raise schema.DataError(
                    f"{listing.printable(str(whole))} cannot be read "
                    f"({error.strerror})."
                ) from error
            digest.update(os.fsencode(path))
            digest.update(f"\0{status.st_size}\0{int(status.st_mtime)}\0".encode())
    return digest.hexdigest()
