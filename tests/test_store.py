"""Tests of the decoded examples in RAM and on disk."""

import json
import os
import resource
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf

from data import schema
from data.preparing import preprocessing
from data.stores import disk_cache, file_locks, store
from tests import helpers

PREPROCESSOR = preprocessing.Preprocessor((4, 4), num_classes=3)


class ListSource:
    """A source of encoded images that counts how often it is read."""

    info = None

    def __init__(self, images, labels, fingerprint="first"):
        self.name = "list:2.0/train"
        self.fingerprint = fingerprint
        self.num_reads = 0
        self._images, self._labels = images, labels

    def __len__(self):
        return len(self._images)

    def examples(self, start=0, stop=None):
        self.num_reads += 1
        names = [f"picture_{i}.jpg" for i in range(len(self))]
        example = {"image": self._images, "label": self._labels, "name": names}
        example = {key: values[start:stop] for key, values in example.items()}
        return tf.data.Dataset.from_tensor_slices(example)


def make_source(num_examples=3, **kwargs):
    random = np.random.default_rng(3)
    images = random.integers(0, 256, (num_examples, 6, 8, 3), np.uint8)
    labels = random.integers(0, 3, (num_examples, 6, 8, 1), np.uint8)
    return ListSource(
        [tf.io.encode_jpeg(image).numpy() for image in images],
        [tf.io.encode_png(label).numpy() for label in labels],
        **kwargs,
    )


def make_source_with_truncated_image(index):
    source = make_source()
    source._images[index] = source._images[index][:-100]
    return source


def open_on_disk(source, folder, preprocessor=PREPROCESSOR):
    return store.open_store(source, preprocessor, cache="disk", cache_dir=str(folder))


def test_memory_holds_the_preprocessed_examples_in_order():
    source = make_source()

    examples = store.open_store(source, PREPROCESSOR)

    expected = list(source.examples().map(PREPROCESSOR).as_numpy_iterator())
    assert len(examples) == 3
    assert examples.names == ("picture_0.jpg", "picture_1.jpg", "picture_2.jpg")
    np.testing.assert_array_equal(examples.images, [e["image"] for e in expected])
    np.testing.assert_array_equal(examples.labels, [e["label"] for e in expected])


def test_disk_and_memory_hold_the_same(tmp_path):
    in_memory = store.open_store(make_source(), PREPROCESSOR)
    on_disk = open_on_disk(make_source(), tmp_path)

    np.testing.assert_array_equal(on_disk.images, in_memory.images)
    np.testing.assert_array_equal(on_disk.labels, in_memory.labels)
    assert on_disk.names == in_memory.names
    assert on_disk.fingerprint == in_memory.fingerprint


def test_long_names_are_cut_in_the_names_of_folders(tmp_path):
    """Of 255 bytes that a name may have, letters of Chinese take three each."""
    source = make_source()
    source.name = f"a:b/{'岸' * 80}"

    examples = open_on_disk(source, tmp_path)

    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    # 4 and 3 * 32 bytes.
    assert folder.name == f"a-b-{'岸' * 32}-{examples.fingerprint}"
    assert examples.name == source.name


def test_arrays_on_disk_are_mapped_and_cannot_be_changed(tmp_path):
    examples = open_on_disk(make_source(), tmp_path)

    for array in (examples.images, examples.labels):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable


def test_second_opening_reads_no_example(tmp_path):
    first = open_on_disk(make_source(), tmp_path)
    source = make_source()

    second = open_on_disk(source, tmp_path)

    assert source.num_reads == 0
    np.testing.assert_array_equal(second.images, first.images)


@pytest.mark.parametrize(
    "source, preprocessor",
    [
        (make_source(fingerprint="second"), PREPROCESSOR),
        (make_source(), preprocessing.Preprocessor((4, 6), num_classes=3)),
        (make_source(), preprocessing.Preprocessor((4, 4), num_classes=4)),
        (make_source(), preprocessing.Preprocessor((4, 4), 4, label_offset=1)),
        (make_source(), preprocessing.Preprocessor((4, 4), 3, ignore_label=0)),
    ],
    ids=["source", "image_size", "num_classes", "label_offset", "ignore_label"],
)
def test_whatever_changes_the_arrays_gets_a_folder_of_its_own(
    tmp_path, source, preprocessor
):
    first = open_on_disk(make_source(), tmp_path)

    second = open_on_disk(source, tmp_path, preprocessor)

    assert source.num_reads == 1
    assert second.fingerprint != first.fingerprint
    assert len(list(tmp_path.iterdir())) == 2


