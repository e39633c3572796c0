"""What is wrong with the numbers of pixels of the classes of a split."""

from collections.abc import Iterator

import numpy as np

from data import schema
from data.doctor import facts as facts_lib
from data.doctor import findings
from data.files import mask_values
from data.sources import listing
from data.stores import balance

_MOST_IGNORED = 0.95
_LEAST_PART = 0.1
"""Of an even share of the pixels; a rarer class may never be predicted."""
_MAX_WEIGHTS_SHOWN = 8


def judge(
    split: facts_lib.Split,
    *,
    info: schema.DatasetInfo,
    convention: mask_values.Convention,
    all_values: frozenset[int],
    is_weighted: bool = False,
) -> Iterator[findings.Finding]:
    """Yields what is wrong with the classes of a split.

    Args:
      split: its facts.
      info: the classes.
      convention: what the settings say of mask values.
      all_values: those of all masks of the data set.
      is_weighted: whether the loss makes up for rare classes already.
    """
    if not split.class_pixels.any():
        return
    yield from _judge_classes(split, info, convention, all_values)
    counts = split.class_pixels[: info.num_classes]
    if split.is_training and not is_weighted:
        message = describe_imbalance(counts, info.class_names)
        if message:
            yield findings.Finding("imbalance", "warning", split.name, message)


def describe_imbalance(counts: np.ndarray, class_names: tuple[str, ...]) -> str:
    """Says which class is so rare that it may never be predicted, and what helps.

    Args:
      counts: int64 [classes], pixels of each class in the training split.
      class_names: of the classes.

    Returns:
      One sentence without a full stop; nothing if no class is that rare.
    """
    present = np.flatnonzero(counts)
    if not present.size:
        return ""
    rarest = present[counts[present].argmin()]
    if counts[rarest] >= _LEAST_PART * counts.sum() / len(counts):
        return ""
    commonest = counts.argmax()
    weights = balance.class_weights(counts, "inverse_sqrt")
    shown = [f"{class_names[c]} {weights[c]:.3g}" for c in present]
    if len(shown) > _MAX_WEIGHTS_SHOWN:
        shown = [*shown[:_MAX_WEIGHTS_SHOWN], "..."]
    return (
        f"{class_names[commonest]} has {counts[commonest] / counts[rarest]:,.0f} times "
        f"the pixels of {class_names[rarest]}, which may never be predicted; try "
        f"--class_weights=inverse_sqrt, which weighs {', '.join(shown)}"
    )


def _judge_classes(
    split: facts_lib.Split,
    info: schema.DatasetInfo,
    convention: mask_values.Convention,
    all_values: frozenset[int],
) -> Iterator[findings.Finding]:
    pixels = split.class_pixels
    diagnosis = mask_values.diagnose_classes(
        pixels,
        convention,
        class_names=info.class_names,
        has_label_colors=bool(info.label_colors),
        all_values=all_values,
    )
    if diagnosis:
        # Where others have bad values, these few may be the ones with a single class.
        if not any(fact.kind in mask_values.KINDS for fact in split.examples):
            files = [f.label for f in split.examples if f.index in split.ignored_shares]
            severity = "error" if split.is_training else "warning"
            message = str(diagnosis)
            yield findings.Finding(
                diagnosis.kind, severity, split.name, message, tuple(files)
            )
        return
    mostly_ignored = findings.select(
        [split], lambda fact: split.ignored_shares.get(fact.index, 0) > _MOST_IGNORED
    )
    if mostly_ignored:
        yield findings.Finding(
            "mostly_ignored",
            "warning",
            split.name,
            f"{findings.count(mostly_ignored.facts, 'example')} with more than "
            f"{_MOST_IGNORED:.0%} of the pixels ignored: there is next to nothing to "
            "learn from; see whether their masks are finished and --ignore_label is "
            "right, or take them away",
            mostly_ignored.files,
        )
    counts = pixels[: info.num_classes]
    absent = [info.class_names[label] for label in np.flatnonzero(counts == 0)]
    if absent:
        effect = "they have no score"
        if split.is_training:
            effect = "nothing is learned of them"
        yield findings.Finding(
            "class_without_pixels",
            "warning",
            split.name,
            f"classes without a pixel ({listing.name_some(absent)}): {effect}; add "
            "examples, or merge or drop classes with --label_map",
        )
