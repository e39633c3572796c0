"""What is wrong with the images of a data set, and with what files hold beside them."""

import collections
from collections.abc import Iterator, Sequence

from data import schema
from data.doctor import conventions, edges, findings
from data.doctor import facts as facts_lib
from data.files import file_traits

_MOST_STRETCHED = 2.5
_LEAST_SIZE = 0.25
"""Of --image_size; smaller images would be blown up."""

_Splits = Sequence[facts_lib.Split]
_Findings = Iterator[findings.Finding]


def judge(
    splits: _Splits,
    *,
    image_size: tuple[int, int],
    image_format: schema.ImageFormat,
    is_stretched: bool,
    has_label_colors: bool = False,
) -> _Findings:
    """Yields what is wrong with the images of some splits.

    Args:
      splits: their facts.
      image_size: height and width that images are resized to.
      image_format: what they are decoded to.
      is_stretched: whether each side is resized by itself.
      has_label_colors: whether masks are read by their colours.
    """
    yield from _judge_label_images(splits)
    for split in splits:
        yield from _judge_duplicates(split)
    if is_stretched:
        yield from _judge_aspects(splits, image_size)
    yield from _judge_sizes(splits, image_size)
    yield from _judge_turns(splits)
    if not has_label_colors:
        yield from _judge_palettes(splits)
    for dropped in file_traits.DROPPED:
        found = findings.select(splits, lambda f, d=dropped: d in f.traits.dropped)
        if found:
            message = file_traits.describe_dropped(
                dropped, [fact.traits for fact in found.facts], image_format
            )
            yield _warn(found, "dropped_band", message)
    if found := findings.select(splits, lambda fact: fact.traits.lacks_alpha):
        message = file_traits.describe_missing_alpha(len(found.facts))
        yield _warn(found, "opaque_image", message)
    yield from _judge_alpha(splits, image_format.num_channels)
    yield from _judge_ranges(splits, image_format)


def judge_both(train: facts_lib.Split, other: facts_lib.Split) -> _Findings:
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
    yield findings.Finding(
        "leak",
        "warning",
        f"{train.name}, {other.name}",
        f"{findings.count(found, 'image')} of {other.name} {findings.are(found)} in "
        f"{train.name}, too, pixel by pixel{masks}: scores would be of what was "
        "learned by heart; take them out of one of the two",
        tuple(f"{a.files[0]} = {b.files[0]}" for a, b in found),
    )


def _warn(found: findings.Selection, kind: str, message: str) -> findings.Finding:
    return findings.Finding(kind, "warning", found.split, message, found.files)


def _judge_label_images(splits: _Splits) -> _Findings:
    found = findings.select(splits, lambda fact: fact.has_label_image)
    if found:
        yield _warn(
            found,
            "image_is_mask",
            f"{findings.count(found.facts, 'image')} {findings.are(found.facts)} gray, "
            "with the very values of the mask, and may be the mask itself; put the "
            "photo in its place",
        )


def _judge_duplicates(split: facts_lib.Split) -> _Findings:
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
            yield findings.Finding(
                kind,
                "warning",
                split.name,
                f"{findings.count(found, 'image')} {findings.are(found)} there more "
                f"than once, pixel by pixel, {reason}",
                tuple(" = ".join(f.files[0] for f in facts) for facts in found),
            )


def _judge_aspects(splits: _Splits, image_size: tuple[int, int]) -> _Findings:
    """Yields the images that stretching would distort."""
    found = findings.select(
        splits,
        lambda fact: fact.size and _stretching(fact.size, image_size) > _MOST_STRETCHED,
    )
    if found:
        sizes = [fact.size for fact in found.facts]
        height, width = max(sizes, key=lambda size: _stretching(size, image_size))
        yield _warn(
            found,
            "odd_aspect",
            f"{findings.count(found.facts, 'image')} would be stretched by more than "
            f"{_MOST_STRETCHED} to become {'x'.join(map(str, image_size))} (the worst "
            f"has {height}x{width} pixels); say --resize=pad",
        )


