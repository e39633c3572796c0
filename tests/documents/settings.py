"""Writes docs/settings.md, the page of all flags, from their declarations.

    python -m tests.documents.settings

A test compares the page with what this would write.
"""

import dataclasses
import inspect
from collections.abc import Iterator

from tests.documents import pages
from trainer.settings import config, fields

COMMAND = "python -m tests.documents.settings"
PATH = pages.ROOT / "docs" / "settings.md"

_HEAD = f"""# Settings

For whoever looks up a flag: all flags of `python -m trainer.main`, section by section.
`--help` prints the same texts, without ranges and conditions. This page is written by
`{COMMAND}` from the declarations in `trainer/settings/`.

- Type a flag with its value: `--batch_size=16`. Type a flag that is true or false
  alone, or with `no` before its name: `--freeze_encoder`, `--nofreeze_encoder`. Put
  commas between the items of a list.
- A flagfile (`--flagfile=FILE`) holds one flag a line, without quotes:
  `--images=left/*.png`. A line that begins with `#` is a comment. A flag that you type
  wins over flagfiles.
- "derived" means that there is no fixed default. The text says what holds without the
  flag; for a random change, `--augment` says it.
- A flag with "only with" has an effect only beside these values. Typed beside others,
  it is refused.
- A flag marked "fixed" belongs to the identity of a run. A run that goes on must have
  the same value; another value is an error that names the flag. `--augment` stands for
  flags that are fixed. Where another flag, such as `--images` or `--label_map`, changes
  the training examples, the run does not go on, either. All others may change from one
  start to the next.
"""


def write_page() -> str:
    """Returns the text of the page."""
    return "\n".join([_HEAD, *_lines()])


def _lines() -> Iterator[str]:
    for section in dataclasses.fields(config.Config):
        title = inspect.getdoc(section.type).partition("\n")[0].removesuffix(".")
        yield f"## {title}\n"
        yield "| flag | default | what it does |"
        yield "|---|---|---|"
        yield from map(_row, dataclasses.fields(section.type))
        yield ""


def _row(field: dataclasses.Field) -> str:
    """Returns the row of a setting."""
    data = field.metadata
    parts = [data["help"]]
    if data["choices"]:
        parts.append(f"Values: {', '.join(fields.list_choices(field))}.")
    low, high = data["minimum"], data["maximum"]
    if isinstance(high, int) and high - low == 1:
        parts.append(f"{low} or {high}.")
    elif low is not None and high is not None:
        parts.append(f"From {_number(low)} to {_number(high)}.")
    elif low is not None:
        parts.append(f"At least {_number(low)}.")
    if conditions := _conditions(data["only_with"]):
        parts.append(f"Only with {' and '.join(conditions)}.")
    if data["identity"]:
        parts.append("Fixed.")
    scalar, _ = fields.value_type(field)
    name = f"[no]{field.name}" if scalar is bool else field.name
    text = " ".join(parts).replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
    return f"| `--{name}` | {_default(field)} | {text} |"


def _conditions(only_with: dict[str, tuple]) -> list[str]:
    """Says in words with which other settings a setting has a meaning."""
    found = []
    for name, values in only_with.items():
        words = " or ".join(fields.format_value(value) for value in values)
        if values == ("",):
            found.append(f"an empty --{name}")
        elif words.startswith("a "):
            found.append(f"--{name}")
        elif values == (False,):
            found.append(f"--no{name}")
        elif values == (True,):
            found.append(f"--{name}")
        else:
            found.append(f"--{name} {words}")
    return found


def _default(field: dataclasses.Field) -> str:
    if field.default is None:
        return "derived"
    return f"`{fields.format_value(field.default)}`" if field.default else _empty(field)


def _empty(field: dataclasses.Field) -> str:
    """Returns the default of a setting that is off: 0, false or nothing."""
    text = fields.format_value(field.default)
    return f"`{text}`" if text else "empty"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def main() -> int:
    """Writes the page."""
    PATH.write_text(write_page(), "utf-8")
    print(f"wrote {PATH.relative_to(pages.ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
