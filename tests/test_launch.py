"""Scripts and flagfiles do what their comments say."""

import pathlib
import re
import subprocess

import pytest

from trainer import flags

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_SCRIPTS = sorted((_ROOT / "launch").glob("*.sh"))
_FLAGFILES = sorted((_ROOT / "launch" / "flagfiles").glob("*.flags"))


@pytest.mark.parametrize("path", [*_SCRIPTS, _ROOT / ".ci/run"], ids=lambda p: p.name)
def test_script_parses(path):
    subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.parametrize("path", _SCRIPTS, ids=lambda p: p.name)
def test_script_holds_no_hyperparameter(path):
    # Those belong into flagfiles; test.sh shortens its run on the command line.
    assert "--learning_rate" not in path.read_text()


@pytest.mark.parametrize("path", _FLAGFILES, ids=lambda p: p.name)
def test_flagfile_makes_a_config(path):
    assert flags.read_config(["--model_dir=x", f"--flagfile={path}"]).remarks == []


@pytest.mark.parametrize("path", _FLAGFILES, ids=lambda p: p.name)
def test_flagfile_says_command_hardware_time_and_result(path):
    head = path.read_text().split("\n--")[0]
    assert f"--flagfile=launch/flagfiles/{path.name}" in head
    assert "Hardware:" in head and "Time:" in head
    assert re.search(r"Result: .*0\.\d|figure is .*0\.\d", head, re.DOTALL)


def test_the_interpreter_is_checked_before_anything_is_made(tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/usr/bin/env bash\necho Python 3.8\nexit 1\n")
    fake.chmod(0o755)
    result = subprocess.run(
        ["bash", str(_ROOT / "launch/install.sh")],
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(fake), "VENV": str(tmp_path / "v")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "segloop needs Python 3.11 to 3.13" in result.stderr
    assert not (tmp_path / "v").exists()


def _pins(name: str) -> dict[str, str]:
    """Returns the versions of a file of constraints."""
    text = (_ROOT / "launch" / name).read_text()
    return dict(re.findall(r"^([\w-]+)==(\S+)$", text, re.MULTILINE))


def _floors() -> dict[str, str]:
    """Returns the lowest versions that setup.py allows."""
    text = (_ROOT / "setup.py").read_text()
    return dict(re.findall(r'"([\w-]+)(?:\[[\w-]+\])?>=([\w.]+)', text))


def test_every_dependency_has_a_tested_version():
    assert len(_floors()) > 10
    assert _floors().keys() <= _pins("constraints.txt").keys()


def test_lowest_versions_are_those_that_tests_run_with():
    assert _floors() == _pins("constraints-lowest.txt")


def test_lowest_python_is_the_same_everywhere():
    setup, install, readme, style = (
        (_ROOT / name).read_text()
        for name in ("setup.py", "launch/install.sh", "README.md", "pyproject.toml")
    )
    minor = re.search(r'python_requires=">=3\.(\d+)"', setup)[1]
    assert f"(3, {minor}) <= sys.version_info" in install
    assert f"Python 3.{minor} to 3.13" in install and f"3.{minor} to 3.13" in readme
    assert f'target-version = "py3{minor}"' in style


def test_readme_names_the_lowest_tensorflow():
    named = re.search(
        r"TensorFlow (\d+\.\d+) or newer", (_ROOT / "README.md").read_text()
    )
    assert _pins("constraints-lowest.txt")["tensorflow"].startswith(named[1])


def test_a_cross_section_is_run_with_the_lowest_versions():
    text = (_ROOT / "launch" / "test.sh").read_text()
    assert "CONSTRAINTS=launch/constraints-lowest.txt" in text
    assert "-m cross_section" in text
    marked = sum(
        path.read_text().count("pytest.mark.cross_section")
        for path in (_ROOT / "tests").glob("test_*.py")
        if path != pathlib.Path(__file__)
    )
    assert marked > 10
