"""What is wrong with a data set, judged by the facts of its examples."""

import collections
import dataclasses
from collections.abc import Iterator

import numpy as np

from data import balance, inspection, mask_values, palettes, preprocessing, schema
from data.sources import listing

_MOST_IGNORED = 0.95
_MOST_STRETCHED = 2.5
_LEAST_SIZE = 0.25
"""Of --image_size; smaller images would be blown up."""
_MOST_IMBALANCE = 100
_MAX_WEIGHTS_SHOWN = 8

_REMEDIES = {
    "damaged_file": "get it again, or take the pair away",
    "no_image_file": "put an image in its place, or take the pair away",
    "unreadable_file": "see that it is there and yours to read, or take the pair away",
    "too_large": "cut it into tiles, or take the pair away",
}
"""What to do where the message of an error leaves it open."""

_VALUE_KINDS = frozenset({
    "binary_mask", "scaled_16_bit", "lost_palette", "stretched_values",
    "interpolated_mask", "unlisted_value", "values_out_of_range", "classes_unknown",
})  # fmt: skip
"""What `mask_values.diagnose` says of numbers; of photos it is sure one by one."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is wrong, or looks wrong.

    Attributes:
      kind: a short code, that of the error if training would raise one.
      severity: `error` if training would end with it, else `warning`.
      split: the name of the split, or of both.
      message: what it is and what mends it.
      files: those concerned; empty if all are.
    """

    kind: str
    severity: str
    split: str
    message: str
    files: tuple[str, ...] = ()


def judge_problems(
    split: str, problems: tuple[listing.Problem, ...]
) -> Iterator[Finding]:
    """Yields a finding for each problem of names and places."""
    for problem in problems:
        message = f"{problem.sentence}; {problem.remedy}"
        yield Finding(problem.kind, "error", split, message, problem.files)


def judge_split(
    split: inspection.Split,
    preprocessor: preprocessing.Preprocessor | None,
    *,
    info: schema.DatasetInfo | None,
    image_size: tuple[int, int],
    convention: mask_values.Convention,
    is_training: bool,
    is_weighted: bool = False,
) -> Iterator[Finding]:
    """Yields what is wrong with a split by itself.

    Args:
      split: its facts.
      preprocessor: as in `inspection.walk`.
      info: the classes; None if it is not known how many there are.
      image_size: height and width that images are resized to.
      convention: what the settings say of mask values.
      is_training: whether it is the split to train on.
      is_weighted: whether the loss makes up for rare classes already.
    """
    yield from _judge_errors(split)
    yield from _judge_values(split, preprocessor, convention)
    if info is not None and split.class_pixels.any():
        yield from _judge_classes(split, info, convention, is_training)
        if is_training and not is_weighted:
            yield from _judge_balance(split, info)
    yield from _judge_label_images(split)
    yield from _judge_duplicates(split)
    if preprocessor is None or preprocessor.resize == "stretch":
        yield from _judge_aspects(split, image_size)
    yield from _judge_sizes(split, image_size)


def judge_both(train: inspection.Split, other: inspection.Split) -> Iterator[Finding]:
    """Yields what is wrong with two splits together: images that are in both."""
    known = {}
    for fact in train.examples:
        if fact.image_digest:
            known.setdefault(fact.image_digest, fact)
    found = [
        (known[fact.image_digest], fact)
        for fact in other.examples
        if fact.image_digest in known
    ]
    if not found:
        return
    num_conflicts = sum(a.label_digest != b.label_digest for a, b in found)
    masks = f", {num_conflicts} of them with another mask" if num_conflicts else ""
    yield Finding(
        "leak",
        "warning",
        f"{train.name}, {other.name}",
        f"{_count(found, 'image')} of {other.name} {_are(found)} in {train.name}, too, "
        f"pixel by pixel{masks}: scores would be of what was learned by heart; take "
        "them out of one of the two",
        tuple(f"{a.files[0]} = {b.files[0]}" for a, b in found),
    )


