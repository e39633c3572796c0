"""Images of any channels and bits, from preprocessing to the batches of a step."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from data import pipeline, schema
from data.preparing import image_formats, preprocessing
from data.stores import device_store, fingerprints, statistics, store, streaming
from tests import helpers, test_image_decoding

_BANDS = schema.ImageFormat(5, (0, 65535))
_PREPROCESSOR = preprocessing.Preprocessor((8, 16), 3, image_format=_BANDS)


class BandSource:
    """A source of TIFF files of five bands of 16 bits, read at random."""

    name = "bands"
    info = schema.DatasetInfo(("a", "b", "c"))
    fingerprint = "bands"

    def __init__(self, size=(8, 16), num_examples=6):
        random = np.random.default_rng(2)
        shape = (num_examples, *size)
        self.images = random.integers(0, 65536, (*shape, 5), np.uint16)
        self.labels = random.integers(0, 3, (*shape, 1), np.uint8)
        self._files = [
            [test_image_decoding.make_tiff(image) for image in self.images],
            [tf.io.encode_png(label).numpy() for label in self.labels],
        ]

    def __len__(self):
        return len(self.images)

    def load(self, index):
        image, label = (tf.gather(files, index) for files in self._files)
        return {"image": image, "label": label, "name": tf.strings.as_string(index)}

    def examples(self, start=0, stop=None):
        ids = np.arange(len(self), dtype=np.int64)[start:stop]
        return tf.data.Dataset.from_tensor_slices(ids).map(self.load)


def _preprocess(source, preprocessor, index=0):
    (example,) = source.examples(index, index + 1).map(preprocessor)
    return example


def test_values_beyond_the_range_count_as_its_ends():
    source = BandSource()
    narrow = schema.ImageFormat(5, (1000, 4095))

    image = _preprocess(
        source, dataclasses.replace(_PREPROCESSOR, image_format=narrow)
    )["image"]

    np.testing.assert_array_equal(image, source.images[0].clip(1000, 4095))


def test_resizing_keeps_16_bits_and_fills_up_with_the_middle_of_the_range():
    source = BandSource(size=(16, 16))
    preprocessor = dataclasses.replace(_PREPROCESSOR, resize="pad")

    image = _preprocess(source, preprocessor)["image"].numpy()

    expected = tf.image.resize(source.images[0], (8, 8), antialias=True)
    np.testing.assert_array_equal(image[:, 4:12], np.rint(expected))
    np.testing.assert_array_equal(image[:, :4], 32768)
    assert image.dtype == np.uint16


def test_a_bad_example_is_blank_in_the_middle_of_the_range():
    source = BandSource()
    preprocessor = dataclasses.replace(_PREPROCESSOR, num_classes=2)

    example = _preprocess(source, preprocessor)

    assert example["problem"] == 1
    np.testing.assert_array_equal(example["image"], np.full((8, 16, 5), 32768))


def _open(kind, source, tmp_path):
    if kind == "none":
        return streaming.StreamingStore(source, _PREPROCESSOR)
    cache = "disk" if kind == "disk" else "memory"
    examples = store.open_store(
        source, _PREPROCESSOR, cache=cache, cache_dir=str(tmp_path)
    )
    if kind == "device":
        return device_store.place(examples, helpers.make_strategy(1))
    return examples


@pytest.mark.parametrize("kind", ["memory", "disk", "device", "none"])
def test_all_stores_give_the_pixels_of_the_files(kind, tmp_path):
    source = BandSource()
    examples = _open(kind, source, tmp_path)

    dataset = pipeline.make_eval_dataset(examples, global_batch_size=4)
    batches = [examples.fetch(batch) for batch in dataset]

    assert all(batch["image"].dtype == tf.uint16 for batch in batches)
    images = np.concatenate([batch["image"] for batch in batches])[:6]
    np.testing.assert_array_equal(images, source.images)
    np.testing.assert_array_equal(examples.read(np.arange(6))[0], source.images)


def test_files_of_16_bits_are_mapped_again_and_never_taken_for_others(tmp_path):
    source = BandSource()
    _open("disk", source, tmp_path)
    source.load = None  # Decoding again would need it.

    examples = _open("disk", source, tmp_path)

    np.testing.assert_array_equal(examples.images, source.images)
    others = dataclasses.replace(_PREPROCESSOR, image_format=schema.ImageFormat(5))
    made = {fingerprints.make_fingerprint(source, p) for p in (_PREPROCESSOR, others)}
    assert len(made) == 2


def test_blank_batches_are_like_those_to_come():
    (batch,) = pipeline.make_blank_dataset(2, (8, 16), _BANDS).take(1)

    assert batch["image"].shape == (2, 8, 16, 5)
    assert batch["image"].dtype == tf.uint16


def test_statistics_are_those_of_all_pixels(tmp_path):
    source = BandSource(num_examples=70)  # More than a chunk.
    source.images[..., 3] = 7
    examples = store.Store("bands", source.images, source.labels[..., 0], (), "")
    object.__setattr__(examples, "names", ("",) * 70)

    mean, deviation = statistics.measure_channels(examples)

    axes = (0, 1, 2)
    np.testing.assert_allclose(mean, source.images.mean(axes), rtol=1e-12)
    expected = source.images.std(axes)
    expected[3] = 1  # Of a channel that is the same everywhere.
    np.testing.assert_allclose(deviation, expected, rtol=1e-12)


def test_statistics_of_what_streams_are_those_of_a_sample(monkeypatch):
    source = BandSource(num_examples=9)
    examples = streaming.StreamingStore(source, _PREPROCESSOR)
    monkeypatch.setattr(statistics, "_MAX_STREAMED", 3)

    mean, _ = statistics.measure_channels(examples)

    np.testing.assert_allclose(mean, source.images[[0, 4, 8]].mean((0, 1, 2)))


def test_the_range_is_that_of_the_bits_of_the_files(tmp_path, caplog):
    bands, files = BandSource(), helpers.FileSource(tmp_path, 2)
    mixed = BandSource()
    mixed._files[0][:3] = [
        test_image_decoding.make_tiff(image.astype(np.uint8)) for image in mixed.images
    ][:3]

    assert image_formats.find_range(bands) == (0, 65535)
    assert image_formats.find_range(files) == (0, 255)
    assert image_formats.find_range(mixed) == (0, 255)
    assert "of 6 images that were looked at, 3 have 16 bits" in caplog.text


def test_the_range_of_pixels_is_that_of_their_type():
    class Source:
        name = "pixels"

        def __init__(self, dtype):
            self._pixels = {"image": np.zeros((1, 2, 2, 3), dtype)}

        def __len__(self):
            return 1

        def examples(self, start=0, stop=None):
            return tf.data.Dataset.from_tensor_slices(self._pixels)

    assert image_formats.find_range(Source(np.uint8)) == (0, 255)
    assert image_formats.find_range(Source(np.uint16)) == (0, 65535)