def test_folder_is_named_after_split_and_fingerprint(tmp_path):
    examples = open_on_disk(make_source(), tmp_path)

    (folder,) = tmp_path.iterdir()
    assert folder.name == f"list-2.0-train-{examples.fingerprint}"


def test_cache_is_in_the_users_cache_folder_if_none_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    open_on_disk(make_source(), "")

    assert len(list((tmp_path / "segloop").iterdir())) == 1


@pytest.mark.parametrize("cache_dir", ["", "~/cache"])
def test_a_user_without_a_home_is_asked_for_a_folder(cache_dir, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(schema.DataError, match="no place .*by --cache_dir") as e:
        open_on_disk(make_source(), cache_dir)

    assert e.value.kind == "cache_dir"


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_truncated_image_is_named(tmp_path, cache):
    source = make_source_with_truncated_image(1)

    with pytest.raises(
        schema.DataError,
        match=r"^list:2.0/train, example 1 \(picture_1.jpg\): the image: it cannot be "
        r"decoded \(",
    ):
        store.open_store(source, PREPROCESSOR, cache=cache, cache_dir=str(tmp_path))


def test_bad_mask_is_named_and_explained():
    source = make_source()
    source._labels[2] = tf.io.encode_png(np.full((6, 8, 1), 9, np.uint8)).numpy()

    with pytest.raises(
        schema.DataError, match=r"example 2 \(picture_2.jpg\): the mask holds the val"
    ):
        store.open_store(source, PREPROCESSOR)


def test_file_that_is_gone_is_named(tmp_path):
    source = helpers.FileSource(tmp_path)
    (tmp_path / "4.png").unlink()

    with pytest.raises(
        schema.DataError, match=rf"^files/.*, example 4: .*{tmp_path}/4.png; No such"
    ):
        store.open_store(source, PREPROCESSOR)


def test_failure_leaves_nothing_on_disk(tmp_path):
    with pytest.raises(schema.DataError, match="example 2"):
        open_on_disk(make_source_with_truncated_image(2), tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_success_leaves_no_partial_folder(tmp_path):
    open_on_disk(make_source(), tmp_path)

    (folder,) = tmp_path.iterdir()
    assert sorted(os.listdir(folder)) == ["examples.json", "images.npy", "labels.npy"]


def test_partial_folder_of_a_killed_run_is_no_obstacle(tmp_path):
    """In a container, a restarted run often has the process id of the killed one."""
    fingerprint = store.open_store(make_source(), PREPROCESSOR).fingerprint
    name = f"list-2.0-train-{fingerprint}.partial-{os.getpid()}"
    (tmp_path / name).mkdir()

    assert len(open_on_disk(make_source(), tmp_path)) == 3


def test_files_of_a_faster_process_are_taken(tmp_path):
    class OvertakenSource(ListSource):
        def examples(self, *args):
            open_on_disk(make_source(), tmp_path)
            return super().examples(*args)

    plain = make_source()
    source = OvertakenSource(plain._images, plain._labels)

    examples = open_on_disk(source, tmp_path)

    assert len(examples) == 3
    assert len(list(tmp_path.iterdir())) == 1


def _rewrite(folder, file, change):
    array = np.array(np.load(folder / file))
    np.save(folder / file, change(array))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "images.npy").unlink(),
        lambda folder: os.truncate(folder / "images.npy", 0),
        lambda folder: os.truncate(folder / "labels.npy", 150),
        lambda folder: os.truncate(folder / "examples.json", 20),
        lambda folder: (folder / "examples.json").write_text("[]"),
        lambda folder: _rewrite(folder, "images.npy", lambda a: a[:2]),
        lambda folder: _rewrite(folder, "images.npy", lambda a: a.astype(np.int8)),
        lambda folder: _rewrite(folder, "images.npy", lambda a: a ^ 1),
        lambda folder: _rewrite(folder, "labels.npy", lambda a: a * 0),
        lambda folder: _rewrite(folder, "labels.npy", lambda a: a * 0 + 9),
    ],
    ids=[
        "gone",
        "empty",
        "short",
        "half JSON",
        "other JSON",
        "length",
        "dtype",
        "image values",
        "label values",
        "no class",
    ],
)
def test_damaged_files_are_decoded_again_with_a_warning(tmp_path, damage, caplog):
    expected = np.array(open_on_disk(make_source(), tmp_path).images)
    (folder,) = tmp_path.iterdir()
    damage(folder)
    source = make_source()

    examples = open_on_disk(source, tmp_path)

    assert source.num_reads == 1
    assert "the cached examples are damaged (" in caplog.text
    np.testing.assert_array_equal(examples.images, expected)
    assert list(tmp_path.iterdir()) == [folder]
    assert open_on_disk(source, tmp_path) and source.num_reads == 1


