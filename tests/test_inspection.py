"""Every example is looked at once, and what is wrong with it is a fact like others."""

import dataclasses
import io
import itertools
import re
import threading

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import schema
from data.doctor import (
    advice,
    class_findings,
    conventions,
    findings,
    image_findings,
    inspection,
)
from data.doctor import facts as facts_lib
from data.files import label_files, mask_values, masks, palettes
from data.preparing import preprocessing
from data.sources import halves
from tests import helpers, test_store

PREPROCESSOR = preprocessing.Preprocessor((32, 32), 3)
INFO = schema.DatasetInfo(("sky", "bird", "sea"))


def encode(pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def make_photo(number=0, shape=(40, 48)):
    return np.random.default_rng(number).integers(0, 256, (*shape, 3), np.uint8)


def make_source(*pairs):
    """Makes a source, read from beginning to end, of pairs of pixels or files."""
    pairs = [[p if isinstance(p, bytes) else encode(p) for p in pair] for pair in pairs]
    return test_store.ListSource(*map(list, zip(*pairs, strict=True)))


def walk(source, preprocessor=PREPROCESSOR):
    return list(inspection.walk(source, preprocessor))


def summarize(source, preprocessor=PREPROCESSOR, *, is_training=True):
    facts = inspection.walk(source, preprocessor)
    return facts_lib.summarize(
        source.name, facts, preprocessor, is_training=is_training
    )


def judge(
    source,
    *,
    preprocessor=PREPROCESSOR,
    image_size=(32, 32),
    is_training=True,
    is_weighted=False,
):
    """Returns the findings of a split by kind."""
    split = summarize(source, preprocessor, is_training=is_training)
    convention = mask_values.Convention(3 if preprocessor else None)
    found = [
        *findings.judge_errors([split], convention),
        *findings.judge_values([split], preprocessor, convention),
        *image_findings.judge(
            [split],
            image_size=image_size,
            image_format=schema.RGB,
            is_stretched=preprocessor is None or preprocessor.resize == "stretch",
        ),
    ]
    if preprocessor:
        found += class_findings.judge(
            split,
            info=INFO,
            convention=convention,
            all_values=frozenset(split.value_counts),
            is_weighted=is_weighted,
        )
    return {finding.kind: finding for finding in found}


# Each class has a third of the pixels of each row.
LABEL = (np.add.outer(np.arange(40), np.arange(48)) % 3).astype(np.uint8)


def test_facts_come_in_order_from_files_read_at_random(tmp_path):
    source = helpers.FileSource(tmp_path, num_examples=40)
    masks = [tf.io.decode_png(tf.io.read_file(m)).numpy()[..., 0] for m in source.masks]

    facts = walk(source)

    assert [fact.index for fact in facts] == list(range(40))
    assert [fact.files[0] for fact in facts] == [f"{i}.jpg" for i in range(40)]
    assert [fact.size for fact in facts] == [mask.shape for mask in masks]
    for fact, mask in zip(facts, masks, strict=True):
        assert fact.value_counts == {v: int((mask == v).sum()) for v in range(3)}
        assert (fact.kind, fact.message) == ("", "")


def test_facts_come_in_order_from_records():
    source = make_source(*((make_photo(i), LABEL) for i in range(40)))

    assert [fact.files[0] for fact in walk(source)] == [
        f"picture_{i}.jpg" for i in range(40)
    ]
    assert source.num_reads == 1


def test_what_cannot_be_used_ends_nothing(tmp_path):
    source = helpers.FileSource(tmp_path, num_examples=6)
    (tmp_path / "1.jpg").unlink()
    (tmp_path / "2.png").write_bytes(b"")
    (tmp_path / "4.png").write_bytes(encode(LABEL))

    facts = walk(source)

    assert [fact.kind for fact in facts] == [
        "", "unreadable_file", "no_image_file", "", "size_mismatch", ""
    ]  # fmt: skip
    assert facts[1].message == (
        f"it cannot be read ({tmp_path}/1.jpg; No such file or directory)"
    )
    assert facts[1].files == (f"example 1: {facts[1].message}",)
    assert facts[4].message.startswith("the image has ")


@pytest.mark.parametrize("masks_only", [False, True])
def test_a_compressed_mask_that_is_cut_off_ends_nothing(masks_only):
    """Its header, read first, has another fault than its pixels."""
    file = io.BytesIO()
    Image.fromarray(make_photo()[..., 0]).save(file, "JPEG")
    whole = file.getvalue()
    cut = whole[: len(whole) // 2]
    source = make_source(*((make_photo(), mask) for mask in (whole, cut)))

    first, second = inspection.walk(source, PREPROCESSOR, masks_only=masks_only)

    assert (first.kind, second.kind) == ("lossy_mask", "damaged_file")
    assert second.message.startswith("the mask: it cannot be decoded")
    assert first.cells
    error = schema.DataError("a.png: lossy", kind="lossy_mask")
    assert "a.png: lossy" in str(advice.complete(error, [source], PREPROCESSOR))


def test_facts_are_those_of_the_preprocessor():
    """The kind is that of training, and the message begins like it."""
    source = make_source((make_photo(), LABEL), (make_photo(), LABEL + 1))
    examples = list(source.examples().as_numpy_iterator())

    facts = walk(source)

    assert PREPROCESSOR.explain(examples[0]) is None
    assert (facts[0].kind, facts[0].message) == ("", "")
    error = PREPROCESSOR.explain(examples[1])
    assert facts[1].kind == error.kind == "values_out_of_range"
    shared = str(error).removesuffix(mask_values.SEE_DOCTOR)
    assert facts[1].message == f"{shared}did you mean --label_offset=-1?"


def test_few_examples_wait_in_memory(monkeypatch):
    monkeypatch.setattr(inspection.os, "cpu_count", lambda: 2)
    source = make_source(*((make_photo(0, (8, 8)), LABEL[:8, :8]) for _ in range(50)))
    numbers, is_too_many = itertools.count(), threading.Event()
    original = source.examples

    def count():
        if next(numbers) == 20:
            is_too_many.set()

    def examples():
        return original().map(lambda e: (tf.py_function(count, [], []), e)[1])

    source.examples = examples
    walking = inspection.walk(source, PREPROCESSOR)

    next(walking)

    assert not is_too_many.wait(timeout=0.1)
    assert len(list(walking)) == 49


def test_sums_are_those_of_all_masks():
    other = np.full((40, 48), 2, np.uint8)
    other[0, :7] = 255
    bad = LABEL * 9

    split = summarize(
        make_source(
            (make_photo(1), LABEL), (make_photo(2), other), (make_photo(3), bad)
        )
    )

    thirds = 40 * 48 // 3
    assert split.value_counts == {
        0: 2 * thirds, 1: thirds, 2: 4 * thirds - 7, 255: 7, 9: thirds, 18: thirds
    }  # fmt: skip
    assert split.bad_counts == {0: thirds, 9: thirds, 18: thirds}
    assert split.class_pixels[[0, 1, 2, 255]].tolist() == [
        thirds, thirds, 4 * thirds - 7, 7
    ]  # fmt: skip
    assert split.class_examples[[0, 1, 2, 255]].tolist() == [1, 1, 2, 1]
    assert split.ignored_shares == {1: 7 / (40 * 48)}
    assert all(fact.value_counts == {} for fact in split.examples)


@pytest.mark.parametrize(
    "image, label, expected",
    [
        (LABEL, LABEL, True),
        (LABEL[::-1], LABEL, True),
        (LABEL * 2, LABEL, False),
        (LABEL * 0, LABEL * 0, False),
        # Drawings in black and white may be what is to be segmented.
        (LABEL // 2 * 255, LABEL // 2 * 255, True),
        (LABEL[::-1] // 2 * 255, LABEL // 2 * 255, False),
        (np.dstack([LABEL, LABEL, LABEL[::-1]]), LABEL, False),
    ],
)
def test_image_that_holds_the_values_of_the_mask(image, label, expected):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "BMP")
    facts = walk(make_source((file.getvalue(), label)), None)

    assert facts[0].has_label_image == expected


def test_same_pixels_have_the_same_digest_in_any_file():
    file = io.BytesIO()
    Image.fromarray(make_photo()).save(file, "BMP")
    turned = np.ascontiguousarray(make_photo().swapaxes(0, 1))

    facts = walk(
        make_source(
            (make_photo(), LABEL), (file.getvalue(), LABEL[::-1]),
            (turned, np.ascontiguousarray(LABEL.T)),
        )
    )  # fmt: skip

    digests = [fact.image_digest for fact in facts]
    assert digests[0] == digests[1] != digests[2]
    assert facts[0].label_digest != facts[1].label_digest


def test_some_examples_are_read_alike_at_random_and_in_turn(tmp_path):
    at_random = helpers.FileSource(tmp_path, num_examples=6)
    in_turn = test_store.ListSource(
        [tf.io.read_file(path).numpy() for path in at_random.images],
        [tf.io.read_file(path).numpy() for path in at_random.masks],
    )

    for ids in ([], [4, 1], [0, 5]):
        read = [list(inspection.read_examples(s, ids)) for s in (at_random, in_turn)]
        assert len(read[0]) == len(ids)
        for a, b in zip(*read, strict=True):
            assert (a["image"], a["label"]) == (b["image"], b["label"])


def test_records_after_a_damaged_one_are_lost(tmp_path):
    source = make_source(*((make_photo(i), LABEL) for i in range(4)))
    original = source.examples

    def examples():
        def check(example):
            bad = tf.debugging.assert_none_equal(example["name"], b"picture_2.jpg")
            with tf.control_dependencies([bad]):
                return tf.nest.map_structure(tf.identity, example)

        return original().map(check)

    source.examples = examples

    lost = ["unreadable_file"] * 2
    assert [fact.kind for fact in walk(source)] == ["", "", *lost]


@pytest.mark.parametrize(
    "make_source, count",
    [
        (lambda pairs: test_store.ListSource(*map(list, zip(*pairs, strict=True))), 4),
        (lambda pairs: halves.HalfSource(RandomSource(pairs), 0), "half"),
        (lambda pairs: RandomSource([(i, LABEL) for i, _ in pairs]), 32),
    ],
    ids=["in turn", "half", "drawn masks"],
)
def test_a_few_examples_tell_what_is_dropped_from_files(make_source, count):
    clear = np.dstack([make_photo(), LABEL * 100])
    source = make_source([(encode(clear), encode(LABEL))] * 40)
    if count == "half":
        count = len(source)

    (warning,) = advice.look_at_some(source, PREPROCESSOR)

    assert warning.startswith(f"{count} images have an alpha channel, which is dropped")
    assert f"(of {count} looked at" in warning


def test_nothing_is_said_of_what_is_in_no_file():
    source = RandomSource([(np.dstack([make_photo(), LABEL * 100]), LABEL)] * 2)

    assert not list(advice.look_at_some(source, PREPROCESSOR))


class RandomSource(test_store.ListSource):
    """Pairs that are read at random."""

    def __init__(self, pairs):
        super().__init__(*map(list, zip(*pairs, strict=True)))

    def load(self, index):
        pair = {"image": self._images, "label": self._labels}
        example = {key: tf.gather(values, index) for key, values in pair.items()}
        return {**example, "name": tf.strings.as_string(index)}


# Findings


def test_imbalance_names_classes_ratio_and_weights():
    """1914 / 6 = 319 to 1; k = 1920 / (43.749 + 2.449) = 41.56."""
    label = np.zeros((40, 48), np.uint8)
    label[0, :6] = 1

    found = judge(make_source((make_photo(), label)))["imbalance"]

    assert found.message == (
        "sky has 319 times the pixels of bird, which may never be predicted; try "
        "--class_weights=inverse_sqrt, which weighs sky 0.95, bird 17"
    )


@pytest.mark.parametrize("num_pixels, expected", [(64, False), (63, True)])
def test_imbalance_begins_at_a_tenth_of_an_even_share(num_pixels, expected):
    """A third of 40x48 pixels is 640."""
    label = np.zeros((40, 48), np.uint8)
    label.ravel()[:num_pixels] = 1

    assert ("imbalance" in judge(make_source((make_photo(), label)))) == expected


def test_weighted_classes_need_no_balance():
    label = np.zeros((40, 48), np.uint8)
    label[0, 0] = 1
    source = make_source((make_photo(), label))

    assert "imbalance" in judge(source)
    assert "imbalance" not in judge(source, is_weighted=True)


@pytest.mark.parametrize("resize", ["pad", "crop"])
def test_a_banner_is_odd_only_where_it_is_stretched(resize):
    source = make_source(
        (make_photo(shape=(10, 60)), LABEL[:10].repeat(2, axis=1)[:, :60])
    )
    preprocessor = dataclasses.replace(PREPROCESSOR, resize=resize)

    assert "odd_aspect" in judge(source)
    assert "odd_aspect" not in judge(source, preprocessor=preprocessor)


def test_evaluation_needs_no_balance_and_may_have_one_class():
    label = np.zeros((40, 48), np.uint8)
    found = judge(make_source((make_photo(), label)), is_training=False)
    assert found["one_class"].severity == "warning"
    label[0, :3] = 1

    found = judge(make_source((make_photo(), label)), is_training=False)

    assert found.keys() == {"class_without_pixels"}
    assert "(sea): they have no score" in found["class_without_pixels"].message


@pytest.mark.parametrize(
    "shape, kind",
    [
        ((40, 48), None),
        ((20, 50), None),  # 2.5 to 1
        ((20, 51), "odd_aspect"),
        ((51, 20), "odd_aspect"),
        ((8, 8), None),
        ((7, 14), "small_image"),
    ],
)
def test_sizes(shape, kind):
    found = judge(make_source((make_photo(0, shape), np.resize(LABEL, shape))))

    assert found.keys() == ({kind} if kind else set())


def test_aspect_is_that_of_the_image_size():
    source = make_source((make_photo(0, (20, 80)), np.resize(LABEL, (20, 80))))

    assert judge(source, image_size=(32, 96)) == {}


def test_mostly_ignored_is_more_than_95_percent():
    labels = [LABEL.copy(), LABEL.copy()]
    labels[0][:38] = 255  # 95% of 40 rows.
    labels[1].ravel()[: 38 * 48 + 1] = 255

    found = judge(make_source((make_photo(1), labels[0]), (make_photo(2), labels[1])))

    assert found["mostly_ignored"].files == ("picture_1.jpg",)


def test_duplicates_are_grouped():
    source = make_source(
        *((make_photo(i), LABEL) for i in (1, 2, 1, 3, 1)),
        (make_photo(3), LABEL[::-1]),
    )

    found = judge(source)

    assert found["duplicate"].files == (
        "picture_0.jpg = picture_2.jpg = picture_4.jpg",
    )
    assert found["conflicting_duplicate"].files == ("picture_3.jpg = picture_5.jpg",)


def test_leaks_are_counted_with_their_conflicts():
    train = summarize(make_source((make_photo(1), LABEL), (make_photo(2), LABEL)))
    other = summarize(
        make_source((make_photo(2), LABEL), (make_photo(1), LABEL[::-1]),
                    (make_photo(5), LABEL))
    )  # fmt: skip

    (found,) = image_findings.judge_both(train, other)

    assert "2 images of" in found.message
    assert "1 of them with another mask" in found.message
    assert found.files == (
        "picture_1.jpg = picture_0.jpg",
        "picture_0.jpg = picture_1.jpg",
    )


def test_values_are_judged_by_the_whole_split():
    """By itself, the first mask could as well have lost its palette: one value."""
    pairs = [(make_photo(i), np.uint8(85) * (i == LABEL)) for i in range(3)]
    pairs.append((make_photo(9), np.uint8([0, 85, 170])[LABEL]))

    found = judge(make_source(*pairs))

    assert found.keys() == {"stretched_values"}
    assert len(found["stretched_values"].files) == 4


def test_masks_that_pass_among_bad_ones_are_not_judged_alone():
    """One of 0 and 255 passes by itself: class 0, and pixels to ignore."""
    source = make_source(
        (make_photo(1), np.uint8(255) * (LABEL == 1)),
        (make_photo(2), np.uint8([0, 85, 170])[LABEL]),
    )

    assert judge(source).keys() == {"stretched_values"}


def test_what_befell_one_mask_is_seen_in_it_alone():
    """The settings that suit it would leave the others without classes."""
    odd = np.uint8([0, 90, 240])[LABEL]
    source = make_source(
        *((make_photo(i), LABEL) for i in range(3)), (make_photo(9), odd)
    )

    found = judge(source)["values_out_of_range"]

    assert found.files == ("picture_3.jpg",)
    assert "the masks hold the values 0, 90, 240;" in found.message
    assert "`" not in found.message.replace("`value,name`", "")


def test_masks_of_two_conventions_are_told_apart():
    source = make_source(
        *((make_photo(i), LABEL) for i in range(3)), (make_photo(9), LABEL * 120)
    )

    found = judge(source)

    assert found.keys() == {"mixed_conventions"}
    message = found["mixed_conventions"].message
    assert message.startswith(
        "the masks are of 2 conventions of what numbers mean: 3 (gray, e.g. "
        "picture_0.jpg) hold 0, 1, 2; 1 (gray, e.g. picture_3.jpg) hold 0, 120, 240; "
        "if the values of all, in their order, mean the same, say --label_map=FILE, a "
        "file with the rows `0,class_0` `1,class_1` `2,class_2` `120,class_1` "
        "`240,class_2`"
    )
    assert found["mixed_conventions"].files[-1] == "picture_3.jpg: 0, 120, 240"


@pytest.mark.parametrize(
    "labels, num_classes",
    [
        # Classes that do not meet in a mask.
        ([LABEL % 2, LABEL % 2 * 2], 3),
        ([LABEL % 2, LABEL % 2 * 7], 2),
        # Some pixels are ignored in the very masks that hold the class.
        ([LABEL % 2, np.uint8([0, 1, 255])[LABEL]], 2),
        ([LABEL, LABEL + 2], 3),
    ],
)
def test_no_other_masks_are_of_two_conventions(labels, num_classes):
    source = make_source(*((make_photo(i), label) for i, label in enumerate(labels)))
    facts = walk(source, None)

    convention = mask_values.Convention(num_classes)
    assert conventions.find_mixed(facts, convention) is None


def test_ones_and_whites_are_told_apart_though_both_have_a_label():
    """Of each, half of the labels would be left out without a word."""
    pairs = [(make_photo(i), LABEL % 2) for i in range(2)]
    pairs += [(make_photo(i), LABEL % 2 * 255) for i in range(2, 4)]
    preprocessor = dataclasses.replace(PREPROCESSOR, num_classes=2)

    split = summarize(make_source(*pairs), preprocessor)
    (found,) = findings.judge_values([split], preprocessor, preprocessor.convention)

    assert (found.kind, found.severity) == ("mixed_conventions", "warning")
    assert "`0,background` `1,foreground` `255,foreground`" in found.message


def test_photos_do_not_blur_the_judgement_of_other_masks():
    source = make_source(
        (make_photo(0), make_photo(1)[..., 0]), (make_photo(2), LABEL + 1)
    )

    found = judge(source)

    assert found["mask_is_photo"].files == ("picture_0.jpg",)
    assert "--label_offset=-1" in found["values_out_of_range"].message


def test_colors_are_judged_by_the_whole_split():
    """(0, 0, 0) and (128, 0, 0) are in the palettes of VOC and CamVid alike."""
    both = np.uint8([[0, 0, 0], [128, 0, 0]])[LABEL % 2]
    voc = np.uint8([[0, 0, 0], [64, 0, 0]])[LABEL % 2]

    found = judge(make_source((make_photo(1), both), (make_photo(2), voc)))

    assert found["coloured_mask"].message.endswith("say --label_colors=voc")


@pytest.mark.parametrize(
    "num_classes, end",
    [(21, "voc; say --label_colors=voc"), (3, "the 21 of voc or 31 of camvid, say")],
)
def test_known_palette_is_proposed_as_it_is_for_its_own_classes_alone(num_classes, end):
    """Tools that draw masks give any classes the first colours of Pascal VOC."""
    painted = (
        np.uint8(palettes.PALETTES["voc"][1][1])[np.newaxis] * (LABEL > 0)[..., None]
    )
    split = summarize(make_source((make_photo(), painted)), PREPROCESSOR)

    (finding,) = findings.judge_errors([split], mask_values.Convention(num_classes))

    assert end in finding.message
    assert ("`class_0,0,0,0` `class_1,128,0,0`" in finding.message) == (num_classes < 4)


@pytest.mark.parametrize("colors", ["voc", [[9, 8, 7], [1, 2, 3], [200, 0, 0]]])
def test_rows_of_colours_mend(tmp_path, colors):
    if colors == "voc":
        colors = [color for _, color in palettes.PALETTES["voc"][:3]]
    else:
        colors = sorted(colors, key=sum)
    painted = np.uint8(colors)[LABEL % 3]
    found = judge(make_source((make_photo(), painted)))
    (tmp_path / "colors.csv").write_text(
        "\n".join(re.findall(r"`(class_\d.*?)`", found["coloured_mask"].message))
    )

    info = label_files.read_label_colors(str(tmp_path / "colors.csv"))

    assert info.class_names == ("class_0", "class_1", "class_2")
    values = masks.look_up_colors(painted, info.label_colors)
    np.testing.assert_array_equal(values, LABEL % 3)


def test_nothing_is_said_of_classes_where_none_are_known():
    found = judge(make_source((make_photo(), LABEL)), preprocessor=None)

    assert found.keys() == {"classes_unknown"}
