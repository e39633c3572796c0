"""A zoo of broken data sets: the doctor and training say what is wrong with each."""

import io
import json
import os
import pathlib
import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import schema
from data.augmentation import augment
from data.files import palettes
from data.sources import synthetic
from tests import helpers, test_coco, test_masks
from trainer import errors, flags
from trainer.assembly import inputs
from trainer.modes import doctor

_HEIGHT, _WIDTH = 40, 48


def make_photo(number: int, shape=(_HEIGHT, _WIDTH)) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (*shape, 3), np.uint8)


def make_label(number: int, shape=(_HEIGHT, _WIDTH), num_classes=3) -> np.ndarray:
    """Makes blocks of 8x8 pixels; of three classes each mask has all."""
    blocks = np.random.default_rng(number).permutation(-(-shape[0] // 8) * 8)
    blocks = (blocks % num_classes).reshape(-1, 8)
    label = np.kron(blocks, np.ones((8, 8), int)).astype(np.uint8)
    return label[: shape[0], : shape[1]]


def encode(pixels, kind="PNG", **kwargs) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **kwargs)
    return file.getvalue()


def numbers() -> dict[str, int]:
    """Returns the stems of the clean set with numbers to make their files from."""
    return {f"train/{i}": i for i in range(4)} | {f"val/{i}": 10 + i for i in range(2)}


def path_of(root: pathlib.Path, stem: str, kind: str) -> pathlib.Path:
    split, name = stem.split("/")
    return root / split / kind / f"{name}.png"


def write(root: pathlib.Path, stem: str, *, image=None, mask=None) -> None:
    for kind, content in (("images", image), ("masks", mask)):
        if content is not None:
            path = path_of(root, stem, kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else encode(content))


def make_clean(root: pathlib.Path) -> None:
    for stem, number in numbers().items():
        write(root, stem, image=make_photo(number), mask=make_label(number))


def map_masks(function):
    """Returns a builder of a set whose masks went through a function."""

    def build(root):
        make_clean(root)
        for stem, number in numbers().items():
            write(root, stem, mask=function(make_label(number)))

    return build


def replace(stem="train/1", *, image=None, mask=None):
    """Returns a builder of the clean set with other files for one example.

    Image and mask are bytes or pixels, or functions of the content of the clean file.
    """

    def build(root):
        make_clean(root)
        for kind, content in (("images", image), ("masks", mask)):
            path = path_of(root, stem, kind)
            if callable(content):
                content = content(path.read_bytes())
            write(root, stem, **{kind[:-1]: content})

    return build


def remove(kind):
    def build(root):
        make_clean(root)
        path_of(root, "train/1", kind).unlink()

    return build


def list_files(*lines):
    """Returns a builder of a set with lists, that of training with more lines."""

    def build(root):
        for stem, number in numbers().items():
            name = stem.replace("/", "")
            for kind, pixels in (
                ("images", make_photo(number)),
                ("masks", make_label(number)),
            ):
                (root / kind).mkdir(parents=True, exist_ok=True)
                (root / kind / f"{name}.png").write_bytes(encode(pixels))
        (root.parent / "elsewhere.png").write_bytes(encode(make_photo(99)))
        train = ["train0", "train1", "train2", *lines]
        train = [line.replace("ROOT", str(root.parent)) for line in train]
        (root / "train.txt").write_text("\n".join(train) + "\n")
        (root / "val.txt").write_text("val0\nval1\n")

    return build


def link_outside(root):
    make_clean(root)
    outside = root.parent / "elsewhere.png"
    path = path_of(root, "train/1", "images")
    path.rename(outside)
    path.symlink_to(outside)


def link_nowhere(root):
    make_clean(root)
    path = path_of(root, "train/1", "images")
    path.unlink()
    path.symlink_to("nowhere.png")


def add_second_image(root):
    make_clean(root)
    (root / "train/images/1.bmp").write_bytes(encode(make_photo(1), "BMP"))


def remove_eval(root):
    make_clean(root)
    shutil.rmtree(root / "val")


def copy(source, target, *, kinds=("images", "masks")):
    def build(root):
        make_clean(root)
        for kind in kinds:
            shutil.copy(path_of(root, source, kind), path_of(root, target, kind))

    return build


def swap(image_kind="PNG"):
    def build(root):
        make_clean(root)
        for stem, number in numbers().items():
            photo = encode(make_photo(number), image_kind)
            write(root, stem, image=make_label(number), mask=photo)

    return build


def resize_one(image_shape):
    """Returns a builder of a set with one example of another size."""
    return replace(image=make_photo(1, image_shape), mask=make_label(1, image_shape))


def paint(name):
    """Returns a function from labels to the colours 1, 2, 3 of a known palette."""
    colors = np.array([color for _, color in palettes.PALETTES[name][1:4]], np.uint8)
    return lambda label: colors[label]


def smoothen(pixels):
    """Turns pixels a little, with interpolation."""
    return Image.fromarray(pixels).rotate(7, Image.Resampling.BICUBIC)


def make_rare(label):
    label = np.zeros_like(label)
    label[0, :3] = 1
    label[1, :60] = 2
    return label


def make_16_bit(label):
    return label.astype(np.uint16) * 257 * 85


def break_crc(png: bytes) -> bytes:
    place = png.index(b"IDAT") - 4
    length = int.from_bytes(png[place : place + 4], "big")
    crc = place + 8 + length
    return png[:crc] + bytes([png[crc] ^ 1]) + png[crc + 1 :]


def zero_middle(jpeg: bytes) -> bytes:
    middle = len(jpeg) * 3 // 4
    return jpeg[:middle] + bytes(20) + jpeg[middle + 20 :]


def add_alpha(label):
    return np.dstack([label] * 3 + [np.full_like(label, 255)])


def make_exif_pair():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = encode(make_photo(1), exif=exif)
    return {"image": image, "mask": np.ascontiguousarray(np.rot90(make_label(1), -1))}


def make_animation():
    frames = [Image.fromarray(make_photo(i)) for i in range(2)]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


def make_bomb(sample: bytes) -> bytes:
    """Announces 30,000 x 30,000 pixels in the header of a PNG file."""
    header = b"IHDR" + (30_000).to_bytes(4, "big") * 2 + sample[24:29]
    crc = test_masks._crc(header).to_bytes(4, "big")
    return sample[:12] + header + crc + sample[33:]


def make_zones(number, shape=(48, 48)) -> np.ndarray:
    """Makes a mask of three rectangles, of which none is like another turned."""
    label = np.zeros(shape, np.uint8)
    row, column = np.random.default_rng(number).integers(2, 12, 2)
    label[row : row + 9, column : column + 30] = 1
    label[row + 15 : row + 33, column : column + 12] = 2
    return label


def write_pairs(root, make_image, make_mask, *, ending="png"):
    """Writes the clean set's pairs, of what two functions make of numbers."""
    for stem, number in numbers().items():
        write(root, stem, mask=make_mask(number))
        path = path_of(root, stem, "images").with_suffix(f".{ending}")
        path.parent.mkdir(parents=True, exist_ok=True)
        content = make_image(number)
        path.write_bytes(content if isinstance(content, bytes) else encode(content))


def turn_squares(root):
    """Photos with a note to turn them, masks drawn on them as stored."""
    exif = Image.Exif()
    exif[0x0112] = 6

    def make_image(number):
        noise = np.random.default_rng(number).integers(0, 60, (48, 48, 3))
        pixels = (make_zones(number)[..., None] * 90 + noise).astype(np.uint8)
        return encode(pixels, "JPEG", exif=exif, quality=95)

    write_pairs(root, make_image, make_zones, ending="jpg")


def name_masks(name):
    """Returns a builder of a set whose masks have names of their own."""

    def build(root):
        make_clean(root)
        for stem in numbers():
            path = path_of(root, stem, "masks")
            path.rename(path.with_name(name.replace("*", path.name)))

    return build


def name_masks_of_one_split(root):
    make_clean(root)
    for path in sorted((root / "val/masks").iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask.png"))


def add_special(make, name):
    """Returns a builder of a set with something that is no file."""

    def build(root):
        make_clean(root)
        make(root / f"train/images/{name}.png")

    return build


def mix_black_and_white(root):
    """Palette masks with 251 for white, and gray ones with 255."""
    colors = np.zeros((256, 3), np.uint8)
    colors[251] = 255

    def make_mask(number):
        label = make_label(number) > 0
        if number % 2:
            return encode(label.astype(np.uint8) * 255)
        image = Image.fromarray(label.astype(np.uint8) * 251)
        image.putpalette(colors.ravel().tolist())
        return encode(image)

    write_pairs(root, make_photo, make_mask)


def mix_palettes(root):
    colors = [0, 0, 0, 255, 0, 0, 0, 255, 0]

    def make_mask(number):
        image = Image.fromarray(make_label(number))
        order = (colors[:3], colors[3:6], colors[6:])
        swapped = (order[0], order[2], order[1])
        image.putpalette(sum(swapped if number % 2 else order, []))
        return encode(image)

    write_pairs(root, make_photo, make_mask)


def smooth_edges(colors):
    """Returns a builder of masks that were drawn larger and reduced by averaging."""

    def make_mask(number):
        row, column = np.ogrid[:192, :192]
        label = np.zeros((192, 192), np.uint8)
        for value, center in ((1, 60 + number), (2, 130)):
            label[(row - center) ** 2 + (column - center) ** 2 < 45**2] = value
        return Image.fromarray(np.uint8(colors)[label]).resize((48, 48), Image.BOX)

    def build(root):
        write_pairs(root, lambda number: make_photo(number, (48, 48)), make_mask)

    return build


def read_bands(number, num_bands) -> np.ndarray:
    """Returns what `make_tiff` writes."""
    bands = np.random.default_rng(number).integers(0, 256, (_HEIGHT, _WIDTH, num_bands))
    return bands.astype(np.uint8)


def make_tiff(number, num_bands=5) -> bytes:
    """Writes an uncompressed TIFF file of many bands, which Pillow does not write."""
    data = read_bands(number, num_bands).tobytes()
    tags = [
        (256, 3, 1, _WIDTH), (257, 3, 1, _HEIGHT), (259, 3, 1, 1),
        (262, 3, 1, 1 if num_bands > 4 else 2), (273, 4, 1, 8), (277, 3, 1, num_bands),
        (278, 3, 1, _HEIGHT), (279, 4, 1, len(data)), (284, 3, 1, 1), (338, 3, 1, 0),
    ]  # fmt: skip
    place = 8 + len(data)
    bits = place + 2 + 12 * (len(tags) + 1) + 4
    tags.insert(2, (258, 3, num_bands, bits))
    entries = b"".join(
        struct.pack("<HHII", *tag)
        for tag in tags  # A SHORT fills the lower bytes.
    )
    return (
        b"II*\0" + struct.pack("<I", place) + data + struct.pack("<H", len(tags))
        + entries + bytes(4) + struct.pack("<H", 8) * num_bands
    )  # fmt: skip


def add_noise_under_alpha(root):
    def make_image(number):
        alpha = np.where(make_label(number) > 0, 0, 255).astype(np.uint8)
        return np.dstack([make_photo(number), alpha])

    write_pairs(root, make_image, make_label)


def make_12_bit(number):
    return make_photo(number)[..., 0].astype(np.uint16) * 16


def make_16_bit_photo(number):
    random = np.random.default_rng(number)
    return random.integers(0, 65536, (_HEIGHT, _WIDTH), np.uint16)


def mix_fourth_bands(root):
    make_clean(root)
    for stem, number in numbers().items():
        image = np.dstack([make_photo(number), make_photo(number)[..., 0]])
        write(root, stem, image=image if number % 2 else make_tiff(number, 4))


def make_rare_foreground(number):
    label = np.zeros((_HEIGHT, _WIDTH), np.uint8)
    label[number : number + 6, 10:16] = 1  # 1.9%
    return label


def undivide(root):
    for stem, number in numbers().items():
        name = stem.replace("/", "")
        write(root, f"./{name}", image=make_photo(number), mask=make_label(number))


THREE = ("--num_classes=3",)
PALETTE = np.array(
    [palettes.luminance(color) for _, color in palettes.PALETTES["voc"]], np.uint8
)

# Name, builder, flags, kind in doctor.json (None: nothing is found), what the message
# of the doctor holds, what the error of training holds (None: it goes on).
ZOO = [
    ("clean", make_clean, THREE, None, "", None),
    (
        "missing mask",
        remove("masks"),
        THREE,
        "missing_pair",
        "1 image without a mask; add the masks, or take",
        "1 image without a mask: train/images/1.png; add the masks",
    ),
    (
        "missing image",
        remove("images"),
        THREE,
        "missing_pair",
        "1 mask without an image; add",
        "1 mask without an image: train/masks/1.png; add the images",
    ),
    (
        "two images of one stem",
        add_second_image,
        THREE,
        "same_name",
        "2 images of one name; keep one of them",
        "2 images of one name: train/images/1.bmp, train/images/1.png; keep",
    ),
    (
        "list with a stem of no file",
        list_files("train9"),
        THREE,
        "not_there",
        "train.txt names 1 example not there; mend the list",
        "train.txt names 1 example not there: train9; mend the list",
    ),
    (
        "list with a stem twice",
        list_files("train0"),
        THREE,
        "named_twice",
        "keep one line for each",
        "names 1 example more than once: train0; keep one line",
    ),
    (
        "list with an absolute path",
        list_files("ROOT/elsewhere.png masks/train3.png"),
        THREE,
        "outside_folder",
        "1 file outside of the folder",
        "outside of the folder (by an absolute path",
    ),
    (
        "list with ..",
        list_files("../elsewhere.png masks/train3.png"),
        THREE,
        "outside_folder",
        "copy what is needed into it",
        "../elsewhere.png; copy what is needed into it",
    ),
    (
        "link out of the folder",
        link_outside,
        THREE,
        "outside_folder",
        "1 file outside of the folder",
        "train/images/1.png; copy what is needed into it",
    ),
    (
        "link to nowhere",
        link_nowhere,
        THREE,
        "unreadable_file",
        "No such file or directory); see that it is there",
        "train/images/1.png cannot be read",
    ),
    (
        "truncated PNG image",
        replace(image=lambda file: file[:-200]),
        THREE,
        "damaged_file",
        "the image: it cannot be decoded",
        "train/masks/1.png): the image: it cannot be decoded",
    ),
    (
        "truncated JPEG image",
        replace(image=encode(make_photo(1), "JPEG")[:-200]),
        THREE,
        "damaged_file",
        "get it again, or take the pair away",
        "(train/images/1.png, train/masks/1.png): the image: it cannot be decoded",
    ),
    (
        "truncated mask",
        replace(mask=lambda file: file[:-40]),
        THREE,
        "damaged_file",
        "the mask: it cannot be decoded",
        "the mask: it cannot be decoded",
    ),
    (
        "image of a wrong checksum",
        replace(image=break_crc),
        THREE,
        "damaged_file",
        "the image: it cannot be decoded",
        "the image: it cannot be decoded",
    ),
    (
        "mask of a wrong checksum",
        replace(mask=break_crc),
        THREE,
        "damaged_file",
        "the mask: it cannot be decoded",
        "the mask: it cannot be decoded",
    ),
    (
        "damaged file in the evaluation split",
        replace("val/1", mask=lambda file: file[:-40]),
        THREE,
        "damaged_file",
        "the mask: it cannot be decoded",
        "val, example 1",
    ),
    (
        "empty image",
        replace(image=b""),
        THREE,
        "no_image_file",
        "(0 bytes, b'' first); put an image in its place",
        "the image: it is no JPEG, PNG",
    ),
    (
        "empty mask",
        replace(mask=b""),
        THREE,
        "no_image_file",
        "the mask: it is no JPEG, PNG",
        "the mask: it is no JPEG, PNG",
    ),
    (
        "web page for an image",
        replace(image=b"<html>404</html>"),
        THREE,
        "no_image_file",
        "b'<html>40' first",
        "b'<html>40' first",
    ),
    (
        "header of a bomb",
        replace(image=make_bomb),
        THREE,
        "too_large",
        "its header announces",
        "the image: its header announces more than the 100 megapixels allowed",
    ),
    (
        "sizes that differ",
        replace(mask=make_label(1)[:38]),
        THREE,
        "size_mismatch",
        "the image has 40x48 pixels, its mask 38x48; the two must agree",
        "the image has 40x48 pixels, its mask 38x48",
    ),
    (
        "JPEG mask",
        map_masks(lambda label: encode(label * 100, "JPEG")),
        THREE,
        "lossy_mask",
        "6 examples, for instance: the mask: its compression",
        "its compression (JPEG, or lossy WebP) changes labels",
    ),
    (
        "values from 1",
        map_masks(lambda label: label + 1),
        THREE,
        "values_out_of_range",
        "did you mean --label_offset=-1?",
        "did you mean --label_offset=-1?",
    ),
    (
        "more classes than said",
        map_masks(lambda label: label),
        ("--num_classes=2",),
        "values_out_of_range",
        "else --num_classes=3",
        "if 0 is no class, say --label_offset=-1 --ignore_label=0",
    ),
    (
        "another ignored value",
        map_masks(lambda label: np.where(label == 2, 254, label).astype(np.uint8)),
        ("--num_classes=2",),
        "values_out_of_range",
        "if 254 is no class, say --ignore_label=254",
        "if 254 is no class, say --ignore_label=254",
    ),
    (
        "a number in 16 bits",
        replace(mask=np.uint16([0, 3, 700])[make_label(1)]),
        THREE,
        "values_out_of_range",
        "the masks hold the values 0, 3, 700",
        "the mask holds the values 0, 3, 700",
    ),
    (
        "nobody says how many classes",
        make_clean,
        (),
        "classes_unknown",
        "if each is a class, say --num_classes=3",
        "give --num_classes or --class_names",
    ),
    (
        "black and white",
        map_masks(lambda label: (label > 0).astype(np.uint8) * 255),
        ("--num_classes=2",),
        "binary_mask",
        "say --label_map=FILE, a file with the rows `0,background` `255,foreground`",
        "with the rows `0,background` `255,foreground`",
    ),
    (
        "black and white, classes unknown",
        map_masks(lambda label: (label > 0).astype(np.uint8) * 255),
        (),
        "binary_mask",
        "with the rows `0,background` `255,foreground`",
        "give --num_classes or --class_names",
    ),
    (
        "colours of Pascal VOC",
        map_masks(paint("voc")),
        THREE,
        "coloured_mask",
        "with the rows `class_0,128,0,0` `class_1,0,128,0` `class_2,128,128,0`, with",
        "all its colours are listed by --label_colors=voc",
    ),
    (
        "colours of nobody",
        map_masks(lambda label: np.dstack([label * 99, label, label * 0])),
        THREE,
        "coloured_mask",
        "with the rows `class_0,0,0,0` `class_1,99,1,0` `class_2,198,2,0`, with",
        "say what class each colour is with --label_colors=FILE",
    ),
    (
        "a colour that is not listed",
        replace(mask=make_photo(1) // 255 + np.uint8(3)),
        ("--label_colors=voc",),
        "unlisted_color",
        "--label_colors does not list all its colours",
        "--label_colors does not list all its colours",
    ),
    (
        "a lost palette",
        map_masks(lambda label: PALETTE[label + 1]),
        ("--num_classes=21",),
        "lost_palette",
        "the grays of the colours of voc",
        "their palette is lost",
    ),
    (
        "stretched to 16 bits",
        map_masks(make_16_bit),
        THREE,
        "scaled_16_bit",
        "divide them by 257, or say --label_map=FILE",
        "all are multiples of 257",
    ),
    (
        "cut to 8 bits",
        map_masks(lambda label: label * 0),
        THREE,
        "one_class",
        "every mask value is 0; masks of 16 bits that were cut to 8 look so",
        "every mask value is 0. By all 6 masks: masks of 16 bits that were cut to 8",
    ),
    (
        "stretched to be seen",
        map_masks(lambda label: label * 85),
        THREE,
        "stretched_values",
        "with the rows `0,class_0` `85,class_1` `170,class_2`",
        "they are spread evenly",
    ),
    (
        "interpolated",
        map_masks(lambda label: smoothen(np.uint8([0, 100, 255])[label])),
        THREE,
        "interpolated_mask",
        "resize by nearest neighbour",
        "resize by nearest neighbour",
    ),
    (
        "smoothed colours",
        map_masks(lambda label: smoothen(paint("cityscapes")(label))),
        ("--label_colors=cityscapes",),
        "interpolated_mask",
        "blends, as smoothing and resizing make them",
        "blends, as smoothing and resizing make them",
    ),
    (
        "smoothed colours, not asked for",
        map_masks(lambda label: smoothen(paint("cityscapes")(label))),
        THREE,
        "interpolated_mask",
        "it is coloured, and blended",
        "it is coloured, and blended",
    ),
    (
        "image is the mask's file",
        replace(image=make_label(1), mask=make_label(1)),
        THREE,
        "image_is_mask",
        "the two files are the same, byte for byte",
        "the two files are the same, byte for byte",
    ),
    (
        "image is the mask in another file",
        replace(image=encode(make_label(1), "BMP"), mask=make_label(1)),
        THREE,
        "image_is_mask",
        "put the photo in its place",
        None,
    ),
    (
        "photo for a mask",
        replace(mask=make_photo(77)),
        THREE,
        "mask_is_photo",
        "are those of a photo; name the masks in its place",
        "are those of a photo; name the masks in its place",
    ),
    (
        "gray photo for a mask",
        replace(mask=make_photo(77)[..., 0]),
        THREE,
        "mask_is_photo",
        "are those of a photo; name the masks in its place",
        "are those of a photo; name the masks in its place",
    ),
    (
        "swapped folders",
        swap(),
        THREE,
        "swapped",
        "swap the folders, or --images and --masks",
        "the two are swapped",
    ),
    (
        "swapped folders, of JPEG files",
        swap("JPEG"),
        THREE,
        "swapped",
        "swap the folders",
        "the two are swapped",
    ),
    (
        "a class without a pixel",
        make_clean,
        ("--class_names=cat,dog,cow,yak",),
        "class_without_pixels",
        "classes without a pixel (yak)",
        None,
    ),
    (
        "a rare class",
        map_masks(make_rare),
        THREE,
        "imbalance",
        "try --class_weights=inverse_sqrt",
        None,
    ),
    (
        "an ignored example",
        replace(mask=np.full((_HEIGHT, _WIDTH), 255, np.uint8)),
        THREE,
        "mostly_ignored",
        "1 example with more than 95% of the pixels ignored",
        None,
    ),
    (
        "an image twice",
        copy("train/1", "train/2"),
        THREE,
        "duplicate",
        "1 image is there more than once, pixel by pixel, with the same mask",
        None,
    ),
    (
        "an image with two masks",
        copy("train/1", "train/2", kinds=("images",)),
        THREE,
        "conflicting_duplicate",
        "with different masks, of which one at most is right",
        None,
    ),
    (
        "an image in both splits",
        copy("train/1", "val/1", kinds=("images",)),
        THREE,
        "leak",
        "is in data/train, too, pixel by pixel, 1 of them with another mask",
        None,
    ),
    (
        "a banner",
        resize_one((16, 64)),
        THREE,
        "odd_aspect",
        "say --resize=pad",
        None,
    ),
    (
        "a thumbnail",
        resize_one((7, 7)),
        THREE,
        "small_image",
        "1 image smaller than a quarter of the image size, 32x32",
        None,
    ),
    (
        "no split to evaluate on",
        remove_eval,
        THREE,
        "no_eval_split",
        "has no split validation or val or valid or test; it",
        "has no split validation or val or valid or test; it",
    ),
    (
        "masks of other names",
        name_masks("mask_*"),
        THREE,
        "missing_pair",
        "say --images='{split}/images/*.png' --masks='{split}/masks/mask_*.png', which "
        "pairs all 6 images",
        "--masks='{split}/masks/mask_*.png', which pairs all 6 images",
    ),
    (
        "masks of other names in one split",
        name_masks_of_one_split,
        THREE,
        "missing_pair",
        "in val/masks/ rename the masks from NAME_mask to NAME",
        "in val/masks/ rename the masks from NAME_mask to NAME",
    ),
    (
        "a pipe",
        add_special(os.mkfifo, "pipe"),
        THREE,
        "not_a_file",
        "1 name of what is no file",
        "train/images/pipe.png; take it away",
    ),
    (
        "a link to a device",
        add_special(lambda path: path.symlink_to("/dev/zero"), "zero"),
        THREE,
        "outside_folder",
        "1 file outside of the folder",
        "train/images/zero.png",
    ),
    (
        "a link to itself",
        add_special(lambda path: path.symlink_to(path.name), "loop"),
        THREE,
        "missing_pair",
        "1 image without a mask",
        "train/images/loop.png",
    ),
    (
        "no splits and no fraction",
        undivide,
        THREE,
        "undivided",
        "give --train_fraction, e.g. --train_fraction=0.8",
        "give --train_fraction, e.g. --train_fraction=0.8",
    ),
    (
        "two conventions of black and white",
        mix_black_and_white,
        ("--num_classes=2",),
        "mixed_conventions",
        "the rows `0,background` `251,foreground` `255,foreground`",
        "the rows `0,background` `251,foreground` `255,foreground`",
    ),
    (
        "palettes of two orders",
        mix_palettes,
        THREE,
        "mixed_palettes",
        "index 1 is (255, 0, 0) in 3 masks, e.g. train/masks/0.png; (0, 255, 0) in 3 "
        "masks, e.g. train/masks/1.png (2 indexes differ so)",
        None,
    ),
    (
        "square photos with a note to turn them",
        turn_squares,
        THREE,
        "open_turn",
        "on edges of the photos AS STORED (better in 6 of 6)",
        None,
    ),
    (
        "12 bits in 16",
        lambda root: write_pairs(root, make_12_bit, make_label),
        THREE,
        "dark_16_bit",
        "6 images of 16 bits hold values up to 4080 only, which are 12 bits",
        None,
    ),
    (
        "more than 8 bits",
        lambda root: write_pairs(root, make_16_bit_photo, make_label),
        (*THREE, "--image_range=0,255"),
        "cut_bits",
        "6 images of 16 bits hold more than the upper 8 bits, which --image_range="
        "0,255 takes; if it matters, say --image_range=0,65535",
        None,
    ),
    (
        "8 bits scaled to 16",
        lambda root: write_pairs(
            root, lambda n: make_photo(n)[..., 0] * np.uint16(257), make_label
        ),
        (*THREE, "--image_range=0,255"),
        None,
        "",
        None,
    ),
    (
        "8 bits and 16",
        lambda root: write_pairs(
            root, lambda n: make_16_bit_photo(n) if n % 2 else make_photo(n), make_label
        ),
        THREE,
        "cut_bits",
        "if it matters, write all images with 16 bits and say --image_range=0,65535",
        None,
    ),
    (
        "beyond the range",
        lambda root: write_pairs(root, make_12_bit, make_label),
        (*THREE, "--image_range=5,1023"),
        "beyond_range",
        "all beyond 1023 are taken for 1023; if they matter, say --image_range=5,4095",
        None,
    ),
    (
        "alpha and a fourth band",
        mix_fourth_bands,
        (*THREE, "--image_channels=4"),
        "mixed_alpha",
        "3 images have an alpha channel where 3 others have a further band, and "
        "--image_channels=4 takes both for the same; keep one kind",
        None,
    ),
    (
        "noise under alpha",
        add_noise_under_alpha,
        THREE,
        "dropped_band",
        "6 images have an alpha channel, which is dropped",
        None,
    ),
    (
        "four bands",
        lambda root: write_pairs(
            root, lambda number: make_tiff(number, 4), make_label, ending="tif"
        ),
        THREE,
        "dropped_band",
        "6 images have a further band, which is dropped by --image_channels=3; if it "
        "matters, say --image_channels=4",
        None,
    ),
    (
        "five bands",
        lambda root: write_pairs(root, make_tiff, make_label, ending="tif"),
        THREE,
        "image_channels",
        "it has 5 bands, and --image_channels=3; say --image_channels=5",
        "it has 5 bands, and --image_channels=3; say --image_channels=5",
    ),
    (
        "smoothed edges of gray",
        smooth_edges([0, 128, 255]),
        THREE,
        "interpolated_mask",
        "levels = np.array([[0], [128], [255]])",
        "levels = np.array([[0], [128], [255]])",
    ),
    (
        "smoothed edges of colours",
        smooth_edges([[0, 0, 0], [255, 0, 0], [0, 255, 0]]),
        THREE,
        "interpolated_mask",
        "levels = np.array([[0, 0, 0], [0, 255, 0], [255, 0, 0]])",
        "levels = np.array([[0, 0, 0], [0, 255, 0], [255, 0, 0]])",
    ),
    (
        "one value far from the others",
        map_masks(lambda label: np.uint8([0, 1, 254])[label]),
        THREE,
        "values_out_of_range",
        "with the rows `0,class_0` `1,class_1` `254,class_2`; if 254 is no class",
        "with the rows `0,class_0` `1,class_1` `254,class_2`; if 254 is no class",
    ),
    (
        "ones and whites",
        lambda root: write_pairs(
            root,
            make_photo,
            lambda n: (make_label(n) > 0).astype(np.uint8) * (255 if n % 2 else 1),
        ),
        ("--num_classes=2",),
        "mixed_conventions",
        "the rows `0,background` `1,foreground` `255,foreground`",
        None,
    ),
    (
        "2% of foreground",
        lambda root: write_pairs(root, make_photo, make_rare_foreground),
        ("--num_classes=2",),
        "imbalance",
        "class_0 has 52 times the pixels of class_1",
        None,
    ),
    # What other programs garble, and this one reads.
    (
        "JPEG with zeros in the middle",
        replace(image=zero_middle(encode(make_photo(1), "JPEG"))),
        THREE,
        None,
        "",
        None,
    ),
    (
        "palette mask",
        map_masks(lambda label: test_masks.make_palette_image(label)),
        THREE,
        None,
        "",
        None,
    ),
    (
        "16-bit mask",
        map_masks(lambda label: label.astype(np.uint16)),
        THREE,
        None,
        "",
        None,
    ),
    ("gray in RGBA", map_masks(add_alpha), THREE, None, "", None),
    (
        "gray image",
        replace(image=make_photo(1)[..., 0]),
        THREE,
        None,
        "",
        None,
    ),
    (
        "CMYK image",
        replace(image=encode(Image.fromarray(make_photo(1)).convert("CMYK"), "JPEG")),
        THREE,
        None,
        "",
        None,
    ),
    ("animation", replace(image=make_animation()), THREE, None, "", None),
    *(
        (kind, replace(image=encode(make_photo(1), kind)), THREE, None, "", None)
        for kind in ("BMP", "WEBP", "TIFF")
    ),
    ("turned photo", replace(**make_exif_pair()), THREE, None, "", None),
]


# What training warns of, by kind, where the doctor does.
WARNINGS = {
    "mixed_palettes": "the palettes of the masks do not agree: index 1 is (255, 0, 0) "
    "and (0, 255, 0); they are read by index (of 4 looked at",
    "open_turn": "4 photos are turned by an EXIF orientation that the mask does not",
    "dark_16_bit": "4 images of 16 bits hold values up to 4080 only",
    "cut_bits": "images of 16 bits hold more than the upper 8 bits",
    "beyond_range": "all beyond 1023 are taken for 1023",
    "mixed_alpha": "2 images have an alpha channel where 2 others have a further band",
    "dropped_band": "4 images have ",
    "imbalance": "which may never be predicted; try --class_weights=inverse_sqrt",
    "mixed_conventions": "the masks are of 2 conventions of black and white: 2 (gray",
    "class_without_pixels": "has no pixel of yak",
}


def make_config(tmp_path, *arguments):
    return flags.read_config([
        "--mode=doctor",
        f"--model_dir={tmp_path / 'run'}",
        "--dataset=folder",
        f"--data_dir={tmp_path / 'data'}",
        "--image_size=32",
        "--batch_size=3",
        *arguments,
    ]).config  # fmt: skip


def examine(config):
    """Runs the doctor; returns its report."""
    try:
        doctor.run(config)
        is_well = True
    except errors.FindingsError:
        is_well = False
    report = json.loads(
        (pathlib.Path(config.run.model_dir) / "doctor.json").read_text()
    )
    assert is_well == (not report["findings"])
    return report


def open_as_training_does(config):
    source = inputs.open_source(config, is_training=True)
    info = inputs.resolve_info(config, source)
    used = {"train": source, "eval": inputs.open_source(config, is_training=False)}
    strategy = helpers.make_strategy(1)
    for opening in inputs.open_in_background(config, strategy, info, used):
        opening.result()


@pytest.mark.parametrize(
    "build, arguments, kind, message, training",
    [row[1:] for row in ZOO],
    ids=[row[0] for row in ZOO],
)
def test_zoo(tmp_path, capsys, monkeypatch, build, arguments, kind, message, training):
    warnings = []
    monkeypatch.setattr(
        inputs.logging, "warning", lambda text, *args: warnings.append(text % args)
    )
    (tmp_path / "data").mkdir()
    build(tmp_path / "data")
    config = make_config(tmp_path, *arguments)

    found = examine(config)["findings"]

    assert (not found) == (kind is None), found
    if kind:
        matching = [finding for finding in found if finding["kind"] == kind]
        assert matching, found
        assert any(message in finding["message"] for finding in matching), matching
        assert message in capsys.readouterr().out
    stops = any(finding["severity"] == "error" for finding in found)
    assert stops == (training is not None), found
    if training is None:
        open_as_training_does(config)
        expected = WARNINGS.get(kind)
        assert bool(warnings) == bool(expected), warnings
        assert not expected or any(expected in warning for warning in warnings)
    else:
        with pytest.raises(schema.DataError) as caught:
            open_as_training_does(config)
        assert training in str(caught.value)


@pytest.mark.parametrize(
    "function, arguments",
    [
        (lambda label: label + 1, ("--label_offset=-1", *THREE)),
        (paint("voc"), ("--label_colors=voc",)),
        (lambda label: label * 85, "0,class_0 85,class_1 170,class_2"),
        (make_16_bit, "0,class_0 21845,class_1 43690,class_2"),
        (
            lambda label: (label > 0).astype(np.uint8) * 255,
            "0,background 255,foreground",
        ),
    ],
    ids=["offset", "colors", "stretched", "16 bits", "black and white"],
)
def test_remedy_mends(tmp_path, function, arguments):
    """The flags, or the rows of the file, that the doctor names in the zoo."""
    map_masks(function)(tmp_path / "data")
    if isinstance(arguments, str):
        assert arguments.split()[-1] in " ".join(
            finding["message"]
            for finding in examine(make_config(tmp_path, *THREE))["findings"]
        )
        (tmp_path / "map.csv").write_text(arguments.replace(" ", "\n"))
        arguments = (f"--label_map={tmp_path / 'map.csv'}",)
    config = make_config(tmp_path, *arguments)

    found = examine(config)["findings"]

    # Of Pascal VOC's 21 classes there are three.
    assert {finding["kind"] for finding in found} <= {"class_without_pixels"}
    open_as_training_does(config)


def test_report_has_facts_and_all_files(tmp_path):
    make_clean(tmp_path / "data")
    for name in range(4, 12):
        write(tmp_path / "data", f"train/{name}", image=b"?", mask=make_label(name))
    label = np.zeros((64, 48), np.uint8)
    label[0, :5], label[1, :7] = 1, 255
    write(tmp_path / "data", "train/1", image=make_photo(1, (64, 48)), mask=label)

    report = examine(make_config(tmp_path, "--class_names=sky,bird,sea"))

    (finding,) = report["findings"]
    assert (finding["kind"], finding["severity"]) == ("no_image_file", "error")
    assert len(finding["files"]) == 8
    assert finding["files"][0] == "train/images/10.png (train/masks/10.png)"
    train = report["splits"][0]
    labels = [make_label(i) for i in (0, 2, 3)] + [label]
    pixels = np.concatenate([one.ravel() for one in labels])
    assert (train["num_examples"], train["num_usable"]) == (12, 4)
    assert train["height"] == {"least": 40, "median": 40, "greatest": 64}
    assert train["width"] == {"least": 48, "median": 48, "greatest": 48}
    assert train["values"] == {str(v): int((pixels == v).sum()) for v in (0, 1, 2, 255)}
    assert train["classes"] == [
        {"name": name, "pixels": int((pixels == value).sum()), "examples": count}
        for name, value, count in (
            ("sky", 0, 4), ("bird", 1, 4), ("sea", 2, 3), ("(ignored)", 255, 1)
        )
    ]  # fmt: skip


def test_first_files_are_printed_and_the_error_counts(tmp_path, capsys):
    make_clean(tmp_path / "data")
    for name in range(4, 12):
        write(tmp_path / "data", f"train/{name}", image=b"?", mask=make_label(name))

    with pytest.raises(
        errors.FindingsError,
        match=r"found 1 error and 0 warnings; .*/run/doctor.json na",
    ) as caught:
        doctor.run(make_config(tmp_path, *THREE))

    assert caught.value.exit_code == 1
    lines = ["10", "11", "4"]
    lines = [f"    train/images/{n}.png (train/masks/{n}.png)" for n in lines]
    printed = capsys.readouterr().out.splitlines()
    place = printed.index(lines[0])
    assert printed[place : place + 4] == [*lines, "    and 5 more"]


def test_synthetic_set_is_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(synthetic, "NUM_EXAMPLES", {"train": 14, "test": 3})

    report = examine(make_config(tmp_path, "--dataset=synthetic", "--data_dir="))

    assert report["findings"] == []
    assert report["splits"][1]["num_examples"] == 3
    assert "Nothing is wrong with them." in capsys.readouterr().out


def test_picture_shows_usable_examples_as_training_sees_them(tmp_path, monkeypatch):
    """Thirteen examples of which two cannot be used: the other eleven, in order."""
    drawn = {}

    def draw(*columns, **kwargs):
        drawn["columns"] = columns
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr(doctor.pictures, "draw_contact_sheet", draw)
    root = tmp_path / "data"
    for number in range(13):
        image, label = make_photo(number, (32, 32)), make_label(number, (32, 32))
        is_bad = number in (3, 8)
        mask = label + 7 if is_bad else label
        write(root, f"train/{number:02}", image=image, mask=mask)
    write(root, "val/0", image=make_photo(50), mask=make_label(50))

    examine(make_config(tmp_path, *THREE))

    usable = [number for number in range(13) if number not in (3, 8)]
    images, labels, changed_images, changed_labels = drawn["columns"]
    for row, number in enumerate(usable):
        np.testing.assert_array_equal(images[row], make_photo(number, (32, 32)))
        np.testing.assert_array_equal(labels[row], make_label(number, (32, 32)))
    # Mirrored or not, as training does it: batches of three, counters from 0 on.
    augmentation = augment.RandomAugment(
        {"horizontal_flip": True}, global_batch_size=3, seed=0
    )
    expected = [
        augmentation(
            tf.constant(images[i : i + 3]),
            tf.constant(labels[i : i + 3]),
            tf.range(i, min(i + 3, 11), dtype=tf.int64),
        )
        for i in range(0, 11, 3)
    ]
    np.testing.assert_array_equal(
        changed_images, np.concatenate([pair[0] for pair in expected])
    )
    np.testing.assert_array_equal(
        changed_labels, np.concatenate([pair[1] for pair in expected])
    )
    assert (changed_images != images).any()


def test_windows_are_drawn_in_the_middle_of_what_is_ignored(monkeypatch, tmp_path):
    drawn = {}

    def draw(*columns, **kwargs):
        drawn["columns"] = columns
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr(doctor.pictures, "draw_contact_sheet", draw)
    root = tmp_path / "data"
    for name in ("train/0", "val/0"):
        write(root, name, image=make_photo(0), mask=make_label(0))

    windows = ("--crop_size=16,8", "--crop_rare_classes=1.0")
    examine(make_config(tmp_path, *THREE, *windows))

    images, labels, changed_images, changed_labels = drawn["columns"]
    assert changed_labels.shape == labels.shape
    is_window = np.zeros((32, 32), bool)
    is_window[8:24, 12:20] = True
    assert (changed_labels[0][~is_window] == 255).all()
    assert (changed_images[0][~is_window] == 128).all()
    assert (changed_labels[0][is_window] != 255).all()
    augmentation = augment.RandomAugment(
        {"horizontal_flip": True},
        global_batch_size=3,
        seed=0,
        crop_size=(16, 8),
        crop_rare_classes=1.0,
        num_classes=3,
    )
    _, expected = augmentation(images, labels, tf.range(1, dtype=tf.int64))
    np.testing.assert_array_equal(changed_labels[0, 8:24, 12:20], expected[0])


def _show(image, channels):
    """Returns what is to be seen of some channels: gray of one, else colours."""
    return np.broadcast_to(image[..., :channels], (*image.shape[:2], 3))


@pytest.mark.parametrize(
    ("make_image", "ending", "arguments", "stored", "shown", "line"),
    [
        (
            lambda n: make_photo(n)[..., 0],
            "png",
            ["--image_channels=1"],
            (1, 8, False),
            lambda n: _show(make_photo(n), 1),
            "images: 1 channel of 8 bits",
        ),
        (
            lambda n: np.dstack([make_photo(n), make_photo(n + 50)[..., 0]]),
            "png",
            ["--image_channels=4"],
            (4, 8, True),
            make_photo,
            "images: 4 channels of 8 bits, the last of them alpha",
        ),
        (
            make_12_bit,
            "png",
            ["--image_channels=1", "--image_range=0,4095"],
            (1, 16, False),
            lambda n: _show(np.rint(make_12_bit(n)[..., None] * (255 / 4095)), 1),
            "images: 1 channel of 16 bits",
        ),
        (
            lambda n: make_tiff(n, 8),
            "tif",
            ["--image_channels=8", "--image_range=100,200"],
            (8, 8, False),
            lambda n: np.rint((read_bands(n, 8).clip(100, 200) - 100) * 2.55),
            "images: 8 channels of 8 bits",
        ),
    ],
    ids=["gray", "alpha", "12 bits", "8 bands"],
)
def test_images_of_any_kind_are_shown_and_told(
    tmp_path, monkeypatch, capsys, make_image, ending, arguments, stored, shown, line
):
    drawn = []
    draw = doctor.pictures.draw_contact_sheet
    monkeypatch.setattr(
        doctor.pictures,
        "draw_contact_sheet",
        lambda *columns, **kwargs: drawn.append(columns[0]) or draw(*columns, **kwargs),
    )
    write_pairs(tmp_path / "data", make_image, make_label, ending=ending)
    size = f"--image_size={_HEIGHT},{_WIDTH}"

    report = examine(make_config(tmp_path, *THREE, size, *arguments))

    assert report["findings"] == []
    keys = ("num_channels", "bits", "has_alpha")
    told = [{**dict(zip(keys, stored, strict=True)), "num_examples": 4}]
    assert report["splits"][0]["images"] == told
    assert line in capsys.readouterr().out
    (images,) = drawn
    expected = [shown(number)[..., :3] for number in range(4)]
    np.testing.assert_allclose(images, expected, atol=1)  # float32 or float64
    assert (tmp_path / "run" / "doctor.png").read_bytes()[:4] == b"\x89PNG"


def test_kinds_of_images_that_cannot_be_used_are_told(tmp_path, capsys):
    def make_image(number):
        return make_tiff(number, 5 if number % 2 else 8)

    write_pairs(tmp_path / "data", make_image, make_label, ending="tif")

    report = examine(make_config(tmp_path, *THREE, "--image_channels=5"))

    (finding,) = report["findings"]
    assert "it has 8 bands, and --image_channels=5" in finding["message"]
    out = capsys.readouterr().out
    assert "images: 2 with 5 channels of 8 bits; 2 with 8 channels of 8 bits" in out


def test_folder_that_is_not_there_ends_the_doctor(tmp_path):
    with pytest.raises(schema.DataError, match="data is no folder"):
        doctor.run(make_config(tmp_path, *THREE))


def test_training_warns_of_classes_without_a_pixel(tmp_path, monkeypatch):
    make_clean(tmp_path / "data")
    warnings = []
    monkeypatch.setattr(
        inputs.logging, "warning", lambda text, *args: warnings.append(text % args)
    )

    open_as_training_does(make_config(tmp_path, "--class_names=cat,dog,cow,yak"))

    assert warnings == [
        "data/train has no pixel of yak; nothing is learned of them. --mode=doctor "
        "tells more."
    ]


@pytest.mark.parametrize("arguments", [("--train_half=0",), ("--dataset=coco",)])
def test_training_warns_of_what_is_dropped_from_files_of_any_source(
    tmp_path, monkeypatch, arguments
):
    add_noise_under_alpha(tmp_path / "data")
    square = test_coco.annotate(0, 7, [test_coco.SQUARE])
    for split in ("train", "val"):
        path = f"{split}/images/_annotations.coco.json"
        names = [f"{split}/images/{name}.png" for name in range(2)]
        test_coco.write(tmp_path / "data", path, names, [square], size=(40, 48))
    add_noise_under_alpha(tmp_path / "data")
    warnings = []
    monkeypatch.setattr(
        inputs.logging, "warning", lambda text, *args: warnings.append(text % args)
    )

    open_as_training_does(make_config(tmp_path, *THREE, *arguments))

    told = [line for line in warnings if "an alpha channel, which is dropped" in line]
    assert [line.split(":")[0].split("/")[1] for line in told] == ["train", "val"]


@pytest.mark.parametrize("cache", ["memory", "disk", "device"])
def test_one_class_is_refused_wherever_examples_are_kept(tmp_path, cache):
    map_masks(lambda label: label * 0)(tmp_path / "data")
    folder = [f"--cache_dir={tmp_path / 'cache'}"] if cache == "disk" else []
    config = make_config(tmp_path, *THREE, f"--cache={cache}", *folder)

    with pytest.raises(
        schema.DataError, match="^data/train: every pixel that counts i"
    ):
        open_as_training_does(config)


def test_one_class_is_taken_where_counting_would_read_the_split(tmp_path):
    map_masks(lambda label: label * 0)(tmp_path / "data")

    open_as_training_does(make_config(tmp_path, *THREE, "--cache=none"))
