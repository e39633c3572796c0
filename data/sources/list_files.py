"""Files that list the examples of a split, by stems or by pairs of paths."""

import csv
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping

from data import schema
from data.sources import listing

_LONGEST_LINE = 10_000


def find_pairs(
    folder: listing.Folder,
    list_file: str,
    image_files: Mapping[str, list[str]],
    mask_files: Mapping[str, list[str]],
) -> tuple[list[listing.Pair], list[listing.Problem]]:
    """Finds the examples that a list file names.

    A line is a stem; or a stem and numbers, which count for nothing, as in the lists of
    Oxford-IIIT Pet; or the paths of an image and its mask, relative to the folder,
    with white space between them (a tab, where there are spaces in them). Empty lines
    and lines that start with # are passed over. In a CSV file commas or semicolons are
    between the two paths, and the first row may name the columns.

    Args:
      folder: the folder of the data set.
      list_file: path of the file in it.
      image_files: paths of the images there are, by stem.
      mask_files: paths of the masks there are, by stem.

    Returns:
      The pairs, sorted by key, and what is wrong with them.

    Raises:
      schema.DataError: if the file cannot be read.
    """
    entries = _read_entries(folder, list_file, image_files)
    stems = [entry for entry in entries if isinstance(entry, str)]
    listed = [entry for entry in entries if not isinstance(entry, str)]
    paths = [os.path.normpath(path) for pair in listed for path in pair]
    problems = _find_repeated(list_file, entries, image_files)
    nowhere = sorted(set(stems) - image_files.keys() - mask_files.keys())
    problems += folder.find_problems(path for pair in listed for path in pair)
    nowhere += [path for path in paths if not os.path.isfile(folder.path / path)]
    if nowhere:
        problems.append(
            listing.Problem(
                "not_there",
                f"{list_file} names {listing.count(nowhere, 'example')} not there",
                tuple(nowhere),
                "mend the list, or add the files",
            )
        )
    by_stem, more_problems = listing.pair_by_key(
        {stem: image_files[stem] for stem in stems if stem in image_files},
        {stem: mask_files[stem] for stem in stems if stem in mask_files},
    )
    problems += folder.find_problems(
        path for pair in by_stem for path in (pair.image, pair.mask)
    )
    by_path = [
        listing.Pair(image, image, mask)
        for image, mask in zip(paths[::2], paths[1::2], strict=True)
    ]
    one_each = {pair.image: pair for pair in by_stem + by_path}
    pairs = sorted(one_each.values(), key=lambda pair: pair.key)
    return pairs, problems + more_problems


def _read_entries(
    folder: listing.Folder, list_file: str, image_files: Mapping[str, list[str]]
) -> list[str | tuple[str, str]]:
    """Returns what each line of a list names; see `_parse_line`."""
    lines = _read_lines(folder, list_file)
    if list_file.endswith(".csv"):
        return _parse_table(list_file, lines)
    return [_parse_line(line, image_files) for line in lines]


def _read_lines(folder: listing.Folder, list_file: str) -> list[str]:
    """Returns the lines of a list file that name something.

    Raises:
      schema.DataError: if it cannot be read.
    """
    path = folder.path / list_file
    if path.exists() and not path.is_file():
        raise schema.DataError(f"--data_dir={folder.path}: {list_file} is no file.")
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise schema.DataError(
            f"--data_dir={folder.path}: {list_file} cannot be read ({error})."
        ) from error
    return list(_keep_entries(lines))


def _keep_entries(lines: Iterable[str]) -> Iterator[str]:
    """Yields the lines that name something: not the empty ones, nor comments."""
    for line in map(str.strip, lines):
        if line and line[0] != "#":
            yield line


def _parse_line(
    line: str, image_files: Mapping[str, list[str]]
) -> str | tuple[str, str]:
    """Returns a stem, or the paths of an image and a mask."""
    if line in image_files:
        return line
    fields = line.split("\t") if "\t" in line else line.split()
    if all(field.lstrip("-").isdecimal() for field in fields[1:]):
        return fields[0]
    return (fields[0], fields[1]) if len(fields) == 2 else line


def holds_pairs(path: str) -> bool:
    """Tells whether a CSV file lists images and masks; there are many other kinds."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = iter(lambda: file.readline(_LONGEST_LINE), "")
            start = list(itertools.islice(_keep_entries(lines), 2))
    except (OSError, ValueError):
        return False
    rows = _split_rows(start)
    return any(len(row) == 2 and all(map(listing.is_image, row)) for row in rows)


def _parse_table(list_file: str, lines: list[str]) -> list[tuple[str, str]]:
    """Returns the paths in the rows of a CSV file.

    Raises:
      schema.DataError: if a row holds anything else.
    """
    rows = _split_rows(lines)
    if rows and not any(map(listing.is_image, rows[0])):
        del rows[0]  # The names of the columns.
    for row in rows:
        if len(row) != 2 or not all(row):
            raise schema.DataError(
                f"{list_file}: the row {','.join(row)!r} is not the paths of an image "
                "and its mask, with a comma between them; leave these two columns, and "
                "mend or leave out the row."
            )
    return [(image, mask) for image, mask in rows]


def _split_rows(lines: list[str]) -> list[list[str]]:
    """Splits rows at the commas, or at the semicolons if the first has any."""
    delimiter = ";" if lines and ";" in lines[0] else ","
    rows = csv.reader(lines, delimiter=delimiter)
    return [[cell.strip() for cell in row] for row in rows]


def _find_repeated(
    list_file: str,
    entries: Iterable[str | tuple[str, str]],
    image_files: Mapping[str, list[str]],
) -> list[listing.Problem]:
    """Returns which images are named twice: by stems, or paths written in any way."""
    seen, repeated = set(), {}
    for entry in entries:
        if isinstance(entry, str):
            name, image = entry, image_files.get(entry, [entry])[0]
        else:
            name, image = entry[0], os.path.normpath(entry[0])
        if image in seen:
            repeated[name] = None
        seen.add(image)
    if not repeated:
        return []
    return [
        listing.Problem(
            "named_twice",
            f"{list_file} names {listing.count(list(repeated), 'example')} more than "
            "once",
            tuple(repeated),
            "keep one line for each",
        )
    ]
