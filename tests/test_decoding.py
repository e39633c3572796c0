"""An image and its mask lie upon each other, whatever their EXIF orientations say."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import schema
from data.files import decoding, graph_decoding, images, masks
from tests import test_masks

PIXELS = np.random.default_rng(5).integers(0, 256, (6, 9, 3), np.uint8)
LABEL = np.arange(54, dtype=np.uint8).reshape(6, 9)

QUARTER = [np.rot90(array, -1) for array in (PIXELS, LABEL)]
HALF = [np.rot90(array, 2) for array in (PIXELS, LABEL)]


def encode(pixels, orientation=None, kind="PNG"):
    """Writes pixels as they are, with a note on how to turn them."""
    options = {}
    if orientation:
        options["exif"] = exif = Image.Exif()
        exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, kind, **options)
    return file.getvalue()


def decode_in_graph(image, label, colors=()):
    example = {"image": image, "label": label}
    dataset = tf.data.Dataset.from_tensors(example).map(
        lambda example: graph_decoding.decode_pair_in_graph(
            example["image"], example["label"], colors
        )
    )
    return next(dataset.as_numpy_iterator())


def check(image, label, expected, colors=()):
    for result in (
        decoding.decode_pair(image, label, colors),
        decode_in_graph(image, label, colors)[:2],
    ):
        np.testing.assert_array_equal(result[0], expected[0])
        np.testing.assert_array_equal(result[1], expected[1])
    assert decode_in_graph(image, label, colors)[2]


@pytest.mark.parametrize(
    "image_turn, mask_turn, mask, expected",
    [
        (None, None, LABEL, (PIXELS, LABEL)),
        # Drawn on the photo as it is shown.
        (6, None, QUARTER[1], QUARTER),
        (3, None, HALF[1], HALF),
        # Drawn on the photo as it is stored, by a tool that does not know EXIF.
        (6, None, LABEL, (PIXELS, LABEL)),
        # Drawn so by a tool that copied the note.
        (6, 6, LABEL, QUARTER),
        (3, 3, LABEL, HALF),
        # Shown, stored with a note of its own.
        (None, 3, HALF[1], (PIXELS, LABEL)),
        (None, 8, QUARTER[1], (PIXELS, LABEL)),
    ],
)
def test_both_are_turned_as_viewers_do_where_their_sizes_then_agree(
    image_turn, mask_turn, mask, expected
):
    check(encode(PIXELS, image_turn), encode(mask, mask_turn), expected)


def test_square_photo_is_turned_as_viewers_do():
    image, label = PIXELS[:, :6], LABEL[:, :6]

    shown = [np.rot90(array, -1) for array in (image, label)]

    check(encode(image, 6), encode(shown[1]), shown)


def test_turned_jpeg_is_the_turned_decoded_one():
    image = encode(PIXELS, 8, "JPEG")
    stored = tf.io.decode_jpeg(image, 3).numpy()

    check(image, encode(np.rot90(LABEL)), (np.rot90(stored), np.rot90(LABEL)))


@pytest.mark.parametrize(
    "orientation, message",
    [
        (None, "the image has 6x9 pixels, its mask 5x9; the two must agree"),
        (
            6,
            "the image has 6x9 (shown as 9x6, by its EXIF orientation) pixels, its "
            "mask 5x9; the two must agree",
        ),
    ],
)
def test_sizes_that_agree_in_no_way_are_refused(orientation, message):
    image, label = encode(PIXELS, orientation), encode(LABEL[:5])

    with pytest.raises(schema.DataError) as caught:
        decoding.decode_pair(image, label)
    assert str(caught.value) == message
    assert not decode_in_graph(image, label)[2]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_files_with_notes_are_not_plain(kind):
    for orientation, expected in ((None, True), (1, False), (6, False)):
        encoded = encode(PIXELS, orientation, kind)
        assert bool(images.is_plain(tf.constant(encoded))) == expected
        graph = tf.function(images.is_plain)
        assert bool(graph(tf.constant(encoded))) == expected


@pytest.mark.parametrize("encoded", [b"", b"\x89PNG", b"GIF89a", b"no image" * 10])
def test_what_is_neither_jpeg_nor_png_is_not_plain(encoded):
    assert not images.is_plain(tf.constant(encoded))
    assert not masks.is_plain_in_graph(tf.constant(encoded))


@pytest.mark.parametrize("height, expected", [(10_000, True), (10_001, False)])
def test_a_header_of_too_many_pixels_is_not_plain(height, expected):
    encoded = bytearray(encode(LABEL))
    encoded[16:24] = (10_000).to_bytes(4, "big") + height.to_bytes(4, "big")
    assert bool(images.is_plain(tf.constant(bytes(encoded)))) == expected
    assert bool(masks.is_plain_in_graph(tf.constant(bytes(encoded)))) == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_plain_files_are_decoded_in_the_graph_alone(monkeypatch, kind):
    def fail(*args, **kwargs):
        raise AssertionError("not needed")

    monkeypatch.setattr(decoding, "decode_pair", fail)
    image = encode(PIXELS, kind=kind)

    pixels, values, is_valid = decode_in_graph(image, encode(LABEL))

    assert is_valid
    np.testing.assert_array_equal(pixels, tf.io.decode_image(image, channels=3))
    np.testing.assert_array_equal(values, LABEL)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP"])
def test_image_of_another_kind_comes_with_a_plain_mask(kind):
    file = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(PIXELS).save(file, kind, **options)

    check(file.getvalue(), encode(LABEL), (PIXELS, LABEL))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
@pytest.mark.parametrize("num_channels", [0, 1, 3])
def test_masks_may_be_pixels(dtype, num_channels):
    label = LABEL.astype(dtype) * (1000 if dtype != np.uint8 else 1)
    mask = label[..., None].repeat(num_channels, -1) if num_channels else label

    check(encode(PIXELS), mask, (PIXELS, label))
    check(PIXELS, mask, (PIXELS, label))


def test_colors_of_mask_pixels_are_looked_up():
    mask = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    colors = (((1, 2, 3), 1), ((4, 5, 6), 0))

    check(PIXELS[:1, :2], mask, (PIXELS[:1, :2], [[1, 0]]), colors)


def test_colors_of_a_mask_file_are_looked_up():
    mask = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    colors = (((1, 2, 3), 1), ((4, 5, 6), 0))

    check(encode(PIXELS[:1, :2]), encode(mask), (PIXELS[:1, :2], [[1, 0]]), colors)


@pytest.mark.parametrize(
    "image, label, message",
    [
        (b"", encode(LABEL), "^the image: it is no JPEG"),
        (encode(PIXELS), b"", "^the mask: it is no JPEG"),
        (encode(PIXELS), encode(PIXELS), "^the mask: it is coloured"),
        (encode(PIXELS), encode(LABEL, kind="JPEG"), "^the mask: its compression"),
        (encode(PIXELS, kind="JPEG")[:-20], encode(LABEL), "^the image: it cannot be"),
    ],
)
def test_file_that_is_wrong_is_told(image, label, message):
    with pytest.raises(schema.DataError, match=message):
        decoding.decode_pair(image, label)
    if "cannot be" not in message:
        assert not decode_in_graph(image, label)[2]


def test_pixels_of_another_number_are_no_valid_pair():
    assert not decode_in_graph(PIXELS, LABEL[:5])[2]
    assert decode_in_graph(PIXELS, LABEL)[2]


def test_kinds_of_masks_may_change_from_one_example_to_the_next():
    masks = [encode(LABEL), encode(LABEL.astype(np.uint16) + 300)]
    palette = test_masks.encode(test_masks.make_palette_image())
    images = [encode(PIXELS), encode(PIXELS, kind="JPEG"), encode(PIXELS[:4, :3])]

    dataset = tf.data.Dataset.from_tensor_slices((images, [*masks, palette]))
    results = [
        r[1]
        for r in dataset.map(graph_decoding.decode_pair_in_graph).as_numpy_iterator()
    ]

    np.testing.assert_array_equal(results[0], LABEL)
    np.testing.assert_array_equal(results[1], LABEL.astype(int) + 300)
    np.testing.assert_array_equal(results[2], test_masks.LABEL)


FLAT = np.kron(LABEL % 3, np.ones((8, 8), np.uint8))
NOISE = np.random.default_rng(8).integers(0, 256, (*FLAT.shape, 3), np.uint8)


def test_mask_in_place_of_the_photo_is_refused():
    mask = encode(FLAT)

    with pytest.raises(schema.DataError, match="the two files are the same") as caught:
        decoding.decode_pair(mask, mask)
    assert caught.value.kind == "image_is_mask"
    assert not decode_in_graph(mask, mask)[2]


@pytest.mark.parametrize("num_channels", [2, 5])
def test_channels_that_nobody_knows_are_refused(num_channels):
    pixels = np.zeros((4, 5, num_channels), np.uint8)
    pixels[..., 1] = 1

    with pytest.raises(schema.DataError, match=f"it has {num_channels} channels; a m"):
        decoding.decode_label(pixels, ())


def test_colours_of_pixels_are_looked_up_without_their_alpha():
    pixels = np.uint8([[[1, 2, 3, 9], [4, 5, 6, 255]]])
    colors = (((1, 2, 3), 1), ((4, 5, 6), 0))

    np.testing.assert_array_equal(decoding.decode_label(pixels, colors), [[1, 0]])


def test_photo_in_black_may_have_an_empty_mask():
    black = encode(np.zeros((4, 5), np.uint8))

    check(black, black, (np.zeros((4, 5, 3)), np.zeros((4, 5))))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("flat", [FLAT, np.dstack([FLAT * 99, FLAT, FLAT * 0])])
def test_photo_and_mask_in_each_others_place_are_told(kind, flat):
    with pytest.raises(schema.DataError, match="two are swapped; swap the") as caught:
        decoding.decode_pair(encode(flat), encode(NOISE, kind=kind))
    assert caught.value.kind == "swapped"


@pytest.mark.parametrize(
    "image, mask, kind",
    [
        (encode(NOISE), encode(NOISE), "mask_is_photo"),
        (encode(FLAT), encode(FLAT * 99, kind="JPEG"), "lossy_mask"),
        (encode(NOISE), encode(FLAT * 99, kind="JPEG"), "lossy_mask"),
        (encode(FLAT)[:-20], encode(NOISE), "mask_is_photo"),
    ],
)
def test_other_pairs_are_not_swapped(image, mask, kind):
    with pytest.raises(schema.DataError) as caught:
        decoding.decode_pair(image, mask)
    assert caught.value.kind == kind


def test_python_in_the_graph_keeps_no_state():
    """Op determinism would run it for one example at a time."""
    spec = tf.TensorSpec([], tf.string)
    graph = (
        tf.function(graph_decoding.decode_pair_in_graph)
        .get_concrete_function(spec, spec)
        .graph
    )
    functions = graph.as_graph_def().library.function
    ops = {op.op for op in graph.as_graph_def().node}
    ops |= {op.op for function in functions for op in function.node_def}

    assert "PyFuncStateless" in ops
    assert not ops & {"PyFunc", "EagerPyFunc"}
