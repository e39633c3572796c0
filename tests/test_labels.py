"""Class names, mask colours and label maps that users write in files."""

import dataclasses
import json

import numpy as np
import pytest

from data import schema
from data.files import label_files, labels, mask_values, palettes
from data.preparing import preprocessing
from data.stores import fingerprints
from tests import test_store
from trainer.assembly import inputs
from trainer.settings import config as config_lib

PETS = schema.DatasetInfo(
    ("pet", "background", "border"), -1, ((1, 1, 1), (2, 2, 2), (3, 3, 3))
)
CONFIG = config_lib.Config(run=config_lib.RunConfig(model_dir="unused"))


def write(folder, name, content) -> str:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


@pytest.fixture(name="write_file")
def _write_file(tmp_path):
    return lambda content, name="file.csv": write(tmp_path, name, content)


def resolve(info=None, **kwargs):
    return labels.resolve_info(info, **kwargs)


@pytest.mark.parametrize(
    "content, name",
    [
        ("road,128,64,128\nsky,1,2,3\nVoid,0,0,0\nroad,9,9,9\n", "a.csv"),
        (
            "\ufeffname,r,g,b\nroad, 128,64, 128\n\nsky,1,2,3\nignore,0,0,0\n"
            "road,9,9,9",
            "a.csv",
        ),
        (
            {"road": [[128, 64, 128], [9, 9, 9]], "sky": [1, 2, 3], "void": [0, 0, 0]},
            "a.json",
        ),
    ],
)
def test_label_colors_are_read(write_file, content, name):
    info = label_files.read_label_colors(write_file(content, name))

    assert info.class_names == ("road", "sky")
    assert info.palette == ((128, 64, 128), (1, 2, 3))
    assert dict(info.label_colors) == {
        (128, 64, 128): 0,
        (9, 9, 9): 0,
        (1, 2, 3): 1,
        (0, 0, 0): palettes.IGNORED_VALUE,
    }


@pytest.mark.parametrize(
    "content, name, message",
    [
        ("road,1,2\n", "a.csv", r"'road' has \['1', '2'\] for a colour; give red"),
        ("road,1,2,256\n", "a.csv", "'road' has .* each 0 to 255"),
        ("road,1,2,x\n", "a.csv", "'road' has .*'x'"),
        ("name,r,g,b\n", "a.csv", "there is no row in it"),
        (
            "road,1,2,3\nsky,1,2,3\n",
            "a.csv",
            r"\(1, 2, 3\) is the colour of two classes",
        ),
        ({"road": 7}, "a.json", "'road' has 7 for a colour"),
        ("[1, 2]", "a.json", "holds no JSON object"),
        ("{road}", "a.json", "is no JSON file"),
    ],
)
def test_label_colors_that_make_no_sense_are_refused(
    write_file, content, name, message
):
    with pytest.raises(schema.DataError, match=f"^--label_colors=.*{message}"):
        label_files.read_label_colors(write_file(content, name))


def test_label_colors_that_are_no_file_are_refused_with_the_known_palettes():
    with pytest.raises(
        schema.DataError,
        match=r"^--label_colors=vok cannot .*is none of voc, cityscapes, camvid\.$",
    ):
        label_files.read_label_colors("vok")


def test_colors_bring_classes_and_palette(write_file):
    path = write_file("road,128,64,128\nsky,1,2,3\n")

    info = resolve(PETS, label_colors=path)

    assert (info.class_names, info.label_offset) == (("road", "sky"), 0)
    assert info.palette == ((128, 64, 128), (1, 2, 3))
    assert info.label_colors == (((128, 64, 128), 0), ((1, 2, 3), 1))


def test_classes_of_colors_can_be_renamed(write_file):
    path = write_file("road,128,64,128\nsky,1,2,3\n")

    info = resolve(label_colors=path, class_names=("street", "air"))

    assert info.class_names == ("street", "air")
    assert len(info.label_colors) == 2


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"num_classes": 3}, "makes 2 classes .road, sky., but --num_classes gives 3"),
        ({"class_names": ("a", "b", "c")}, "but --class_names gives 3"),
    ],
)
def test_another_number_of_classes_than_colors_is_refused(write_file, kwargs, message):
    path = write_file("road,128,64,128\nsky,1,2,3\n")

    with pytest.raises(
        schema.DataError, match=f"^--label_colors=.*{message}; make the"
    ):
        resolve(label_colors=path, **kwargs)


