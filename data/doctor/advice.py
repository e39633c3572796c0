"""What training says of a data set as a whole, where it would not read it otherwise."""

import time
from collections.abc import Iterator, Sequence

from data import schema
from data.doctor import conventions, findings, inspection, plain_masks
from data.doctor import facts as facts_lib
from data.files import file_traits, mask_values
from data.preparing import preprocessing, samples

_MOST_SECONDS = 20.0
"""For all masks of a data set, once it is clear that the run cannot start."""


KINDS = mask_values.KINDS | {"lossy_mask", "interpolated_mask"}
"""Of errors that say more once all masks are looked at."""


def complete(
    error: schema.DataError,
    sources: Sequence[schema.Source],
    preprocessor: preprocessing.Preprocessor,
) -> schema.DataError:
    """Adds to an error about masks what mends all of them, as the doctor says it.

    Args:
      error: of a kind in `KINDS`.
      sources: the splits of the run, that to train on first.
      preprocessor: how examples become arrays.

    Returns:
      The error to be raised; the same if that takes too long, or nothing is known.
    """
    splits = _survey(sources, preprocessor)
    if splits is None:
        return error
    message = str(error).removesuffix(".").removesuffix(f"; {mask_values.SEE_DOCTOR}")
    kind, remedy = _find_remedy(error.kind, splits, preprocessor)
    if remedy:
        end = "" if remedy.endswith("?") else "."
        message += f". By all {sum(map(len, sources))} masks: {remedy}{end}"
    else:
        message = str(error)
    program = plain_masks.write_program(kind, splits, preprocessor.convention)
    if program:
        then = f", and {program.last_step}" if program.last_step else ""
        # The last line of a run names the file.
        message = (
            "There are masks that are no plain labels. These two lines write PNG "
            "masks that give each pixel the class of the nearest colour; run them in "
            f"(a copy of) the folder --data_dir{then}:\n{program.lines}\n{message}"
        )
    return schema.DataError(message, kind=error.kind)


def look_at_some(
    source: schema.Source, preprocessor: preprocessing.Preprocessor
) -> Iterator[str]:
    """Yields warnings by a few examples of a split, at the start of every run.

    Args:
      source: the examples; of those that are drawn, and in no file, nothing is said.
      preprocessor: how they become arrays.
    """
    glances = []
    for index, example in enumerate(samples.read_some(source)):
        if not any(isinstance(example[key], bytes) for key in ("image", "label")):
            return
        glances.append(inspection.glance(index, example, preprocessor))
    facts = [fact for fact in glances if fact]
    found = [fact.traits for fact in facts]
    see = f"(of {len(found)} looked at; --mode=doctor looks at all)"
    image_format = preprocessor.image_format
    for dropped in file_traits.DROPPED:
        if concerned := [one for one in found if dropped in one.dropped]:
            message = file_traits.describe_dropped(dropped, concerned, image_format)
            yield f"{message} {see}"
    if num_images := sum(one.lacks_alpha for one in found):
        yield f"{file_traits.describe_missing_alpha(num_images)} {see}"
    num_channels = image_format.num_channels
    if message := file_traits.describe_mixed_alpha(found, num_channels):
        yield f"{message} {see}"
    if misfit := file_traits.describe_range(found, image_format):
        yield f"{misfit[1]} {see}"
    if num_turned := sum(one.orientation != 1 for one in found):
        yield f"{file_traits.describe_turns(num_turned)} {see}"
    if not preprocessor.label_colors and (mixed := conventions.find_palettes(facts)):
        index, colors = min(mixed.items())
        yield (
            f"the palettes of the masks do not agree: index {index} is "
            f"{' and '.join(map(str, colors))}; they are read by index {see}"
        )
    if not any(fact.kind for fact in facts) and (
        mixed := conventions.find_mixed(facts, preprocessor.convention)
    ):
        yield f"{mixed[0].sentence} {see}"


def _survey(
    sources: Sequence[schema.Source], preprocessor: preprocessing.Preprocessor
) -> list[facts_lib.Split] | None:
    """Looks at all masks; returns None if there is not the time."""
    stop = time.monotonic() + _MOST_SECONDS
    splits = []
    for source in sources:
        facts = []
        for fact in inspection.walk(source, preprocessor, masks_only=True):
            facts.append(fact)
            if time.monotonic() > stop:
                return None
        is_training = source is sources[0]
        splits.append(
            facts_lib.summarize(
                source.name, facts, preprocessor, is_training=is_training
            )
        )
    return splits


def _find_remedy(
    kind: str,
    splits: Sequence[facts_lib.Split],
    preprocessor: preprocessing.Preprocessor,
) -> tuple[str, str]:
    """Returns the kind of what is wrong with all masks, and what mends it."""
    convention = preprocessor.convention
    for finding in findings.judge_values(splits, preprocessor, convention):
        if finding.kind == "mixed_conventions":
            return finding.kind, finding.message
    diagnosis = findings.diagnose_values(splits, preprocessor, convention)
    if kind in ("one_class", "binary_mask") and diagnosis is None:
        diagnosis = mask_values.diagnose_classes(
            splits[0].class_pixels,
            convention,
            class_names=tuple(f"class {i}" for i in range(preprocessor.num_classes)),
            has_label_colors=bool(preprocessor.label_colors),
            all_values=frozenset().union(*(split.value_counts for split in splits)),
        )
    return (diagnosis.kind, diagnosis.remedy) if diagnosis else (kind, "")
