"""Tests of what is known of a data set's classes."""

import pytest

from data import schema

PETS = schema.DatasetInfo(
    class_names=("pet", "background", "border"),
    label_offset=-1,
    palette=((1, 2, 3), (4, 5, 6), (7, 8, 9)),
)


@pytest.mark.parametrize(
    "label, color",
    [
        (0, (0, 0, 0)),
        (1, (128, 0, 0)),
        (4, (0, 0, 128)),
        (8, (64, 0, 0)),  # Bit 3 is the second bit of red.
        (15, (192, 128, 128)),
        (20, (0, 64, 128)),
        (255, (224, 224, 192)),  # 3, 3 and 2 bits, all set.
    ],
)
def test_voc_palette_is_that_of_the_development_kit(label, color):
    assert schema.voc_palette(256)[label] == color


def test_voc_palette_repeats_no_color():
    assert len(set(schema.voc_palette(256))) == 256


def test_classes_without_colors_get_the_voc_palette():
    info = schema.DatasetInfo(("sky", "tree"))

    assert info.palette == ((0, 0, 0), (128, 0, 0))


def test_known_info_stays_as_it_is_if_the_user_says_nothing():
    assert schema.resolve_info(PETS) == PETS


def test_users_names_replace_the_known_ones():
    info = schema.resolve_info(PETS, class_names=("a", "b", "c"))

    assert info == schema.DatasetInfo(("a", "b", "c"), -1, PETS.palette)


def test_another_number_of_classes_drops_known_names_and_colors():
    info = schema.resolve_info(PETS, num_classes=2)

    assert info.class_names == ("class_0", "class_1")
    assert info.palette == schema.voc_palette(2)


def test_the_known_number_of_classes_keeps_the_known_names():
    assert schema.resolve_info(PETS, num_classes=3).class_names == PETS.class_names


def test_users_offset_replaces_the_known_one_even_if_zero():
    assert schema.resolve_info(PETS, label_offset=0).label_offset == 0


def test_unknown_classes_take_number_and_offset_from_the_user():
    info = schema.resolve_info(None, num_classes=2, label_offset=-3)

    assert info == schema.DatasetInfo(("class_0", "class_1"), -3)


def test_unknown_classes_without_the_users_word_are_an_error():
    with pytest.raises(
        schema.DataError, match=r"how many classes.*--num_classes or --class_names"
    ):
        schema.resolve_info(None, label_offset=-1)
