"""Halves of a split: every example in one of them, for good."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf

from data import schema
from data.sources import halves, synthetic
from tests import helpers


class _Records:
    """A source whose examples can only be read in a row."""

    name, info, fingerprint = "records", None, "7"

    def __init__(self, count=20):
        self._count = count

    def __len__(self):
        return self._count

    def examples(self, start=0, stop=None):
        stop = self._count if stop is None else stop
        ids = tf.data.Dataset.range(start, stop)
        return ids.map(lambda index: {"name": tf.strings.as_string(index)})


def _names(source, *limits):
    return [e["name"].decode() for e in source.examples(*limits).as_numpy_iterator()]


def _open(kind, folder):
    if kind == "records":
        return _Records()
    if kind == "files":
        return helpers.FileSource(folder, 12)
    return synthetic.SyntheticSource("train", num_examples=12, size=8)


@pytest.mark.parametrize("kind", ["records", "files", "drawn"])
def test_each_example_is_in_one_half_in_its_order(kind, tmp_path):
    whole = _open(kind, tmp_path)
    parts = [halves.HalfSource(whole, half) for half in range(2)]
    names = [_names(part) for part in parts]
    assert [len(part) for part in parts] == [len(part) for part in names]
    assert min(map(len, names)) > 2
    everything = _names(whole)
    which = halves.find_halves(whole)
    for half in range(2):
        assert names[half] == list(np.array(everything)[which == half])
        assert _names(parts[half], 1, 3) == names[half][1:3]
        assert _names(parts[half], 2, 2) == []


def test_a_half_of_files_reads_any_example(tmp_path):
    whole = helpers.FileSource(tmp_path, 12)
    half = halves.HalfSource(whole, 1)
    assert isinstance(half, schema.RandomAccessSource)
    assert not isinstance(halves.HalfSource(_Records(), 1), schema.RandomAccessSource)
    loaded = [half.load(tf.constant(n, tf.int64))["name"].numpy() for n in range(2)]
    assert [name.decode() for name in loaded] == _names(half)[:2]


def test_names_decide_where_they_are_known():
    source = _Records(3)
    source.names = ("b.jpg", "a.jpg", "\udcff.jpg")
    expected = [
        hashlib.sha256(name).digest()[0] % 2
        for name in (b"b.jpg", b"a.jpg", b"\xff.jpg")
    ]
    np.testing.assert_array_equal(halves.find_halves(source), expected)
    source.names = source.names[1:]
    np.testing.assert_array_equal(halves.find_halves(source), expected[1:])


def test_the_halves_of_a_split_differ_in_name_and_fingerprint():
    parts = [halves.HalfSource(_Records(), half) for half in range(2)]
    assert parts[0].name == "records/half-0"
    assert len({part.fingerprint for part in parts} | {"7"}) == 3


def test_a_half_without_an_example_is_said():
    empty = int(1 - halves.find_halves(_Records(1))[0])
    with pytest.raises(schema.DataError, match=f"--train_half={empty}: none of the 1"):
        halves.HalfSource(_Records(1), empty)
