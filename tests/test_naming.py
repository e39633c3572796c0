"""Patterns are proposed that pair the files of common data sets, and all of them."""

import re

import pytest

from data import schema
from data.sources import folder, globs, listing, naming
from tests import test_folder

find, write, paths_of = test_folder.find, test_folder.write, test_folder.paths_of


@pytest.mark.parametrize(
    "images, masks, affixes",
    [
        (["1", "2", "12"], ["1_mask", "2_mask", "12_mask"], ("", "", "", "_mask")),
        (["img_1", "img_2"], ["mask_1", "mask_2"], ("img_", "", "mask_", "")),
        (["1_sat", "2_sat"], ["1_mask", "2_mask"], ("", "_sat", "", "_mask")),
        (["1", "2"], ["1_gt", "2_gt"], ("", "", "", "_gt")),
        (
            ["0001TP_6690", "0001TP_8"],
            ["0001TP_6690_L", "0001TP_8_L"],
            ("", "", "", "_L"),
        ),
        (
            ["aachen/aachen_0_19_leftImg8bit", "ulm/ulm_1_9_leftImg8bit"],
            [
                f"{stem}_gtFine_{kind}"
                for stem in ("aachen/aachen_0_19", "ulm/ulm_1_9")
                for kind in ("color", "instanceIds", "labelIds")
            ],
            ("", "_leftImg8bit", "", "_gtFine_labelIds"),
        ),
        (["21_training"], ["21_manual1"], ("", "_training", "", "_manual1")),
        (
            ["scan 1", "scan 2"],
            ["label (1)", "label (2)"],
            ("scan ", "", "label (", ")"),
        ),
        # Not one way of naming for all.
        (["1", "2"], ["1_mask", "2_gt"], None),
        (["1", "2"], ["1_mask"], None),
        (["a/1", "b/1"], ["a/1_m", "c/1_m"], None),
        (["1", "2"], ["3_mask", "4_mask"], None),
        # They need none.
        (["1", "2"], ["1", "2", "3"], None),
    ],
)
def test_affixes(images, masks, affixes):
    expected = affixes and naming.Affixes(*affixes)

    assert naming.find_affixes(images, masks) == expected


@pytest.mark.parametrize("start", ["frame_", "seq01_cam0_frame_"])
def test_a_way_of_naming_is_left_at_the_first_image_that_it_does_not_fit(
    monkeypatch, start
):
    """All names share words, of which each mask makes proposals."""
    calls, name_mask = [], naming.Affixes.name_mask

    def count(self, stem):
        calls.append(stem)
        return name_mask(self, stem)

    monkeypatch.setattr(naming.Affixes, "name_mask", count)
    images = [f"{start}{number:03}" for number in range(100)]
    masks = [f"{stem}_mask" for stem in images]

    assert naming.find_affixes(images, masks) == naming.Affixes("", "", "", "_mask")
    proposals = naming._propose(images[0], masks)
    # Two images of each proposal, and all 100 of the few that fit.
    assert len(calls) < 2 * len(proposals) + 100 * 30


def test_escaped_text_matches_itself_alone(tmp_path):
    write(tmp_path, "photos/a[1]*_x.jpg", "photos/a1*_x.jpg", "photos/a[1]bb_x.jpg")
    write(tmp_path, "labels/x.png")
    pattern = f"photos/{naming.escape('a[1]*')}_?.jpg"

    _, pairs, _ = globs.find_pairs(str(tmp_path), pattern, "labels/?.png")

    assert [pair.image for pair in pairs] == ["photos/a[1]*_x.jpg"]


@pytest.mark.parametrize(
    "image, mask",
    [
        ("{split}/images/{}.jpg", "{split}/masks/{}_mask.png"),
        ("images/{split}/img_{}.jpg", "masks/{split}/mask_{}.png"),
        ("{split}/images/x/{}_sat.jpg", "{split}/masks/x/{}_mask.png"),
        ("images/{}.png", "masks/{}_L.png"),
        ("images/p[{}].png", "masks/m[{}].png"),
    ],
)
def test_proposal_pairs_all_files(tmp_path, image, mask):
    for split in ("train", "val"):
        for stem in "12345":
            stem = stem if split == "train" else f"1{stem}"
            for path in (image, mask):
                write(tmp_path, path.replace("{split}", split).replace("{}", stem))
    fraction = None if "{split}" in image else 0.5

    with pytest.raises(schema.DataError) as caught:
        folder.FolderSource(str(tmp_path), train_fraction=fraction)

    message = str(caught.value)
    proposal = re.search(
        "say --images='(.*)' --masks='(.*)', which pairs all 10", message
    )
    assert proposal, message
    patterns = dict(
        zip(("image_pattern", "mask_pattern"), proposal.groups(), strict=True)
    )
    found = find(tmp_path, "all", **patterns)
    assert len(paths_of(found)) == 10
    for pair in found.pairs:
        numbers = [re.findall(r"\d+", path)[-1] for path in (pair.image, pair.mask)]
        assert numbers[0] == numbers[1]


def test_no_pattern_is_proposed_that_leaves_a_file_out(tmp_path):
    for stem in "123":
        write(tmp_path, f"images/{stem}.jpg", f"masks/{stem}_mask.png")
    write(tmp_path, "images/4.jpg", "masks/5.png")

    with pytest.raises(schema.DataError) as caught:
        folder.FolderSource(str(tmp_path), train_fraction=0.5)

    assert "--images" not in str(caught.value)


@pytest.mark.parametrize(
    "text, shown",
    [
        ("ä ö.png", "ä ö.png"),
        ("new\nline", r"new\nline"),
        ("\x1b[31m", r"\x1b[31m"),
        ("caf\udce9.png", r"caf\xe9.png"),
        ("\u2028", r"\u2028"),
    ],
)
def test_names_are_shown_in_printable_characters(text, shown):
    assert listing.printable(text) == shown
