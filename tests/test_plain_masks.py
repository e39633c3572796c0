"""The program for masks that cannot be used is run, and only these become others."""

import numpy as np
import pytest
from PIL import Image

from data.doctor import facts as facts_lib
from data.doctor import inspection, plain_masks
from data.files import palettes
from data.preparing import preprocessing
from data.sources import folder
from tests import test_conversions, test_doctor, test_masks

# The order is not that of the colours.
COLORS = (
    ((0, 0, 0), 0),
    ((255, 0, 0), 1),
    ((0, 255, 0), 2),
    ((9, 9, 200), palettes.IGNORED_VALUE),
)
LISTED = np.uint8([color for color, _ in COLORS])


def draw(number, num_classes):
    """Draws discs of each class but 0, four times as large as the mask is to be."""
    row, column = np.ogrid[:384, :384]
    label = np.zeros((384, 384), np.uint8)
    for value in range(1, num_classes):
        center = 60 + 100 * value + number
        label[(row - center) ** 2 + (column - 180) ** 2 < 60**2] = value
    return label


def smoothen(values):
    """Reduces by averaging, which leaves whole values inside and blends at edges."""
    reduced = values.reshape(96, 4, 96, 4, *values.shape[2:]).mean((1, 3))
    return np.rint(reduced).astype(values.dtype)


def write(root, stem, mask, ending="png", **kwargs):
    for kind in ("images", "masks"):
        (root / "train" / kind).mkdir(parents=True, exist_ok=True)
    photo = test_doctor.make_photo(sum(map(ord, stem)), mask.shape[:2])
    Image.fromarray(photo).save(root / f"train/images/{stem}.png")
    path = root / f"train/masks/{stem}.{ending}"
    Image.fromarray(mask).save(path, **kwargs)
    return path


def look(root, preprocessor):
    source = folder.FolderSource(str(root), "train", allow_problems=True)
    facts = inspection.walk(source, preprocessor)
    return facts_lib.summarize(source.name, facts, preprocessor)


def mend(root, preprocessor, *, kind="interpolated_mask", times=1):
    program = plain_masks.write_program(
        kind, [look(root, preprocessor)], preprocessor.convention
    )
    for _ in range(times):
        test_conversions.run(program.lines, root)
    return program


def read(root, stem):
    return np.asarray(Image.open(root / f"train/masks/{stem}.png"))


def make_blended(num_classes, table):
    """Returns masks drawn in some values and reduced by averaging."""
    labels = [draw(number, num_classes) for number in range(3)]
    return [smoothen(np.asarray(table)[label]) for label in labels]


def test_sound_masks_stay_as_they_are_however_often_it_is_run(tmp_path):
    """0 is nearest to 0 and 1 is, too: by the nearest value they would be lost."""
    blended = make_blended(2, np.uint8([0, 255]))
    sound = np.uint8([[0, 1], [1, 255]]).repeat(48, 0).repeat(48, 1)
    for number, mask in enumerate(blended):
        write(tmp_path, f"blended{number}", mask)
    write(tmp_path, "sound", sound)
    write(tmp_path, "sharp", (sound == 1) * np.uint8(255))
    preprocessor = preprocessing.Preprocessor((64, 64), 2)

    program = mend(tmp_path, preprocessor, times=2)

    np.testing.assert_array_equal(read(tmp_path, "sound"), sound)
    np.testing.assert_array_equal(read(tmp_path, "sharp"), sound == 1)
    for number, mask in enumerate(blended):
        np.testing.assert_array_equal(read(tmp_path, f"blended{number}"), mask > 127)
    assert program.last_step == ""