def test_labels_without_a_class_are_found_in_files_without_checksums(tmp_path):
    """Earlier versions wrote none."""
    open_on_disk(make_source(), tmp_path)
    (folder,) = tmp_path.iterdir()
    description = json.loads((folder / "examples.json").read_text())
    del description["checksums"]
    (folder / "examples.json").write_text(json.dumps(description))
    source = make_source()
    open_on_disk(source, tmp_path)
    assert source.num_reads == 0

    _rewrite(folder, "labels.npy", lambda a: a * 0 + 9)

    open_on_disk(source, tmp_path)
    assert source.num_reads == 1


def test_a_cache_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(schema.DataError, match="^--cache_dir=.*/file: .*Not a d") as e:
        open_on_disk(make_source(), tmp_path / "file")

    assert e.value.kind == "cache_dir"


@pytest.mark.parametrize("is_counted", [True, False], ids=["early", "while writing"])
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, monkeypatch, is_counted):
    if is_counted:
        free = shutil.disk_usage(tmp_path)._replace(free=10)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(schema.DataError, match="no room for .*--cache_dir") as e:
            open_on_disk(make_source(200), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert e.value.kind == "cache_full"
    assert list(tmp_path.iterdir()) == []


def _begin_in_another_process(folder):
    """Leaves a partial folder, in the hands of a process that lives until told."""
    program = (
        "import pathlib, sys, time\n"
        "from data.stores import disk_cache\n"
        "def fill(put):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
        "disk_cache.write(pathlib.Path(sys.argv[1]) / 'other', 1, (4, 4), fill)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    return process


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(tmp_path):
    process = _begin_in_another_process(tmp_path)
    try:
        (partial,) = tmp_path.iterdir()
        open_on_disk(make_source(), tmp_path)
        assert partial.is_dir()
    finally:
        process.kill()
        process.communicate()

    open_on_disk(make_source(fingerprint="second"), tmp_path)

    assert not partial.exists()


def test_what_another_process_looks_at_as_it_is_begun_is_locked(tmp_path, monkeypatch):
    threads = []

    def look(root):
        (partial,) = root.iterdir()
        owner = (partial / "owner").open("w")
        assert file_locks.try_lock(owner.fileno())
        threads.append(threading.Timer(0.05, owner.close))
        threads[0].start()

    def fill(put):
        threads[0].join()
        (partial,) = tmp_path.iterdir()
        with (partial / "owner").open("r+") as owner:
            assert file_locks.try_lock(owner.fileno()) is False
        return (), ()

    monkeypatch.setattr(disk_cache, "_remove_abandoned", look)
    disk_cache.write(tmp_path / "split", 0, (4, 4), fill)
    assert (tmp_path / "split").is_dir()


def test_a_partial_folder_of_another_host_is_removed_once_it_is_old(tmp_path):
    partial = tmp_path / f"other.partial-{'0' * 32}"
    partial.mkdir()
    (partial / "owner").write_text("another host")
    open_on_disk(make_source(), tmp_path)
    assert partial.is_dir()
    for path in (partial / "owner", partial):
        os.utime(path, (0, 0))

    open_on_disk(make_source(fingerprint="second"), tmp_path)

    assert not partial.exists()
