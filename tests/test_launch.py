"""Scripts and flagfiles do what their comments say."""

import pathlib
import re
import subprocess

import pytest

from trainer import config, flags

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
    assert "segloop needs Python 3.10 to 3.13" in result.stderr
    assert not (tmp_path / "v").exists()


def test_readme_names_only_flags_that_exist():
    known = set(config.fields_by_name()) | {"flagfile", "help", "logdir", "kills"}
    named = set(re.findall(r"--(?:no)?([a-z_]+)", (_ROOT / "README.md").read_text()))
    assert named <= known


def test_every_dependency_has_a_tested_version():
    wanted = re.findall(r'"([\w-]+)>=', (_ROOT / "setup.py").read_text())
    pinned = (_ROOT / "launch" / "constraints.txt").read_text()
    for name in set(wanted) - {"pip"}:
        assert re.search(rf"^{name}==", pinned, re.MULTILINE), name
