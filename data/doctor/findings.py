"""What is wrong with a data set, judged by the facts of its examples."""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Sequence

from data.doctor import conventions, plain_masks
from data.doctor import facts as facts_lib
from data.files import mask_values, palettes
from data.preparing import preprocessing
from data.sources import listing

_REMEDIES = {
    "damaged_file": "get it again, or take the pair away",
    "no_image_file": "put an image in its place, or take the pair away",
    "unreadable_file": "see that it is there and yours to read, or take the pair away",
    "too_large": "cut it into tiles, or take the pair away",
}
"""What to do where the message of an error leaves it open."""


_MOST_ROWS = 16
"""Of colours that a message lists."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is wrong, or looks wrong.

    Attributes:
      kind: a short code, that of the error if training would raise one.
      severity: `error` if training would end with it, else `warning`.
      split: the name of the split, or of several.
      message: what it is and what mends it.
      files: those concerned; empty if all are.
    """

    kind: str
    severity: str
    split: str
    message: str
    files: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Selection:
    """Examples of one split or more.

    Attributes:
      split: the names of the splits that they are of.
      facts: of them.
    """

    split: str
    facts: tuple[facts_lib.Facts, ...]

    def __bool__(self) -> bool:
        return bool(self.facts)

    @property
    def files(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(fact.label for fact in self.facts)


def select(
    splits: Sequence[facts_lib.Split], is_wanted: Callable[[facts_lib.Facts], bool]
) -> Selection:
    """Selects examples of some splits."""
    found = {
        split.name: [fact for fact in split.examples if is_wanted(fact)]
        for split in splits
    }
    names = [name for name, facts in found.items() if facts]
    return Selection(", ".join(names), tuple(sum(found.values(), [])))


def merge(found: Sequence[Finding]) -> list[Finding]:
    """Joins findings that say the same of several splits: each is there once."""
    groups = collections.defaultdict(list)
    for finding in found:
        groups[finding.kind, finding.severity, finding.message].append(finding)
    return [
        dataclasses.replace(
            same[0],
            split=", ".join(dict.fromkeys(finding.split for finding in same)),
            files=tuple(dict.fromkeys(f for finding in same for f in finding.files)),
        )
        for same in groups.values()
    ]


def judge_problems(
    split: str, problems: tuple[listing.Problem, ...]
) -> Iterator[Finding]:
    """Yields a finding for each problem of names and places."""
    for problem in problems:
        message = f"{problem.sentence}; {problem.remedy}"
        files = tuple(map(listing.printable, problem.files))
        yield Finding(problem.kind, "error", split, message, files)


def judge_errors(
    splits: Sequence[facts_lib.Split], convention: mask_values.Convention
) -> Iterator[Finding]:
    """Yields the errors of examples that cannot be decoded, one for each kind.

    Args:
      splits: the facts.
      convention: what the settings say of mask values.
    """
    bad = select(splits, lambda fact: fact.kind and not fact.has_bad_values)
    for kind in dict.fromkeys(fact.kind for fact in bad.facts):
        found = select(splits, lambda f, k=kind: f.kind == k and not f.has_bad_values)
        message = found.facts[0].message
        if kind == "coloured_mask":
            message = _describe_colors(found, convention.num_classes) or message
        message = _append_program(message, kind, splits, convention)
        if kind in _REMEDIES:
            message = f"{message}; {_REMEDIES[kind]}"
        if len(found.facts) > 1:
            message = f"{len(found.facts)} examples, for instance: {message}"
        yield Finding(kind, "error", found.split, message, found.files)


def judge_values(
    splits: Sequence[facts_lib.Split],
    preprocessor: preprocessing.Preprocessor | None,
    convention: mask_values.Convention,
) -> Iterator[Finding]:
    """Yields what is wrong with mask values, by those of all splits.

    Args:
      splits: the facts.
      preprocessor: as in `inspection.walk`.
      convention: what the settings say of mask values.
    """
    bad = select(splits, lambda fact: fact.has_bad_values)
    severity = "error" if bad or preprocessor is None else "warning"
    facts = [fact for split in splits for fact in split.examples]
    if mixed := conventions.find_mixed(facts, convention):
        diagnosis, groups = mixed
        names = ", ".join(split.name for split in splits)
        files = tuple(
            f"{fact.label}: {', '.join(map(str, sorted(fact.values)))}"
            for group in groups
            for fact in group.facts
        )
        yield Finding(diagnosis.kind, severity, names, str(diagnosis), files)
    elif diagnosis := diagnose_values(splits, preprocessor, convention):
        names = bad.split or ", ".join(split.name for split in splits)
        message = _append_program(str(diagnosis), diagnosis.kind, splits, convention)
        yield Finding(diagnosis.kind, "error", names, message, bad.files)


def diagnose_values(
    splits: Sequence[facts_lib.Split],
    preprocessor: preprocessing.Preprocessor | None,
    convention: mask_values.Convention,
) -> mask_values.Diagnosis | None:
    """Says what is wrong with the values of all masks, if some have no class."""
    whole, bad = collections.Counter(), collections.Counter()
    for split in splits:
        whole.update(split.value_counts)
        whole.subtract(split.photo_counts)
        bad.update(split.bad_counts)
    whole = +whole
    settings = {
        "subject": "the masks hold",
        "all_values": whole.keys(),
        "solid": facts_lib.sum_neighbours(splits, "values").find_solid(),
    }
    if preprocessor is None:
        return mask_values.diagnose(whole, whole.keys(), convention, **settings)
    if not any(fact.has_bad_values for split in splits for fact in split.examples):
        return None
    diagnosis = preprocessor.diagnose(whole, **settings)
    if diagnosis is None or diagnosis.kind == "values_out_of_range":
        # What befell a few masks of many shows in these few alone.
        return preprocessor.diagnose(bad, **settings)
    return diagnosis


def _describe_colors(found: Selection, num_classes: int | None) -> str:
    """Says what class the colours of all masks are, if these are few or known."""
    colors = set().union(*(fact.colors for fact in found.facts))
    known = palettes.find_by_colors(colors)
    fitting = [n for n in known if palettes.count_classes(n) == num_classes]
    if fitting:
        known = tuple(fitting)
    flags = " or ".join(f"--label_colors={name}" for name in known)
    start = "the masks are coloured"
    if known:
        start += f", in the colours of {' or '.join(known)}"
    if fitting or (known and len(colors) > _MOST_ROWS):
        return f"{start}; say {flags}"
    if len(colors) > _MOST_ROWS:
        return ""
    # Tools that draw masks give any classes the first colours of Pascal VOC.
    rows = " ".join(
        f"`class_{index},{red},{green},{blue}`"
        for index, (red, green, blue) in enumerate(_sort_colors(colors, known))
    )
    remedy = (
        f"say --label_colors=FILE, a file with the rows {rows}, with names of your own "
        "and `ignore` for a colour that is no class"
    )
    if not known:
        return f"{start}; {remedy}"
    counts = " or ".join(f"{palettes.count_classes(name)} of {name}" for name in known)
    return f"{start}; {remedy}; or, if your classes are the {counts}, say {flags}"


def _sort_colors(
    colors: set[palettes.Color], known: Sequence[str]
) -> list[palettes.Color]:
    """Puts colours in the order of a known palette, or else the darkest first."""
    if known:
        order = dict.fromkeys(color for _, color in palettes.PALETTES[known[0]])
        return [color for color in order if color in colors]
    return sorted(colors, key=lambda color: (sum(color), color))


def _append_program(
    message: str,
    kind: str,
    splits: Sequence[facts_lib.Split],
    convention: mask_values.Convention,
) -> str:
    program = plain_masks.write_program(kind, splits, convention)
    if program is None:
        return message
    then = f", then {program.last_step}" if program.last_step else ""
    return (
        f"{message}; or give each pixel the class of the nearest colour: run in the "
        f"folder --data_dir (of a copy){then}\n{program.lines}\n"
    )


def count(items: Sequence, noun: str) -> str:
    """Returns e.g. `1 image` or `1,200 images`."""
    return f"{len(items):,} {noun}{'s' if len(items) > 1 else ''}"


def are(items: Sequence) -> str:
    """Returns the verb for some items."""
    return "are" if len(items) > 1 else "is"
