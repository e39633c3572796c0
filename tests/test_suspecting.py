"""Masks that a model doubts: counts, thresholds, shifts, reasons, pairs."""

import csv

import numpy as np
import pytest

from trainer.suspecting import confident, near_duplicates, ranking, shifts

_CLASSES = ("pet", "ground", "edge")


def _draw(seed, size=(24, 30), num_classes=3):
    """Draws blocks of labels, some ignored, and probabilities that favour them."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, num_classes, (-(-size[0] // 8), -(-size[1] // 8)))
    label = np.kron(blocks, np.ones((8, 8), int))[: size[0], : size[1]].astype(np.uint8)
    label[random.random(size) < 0.02] = 255
    logits = random.normal(size=(*size, num_classes)) * 2
    logits += 2 * np.eye(num_classes)[np.minimum(label, num_classes - 1)]
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return label, probabilities.astype(np.float32)


def _one_hot(label, confidence, num_classes=3):
    rest = (1 - confidence) / (num_classes - 1)
    return np.where(
        np.arange(num_classes) == label[..., np.newaxis], confidence, rest
    ).astype(np.float32)


def _judge(label, probabilities, name="a"):
    return ranking.Judged(
        "train",
        0,
        name,
        False,
        confident.count(label, probabilities),
        shifts.find_shift(label, probabilities),
    )


def _slow_disputes(labels, probabilities):
    """Returns thresholds and disputed pixels, by loops over pixels."""
    num_classes = probabilities[0].shape[-1]
    own = [[] for _ in range(num_classes)]
    for label, of_image in zip(labels, probabilities, strict=True):
        for place in np.ndindex(label.shape):
            if label[place] < num_classes:
                own[label[place]].append(of_image[place][label[place]])
    thresholds = [np.mean(values) if values else 1.0 for values in own]
    disputed = []
    for label, of_image in zip(labels, probabilities, strict=True):
        found = np.zeros(label.shape, bool)
        for row, column in np.ndindex(label.shape):
            # Two pixels away and nearer: a window of five, along both axes.
            window = label[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
            given = label[row, column]
            other = of_image[row, column].argmax()
            level = np.floor(of_image[row, column, other] * 256) / 256
            found[row, column] = (
                given < num_classes
                and (window == given).all()
                and other != given
                and level >= thresholds[other]
            )
        disputed.append(found)
    return thresholds, disputed


def test_disputed_pixels_are_those_of_a_slow_count():
    drawn = [_draw(seed) for seed in range(4)]
    labels, probabilities = zip(*drawn, strict=True)
    tallies = [confident.count(*pair) for pair in drawn]
    expected_thresholds, expected = _slow_disputes(labels, probabilities)
    thresholds = confident.find_thresholds(tallies)
    np.testing.assert_allclose(thresholds, expected_thresholds, rtol=1e-6)
    assert sum(found.sum() for found in expected) > 20
    for (label, of_image), tally, found in zip(drawn, tallies, expected, strict=True):
        np.testing.assert_array_equal(
            confident.find_disputed(label, of_image, thresholds), found
        )
        counts = np.zeros((3, 3), int)
        np.add.at(counts, (label[found], of_image.argmax(-1)[found]), 1)
        np.testing.assert_array_equal(
            confident.count_disputed(tally, thresholds), counts
        )


def test_doubt_is_what_one_computes_by_hand():
    # Of 10x10 pixels the left 6 columns are pet, the others ground. The model takes
    # the first column for ground, at 0.9.
    label = np.repeat(np.array([[0] * 6 + [1] * 4], np.uint8), 10, axis=0)
    seen = label.copy()
    seen[:, 0] = 1
    probabilities = _one_hot(seen, 0.9, num_classes=2)
    tally = confident.count(label, probabilities)
    # Pet: 50 pixels at 0.9 and 10 at 0.1; ground: 40 at 0.9.
    thresholds = confident.find_thresholds([tally])
    np.testing.assert_allclose(thresholds, [(50 * 0.9 + 10 * 0.1) / 60, 0.9], rtol=1e-6)
    # 0.9 is 230.4 / 256, and counts as 230: below the threshold of ground.
    assert confident.count_disputed(tally, thresholds).sum() == 0
    disputed = confident.count_disputed(tally, np.array([0.5, 0.85]))
    np.testing.assert_array_equal(disputed, [[0, 10], [0, 0]])
    # 10 of 100 pixels; 10 of 60 labelled pet, 10 of 50 predicted to be ground.
    assert confident.measure_doubt(disputed, tally) == pytest.approx(
        (0.1 * 10 / 50) ** 0.5
    )
    assert tally.self_confidence == pytest.approx((90 * 0.9 + 10 * 0.1) / 100)


def test_a_mask_without_a_label_is_not_doubted():
    tally = confident.count(np.full((8, 8), 255, np.uint8), _draw(0, (8, 8))[1])
    assert confident.measure_doubt(np.zeros((3, 3)), tally) == 0
    assert tally.self_confidence == 1


def test_specks_count_as_a_hundredth_of_the_pixels():
    label = np.zeros((20, 20), np.uint8)
    seen = label.copy()
    seen[9, 9] = 1
    tally = confident.count(label, _one_hot(seen, 0.9))
    disputed = confident.count_disputed(tally, np.full(3, 0.5))
    # One pixel of 400, whose hundredth are 4.
    assert confident.find_shares(disputed, tally)[1][1] == pytest.approx(1 / 4)


@pytest.mark.parametrize("reach", [2, 3])
def test_borders_reach_as_far_as_the_side_says(reach):
    label = np.zeros((40 * reach, 40 * reach), np.uint8)
    label[10:20, 10:20] = 1
    is_near = confident.find_borders(label)
    assert is_near[15, 10 - reach : 10 + reach].all()
    assert not is_near[15, 10 - reach - 1]
    assert not is_near[15, 10 + reach]
    # Corners, too: the nearest other pixel lies diagonally.
    assert is_near[10 - reach, 10 - reach]


def _slow_shift(label, probabilities):
    height, width, num_classes = probabilities.shape
    best = {}
    for down in range(-(height // 4), height // 4 + 1):
        for right in range(-(width // 4), width // 4 + 1):
            values = []
            for row, column in np.ndindex(label.shape):
                to = row + down, column + right
                is_inside = 0 <= to[0] < height and 0 <= to[1] < width
                if is_inside and label[row, column] < num_classes:
                    values.append(probabilities[to][label[row, column]])
            best[down, right] = np.mean(values)
    return max(best.items(), key=lambda item: item[1]), best[0, 0]


def test_the_best_shift_is_that_of_a_slow_search():
    label, _ = _draw(3, (16, 20))
    seen = np.roll(np.minimum(label, 2), (3, -2), axis=(0, 1))
    probabilities = _one_hot(seen, 0.8)
    found = shifts.find_shift(label, probabilities)
    ((down, right), after), before = _slow_shift(label, probabilities)
    assert (down, right) == (3, -2)
    assert (found.down, found.right) == (3 / 16, -2 / 20)
    assert (found.before, found.after) == (
        pytest.approx(before, abs=1e-5),
        pytest.approx(after, abs=1e-5),
    )


def test_large_masks_are_thinned_out_before_they_are_shifted():
    label = np.zeros((256, 256), np.uint8)
    label[64:160, 80:160] = 1
    seen = np.roll(label, (32, 16), axis=(0, 1))
    found = shifts.find_shift(label, _one_hot(seen, 0.9))
    assert (found.down, found.right) == (32 / 256, 16 / 256)


def test_of_equal_shifts_the_shortest_counts():
    label = np.zeros((16, 16), np.uint8)
    found = shifts.find_shift(label, _one_hot(label, 0.9))
    assert found == (0, 0, pytest.approx(0.9), pytest.approx(0.9))
    nothing = shifts.find_shift(np.full((16, 16), 255, np.uint8), _one_hot(label, 0.9))
    assert nothing == (0, 0, 0, 0)


def _figure():
    label = np.ones((64, 64), np.uint8)
    label[14:50, 16:44] = 0
    return label


def _spoil(way):
    label = _figure()
    if way == "swapped":
        return 1 - label
    if way == "shifted":
        return np.roll(label, (-8, 10), axis=(0, 1))
    if way == "half missing":
        label[32:] = 1
    if way == "other":
        label[:, 48:] = 2
    return label


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("swapped", "pet and ground swapped"),
        # 10 of 64 columns to the right, 8 of 64 rows up.
        ("shifted", "shifted; fits 16% left and 12% down"),
        # Of 36 rows of the figure, 18 are missing, but two lie near the new border.
        ("half missing", "44% of pet missing"),
        # 14 columns of 64 pixels, of 4096 - 36 * 28.
        ("other", "29% of ground missing"),
        ("clean", ""),
    ],
)
def test_reasons_say_what_was_spoiled(way, reason):
    good = [_judge(_figure(), _one_hot(_figure(), 0.9), str(n)) for n in range(20)]
    spoiled = _judge(_spoil(way), _one_hot(_figure(), 0.95), "spoiled")
    (first, *_), _ = ranking.rank([*good, spoiled], _CLASSES)
    if way != "clean":
        assert first.judged is spoiled
        assert first.is_shifted == (way == "shifted")
    assert first.reason == reason


def test_the_ranking_is_written_with_moves_of_shifted_masks_alone(tmp_path):
    good = [_judge(_figure(), _one_hot(_figure(), 0.9), str(n)) for n in range(20)]
    spoiled = [
        _judge(_spoil(way), _one_hot(_figure(), 0.95), way)
        for way in ("shifted", "swapped")
    ]
    suspects, _ = ranking.rank([*good, *spoiled], _CLASSES)
    ranking.write_csv(tmp_path / "a.csv", suspects)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows[:2]] == ["swapped", "shifted"]
    assert [row["rank"] for row in rows] == [str(n) for n in range(1, 23)]
    moves = [(row["move_right"], row["move_down"]) for row in rows[:3]]
    assert moves == [("", ""), ("-0.1562", "0.1250"), ("", "")]
    assert rows[0]["model_has_seen_it"] == "false"
    table = ranking.format_table(suspects[:2]).splitlines()
    assert table[1].split()[0] == "1"
    assert table[1].endswith("swapped (train)")


def test_near_duplicates_are_found_and_others_are_not():
    random = np.random.default_rng(0)
    photos = [
        np.kron(random.integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1), int))
        for _ in range(6)
    ]
    darker = photos[1] * 0.7 + 20
    noisy = (photos[4] + random.normal(0, 10, photos[4].shape)).clip(0, 255)
    plain = np.full((64, 64, 3), 90)
    shown = [*photos, darker, plain, plain, noisy[::2, ::2]]
    thumbnails = [near_duplicates.make_thumbnail(i.astype(np.uint8)) for i in shown]
    assert list(near_duplicates.find_pairs(thumbnails)) == [(1, 6), (4, 9)]


def test_a_photo_is_paired_once_across_blocks(monkeypatch):
    monkeypatch.setattr(near_duplicates, "_ROWS_AT_ONCE", 2)
    photo = np.kron(np.arange(16).reshape(4, 4, 1) * 16, np.ones((8, 8, 3), int))
    thumbnail = near_duplicates.make_thumbnail(photo.astype(np.uint8))
    others = np.linalg.qr(np.random.default_rng(0).normal(size=(256, 2)))[0].T
    thumbnails = [thumbnail, *others.astype(np.float32), thumbnail, thumbnail]
    assert list(near_duplicates.find_pairs(thumbnails)) == [(0, 3), (0, 4)]


def test_the_mean_of_a_thumbnail_is_that_of_its_blocks():
    image = np.random.default_rng(0).integers(0, 256, (33, 40, 3)).astype(np.uint8)
    gray = image.mean(-1) / 255
    expected = np.array(
        [
            [
                gray[
                    r * 33 // 16 : (r + 1) * 33 // 16, c * 40 // 16 : (c + 1) * 40 // 16
                ].mean()
                for c in range(16)
            ]
            for r in range(16)
        ]
    )
    expected -= expected.mean()
    np.testing.assert_allclose(
        near_duplicates.make_thumbnail(image),
        (expected / np.linalg.norm(expected)).ravel(),
        atol=1e-5,
    )
