"""The pages of docs/: generated ones are up to date, and their code does as told."""

import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.documents import pages
from tests.documents import settings as settings_page

_PACKAGES = ("data", "models", "trainer")


def test_the_page_of_settings_is_up_to_date():
    assert settings_page.PATH.read_text("utf-8") == settings_page.write_page(), (
        f"docs/settings.md is out of date; run {settings_page.COMMAND}"
    )


@pytest.mark.parametrize("path", pages.paths(), ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = "".join(pages.split_blocks(path.read_text("utf-8"))[0])
    text = re.sub(r"`[^`]*`", "", text)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        file, _, part = target.partition("#")
        page = path.parent / file if file else path
        assert page.exists(), target
        if part:
            titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
            names = {
                re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles
            }
            assert part in names, target


def test_every_page_is_linked_from_the_readme():
    linked = set(re.findall(r"\(docs/(\w+\.md)\)", pages.read("README.md")))
    assert linked == {path.name for path in pages.paths()[1:]}


def test_the_model_of_scaling_prints_the_rows_of_the_table(capsys):
    text = pages.read("scaling.md")
    (program,) = pages.code_blocks(text)
    exec(program, {})
    assert capsys.readouterr().out in text


def _insert(root: pathlib.Path, before: str, path: str, code: str) -> None:
    """Puts a block of code where the text above it says."""
    file = root / path
    registry = re.search(rf"`([A-Z]+)`\s+in\s+`{re.escape(path)}`[^`]*\Z", before)
    if not registry:
        assert not file.exists()
        file.write_text(code, "utf-8")
        return
    head, start, rest = file.read_text("utf-8").partition(f"\n{registry[1]} = {{\n")
    assert start, f"no {registry[1]} in {path}"
    members, end, tail = rest.partition("\n}\n")
    file.write_text(f"{head}{start}{members}\n{code.rstrip()}{end}{tail}", "utf-8")


def _follow(page: str, root: pathlib.Path) -> int:
    """Does what a page says in a copy of this package; returns how many blocks."""
    for package in _PACKAGES:
        shutil.copytree(
            pages.ROOT / package,
            root / package,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    between, blocks = pages.split_blocks(pages.read(page))
    named = pages.named_blocks(pages.read(page))
    assert [code for _, code in named] == [code for _, code in blocks]
    for before, (path, code) in zip(between, named, strict=False):
        _insert(root, before, path, code)
    return len(named)


def test_parts_that_are_added_as_the_page_says_train_together(tmp_path):
    root, data = tmp_path / "copy", tmp_path / "arrays"
    assert _follow("extending.md", root) == 12
    data.mkdir()
    random = np.random.default_rng(0)
    for split, number in (("train", 4), ("val", 2)):
        labels = np.tile(np.arange(32) // 16, (number, 32, 1)).astype(np.uint8)
        images = random.integers(0, 256, (number, 32, 32, 3)).astype(np.uint8)
        np.savez(data / f"{split}.npz", images=images, labels=labels)
    result = subprocess.run(
        [
            *(sys.executable, "-m", "trainer.main"),
            f"--dataset=arrays:{data}",
            "--num_classes=2",
            "--image_size=32",
            "--encoder=mobilenet",
            "--encoder_weights=none",
            "--nofreeze_encoder",
            "--decoder=tiny",
            "--decoder_filters=8",
            "--loss=ce+0.5*poly",
            "--metrics=present",
            "--random_solarize=1",
            "--batch_size=2",
            "--train_epochs=0",
            "--train_steps=2",
            "--warmup_steps=1",
            f"--model_dir={tmp_path / 'run'}",
        ],
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "classes found" in result.stdout
    curves = (tmp_path / "run" / "metrics.jsonl").read_text("utf-8")
    assert "found_classes" in curves and "poly" in curves
