"""Names and kinds of files that nobody expects: read, or refused at once."""

import os

import pytest

from data import schema
from data.sources import folder
from data.stores import reading
from tests import test_folder

find, write, paths_of = test_folder.find, test_folder.write, test_folder.paths_of

ODD = ["a[1]", "a1", "ä ö", "new\nline", "s{split}", "q?*", "b\\c", "caf\udce9", "-x"]


@pytest.fixture(name="root")
def _root(tmp_path):
    root = tmp_path / "set [v2]*?{split}\\\n"
    test_folder.write_undivided(root, "ab")
    for kind, path in (("images", "a.jpg"), ("masks", "a.png")):
        content = (root / kind / path).read_bytes()
        for stem in ODD:
            (root / kind / f"{stem}{path[1:]}").write_bytes(content)
    return root


@pytest.mark.parametrize(
    "patterns",
    [{}, {"image_pattern": "images/*.jpg", "mask_pattern": "masks/*.png"}],
)
def test_odd_names_are_read(root, patterns):
    source = folder.FolderSource(str(root), "all", **patterns)

    assert len(source) == len(ODD) + 2
    names = [os.fsdecode(e["name"]) for e in test_folder.read(source)]
    assert sorted(names) == sorted(f"images/{s}.jpg" for s in [*ODD, "a", "b"])


def test_names_are_shown_in_one_line_of_what_can_be_printed():
    example = {"name": b"caf\xe9\n.jpg", "label_name": "ä.png".encode()}
    assert reading.name_files(example) == (r"caf\xe9\n.jpg", "ä.png")
    assert reading.name_as_text(example["name"]) == r"caf\xe9\n.jpg"


def test_absolute_patterns_through_odd_folders(root):
    import glob

    start = glob.escape(str(root))
    found = find(
        root.parent,
        "all",
        image_pattern=f"{start}/images/*.jpg".replace("{split}", "?split?"),
        mask_pattern=f"{start}/masks/*.png".replace("{split}", "?split?"),
    )

    assert len(paths_of(found)) == len(ODD) + 2


@pytest.mark.parametrize("layout", ["folders", "patterns", "list"])
def test_what_is_no_file_is_refused_and_never_opened(tmp_path, layout):
    """To open a pipe that nobody writes to is to wait for ever."""
    test_folder.write_undivided(tmp_path, "abcdef")
    os.remove(tmp_path / "images/c.jpg")
    os.mkfifo(tmp_path / "images/c.jpg")
    os.mkdir(tmp_path / "masks/d.d")
    arguments = {"train_fraction": 0.9}
    if layout == "patterns":
        arguments |= {"image_pattern": "images/*", "mask_pattern": "masks/*"}
    if layout == "list":
        test_folder.write_list(tmp_path, "train.txt", *"abc")
        arguments = {}

    with pytest.raises(schema.DataError, match="1 name of what is no file .*c.jpg"):
        folder.FolderSource(str(tmp_path), **arguments)
    source = folder.FolderSource(str(tmp_path), **arguments, allow_problems=True)

    assert b"images/c.jpg" not in [e["name"] for e in test_folder.read(source)]


def test_list_that_is_no_file_is_refused(tmp_path):
    test_folder.write_undivided(tmp_path, "a")
    os.mkfifo(tmp_path / "train.txt")

    with pytest.raises(schema.DataError, match="train.txt is no file"):
        find(tmp_path)


@pytest.mark.parametrize("name", ["loop.jpg", "loop"])
def test_link_to_itself_ends_no_search(tmp_path, name):
    write(tmp_path, "train/images/a.jpg", "train/masks/a.png")
    (tmp_path / "train/images" / name).symlink_to(name)

    found = find(tmp_path)

    assert [pair.key for pair in found.pairs] == ["a"]
    files = [path for problem in found.problems for path in problem.files]
    assert files == (["train/images/loop.jpg"] if name.endswith("jpg") else [])


def test_source_without_a_pair_can_be_read(tmp_path):
    write(tmp_path, "train/images/a.jpg", "train/masks/b.png")

    source = folder.FolderSource(str(tmp_path), allow_problems=True)

    assert (len(source), test_folder.read(source)) == (0, [])
