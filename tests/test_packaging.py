"""What `pip install` brings is whole, and runs outside the repository."""

import importlib.metadata
import pathlib
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from PIL import Image

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PACKAGES = ("data", "models", "trainer")
_FOLDERS = (*_PACKAGES, "docs", "launch", "tests", ".ci")
_BUILD = """
import sys
from setuptools import build_meta
getattr(build_meta, "build_" + sys.argv[1])(sys.argv[2])
"""
"""As pip does with `--no-build-isolation`, in a second instead of five."""

_START = "import segloop; segloop.run()"
"""What the script `segloop` holds."""


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras, and it takes 0.2 s."""


def _build(kind: str, source: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Makes a distribution of a source tree."""
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, kind, str(folder)],
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module", name="sdist")
def _sdist(tmp_path_factory):
    """Returns the unpacked source distribution of this repository."""
    copy = tmp_path_factory.mktemp("source")
    for path in filter(pathlib.Path.is_file, _ROOT.iterdir()):
        shutil.copy(path, copy)
    for name in _FOLDERS:  # Not `build/`, which would be taken as it is.
        shutil.copytree(_ROOT / name, copy / name)
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(_build("sdist", copy, tmp_path_factory.mktemp("sdist"))) as file:
        file.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


@pytest.fixture(scope="module", name="wheel")
def _wheel(sdist, tmp_path_factory):
    """Returns the wheel that is made of the source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(_build("wheel", sdist, tmp_path_factory.mktemp("w"))) as file:
        file.extractall(folder)
    return folder


def _list_files(root: pathlib.Path, *folders: str) -> set[str]:
    return {
        str(path.relative_to(root))
        for folder in folders
        for path in (root / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_source_distribution_holds_what_the_tests_read(sdist):
    assert _list_files(_ROOT, *_FOLDERS) == _list_files(sdist, *_FOLDERS)
    names = ("LICENSE", "README.md", "pyproject.toml", "segloop.py", "setup.py")
    assert {path.name for path in sdist.iterdir()} >= {*names, ".dockerignore"}


def test_wheel_holds_the_packages_the_flagfiles_and_nothing_else(wheel):
    (info,) = wheel.glob("*.dist-info")
    flagfiles = {
        f"trainer/flagfiles/{path.name}"
        for path in (_ROOT / "launch" / "flagfiles").iterdir()
    }
    assert len(flagfiles) >= 3
    found = _list_files(wheel, "") - _list_files(wheel, info.name)
    assert found == _list_files(_ROOT, *_PACKAGES) | flagfiles | {"segloop.py"}
    scripts = (info / "entry_points.txt").read_text()
    assert scripts.strip() == "[console_scripts]\nsegloop = segloop:run"
    assert list(info.rglob("LICENSE"))


def _run(program, *arguments, cwd, path):
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(map(str, path))},
        capture_output=True,
        text=True,
    )


_TRAIN_AND_PREDICT = """
from trainer import main
run = "--model_dir=runs/quickstart"
main.main([
    "--flagfile=quickstart.flags", "--mode=train", "--image_size=32", "--batch_size=4",
    "--train_epochs=0", "--train_steps=2", "--steps_per_loop=2", "--warmup_steps=1",
])
main.main(["--mode=predict", run, "--input=photos", "--output=masks"])
"""


def test_installed_program_trains_and_predicts_in_another_folder(wheel, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "photos" / "one.png")
    done = _run(["-c", _TRAIN_AND_PREDICT], cwd=tmp_path, path=[wheel])
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "masks" / "labels" / "one.png").size == (40, 30)
    assert {path.name for path in tmp_path.iterdir()} == {"masks", "photos", "runs"}


def test_installed_program_prints_its_help(wheel, tmp_path):
    done = _run(["-c", _START], "--help", cwd=tmp_path, path=[wheel])
    assert (done.returncode, done.stderr) == (0, "")
    assert "--train_steps" in done.stdout and "quickstart.flags" in done.stdout


def test_installed_program_tells_its_version(wheel, tmp_path):
    done = _run(["-c", _START], "--version", cwd=tmp_path, path=[wheel])
    assert (done.returncode, done.stderr) == (0, "")
    versions = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert versions["segloop"] == "0.1.0"
    assert versions["python"] == platform.python_version()
    assert versions["keras"] == importlib.metadata.version("keras")


def _refusal(program, *, cwd, path) -> str:
    """Runs a program that another project's package keeps from starting."""
    done = _run(program, "--help", cwd=cwd, path=path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("name", _PACKAGES)
def test_package_of_another_project_in_front_is_refused(name, tmp_path):
    other = tmp_path / "other" / name / "__init__.py"
    other.parent.mkdir(parents=True)
    other.touch()
    path = [tmp_path / "other", _ROOT]
    line = _refusal(["-c", _START], cwd=tmp_path, path=path)
    assert line == (
        f"Error: segloop's package {name} ({_ROOT / name}) is hidden by another module "
        f"of that name, {other}; take it out of PYTHONPATH, or install segloop into a "
        "virtual environment of its own."
    )
    if name != "trainer":  # That would be started instead.
        program = ["-m", "trainer.main"]
        assert _refusal(program, cwd=tmp_path, path=path) == line


def test_module_in_the_working_folder_is_refused_with_a_remedy_that_helps(tmp_path):
    other = tmp_path / "models.py"
    other.touch()
    line = _refusal(["-m", "trainer.main"], cwd=tmp_path, path=[_ROOT])
    assert f"hidden by another module of that name, {other}; start with `seg" in line
    # A script's own folder is in front, not the working one.
    script = tmp_path / "bin" / "segloop"
    script.parent.mkdir()
    script.write_text(_START)
    done = _run([str(script)], "--help", cwd=tmp_path, path=[_ROOT])
    assert (done.returncode, done.stderr) == (0, "")


def test_library_refuses_them_too(tmp_path):
    (tmp_path / "data.py").touch()
    program = ["-c", "import trainer; trainer.load_run"]
    done = _run(program, cwd=tmp_path, path=[_ROOT])
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: segloop's package data (")


_EDITABLE = """
import importlib.util, runpy, sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name in {names}:
            folder = {root!r} + "/" + name
            return importlib.util.spec_from_file_location(
                name, folder + "/__init__.py", submodule_search_locations=[folder]
            )
sys.meta_path.append(Finder)
sys.argv[1:] = ["--help"]
runpy.run_module("trainer.main", run_name="__main__", alter_sys=True)
"""
"""An editable installation: Python asks its finder last."""


@pytest.mark.parametrize("is_editable", [False, True])
def test_mere_folders_of_the_same_names_do_no_harm(is_editable, tmp_path):
    for name in ("data", "models", "segloop"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "photo.png").touch()
    if is_editable:
        program = ["-c", _EDITABLE.format(names=_PACKAGES, root=str(_ROOT))]
        done = _run(program, cwd=tmp_path, path=[])
    else:
        done = _run(["-m", "trainer.main"], "--help", cwd=tmp_path, path=[_ROOT])
    assert (done.returncode, done.stderr) == (0, "")
    assert "--train_steps" in done.stdout


@pytest.mark.parametrize("is_there", [False, True])
def test_package_that_was_installed_over_ours_is_refused(is_there, tmp_path):
    shutil.copy(_ROOT / "segloop.py", tmp_path)
    for name in _PACKAGES:
        (tmp_path / name).mkdir()
        shutil.copy(_ROOT / name / "__init__.py", tmp_path / name)
    shutil.copy(_ROOT / "trainer" / "namesakes.py", tmp_path / "trainer")
    first = tmp_path / "models" / "__init__.py"
    first.write_text('"""Somebody else\'s."""')
    if not is_there:
        first.unlink()
    line = _refusal(["-c", _START], cwd=tmp_path / "trainer", path=[tmp_path])
    assert line == (
        f"Error: segloop's package models is not whole: {first} is missing or of "
        "another project, which also has a package models; install segloop again, into "
        "a virtual environment of its own."
    )