@pytest.mark.parametrize(
    "table, dtype, form",
    [
        ([0, 65535], np.uint16, None),
        ([0, 255], np.uint8, "P"),
        ([0, 255], np.uint8, "LA"),
        ([0, 255], np.uint8, "RGB"),
        ([0, 255], np.uint8, "TIFF"),
        ([0, 65535], np.uint16, "TIFF"),
    ],
    ids=["16 bits", "indexes", "alpha", "gray", "0 is white", "16 bits, 0 is white"],
)
def test_values_are_those_that_the_file_stores(tmp_path, table, dtype, form):
    for number, mask in enumerate(make_blended(2, dtype(table))):
        path = write(tmp_path, f"{number}", mask)
        if form == "P":  # A viewer shows all indexes in one colour.
            image = Image.fromarray(mask).convert("P")
            image.putpalette([7] * 768)
            image.putdata(mask.ravel().tolist())
            image.save(path)
        elif form == "TIFF":
            path.unlink()
            encoded = test_masks.encode_tiff(mask, photometric="miniswhite")
            path.with_suffix(".tif").write_bytes(encoded)
        elif form:
            Image.fromarray(mask).convert(form).save(path)

    mend(tmp_path, preprocessing.Preprocessor((64, 64), 2))

    for number, mask in enumerate(make_blended(2, dtype(table))):
        np.testing.assert_array_equal(read(tmp_path, number), mask > table[1] // 2)


def test_numbers_are_those_that_the_settings_read_as_the_classes(tmp_path):
    masks = make_blended(2, np.uint8([10, 200]))
    for number, mask in enumerate(masks):
        write(tmp_path, f"{number}", mask)
    sound = np.uint8([[1, 2]]).repeat(96, 0).repeat(48, 1)
    write(tmp_path, "sound", sound)
    preprocessor = preprocessing.Preprocessor((64, 64), 2, label_offset=-1)

    mend(tmp_path, preprocessor, times=2)

    for number, mask in enumerate(masks):
        np.testing.assert_array_equal(read(tmp_path, number), 1 + (mask > 105))
    np.testing.assert_array_equal(read(tmp_path, "sound"), sound)


@pytest.mark.parametrize("is_compressed", [False, True])
def test_listed_colours_are_written_as_colours(tmp_path, is_compressed):
    """As numbers of ascending colours they would be unlisted, and classes swapped."""
    labels = [draw(number, 3) for number in range(3)]
    kind, ending, kwargs = "interpolated_mask", "png", {}
    masks = [smoothen(LISTED[label]) for label in labels]
    if is_compressed:
        kind, ending = "lossy_mask", "jpg"
        kwargs = {"quality": 90, "subsampling": 0}
        masks = [LISTED[label[::4, ::4]] for label in labels]
    for number, mask in enumerate(masks):
        write(tmp_path, f"{number}", mask, ending, **kwargs)
    outlined = LISTED[labels[0][::4, ::4]]
    outlined[0] = LISTED[3]  # Too thin to fill an area.
    write(tmp_path, "sound", outlined)
    preprocessor = preprocessing.Preprocessor((64, 64), 3, label_colors=COLORS)

    program = mend(tmp_path, preprocessor, kind=kind, times=2)

    np.testing.assert_array_equal(read(tmp_path, "sound"), outlined)
    for number, label in enumerate(labels):
        written = read(tmp_path, number)
        corner = label[::4, ::4]
        is_whole = label == corner.repeat(4, 0).repeat(4, 1)
        is_whole = is_whole.reshape(96, 4, 96, 4).all((1, 3))
        is_right = (written == LISTED[corner]).all(-1)
        assert is_right[is_whole].mean() > 0.995
        assert {tuple(c) for c in written.reshape(-1, 3).tolist()} <= {
            color for color, _ in COLORS
        }
    assert bool(program.last_step) == is_compressed
    if not is_compressed:
        assert {fact.kind for fact in look(tmp_path, preprocessor).examples} == {""}


@pytest.mark.parametrize(
    "settings",
    [
        {"label_map": ((0, 0), (90, 1), (200, 2))},
        {"ignore_label": 0},
        {"label_offset": 1},
        {"label_colors": COLORS[:2]},
        {"label_colors": (*COLORS, ((1, 2, 3), 3)), "num_classes": 4},
    ],
    ids=["map", "ignored class", "negative", "unlisted colour", "lacking class"],
)
def test_nothing_is_written_that_the_settings_would_read_otherwise(tmp_path, settings):
    for number in range(3):
        write(tmp_path, f"{number}", smoothen(LISTED[draw(number, 3)]))
    preprocessor = preprocessing.Preprocessor(
        **{"image_size": (64, 64), "num_classes": 3, **settings}
    )
    split = look(tmp_path, preprocessor)

    assert {fact.kind for fact in split.examples} <= {
        "interpolated_mask", "unlisted_color"
    }  # fmt: skip
    assert not plain_masks.write_program(
        "interpolated_mask", [split], preprocessor.convention
    )


def test_masks_that_are_wrong_in_another_way_stay_as_they_are(tmp_path):
    for number, mask in enumerate(make_blended(2, np.uint8([0, 255]))):
        write(tmp_path, f"{number}", mask)
    photo = write(tmp_path, "photo", test_doctor.make_photo(5, (96, 96)))
    gray = write(tmp_path, "gray", test_doctor.make_photo(6, (96, 96))[..., 0])
    before = photo.read_bytes(), gray.read_bytes()

    mend(tmp_path, preprocessing.Preprocessor((64, 64), 2))

    assert (photo.read_bytes(), gray.read_bytes()) == before


def test_compressed_masks_are_told_from_others_of_the_same_ending(tmp_path):
    label = draw(0, 2)[::4, ::4]
    for number in range(2):
        mask = np.dstack([label * 255] * 3)
        write(tmp_path, f"{number}", mask, "webp", quality=80)
    sound = np.dstack([label] * 3)
    write(tmp_path, "sound", sound, "webp", lossless=True)
    preprocessor = preprocessing.Preprocessor((64, 64), 2)

    program = mend(tmp_path, preprocessor, kind="lossy_mask")

    assert (
        program.last_step == "take away each mask that has got a PNG file of its name"
    )
    names = sorted(path.name for path in (tmp_path / "train/masks").iterdir())
    assert names == ["0.png", "0.webp", "1.png", "1.webp", "sound.webp"]
    assert (read(tmp_path, 0) == label).mean() > 0.99