@pytest.mark.parametrize(
    "content, name",
    [
        ("pet,animal\nbackground,rest\nborder,animal", "a.csv"),
        ("old,new\n1,animal\n 2, rest\n\n3,animal\n", "a.csv"),
        ({"pet": "animal", "2": "rest", "border": "animal"}, "a.json"),
    ],
)
def test_label_map_merges_classes(write_file, content, name):
    """Pets count from 1: pet is 1 on disk, background 2, border 3."""
    info = resolve(PETS, label_map=write_file(content, name))

    assert info.class_names == ("animal", "rest")
    assert info.label_map == ((1, 0), (2, 1), (3, 0))
    assert info.palette == ((1, 1, 1), (2, 2, 2))


def test_label_map_drops_classes(write_file):
    path = write_file("border,ignore\nbackground,rest\npet,animal\n")

    info = resolve(PETS, label_map=path)

    assert info.class_names == ("rest", "animal")
    assert info.label_map == ((1, 1), (2, 0), (3, 255))
    assert info.palette == ((2, 2, 2), (1, 1, 1))


def test_label_map_of_values_needs_no_names(write_file):
    info = resolve(label_map=write_file("0,rest\n255,thing\n40000,thing\n9,ignore\n"))

    assert info.class_names == ("rest", "thing")
    assert info.label_map == ((0, 0), (9, 255), (255, 1), (40000, 1))
    assert info.palette == schema.voc_palette(2)


def test_class_names_give_the_order_of_merged_classes(write_file):
    path = write_file("pet,animal\nbackground,rest\nborder,ignore\n")

    info = resolve(PETS, label_map=path, class_names=("rest", "animal"), num_classes=2)

    assert info.class_names == ("rest", "animal")
    assert info.label_map == ((1, 1), (2, 0), (3, 255))
    assert info.palette == ((2, 2, 2), (1, 1, 1))


def test_offset_leads_from_old_names_to_values(write_file):
    path = write_file("pet,animal\nbackground,rest\nborder,ignore\n")

    info = resolve(PETS, label_map=path, label_offset=-11)

    assert info.label_map == ((11, 0), (12, 1), (13, 255))


def test_colors_can_be_merged_and_void_become_a_class(tmp_path):
    colors = write(tmp_path, "c.csv", "road,1,1,1\npath,2,2,2\nvoid,0,0,0\n")
    path = write(tmp_path, "m.csv", "road,way\npath,way\nvoid,rest\n")

    info = resolve(label_colors=colors, label_map=path)

    assert info.class_names == ("way", "rest")
    assert info.label_map == ((0, 0), (1, 0), (palettes.IGNORED_VALUE, 1))
    assert info.label_colors == (
        ((1, 1, 1), 0),
        ((2, 2, 2), 1),
        ((0, 0, 0), palettes.IGNORED_VALUE),
    )


@pytest.mark.parametrize(
    "info, content, kwargs, message",
    [
        (
            PETS,
            "dog,a\n",
            {},
            "'dog' is no mask value and no old class; these are pet, b",
        ),
        (None, "dog,a\n0,b\n", {}, "'dog' is no .*are not known, so give mask values"),
        (None, "70000,a\n", {}, "'70000' is no mask value"),
        (
            PETS,
            "pet,a\n1,b\n",
            {},
            "'1' and another row both say .* mask value 1; keep",
        ),
        (PETS, "pet,a\n", {}, "not say what becomes of background, border; add a row"),
        (None, "1,a\n1,b\n", {}, "1 is there twice; give each old class one new one"),
        (None, "1\n", {}, "the row '1' is not an old class and a new one; write e"),
        (None, "1,a,b\n", {}, "the row '1,a,b' is not"),
        (None, "", {}, "there is no row in it"),
        (
            None,
            "0,a\n1,b\n",
            {"num_classes": 3},
            "makes 2 classes .a, b., but --num_cl",
        ),
        (None, "0,a\n1,b\n", {"label_offset": -1}, "the values as they are on disk"),
        (None, "0,a\n1,b\n", {"class_names": ("a", "c")}, "name these, or leave --cl"),
        (
            None,
            "0,a\n1,ignore\n",
            {},
            r"There are 1 classes \(a\), but there must be 2",
        ),
    ],
)
def test_label_map_that_makes_no_sense_is_refused(
    write_file, info, content, kwargs, message
):
    with pytest.raises(schema.DataError, match=message):
        resolve(info, label_map=write_file(content), **kwargs)


def test_json_key_that_is_there_twice_is_refused(write_file):
    path = write_file('{"1": "a", "2": "b", "1": "c"}', "a.json")

    with pytest.raises(schema.DataError, match="1 is there twice"):
        resolve(label_map=path)


def test_json_map_holds_strings(write_file):
    with pytest.raises(schema.DataError, match="give strings, like"):
        resolve(label_map=write_file({"1": 2}, "a.json"))


