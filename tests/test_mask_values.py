"""Each way in which masks go wrong is told from their values, and from no others."""

import re

import numpy as np
import pytest

from data.files import mask_values, palettes


def convention(num_classes=3, **kwargs):
    return mask_values.Convention(num_classes, **kwargs)


def diagnose(counts, flags=None, **kwargs):
    """Diagnoses values, or counts of values, of which the flags leave some over."""
    flags = flags or convention()
    if not isinstance(counts, dict):
        counts = dict.fromkeys(counts, 100)
    known = {flags.ignore_label} | {
        label - flags.label_offset for label in range(flags.num_classes or 0)
    }
    unknown = [value for value in counts if value not in known]
    return mask_values.diagnose(counts, unknown, flags, **kwargs)


VOC = [palettes.luminance(color) for _, color in palettes.PALETTES["voc"]]


@pytest.mark.parametrize(
    "values, flags, kind, remedy",
    [
        (
            [0, 255],
            convention(2, ignore_label=7),
            "binary_mask",
            "say --label_map=FILE, a file with the rows `0,background` "
            "`255,foreground`",
        ),
        (
            [0, 257, 514],
            convention(),
            "scaled_16_bit",
            "all are multiples of 257, as 8 bits become where they are stretched to "
            "16; divide them by 257, or say --label_map=FILE, a file with the rows "
            "`0,class_0` `257,class_1` `514,class_2`",
        ),
        ([1, 2, 3], convention(), "values_out_of_range", "mean --label_offset=-1?"),
        (
            [1, 2, 3, 255],
            convention(),
            "values_out_of_range",
            r"--label_offset=-1 \(255 stays ignored\)?",
        ),
        ([0, 1, 2], convention(3, label_offset=-1), "values_out_of_range", "=0?"),
        (
            [0, 1, 2, 3],
            convention(),
            "values_out_of_range",
            "if 0 is no class, say --label_offset=-1 --ignore_label=0, else "
            "--num_classes=4",
        ),
        ([0, 1, 2, 4], convention(), "values_out_of_range", "say --num_classes=5"),
        (
            [0, 1, 254],
            convention(2),
            "values_out_of_range",
            "if 254 is no class, say --ignore_label=254$",
        ),
        (
            [0, 1, 254],
            convention(),
            "values_out_of_range",
            "if 254 is a class, say --label_map=FILE, a file with the rows `0,class_0` "
            "`1,class_1` `254,class_2`; if 254 is no class, say --num_classes=2 "
            "--ignore_label=254$",
        ),
        # With --ignore_label=254, 255 would be no class, nor ignored any more.
        (
            [0, 1, 254, 255],
            convention(2),
            "values_out_of_range",
            "`254,ignore` `255,ignore`$",
        ),
        # As 255 with --ignore_label=0.
        (
            [0, 1, 2, 3, 255],
            convention(),
            "values_out_of_range",
            "if 0 is no class, say --label_map=FILE, a file with the rows `0,ignore` "
            "`1,class_0` `2,class_1` `3,class_2` `255,ignore`, else --num_classes=4 "
            r"\(255 stays ignored\)$",
        ),
        (
            [0, 1, 2, 3],
            convention(3, label_offset=-1),
            "values_out_of_range",
            "if 0 is no class, say --label_offset=-1 --ignore_label=0, else",
        ),
        # Classes 1 and 2 of Pascal VOC are (128, 0, 0) and (0, 128, 0).
        ([0, 38, 75], convention(21), "lost_palette", "the colours of voc"),
        (VOC, convention(21), "lost_palette", "their palette is lost"),
        ([0, 85, 170, 255], convention(4), "stretched_values", "`85,class_1`"),
        ([0, 127, 255], convention(), "stretched_values", "`127,class_1`"),
        ([0, 128, 255], convention(), "stretched_values", "`255,class_2`"),
        (
            [0, 50, 100, 255],
            convention(),
            "stretched_values",
            "`100,class_2` `255,ignore`$",
        ),
        ([0, 128], convention(2), "stretched_values", "`128,foreground`"),
        (range(256), convention(), "mask_is_photo", "256 values"),
        (
            {0: 5000, 200: 3000, **dict.fromkeys(range(60, 140, 3), 20)},
            convention(2, ignore_label=200),
            "interpolated_mask",
            r"27 rare values \(6.3% of the pixels\) lie between and around 0, 200: ble",
        ),
        # JPEG leaves values above the greatest, too.
        (
            {0: 5000, 99: 3000, **dict.fromkeys(range(100, 130, 3), 20)},
            convention(2),
            "interpolated_mask",
            "10 rare values",
        ),
        # A long tail of classes is no blend.
        (
            {**dict.fromkeys(range(9), 800), **dict.fromkeys(range(9, 90), 20)},
            convention(20),
            "values_out_of_range",
            "say --num_classes=90",
        ),
        ([0, 5, 150], convention(150), "values_out_of_range", "else --num_classes=151"),
        (range(256), convention(None), "mask_is_photo", "name the masks in its place"),
        ([0], convention(None), "classes_unknown", "say --num_classes"),
        ([7], convention(), "values_out_of_range", "^$"),
        ([0, 7], convention(), "values_out_of_range", "a row `value,name` for each"),
        ([0, 1, 2], convention(None), "classes_unknown", "say --num_classes=3$"),
        (
            [1, 2, 255],
            convention(None),
            "classes_unknown",
            r"say --num_classes=2 --label_offset=-1 \(255 stays ignored\)$",
        ),
        ([0, 255], convention(None), "binary_mask", "`255,foreground`"),
        ([3, 9, 40], convention(None), "classes_unknown", "say with --label_map=FILE"),
        (
            [0, 4, 9],
            convention(has_label_map=True),
            "unlisted_value",
            "add a row for each",
        ),
    ],
)
def test_diagnosis(values, flags, kind, remedy):
    diagnosis = diagnose(values, flags)

    assert diagnosis.kind == kind
    assert re.search(remedy.replace("?", r"\?"), diagnosis.remedy), diagnosis.remedy


