"""Image files in folders: finding them, and telling what leaves the folder."""

import dataclasses
import functools
import os
import pathlib
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence

from data import schema
from data.files import images

_NUM_NAMED = 5

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image file and its mask, by paths relative to the folder of the data set.

    Attributes:
      key: what the two have in common, as a rule the stem; unique in a split.
      image: path of the image.
      mask: path of the mask.
    """

    key: str
    image: str
    mask: str


@dataclasses.dataclass(frozen=True)
class Problem:
    """Files whose names or places do not fit; `str` makes a message of it.

    Attributes:
      kind: a short code like `missing_pair`; see `schema.DataError`.
      sentence: what is wrong with them.
      files: their paths, or their keys where there is no file.
      remedy: what to do.
    """

    kind: str
    sentence: str
    files: tuple[str, ...]
    remedy: str

    def __str__(self) -> str:
        return f"{self.sentence}: {name_some(self.files)}; {self.remedy}"


class Folder:
    """The folder of a data set; no file in it may lie elsewhere."""

    def __init__(self, path: str | os.PathLike) -> None:
        """Names the folder; nothing is read yet."""
        self.path = pathlib.Path(path)
        self._real = os.path.realpath(path)
        self._is_inside = functools.lru_cache(None)(self._is_folder_inside)

    def contains(self, path: str) -> bool:
        """Tells whether a relative path, its symbolic links followed, stays inside."""
        whole = os.path.join(self.path, path)
        if os.path.islink(whole):
            return self._is_folder_inside(whole)
        return self._is_inside(os.path.dirname(whole))

    def _is_folder_inside(self, path: str) -> bool:
        real = os.path.realpath(path)
        return real == self._real or real.startswith(self._real.rstrip("/") + os.sep)

    def find_images(
        self,
        folder: str,
        *,
        skips_unreadable: bool = False,
        goes_outside: bool = False,
    ) -> Iterator[str]:
        """Yields the relative paths of all image files under a folder of this one.

        Subfolders are searched, too, once each; hidden files and files with other
        endings than `images.SUFFIXES` are passed over.

        Args:
          folder: to search.
          skips_unreadable: whether folders that cannot be read are passed over.
          goes_outside: whether folders that lie elsewhere are searched, too, where a
            link leads to them; otherwise the paths of such links are given.

        Raises:
          schema.DataError: if a folder cannot be read, and is not passed over.
        """
        waiting, seen = [folder], set()
        while waiting:
            folder = waiting.pop()
            # A link to a folder above itself would have no end.
            real = os.path.realpath(self.path / folder)
            if real in seen:
                continue
            seen.add(real)
            try:
                entries = list_entries(self.path / folder)
            except schema.DataError:
                if skips_unreadable:
                    continue
                raise
            # In one order: of two links to a folder, always the same one is followed.
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith("."):
                    continue
                path = f"{folder}/{entry.name}"
                is_folder = _is_folder(entry)
                if is_folder and (goes_outside or self.contains(path)):
                    waiting.append(path)
                elif is_image(entry.name) or is_folder:
                    yield path

    def find_problems(self, paths: Iterable[str]) -> list[Problem]:
        """Returns what is wrong with the places and kinds of files; none is opened.

        A file may not lie outside of this folder, nor be a device or a pipe, which can
        be read for ever.
        """
        outside, special = [], []
        for path in sorted(paths):
            if os.path.isabs(path) or not self.contains(path):
                outside.append(path)
            elif _is_special(os.path.join(self.path, path)):
                special.append(path)
        problems = []
        if outside:
            problems.append(
                Problem(
                    "outside_folder",
                    f"{count(outside, 'file')} outside of the folder (by an absolute "
                    "path, a symbolic link or `..`)",
                    tuple(outside),
                    "copy what is needed into it, or name the folders in which the "
                    "files really lie with --images and --masks",
                )
            )
        if special:
            problems.append(
                Problem(
                    "not_a_file",
                    f"{count(special, 'name')} of what is no file (a folder, pipe, "
                    "socket or device)",
                    tuple(special),
                    "take it away, or put an image in its place",
                )
            )
        return problems


def pair_by_key(
    image_files: Mapping[str, list[str]], mask_files: Mapping[str, list[str]]
) -> tuple[list[Pair], list[Problem]]:
    """Pairs images with masks of the same key.

    Args:
      image_files: paths of images by key.
      mask_files: paths of masks by key.

    Returns:
      The pairs, sorted by key, and the problems of files that are in no pair or
      compete for a place in one.
    """
    problems = []
    for kind, files in (("image", image_files), ("mask", mask_files)):
        for paths in files.values():
            if len(paths) > 1:
                problems.append(
                    Problem(
                        "same_name",
                        f"{len(paths)} {kind}s of one name",
                        tuple(sorted(paths)),
                        "keep one of them",
                    )
                )
    for files, partners, kind, other, article in (
        (image_files, mask_files, "image", "mask", "a"),
        (mask_files, image_files, "mask", "image", "an"),
    ):
        alone = sorted(files[key][0] for key in files.keys() - partners)
        if alone:
            problems.append(
                Problem(
                    "missing_pair",
                    f"{count(alone, kind)} without {article} {other}",
                    tuple(alone),
                    f"add the {other}s, or take the {kind}s away",
                )
            )
    pairs = [
        Pair(key, image_files[key][0], mask_files[key][0])
        for key in sorted(image_files.keys() & mask_files)
    ]
    return pairs, problems


def group_by_stem(paths: Iterable[str], folder: str) -> dict[str, list[str]]:
    """Groups paths by their part below a folder, without the ending."""
    groups = {}
    for path in paths:
        stem = os.path.splitext(path[len(folder) + 1 :])[0]
        groups.setdefault(stem, []).append(path)
    return groups


def list_entries(folder: str | os.PathLike) -> list[os.DirEntry]:
    """Returns what is in a folder.

    Raises:
      schema.DataError: if it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise schema.DataError(
            f"The folder {printable(os.fspath(folder))} cannot be read "
            f"({error.strerror}); let this user read it, or take it away.",
            kind="unreadable_file",
        ) from error


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself, which reading will name.
        return False


def _is_special(path: str) -> bool:
    """Tells whether something is there that is neither a file nor a link to one."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:  # What is not there, or not readable, is named by who reads it.
        return False


def printable(path: str) -> str:
    """Returns the path of a file in characters that any terminal and log takes.

    Line ends and other control characters, and bytes that are not UTF-8, are shown as
    Python writes them in a string.
    """
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _UNPRINTABLE.sub(lambda found: repr(found.group())[1:-1], text)


def is_image(path: str) -> bool:
    """Tells by its ending whether a file is an image."""
    return os.path.splitext(path)[1].lower() in images.SUFFIXES


def count(items: Sequence[str], noun: str) -> str:
    """Returns e.g. `1 image` or `12 images`."""
    return f"{len(items)} {noun}{'s' if len(items) > 1 else ''}"


def name_some(items: Sequence[str]) -> str:
    """Names the first few of some items and tells how many more there are."""
    rest = len(items) - _NUM_NAMED
    names = ", ".join(map(printable, items[:_NUM_NAMED]))
    return f"{names} and {rest} more" if rest > 0 else names