def _judge_sizes(splits: _Splits, image_size: tuple[int, int]) -> _Findings:
    def is_small(fact: facts_lib.Facts) -> bool:
        return fact.size and any(
            side < _LEAST_SIZE * wanted
            for side, wanted in zip(fact.size, image_size, strict=True)
        )

    found = findings.select(splits, is_small)
    if found:
        least = min(found.facts, key=lambda fact: fact.size[0] * fact.size[1])
        yield _warn(
            found,
            "small_image",
            f"{findings.count(found.facts, 'image')} smaller than a quarter of the "
            f"image size, {'x'.join(map(str, image_size))}, in a side (the least has "
            f"{least.size[0]}x{least.size[1]} pixels); choose a smaller --image_size, "
            "or get them larger",
        )


def _judge_turns(splits: _Splits) -> _Findings:
    """Yields photos that may be turned away from their masks."""
    found = findings.select(splits, lambda fact: fact.traits.orientation != 1)
    if not found:
        return
    way = edges.decide([fact.turn_gain for fact in found.facts])
    if way > 0:
        return  # As training takes them.
    num_stored = sum(fact.turn_gain < 0 for fact in found.facts)
    evidence = "their edges do not tell either"
    if way < 0:
        evidence = (
            "the borders of the masks lie on edges of the photos AS STORED (better in "
            f"{num_stored} of {len(found.facts)}), so training would see them wrong"
        )
    others = findings.select(splits, lambda fact: fact.traits.orientation == 1)
    remedies = file_traits.describe_turn_remedies(
        *([fact.files[0] for fact in chosen.facts] for chosen in (found, others))
    )
    message = file_traits.describe_turns(len(found.facts))
    yield _warn(found, "open_turn", f"{message}; {evidence}. {remedies}")


def _judge_palettes(splits: _Splits) -> _Findings:
    """Yields palettes that do not agree on the colour of an index."""
    masks = findings.select(splits, lambda fact: fact.values is not None)
    mixed = conventions.find_palettes(masks.facts)
    if not mixed:
        return
    index, colors = min(mixed.items())
    concerned = {id(fact) for facts in colors.values() for fact in facts}
    shown = "; ".join(
        f"{color} in {len(facts)} masks, e.g. {facts[0].files[-1]}"
        for color, facts in colors.items()
    )
    found = findings.select(splits, lambda fact: id(fact) in concerned)
    yield _warn(
        found,
        "mixed_palettes",
        f"the palettes of the masks do not agree: index {index} is {shown}"
        f"{f' ({len(mixed)} indexes differ so)' if len(mixed) > 1 else ''}. Palette "
        "masks are read by index, and classes would be mixed up; if the colours are "
        f"what counts, say --label_colors=FILE, with a row for each: "
        f"{conventions.list_colors(masks.facts)}",
    )


def _judge_alpha(splits: _Splits, num_channels: int) -> _Findings:
    """Yields images whose last channel is alpha, where that of others is not."""
    traits = [fact.traits for split in splits for fact in split.examples]
    if message := file_traits.describe_mixed_alpha(traits, num_channels):
        found = findings.select(
            splits, lambda fact: fact.traits.stored and fact.traits.stored.has_alpha
        )
        yield _warn(found, "mixed_alpha", message)


def _judge_ranges(splits: _Splits, image_format: schema.ImageFormat) -> _Findings:
    """Yields images of 16 bits that do not fit the range."""
    traits = [fact.traits for split in splits for fact in split.examples]
    if misfit := file_traits.describe_range(traits, image_format):
        found = findings.select(
            splits, lambda fact: fact.traits.greatest_16_bit is not None
        )
        yield _warn(found, *misfit)


def _stretching(size: tuple[int, int], image_size: tuple[int, int]) -> float:
    """Returns by how much more one side is scaled than the other."""
    height, width = (new / old for new, old in zip(image_size, size, strict=True))
    return max(height / width, width / height)