@pytest.mark.parametrize("values", [[0, 1, 2], [2], [0, 255], [255], [], [1, 65536]])
def test_values_that_have_a_class_are_no_case(values):
    assert diagnose(values) is None


@pytest.mark.parametrize(
    "values, flags, others, remedy",
    [
        # One mask of a mixed set, and the others.
        ([0, 251], convention(2), [254], "which are classes"),
        ([0, 255], convention(2, ignore_label=7), [251], "which are classes"),
        ([1, 2, 3], convention(), [0], "else --num_classes=4"),
        ([0, 257, 514], convention(), [3], "divide them by 257$"),
        ([0, 1, 2], convention(None), [9], "which are classes"),
    ],
)
def test_settings_are_given_that_suit_all_masks(values, flags, others, remedy):
    diagnosis = diagnose(values, flags, all_values=[*values, *others])

    found = diagnosis.remedy
    assert re.search(remedy, found) or "--label" not in found, found
    for row in re.findall(r"`(\d+),", found):
        assert {*values, *others} <= set(map(int, re.findall(r"`(\d+),", found))), row


def test_sentence_names_values_flags_and_rule():
    diagnosis = diagnose([1, 2, 3], subject="the masks hold")

    assert str(diagnosis) == (
        "the masks hold the values 1, 2, 3; with --label_offset=0 and "
        "--ignore_label=255 they must give classes 0 to 2 (--num_classes=3); did you "
        "mean --label_offset=-1?"
    )


def test_long_lists_of_rows_are_cut():
    remedy = diagnose(range(0, 200, 20), convention(5)).remedy

    assert "`140,class_7` ..." in remedy
    assert "160" not in remedy


def test_values_are_counted():
    values = np.array([[0, 7, 7], [65536, 0, 7]], np.int32)

    assert mask_values.count(values) == {0: 2, 7: 3, 65536: 1}


def diagnose_classes(counts, flags=None, **kwargs):
    pixels = np.zeros(256, np.int64)
    for label, count in counts.items():
        pixels[label] = count
    names = ("sky", "bird", "sea")
    flags = flags or convention()
    return mask_values.diagnose_classes(pixels, flags, class_names=names, **kwargs)


@pytest.mark.parametrize("counts", [{0: 1, 1: 1}, {1: 5, 2: 1, 255: 99}])
def test_two_classes_are_enough(counts):
    assert diagnose_classes(counts) is None


@pytest.mark.parametrize(
    "counts, flags, kind, message",
    [
        (
            {0: 1, 255: 3},
            convention(2),
            "binary_mask",
            "every pixel that counts is of one class, sky, and the other 75.0% are "
            "ignored (--ignore_label=255); say --label_map=FILE, a file with the rows "
            "`0,background` `255,foreground`",
        ),
        (
            {0: 4},
            convention(),
            "one_class",
            "every pixel that counts is of one class, sky: every mask value is 0; "
            "masks of 16 bits that were cut to 8 look so, and masks whose drawing was "
            "not exported; look at them where they were made",
        ),
        (
            {1: 4},
            convention(label_offset=-1, ignore_label=0),
            "one_class",
            "every pixel that counts is of one class, bird; look at --label_offset=-1, "
            "--ignore_label=0 and the masks",
        ),
        (
            {255: 4},
            convention(ignore_label=0),
            "one_class",
            "every pixel is ignored; look at --label_offset=0, --ignore_label=0 and "
            "the masks",
        ),
        (
            {2: 4, 255: 4},
            convention(has_label_map=True),
            "one_class",
            "every pixel that counts is of one class, sea, and the other 50.0% are "
            "ignored; give two classes or more in --label_map",
        ),
    ],
)
def test_fewer_than_two_classes(counts, flags, kind, message):
    diagnosis = diagnose_classes(counts, flags)

    assert (diagnosis.kind, str(diagnosis)) == (kind, message)


def test_one_class_of_colours():
    diagnosis = diagnose_classes({0: 1, 255: 1}, has_label_colors=True)

    assert str(diagnosis).endswith("ignored; list the colours of two classes or more")
