"""The README and the pages of docs/, and the code in them."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_FILE = re.compile(r"(?:^|\n)[^\n]*`([\w/.]+)`[^\n`]*:\n*\Z")


def paths() -> list[pathlib.Path]:
    """Returns the paths of all pages, the README first."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def read(name: str) -> str:
    """Returns the text of a page of docs/, or of the README."""
    folder = ROOT if name == "README.md" else ROOT / "docs"
    return (folder / name).read_text("utf-8")


def read_all() -> str:
    """Returns the text of all pages, one after the other."""
    return "\n".join(path.read_text("utf-8") for path in paths())


def split_blocks(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Takes the blocks of code out of a text.

    Returns:
      The text between them, and the blocks, each with the language that it names.
    """
    parts = _BLOCK.split(text)
    return parts[::3], list(zip(parts[1::3], parts[2::3], strict=True))


def code_blocks(text: str, language: str = "python") -> list[str]:
    """Returns the blocks of a language, in their order."""
    return [code for name, code in split_blocks(text)[1] if name == language]


def named_blocks(text: str) -> list[tuple[str, str]]:
    """Returns the blocks that the line above gives to a file.

    Returns:
      Pairs of the last path that this line names, and the code, for each block of
      Python under a line that ends with a colon.
    """
    between, blocks = split_blocks(text)
    found = []
    for before, (language, code) in zip(between, blocks, strict=False):
        match = _FILE.search(before)
        if language == "python" and match:
            found.append((match[1], code))
    return found