def test_label_map_that_is_not_there_is_refused():
    with pytest.raises(
        schema.DataError, match="^--label_map=no.csv cannot be read .*y"
    ):
        resolve(label_map="no.csv")


def test_class_names_come_from_a_file(write_file):
    path = write_file("sky\n\n the tree \n", "names.txt")

    assert resolve(class_names=(path,)).class_names == ("sky", "the tree")


@pytest.mark.parametrize(
    "content, kwargs, message",
    [
        ("sky\nsky\n", {}, "names.txt: sky is there twice"),
        ("sky\ntree\n", {"num_classes": 3}, "makes 2 classes .sky, tree., but --num"),
        ("sky\n", {}, r"There are 1 classes \(sky\), but there must be 2 to 255"),
    ],
)
def test_names_in_a_file_that_make_no_sense_are_refused(
    write_file, content, kwargs, message
):
    with pytest.raises(schema.DataError, match=message):
        resolve(class_names=(write_file(content, "names.txt"),), **kwargs)


def test_more_classes_than_labels_are_refused(write_file):
    content = "".join(f"class {i},{i // 256},{i % 256},0\n" for i in range(256))

    with pytest.raises(
        schema.DataError, match="There are 256 classes .* 2 to 255; mer"
    ):
        resolve(label_colors=write_file(content))


def test_without_files_the_users_words_replace_those_of_the_data_set():
    assert resolve(PETS, label_offset=0).label_offset == 0
    assert resolve(PETS) == PETS


def _labels_of(info, values):
    """Returns the classes that preprocessing makes of mask values."""
    made = preprocessing.Preprocessor(
        image_size=(32, 32),
        num_classes=info.num_classes,
        label_offset=info.label_offset,
        label_map=info.label_map,
        label_colors=info.label_colors,
    )
    return [int(made.class_table[value]) for value in values]


_TRAINED = ("road", "car", "bg")


@pytest.mark.parametrize(
    ("info", "values", "expected"),
    [
        (schema.DatasetInfo(("bg", "road", "car")), (0, 1, 2), [2, 0, 1]),
        (
            schema.DatasetInfo(("bg", "road", "car"), label_offset=-1),
            (1, 2, 3),
            [2, 0, 1],
        ),
        (
            schema.DatasetInfo(
                ("bg", "road", "car"), label_map=((0, 0), (7, 1), (8, 2), (9, 255))
            ),
            (0, 7, 8, 9),
            [2, 0, 1, 255],
        ),
        (schema.DatasetInfo(_TRAINED), (0, 1, 2), [0, 1, 2]),
    ],
)
def test_classes_are_matched_by_name(info, values, expected):
    matched = labels.match_classes(info, _TRAINED, subject="a/val")
    assert matched.class_names == _TRAINED
    assert _labels_of(matched, values) == expected


def test_colors_stay_with_their_classes():
    palette = ((0, 0, 0), (255, 0, 0), (0, 255, 0))
    info = schema.DatasetInfo(("bg", "road", "car"), palette=palette)
    matched = labels.match_classes(info, _TRAINED, subject="a/val")
    assert matched.palette == ((255, 0, 0), (0, 255, 0), (0, 0, 0))


def test_classes_without_names_are_matched_by_their_order():
    info = schema.DatasetInfo(("class_0", "class_1", "class_2"))
    assert labels.match_classes(info, _TRAINED, subject="a").class_names == _TRAINED


@pytest.mark.parametrize(
    "names", [("bg", "road"), ("class_0", "class_1"), ("bg", "road", "bus")]
)
def test_other_names_or_numbers_of_classes_are_refused(names):
    message = f"a/val has the classes {', '.join(names)}, and the model was trained"
    with pytest.raises(schema.DataError, match=message):
        labels.match_classes(schema.DatasetInfo(names), _TRAINED, subject="a/val")


def test_the_same_names_in_another_order_number_the_classes_anew():
    """Masks keep their meaning: what was 1, a cat, is 2 then, a cat."""
    info = schema.DatasetInfo(
        ("sky", "cat", "dog"), palette=((1,) * 3, (2,) * 3, (3,) * 3)
    )

    ordered = labels.resolve_info(info, class_names=("sky", "dog", "cat"))
    renamed = labels.resolve_info(info, class_names=("sky", "cow", "dog"))

    assert ordered.class_names == ("sky", "dog", "cat")
    assert dict(ordered.label_map) == {0: 0, 1: 2, 2: 1}
    assert ordered.palette == ((1,) * 3, (3,) * 3, (2,) * 3)
    assert (renamed.class_names, renamed.label_map) == (("sky", "cow", "dog"), ())


