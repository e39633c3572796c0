"""Tests of reading TensorFlow Datasets, with a part of Oxford-IIIT Pet."""

import numpy as np
import pytest
import tensorflow_datasets

from data import preprocessing, schema, store, streaming
from data.sources import tfds
from tests import helpers

DATA_DIR = str(helpers.SHARED / "tfds")

pytestmark = helpers.needs_pets


def open_pets(split="train", **kwargs):
    return tfds.TfdsSource("oxford_iiit_pet", split, data_dir=DATA_DIR, **kwargs)


def read(source, *args):
    return list(source.examples(*args).as_numpy_iterator())


@pytest.mark.parametrize("split, num_examples", [("train", 300), ("test", 298)])
def test_length_is_the_number_of_examples(split, num_examples):
    source = open_pets(split)

    assert len(source) == num_examples
    assert source.examples().reduce(0, lambda count, _: count + 1) == num_examples


def test_pets_have_their_classes_and_count_from_one():
    info = open_pets().info

    assert info.class_names == ("pet", "background", "border")
    assert info.label_offset == -1


def test_name_holds_version_and_split():
    assert open_pets("test").name == "oxford_iiit_pet/4.0.0/test"


def test_examples_are_named_after_their_files():
    names = [example["name"] for example in read(open_pets(), 0, 3)]

    assert names == [b"Bengal_149.jpg", b"Bengal_182.jpg", b"american_bulldog_182.jpg"]


def test_examples_are_named_after_their_record_without_files(monkeypatch):
    source = open_pets()
    monkeypatch.delitem(source._builder.info.features._feature_dict, "file_name")

    (example,) = read(source, 0, 1)

    assert example["name"] == b"oxford_iiit_pet-train.tfrecord-00000-of-00001__0"


def test_images_and_masks_stay_encoded():
    (example,) = read(open_pets(), 0, 1)

    assert example.keys() == {"image", "label", "name"}
    assert example["image"].startswith(b"\xff\xd8\xff")  # JPEG
    assert example["label"].startswith(b"\x89PNG")


def test_order_is_the_same_each_time():
    assert read(open_pets()) == read(open_pets())


@pytest.mark.parametrize("start, stop", [(0, 3), (7, 9), (17, None), (19, 20)])
def test_slice_is_that_of_the_full_pass(start, stop):
    source = open_pets("train[:20]")

    assert read(source, start, stop) == read(source)[start:stop]


def test_split_language_is_understood():
    source = open_pets("train[10:14]")

    assert len(source) == 4
    assert read(source) == read(open_pets(), 10, 14)


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


def test_preprocessed_trimaps_hold_all_three_classes():
    preprocessor = preprocessing.Preprocessor((64, 64), 3, label_offset=-1)

    examples = store.open_store(open_pets("train[:8]"), preprocessor)

    np.testing.assert_array_equal(np.unique(examples.labels), [0, 1, 2])


def test_without_offset_the_trimaps_are_refused_with_the_remedy():
    preprocessor = preprocessing.Preprocessor((64, 64), 3)

    with pytest.raises(
        schema.DataError,
        match=r"4.0.0/train, example 0 \(Bengal_149.jpg\).*--label_offset=-1\?",
    ):
        store.open_store(open_pets(), preprocessor)


def test_streaming_is_refused_with_the_remedy():
    preprocessor = preprocessing.Preprocessor((64, 64), 3, label_offset=-1)

    with pytest.raises(
        schema.DataError,
        match=r"^--cache=none: oxford_iiit_pet/4.0.0/train can .*; use --cache=disk\.$",
    ):
        streaming.StreamingStore(open_pets(), preprocessor)


@pytest.mark.parametrize("is_training, split", [(True, "train"), (False, "test")])
def test_each_role_has_a_split(is_training, split):
    default = tfds.default_split("oxford_iiit_pet", DATA_DIR, is_training=is_training)

    assert default == split


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
        tfds.default_split("oxford_iiit_pet", DATA_DIR, is_training=is_training)


@pytest.mark.parametrize("name", ["no_such_pet", "oxford_iiit_pet:9.9.9"])
def test_unknown_data_set_is_refused(name):
    with pytest.raises(
        schema.DataError,
        match=rf"--dataset=tfds:{name}: TFDS knows no such data set or version",
    ):
        tfds.TfdsSource(name, "train", data_dir=DATA_DIR)


@pytest.mark.parametrize("split", ["valid", "train[:x]"])
def test_unknown_split_is_refused_with_the_known_ones(split):
    with pytest.raises(
        schema.DataError, match=r"has no split '.*'; it has train, test"
    ):
        open_pets(split)


@pytest.mark.parametrize("flag", ["image_key", "label_key"])
def test_unknown_feature_is_refused_with_the_known_ones(flag):
    with pytest.raises(
        schema.DataError,
        match=rf"--{flag}=mask: .* it has image \(Image\), .*segmentation_mask",
    ):
        open_pets(**{flag: "mask"})


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
