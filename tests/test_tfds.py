"""Tests of reading TensorFlow Datasets: a made one, and a part of Oxford-IIIT Pet."""

import pathlib
import shutil

import numpy as np
import pytest
import tensorflow_datasets

from data import schema
from data.preparing import preprocessing
from data.sources import registry, tfds
from data.stores import store, streaming
from tests import helpers

DATA_DIR = str(helpers.SHARED / "tfds")

LABEL = np.array([[0, 1, 2], [300, 1, 0]], np.uint16)

COLORS = np.array([[9, 0, 0], [0, 9, 0], [0, 0, 9]], np.uint8)


class SomeMasks(tensorflow_datasets.core.GeneratorBasedBuilder):
    """A data set with masks of many kinds, each of the same labels."""

    VERSION = tensorflow_datasets.core.Version("1.0.0")

    def _info(self):
        features = tensorflow_datasets.features
        return tensorflow_datasets.core.DatasetInfo(
            builder=self,
            features=features.FeaturesDict(
                {
                    "photo": features.Image(shape=(None, None, 3)),
                    "gray": features.LabeledImage(
                        labels=["x", "y", "z"], shape=(None, None, 1)
                    ),
                    "gray_of_three": features.Image(shape=(None, None, 3)),
                    "colored": features.Image(shape=(None, None, 3)),
                    "deep": features.Image(shape=(None, None, 1), dtype=np.uint16),
                    "pixels": features.Tensor(shape=(2, 3, 1), dtype=np.int32),
                    "heights": features.Tensor(shape=(2, 3), dtype=np.float32),
                    "box": features.BBoxFeature(),
                    "nested": {"mask": features.Image(shape=(None, None, 1))},
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        gray = np.minimum(LABEL, 2).astype(np.uint8)[..., None]
        yield (
            0,
            {
                "photo": np.arange(18, dtype=np.uint8).reshape(2, 3, 3),
                "gray": gray,
                "gray_of_three": gray.repeat(3, -1),
                "colored": COLORS[gray[..., 0]],
                "deep": LABEL[..., None],
                "pixels": LABEL[..., None].astype(np.int32),
                "heights": np.zeros((2, 3), np.float32),
                "box": tensorflow_datasets.features.BBox(0.0, 0.0, 1.0, 1.0),
                "nested": {"mask": gray},
            },
        )


@pytest.fixture(scope="module", name="masks_dir")
def _masks_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    SomeMasks(data_dir=str(folder)).download_and_prepare()
    return str(folder)


def open_masks(folder, label_key, image_key="photo"):
    return tfds.TfdsSource(
        "some_masks", "train", data_dir=folder, image_key=image_key, label_key=label_key
    )


@pytest.mark.cross_section
@pytest.mark.parametrize("key", ["gray", "gray_of_three", "colored", "deep", "pixels"])
def test_masks_of_every_kind_are_read(masks_dir, key):
    """The value 300 does not fit into 8 bits; there, it is 2."""
    colors = tuple((tuple(c), i) for i, c in enumerate(COLORS.tolist()))
    preprocessor = preprocessing.Preprocessor(
        (2, 3),
        3,
        label_map=((0, 0), (1, 1), (2, 2), (300, 2)),
        label_colors=colors if key == "colored" else (),
    )

    examples = store.open_store(open_masks(masks_dir, key), preprocessor)

    np.testing.assert_array_equal(examples.labels[0], np.minimum(LABEL, 2))
    np.testing.assert_array_equal(examples.images[0].ravel(), np.arange(18))


def _copy_version(folder, target, version):
    shutil.copytree(
        pathlib.Path(folder, "some_masks", "1.0.0"), target / "some_masks" / version
    )


@pytest.mark.parametrize("name", ["some_masks", "some_masks:1.0.0", "some_masks:1.*.*"])
def test_prepared_data_set_needs_no_code(masks_dir, tmp_path, monkeypatch, name):
    def find(*args, **kwargs):
        raise AssertionError("TFDS searches its code.")

    monkeypatch.setattr(tensorflow_datasets, "builder", find)
    _copy_version(masks_dir, tmp_path, "1.0.0")
    _copy_version(masks_dir, tmp_path, "1.0.1.incompleteA1B2C3")  # It was killed.

    source = tfds.TfdsSource(
        name, "train", data_dir=str(tmp_path), image_key="photo", label_key="gray"
    )

    assert source.name == "some_masks/1.0.0/train"
    assert source.info.class_names == ("x", "y", "z")


def test_code_decides_between_prepared_versions(masks_dir, tmp_path):
    _copy_version(masks_dir, tmp_path, "0.9.0")
    _copy_version(masks_dir, tmp_path, "1.0.0")

    assert open_masks(str(tmp_path), "gray").name == "some_masks/1.0.0/train"


def test_a_split_without_an_example_is_refused(masks_dir):
    with pytest.raises(
        schema.DataError, match=r"some_masks/1.0.0/train\[:0\] holds no"
    ):
        tfds.TfdsSource(
            "some_masks",
            "train[:0]",
            data_dir=masks_dir,
            image_key="photo",
            label_key="gray",
        )


@pytest.mark.parametrize(
    ("file", "share"),
    [("dataset_info.json", 0), ("dataset_info.json", 0.5), ("features.json", 0.5)],
)
def test_a_folder_that_was_copied_by_halves_is_named(masks_dir, tmp_path, file, share):
    folder = tmp_path / "some_masks" / "1.0.0"
    shutil.copytree(pathlib.Path(masks_dir) / "some_masks" / "1.0.0", folder)
    content = (folder / file).read_text()
    (folder / file).unlink()
    if share:
        (folder / file).write_text(content[: int(share * len(content))])

    with pytest.raises(
        schema.DataError, match=rf"^{folder} is no whole .* \(.+\); copy all of "
    ):
        open_masks(str(tmp_path), "gray")


def test_names_of_labels_are_those_of_the_feature(masks_dir):
    assert open_masks(masks_dir, "gray").info.class_names == ("x", "y", "z")
    assert open_masks(masks_dir, "deep").info is None


def test_colored_mask_without_colors_is_refused_with_the_remedy(masks_dir):
    with pytest.raises(
        schema.DataError, match="the mask: it is coloured .*--label_col"
    ):
        store.open_store(
            open_masks(masks_dir, "colored"), preprocessing.Preprocessor((2, 3), 3)
        )


@pytest.mark.parametrize("key", ["heights", "box", "nested"])
def test_feature_that_is_no_mask_is_refused_with_those_there_are(masks_dir, key):
    with pytest.raises(
        schema.DataError,
        match=rf"^--label_key={key}: .* name an Image of 8 or 16 bits, or a Tensor of "
        r"integers\. There are box \(BBoxFeature\), .*photo \(Image\), pixels \(Tensor",
    ):
        open_masks(masks_dir, key)


@pytest.mark.parametrize("key", ["pixels", "heights", "nested"])
def test_feature_that_is_no_image_is_refused(masks_dir, key):
    with pytest.raises(schema.DataError, match=rf"^--image_key={key}: .*uint8 pixels"):
        open_masks(masks_dir, "gray", image_key=key)


def open_pets(split="train", **kwargs):
    return tfds.TfdsSource("oxford_iiit_pet", split, data_dir=DATA_DIR, **kwargs)


def read(source, *args):
    return list(source.examples(*args).as_numpy_iterator())


@helpers.needs_pets
@pytest.mark.parametrize("split, num_examples", [("train", 300), ("test", 298)])
def test_length_is_the_number_of_examples(split, num_examples):
    source = open_pets(split)

    assert len(source) == num_examples
    assert source.examples().reduce(0, lambda count, _: count + 1) == num_examples


@helpers.needs_pets
def test_pets_have_their_classes_and_count_from_one():
    info = open_pets().info

    assert info.class_names == ("pet", "background", "border")
    assert info.label_offset == -1


@helpers.needs_pets
def test_name_holds_version_and_split():
    assert open_pets("test").name == "oxford_iiit_pet/4.0.0/test"


@helpers.needs_pets
def test_examples_are_named_after_their_files():
    names = [example["name"] for example in read(open_pets(), 0, 3)]

    assert names == [b"Bengal_149.jpg", b"Bengal_182.jpg", b"american_bulldog_182.jpg"]


@helpers.needs_pets
def test_examples_are_named_after_their_record_without_files(monkeypatch):
    source = open_pets()
    monkeypatch.delitem(source._builder.info.features._feature_dict, "file_name")

    (example,) = read(source, 0, 1)

    assert example["name"] == b"oxford_iiit_pet-train.tfrecord-00000-of-00001__0"


@helpers.needs_pets
def test_images_and_masks_stay_encoded():
    (example,) = read(open_pets(), 0, 1)

    assert example.keys() == {"image", "label", "name"}
    assert example["image"].startswith(b"\xff\xd8\xff")  # JPEG
    assert example["label"].startswith(b"\x89PNG")


@helpers.needs_pets
def test_order_is_the_same_each_time():
    assert read(open_pets()) == read(open_pets())


@helpers.needs_pets
@pytest.mark.parametrize("start, stop", [(0, 3), (7, 9), (17, None), (19, 20)])
def test_slice_is_that_of_the_full_pass(start, stop):
    source = open_pets("train[:20]")

    assert read(source, start, stop) == read(source)[start:stop]


@helpers.needs_pets
def test_split_language_is_understood():
    source = open_pets("train[10:14]")

    assert len(source) == 4
    assert read(source) == read(open_pets(), 10, 14)


@helpers.needs_pets
def test_a_split_of_less_than_nothing_is_refused():
    with pytest.raises(schema.DataError, match=r"\[80%:20%\] holds no example; name"):
        open_pets("train[80%:20%]")


@helpers.needs_pets
def test_fingerprints_tell_splits_and_features_apart():
    sources = [
        open_pets(),
        open_pets("test"),
        open_pets("train[:10]"),
        open_pets(image_key="segmentation_mask"),
        open_pets(label_key="image"),
    ]

    assert len({source.fingerprint for source in sources}) == len(sources)
    assert open_pets().fingerprint == sources[0].fingerprint


@helpers.needs_pets
def test_preprocessed_trimaps_hold_all_three_classes():
    preprocessor = preprocessing.Preprocessor((64, 64), 3, label_offset=-1)

    examples = store.open_store(open_pets("train[:8]"), preprocessor)

    np.testing.assert_array_equal(np.unique(examples.labels), [0, 1, 2])


@helpers.needs_pets
def test_without_offset_the_trimaps_are_refused():
    preprocessor = preprocessing.Preprocessor((64, 64), 3)

    with pytest.raises(
        schema.DataError,
        match=r"4.0.0/train, example 0 \(Bengal_149.jpg\): the mask holds the values "
        "1, 2, 3; with --label_offset=0 .* --mode=doctor looks at all masks",
    ):
        store.open_store(open_pets(), preprocessor)


@helpers.needs_pets
def test_streaming_is_refused_with_the_remedy():
    preprocessor = preprocessing.Preprocessor((64, 64), 3, label_offset=-1)

    with pytest.raises(
        schema.DataError,
        match=r"^--cache=none: oxford_iiit_pet/4.0.0/train can .*; use --cache=disk\.$",
    ):
        streaming.StreamingStore(open_pets(), preprocessor)


def _open_role(is_training):
    request = registry.SplitRequest(
        split="", is_training=is_training, image_size=(64, 64), data_dir=DATA_DIR
    )
    return registry.open_source("tfds:oxford_iiit_pet", request)


@helpers.needs_pets
@pytest.mark.parametrize("is_training, split", [(True, "train"), (False, "test")])
def test_each_role_has_a_split(is_training, split):
    source = _open_role(is_training)

    assert source.name == f"oxford_iiit_pet/4.0.0/{split}"


@helpers.needs_pets
@pytest.mark.parametrize(
    "is_training, message",
    [
        (True, r"no split named train; name one of half with --train_split"),
        (False, r"named validation or test; name one of half with --eval_split"),
    ],
)
def test_missing_role_is_refused_with_the_splits_there_are(
    monkeypatch, is_training, message
):
    builder = tfds._open_builder("oxford_iiit_pet", DATA_DIR)
    monkeypatch.setattr(
        type(builder.info), "splits", {"half": builder.info.splits["train"]}
    )

    with pytest.raises(schema.DataError, match=message):
        _open_role(is_training)


@helpers.needs_pets
@pytest.mark.parametrize("name", ["no_such_pet", "oxford_iiit_pet:9.9.9"])
def test_unknown_data_set_is_refused(name):
    with pytest.raises(
        schema.DataError,
        match=rf"--dataset=tfds:{name}: TFDS knows no such data set or version",
    ):
        tfds.TfdsSource(name, "train", data_dir=DATA_DIR)


@helpers.needs_pets
@pytest.mark.parametrize("split", ["valid", "train[:x]"])
def test_unknown_split_is_refused_with_the_known_ones(split):
    with pytest.raises(
        schema.DataError,
        match=r"has no split '.*' \(.+\); it has train \(of size \d+\), test \(of",
    ):
        open_pets(split)


@pytest.mark.parametrize(
    "split, reason",
    [
        ("train[:5000]", r"Requested slice \[:5000\] incompatible with 1 examples"),
        ("train[:x%]", ".+"),
        ("train[:50", ".+"),
        ("valid", "Unknown split .*valid.*"),
    ],
)
def test_a_part_that_a_split_does_not_have_is_refused_with_the_reason(
    masks_dir, split, reason
):
    with pytest.raises(
        schema.DataError,
        match=rf"some_masks/1.0.0 has no split '.*' \({reason}\); it has train "
        r"\(of size 1\)\.$",
    ):
        tfds.TfdsSource("some_masks", split, data_dir=masks_dir, image_key="photo")


@helpers.needs_pets
@pytest.mark.parametrize("flag", ["image_key", "label_key"])
def test_unknown_feature_is_refused_with_the_known_ones(flag):
    with pytest.raises(
        schema.DataError,
        match=rf"--{flag}=mask: .* it has .*image \(Image\), .*segmentation_mask",
    ):
        open_pets(**{flag: "mask"})


@helpers.needs_pets
def test_data_set_that_cannot_be_downloaded_is_refused(tmp_path, monkeypatch):
    def download(self):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(
        tensorflow_datasets.core.DatasetBuilder, "download_and_prepare", download
    )

    with pytest.raises(
        schema.DataError,
        match=rf"--data_dir={tmp_path} holds no prepared oxford_iiit_pet.*"
        r"ConnectionError: no route to host.*holds oxford_iiit_pet/4.0.0, or run "
        r"`tfds build oxford_iiit_pet`",
    ):
        tfds.TfdsSource("oxford_iiit_pet", "train", data_dir=str(tmp_path))