_CATS = schema.DatasetInfo(("background", "cat", "dog"))


@pytest.mark.parametrize("names", ["background,dog,kitten", "background,dog,cat,cow"])
def test_a_name_of_one_class_is_not_given_to_another(write_file, names):
    """By their order, cats would be called dogs."""
    message = (
        f"^--class_names={names}: the classes of this data set are background, cat, "
        "dog, and dog would be the name of cat; give all"
    )
    with pytest.raises(schema.DataError, match=message):
        resolve(_CATS, class_names=tuple(names.split(",")))
    if names.endswith("kitten"):
        path = write_file("background,0,0,0\ncat,1,0,0\ndog,2,0,0\n")
        with pytest.raises(schema.DataError, match=message):
            resolve(label_colors=path, class_names=tuple(names.split(",")))


@pytest.mark.parametrize(
    ("names", "is_warned"),
    [
        ("sky,cat,kitten", False),
        ("background,cat,dog,cow", False),
        # Fewer than the layout makes segloop expect: they may be other classes.
        ("background,dog", True),
    ],
)
def test_classes_are_renamed_by_their_order(caplog, names, is_warned):
    info = resolve(_CATS, class_names=tuple(names.split(",")))

    assert (info.class_names, info.label_map) == (tuple(names.split(",")), ())
    assert ("dog would be the name of cat" in caplog.text) == is_warned


@pytest.mark.parametrize(
    ("offset", "values"), [(None, (1, 2, 3)), (-1, (1, 2, 3)), (0, (0, 1, 2))]
)
def test_an_offset_leads_to_the_classes_before_they_are_put_in_order(offset, values):
    """PETS are pet, background, border: an offset says which value is the first."""
    info = resolve(
        PETS, class_names=("background", "pet", "border"), label_offset=offset
    )

    assert _labels_of(info, values) == [1, 0, 2]
    assert info.palette == ((2, 2, 2), (1, 1, 1), (3, 3, 3))


@pytest.mark.parametrize("offset", [None, -1])
def test_classes_in_another_order_leave_ignored_what_is_ignored(offset):
    """3, the border, is no class then, in any order of the classes."""
    info = resolve(
        PETS, class_names=("background", "pet", "border"), label_offset=offset
    )
    config = dataclasses.replace(
        CONFIG, data=dataclasses.replace(CONFIG.data, ignore_label=3)
    )

    table = inputs.make_preprocessor(config, info).class_table

    assert table[[1, 2, 3]].tolist() == [1, 0, 255]


def _diagnose_reordered(counts, **flags):
    info = resolve(PETS, class_names=("background", "pet", "border"), **flags)
    return inputs.make_preprocessor(CONFIG, info).diagnose(counts)


def test_who_gave_no_label_map_is_not_told_to_mend_it(write_file):
    """Of pets in another order, 1 to 3, a mask holds 9."""
    diagnosis = _diagnose_reordered({1: 5, 9: 2})
    mapped = _diagnose_reordered(
        {1: 5, 9: 2}, label_map=write_file("1,pet\n2,background\n3,border\n")
    )

    assert diagnosis.kind == "values_out_of_range"
    assert "1, 9; with --label_offset=-1 and --ignore_label=255 they" in str(diagnosis)
    assert "of which --label_map does not list 9; add a row" in str(mapped)


def test_messages_about_classes_in_another_order_know_their_values():
    """Class 1, pet, is the value 0: a mask of 0 alone was cut from 16 bits."""
    info = resolve(
        schema.DatasetInfo(("pet", "sky")), class_names=("sky", "pet"), label_offset=0
    )
    made = inputs.make_preprocessor(CONFIG, info)
    counts = np.bincount([1], minlength=256)

    diagnosis = mask_values.diagnose_classes(
        counts, made.convention, class_names=info.class_names
    )

    assert "one class, pet: every mask value is 0" in str(diagnosis)


def test_how_a_label_map_is_spoken_of_decodes_nothing_again():
    made = inputs.make_preprocessor(CONFIG, PETS)
    source = test_store.ListSource([b""], [b""])

    def fingerprint(**changes):
        changed = dataclasses.replace(made, label_map=((0, 1), (1, 0)), **changes)
        return fingerprints.make_fingerprint(source, changed)

    assert fingerprint() == fingerprint(reordered_offset=0)
    assert fingerprint(ignore_label=1) != fingerprint(
        ignore_label=1, reordered_offset=0
    )


def test_an_offset_counts_where_the_names_are_in_the_data_sets_order():
    info = resolve(PETS, class_names=PETS.class_names, label_offset=0)

    assert (info.label_map, info.label_offset) == ((), 0)