def _judge_errors(split) -> Iterator[Finding]:
    """Yields the errors of single examples, grouped."""
    groups = collections.defaultdict(list)
    for fact in split.examples:
        if fact.kind and not _has_bad_values(fact):
            groups[fact.kind].append(fact)
    for kind, facts in groups.items():
        message = facts[0].message
        if kind == "coloured_mask":
            message = _describe_colors(facts) or message
        elif kind in _REMEDIES:
            message = f"{message}; {_REMEDIES[kind]}"
        if len(facts) > 1:
            message = f"{len(facts)} examples, for instance: {message}"
        yield Finding(kind, "error", split.name, message, _name(facts))


def _has_bad_values(fact: inspection.Facts) -> bool:
    """Tells whether the mask can be decoded, but is of numbers without a class."""
    return fact.size is not None and fact.kind in _VALUE_KINDS


def _describe_colors(facts) -> str:
    """Names the palettes that have the colours of all masks, if there are."""
    known = palettes.find_by_colors(set().union(*(fact.colors for fact in facts)))
    if not known:
        return ""
    names = " or ".join(f"--label_colors={name}" for name in known)
    return (
        f"the masks are coloured, in the colours of {' or '.join(known)}; say {names}"
    )


def _judge_values(split, preprocessor, convention) -> Iterator[Finding]:
    """Yields what is wrong with mask values, by those of the whole split."""
    facts = [fact for fact in split.examples if _has_bad_values(fact)]
    if preprocessor is None:
        counts = split.value_counts
        diagnosis = mask_values.diagnose(
            counts, counts.keys(), convention, subject="the masks hold"
        )
        if diagnosis:
            yield Finding(diagnosis.kind, "error", split.name, str(diagnosis))
        return
    if not facts:
        return
    subject = "the masks hold"
    whole = preprocessor.diagnose(
        split.value_counts - split.photo_counts, subject=subject
    )
    bad = preprocessor.diagnose(split.bad_counts, subject=subject)
    # What befell a few masks of many shows in these few alone.
    diagnosis = bad if whole.kind == "values_out_of_range" else whole
    yield Finding(diagnosis.kind, "error", split.name, str(diagnosis), _name(facts))


def _judge_classes(split, info, convention, is_training) -> Iterator[Finding]:
    """Yields what is wrong with the numbers of pixels of the classes."""
    pixels = split.class_pixels
    diagnosis = mask_values.diagnose_classes(
        pixels,
        convention,
        class_names=info.class_names,
        has_label_colors=bool(info.label_colors),
    )
    if diagnosis:
        # Where others have bad values, these few may be the ones with a single class.
        if not any(map(_has_bad_values, split.examples)):
            files = [f for f in split.examples if f.index in split.ignored_shares]
            severity = "error" if is_training else "warning"
            message = str(diagnosis)
            yield Finding(diagnosis.kind, severity, split.name, message, _name(files))
        return
    mostly_ignored = [
        fact
        for fact in split.examples
        if split.ignored_shares.get(fact.index, 0) > _MOST_IGNORED
    ]
    if mostly_ignored:
        yield Finding(
            "mostly_ignored",
            "warning",
            split.name,
            f"{_count(mostly_ignored, 'example')} with more than {_MOST_IGNORED:.0%} "
            "of the pixels ignored: there is next to nothing to learn from; see "
            "whether their masks are finished and --ignore_label is right, or take "
            "them away",
            _name(mostly_ignored),
        )
    counts = pixels[: info.num_classes]
    absent = [info.class_names[label] for label in np.flatnonzero(counts == 0)]
    if absent:
        effect = "nothing is learned of them" if is_training else "they have no score"
        yield Finding(
            "class_without_pixels",
            "warning",
            split.name,
            f"classes without a pixel ({listing.name_some(absent)}): {effect}; add "
            "examples, or merge or drop classes with --label_map",
        )


def _judge_balance(split, info) -> Iterator[Finding]:
    counts = split.class_pixels[: info.num_classes]
    present = np.flatnonzero(counts)
    if not present.size:
        return
    rarest = present[counts[present].argmin()]
    commonest = counts.argmax()
    ratio = counts[commonest] / counts[rarest]
    if ratio <= _MOST_IMBALANCE:
        return
    weights = balance.class_weights(counts, "inverse_sqrt")
    shown = [f"{info.class_names[c]} {weights[c]:.3g}" for c in present]
    if len(shown) > _MAX_WEIGHTS_SHOWN:
        shown = [*shown[:_MAX_WEIGHTS_SHOWN], "..."]
    yield Finding(
        "imbalance",
        "warning",
        split.name,
        f"{info.class_names[commonest]} has {ratio:,.0f} times the pixels of "
        f"{info.class_names[rarest]}, which may never be predicted; try "
        f"--class_weights=inverse_sqrt, which weighs {', '.join(shown)}",
    )


def _judge_label_images(split) -> Iterator[Finding]:
    facts = [f for f in split.examples if f.has_label_image]
    if facts:
        yield Finding(
            "image_is_mask",
            "warning",
            split.name,
            f"{_count(facts, 'image')} {_are(facts)} gray, with the very values of the "
            "mask, and may be the mask itself; put the photo in its place",
            _name(facts),
        )


def _judge_duplicates(split) -> Iterator[Finding]:
    """Yields the images that are there more than once."""
    groups = collections.defaultdict(list)
    for fact in split.examples:
        if fact.image_digest:
            groups[fact.image_digest].append(fact)
    same, conflicting = [], []
    for facts in groups.values():
        if len(facts) > 1:
            has_one_label = len({fact.label_digest for fact in facts}) == 1
            (same if has_one_label else conflicting).append(facts)
    for kind, found, reason in (
        ("duplicate", same, "with the same mask: they count twice; keep one of each"),
        (
            "conflicting_duplicate",
            conflicting,
            "with different masks, of which one at most is right; keep that one",
        ),
    ):
        if found:
            yield Finding(
                kind,
                "warning",
                split.name,
                f"{_count(found, 'image')} {_are(found)} there more than once, pixel "
                f"by pixel, {reason}",
                tuple(" = ".join(f.files[0] for f in facts) for facts in found),
            )


def _judge_aspects(split, image_size) -> Iterator[Finding]:
    """Yields the images that stretching would distort."""
    facts = [
        fact
        for fact in split.examples
        if fact.size and _stretching(fact.size, image_size) > _MOST_STRETCHED
    ]
    if facts:
        sizes = [fact.size for fact in facts]
        height, width = max(sizes, key=lambda size: _stretching(size, image_size))
        yield Finding(
            "odd_aspect",
            "warning",
            split.name,
            f"{_count(facts, 'image')} would be stretched by more than "
            f"{_MOST_STRETCHED} to become {'x'.join(map(str, image_size))} (the worst "
            f"has {height}x{width} pixels); say --resize=pad",
            _name(facts),
        )


def _judge_sizes(split, image_size) -> Iterator[Finding]:
    facts = [fact for fact in split.examples if fact.size]
    size = "x".join(map(str, image_size))
    small = [
        fact
        for fact in facts
        if any(
            side < _LEAST_SIZE * wanted
            for side, wanted in zip(fact.size, image_size, strict=True)
        )
    ]
    if small:
        least = min(small, key=lambda fact: fact.size[0] * fact.size[1])
        yield Finding(
            "small_image",
            "warning",
            split.name,
            f"{_count(small, 'image')} smaller than a quarter of the image size, "
            f"{size}, in a side (the least has {least.size[0]}x{least.size[1]} pixels);"
            " choose a smaller --image_size, or get them larger",
            _name(small),
        )


def _stretching(size: tuple[int, int], image_size: tuple[int, int]) -> float:
    """Returns by how much more one side is scaled than the other."""
    height, width = (new / old for new, old in zip(image_size, size, strict=True))
    return max(height / width, width / height)


def _name(facts) -> tuple[str, ...]:
    """Names examples, by the image and, in brackets, the mask if it is a file."""
    return tuple(
        f"{fact.files[0]} ({fact.files[1]})" if fact.files[1:] else fact.files[0]
        for fact in facts
    )


def _count(items, noun: str) -> str:
    return f"{len(items):,} {noun}{'s' if len(items) > 1 else ''}"


def _are(items) -> str:
    return "are" if len(items) > 1 else "is"
