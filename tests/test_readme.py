"""What the README and docs/ print works as printed: commands run, flags are there.

The commands are taken from the pages themselves, and shortened by flags that are
appended: what is typed counts before flagfiles, and the last of two counts.
"""

import importlib
import itertools
import pathlib
import re
import shlex
import sys

import numpy as np
import pytest

from data.sources import synthetic
from tests import shallow, test_doctor
from tests.documents import pages
from trainer import errors, flags, main
from trainer.settings import config, fields, modes

_ROOT = pages.ROOT
_TEXT = pages.read_all()
"""The README, and then all pages."""

_COMMANDS = (
    "python -m ",
    "bash ",
    "sbatch ",
    "kubectl ",
    "pip install ",
    "segloop --",
    "tensorboard ",
    "... --",
)
_PROGRAM = "python -m trainer.main "

_NOT_RUN = {
    "bash launch/quickstart.sh": "installs packages; launch/test.sh trains with its "
    "flagfile",
    "bash launch/install.sh gpu": "needs a network and a GPU; launch/test.sh installs "
    "by this script",
    "bash launch/test.sh": "installs packages, and runs this test",
    "bash launch/local.sh 2 --flagfile=...": "run by tests/test_cluster.py",
    "... --mode=evaluate --watch --model_dir=runs/tutorial": "run by "
    "tests/test_watch.py",
    "sbatch --nodes=2 launch/slurm.sbatch --flagfile=...": "run with stand-ins for "
    "Slurm's commands by tests/test_cluster.py",
    "kubectl apply -k launch/kubernetes/": "needs a cluster; tests/test_kubernetes.py "
    "validates the manifests",
    "kubectl apply -k launch/kubernetes/kubeflow/": "the same",
    "python -m trainer.main FLAGS": "a form, whose flags are elsewhere",
    "bash launch/local.sh FLAGS": "run by tests/test_launch.py",
    "bash launch/local.sh 2 FLAGS": "run by tests/test_cluster.py",
    "bash launch/worker.sh FLAGS": "run by tests/test_worker_script.py",
    "sbatch --nodes=4 --gpus-per-node=8 launch/slurm.sbatch FLAGS": "needs Slurm; "
    "tests/faults/slurm.py has stand-ins for its commands",
    "sbatch --partition=gpu --time=4:00:00 --nodes=4 --gpus-per-node=8 "
    "launch/slurm.sbatch --flagfile=my.flags --model_dir=runs/mine": "the same",
    "... --mode=plan --time_budget=30m": "run by tests/test_plan.py",
    "python -m trainer.main --mode=plan --time_budget=30m --dataset=folder "
    "--data_dir=photos --num_classes=2 --model_dir=runs/plan": "the same",
    "python -m trainer.main --flagfile=runs/plan/plan.flags --model_dir=runs/planned": (
        "its flags are read by tests/test_plan.py"
    ),
    "python -m tests.recipe.ablation --folder=runs/ablation -- --dataset=...": (
        "trains for an hour; tests/test_ablation.py reads the flags of its rows"
    ),
    "... --mode=benchmark": "run by tests/test_main.py",
    "... --mode=benchmark --against=fit": "the same",
    "... --image_size=512,1024 --crop_size=256": "in small run by tests/test_main.py",
    "... --image_size=512,1024 --crop_size=256 --crop_rare_classes=0.33": "the same",
    "python -m tests.benchmarks.predicting --model_dir=runs/tutorial --input=photos": (
        "run by tests/test_predict.py"
    ),
    "tensorboard --logdir=runs": "serves until it is stopped",
    "tensorboard --logdir=runs --port=6007": "the same",
    "python -m build": "needs a network; run by launch/test_all.sh; "
    "tests/test_packaging.py builds the same",
    "pip install 'dist/segloop-0.1.0-py3-none-any.whl[export]'": "needs a network",
    "segloop --flagfile=quickstart.flags": "run by launch/test_all.sh; "
    "tests/test_packaging.py trains with it",
    "segloop --version": "run by tests/test_packaging.py",
    "pip install .": "needs a network; launch/install.sh does it",
    "pip install '.[cloud]'": "needs a network; see tests/test_remote.py",
    "... --model_dir=s3://bucket/runs/first": "needs S3; tests/test_remote_runs.py "
    "trains at other URLs, and tests/faults/remote.py on an S3 server",
    "... --mode=evaluate --model_dir=s3://bucket/runs/first": "the same",
    "python -m trainer.main --dataset=folder --data_dir=s3://bucket/photos "
    "--num_classes=2 --model_dir=gs://bucket/runs/first": "the same",
    "python -m tests.faults.remote --kills=10": "needs an S3 server; "
    "tests/test_remote_runs.py kills a training at each upload",
    "pip install '.[gpu]'": "needs a network and a GPU",
    "pip install '.[benchmark]'": "downloads PyTorch",
    "pip install '.[hub]'": "launch/test.sh does it",
    "pip install '.[export]'": "the same",
    "pip install '.[trackers]'": "needs a network; see tests/test_tracking.py",
    "pip install tensorboard-plugin-profile": "needs a network",
    "pip install imagecodecs": "needs a network, and files of other compressions",
    "pip install '.[examples]'": "needs a network; see tests/test_models.py",
    "python -m tests.benchmarks.against_torch": "needs PyTorch; run by "
    "launch/test_all.sh",
    "python -m tests.benchmarks.startup --dataset=tfds:oxford_iiit_pet": "needs the "
    "photos of Oxford-IIIT Pet; run by launch/test_all.sh",
    "python -m tests.matrix.export --results=export.jsonl": "takes an hour; run by "
    "launch/test_all.sh; tests/test_export.py exports an encoder",
    "python -m tests.matrix.run --results=matrix.jsonl": "takes an hour; run by "
    "launch/test_all.sh; tests/test_encoders.py and test_decoders.py take some pairs",
    "python -m tests.faults.run --kills=50 --workers=2": "takes half an hour; run by "
    "launch/test_all.sh; tests/test_resume.py kills a run",
    "python -m tests.documents.settings": "writes a page; tests/test_documents.py "
    "compares it",
    "python -m trainer.main --mode=export --model_dir=runs/tutorial "
    "--export_format=saved_model,keras,litert,litert_int8,onnx": "run by "
    "launch/test_all.sh; tests/test_export.py exports each",
    "python -m trainer.main --mode=evaluate --model=runs/tutorial/export/onnx "
    "--model_dir=runs/tutorial": "run by launch/test_all.sh; tests/test_export.py does "
    "the same",
    "python -m trainer.main --mode=predict --model=runs/tutorial/export/onnx "
    "--input=photos --output=masks": "run by tests/test_export.py",
    "bash launch/test.sh -k metrics": "runs this test",
    "bash launch/test.sh --all-encoders": "the same, and takes an hour",
    "bash launch/test_all.sh": "takes hours",
}
"""Commands that no test runs, and why."""

_SHORT = (
    "--encoder_weights=encoder.weights.h5",
    "--image_size=32",
    "--encoder_alpha=0.35",
    "--decoder_filters=8,8,8,8",
    "--batch_size=8",
)
_SHORT_TRAINING = ("--train_epochs=0", "--train_steps=2", "--steps_per_loop=2")
_DRAWN = ("--dataset=synthetic", "--train_split=", "--eval_split=")
"""In place of photos that would have to be downloaded."""


def _code_spans(text: str) -> list[str]:
    """Returns the code in a text: the lines of its blocks, and what stands inline."""
    between, blocks = pages.split_blocks(text)
    spans = []
    for part, (_, code) in itertools.zip_longest(between, blocks, fillvalue=("", "")):
        spans += re.findall(r"`([^`]+)`", part)
        spans += code.replace("\\\n", " ").splitlines()
    return [" ".join(span.split()) for span in spans]


def _find_commands() -> list[str]:
    """Returns the command lines of all pages, each once, in their order."""
    spans = [
        span
        for path in pages.paths()
        for span in _code_spans(path.read_text("utf-8"))
        if span.startswith(_COMMANDS)
    ]
    # Without a flag, it is the program's name.
    return list(dict.fromkeys(s for s in spans if s != _PROGRAM.strip()))


def _expand(command: str) -> list[str]:
    """Returns the arguments of a command of the program.

    `...` stands for the tutorial's command, or for the program alone where it is said
    which run is meant.
    """
    if command.startswith("... "):
        first = next(c for c in _find_commands() if f"{_PROGRAM}--flagfile" in c)
        is_complete = "--model_dir=" in command or "--flagfile=" in command
        start = _PROGRAM if is_complete else first
        command = f"{start} {command.removeprefix('... ')}"
    return shlex.split(command.removeprefix(_PROGRAM))


def _run_program(arguments: list[str], *shorteners: str) -> None:
    """Runs a command of the program in this process; an error is the test's."""
    resolved = flags.read_config([*arguments, *shorteners])
    assert resolved.remarks == []
    mode = modes.MODES[resolved.config.run.mode].module
    importlib.import_module(mode).run(resolved.config)


def _is_run(command: str, kind: str) -> bool:
    return command not in _NOT_RUN and _kind(command) == kind


def _kind(command: str) -> str:
    """Tells which test runs a command."""
    if command.startswith("python -m tests."):
        return "script"
    if "--help" in command:
        return "help"
    for mode in ("evaluate", "predict", "export", "report", "doctor"):
        if f"--mode={mode}" in command:
            return mode
    return "own data" if "--dataset=folder" in command else "training"


def _commands_of(kind: str) -> list[str]:
    found = [command for command in _find_commands() if _is_run(command, kind)]
    assert found, f"the pages have no command of this kind any more: {kind}"
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a working folder like a clone's, with the data that commands name."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "launch").symlink_to(_ROOT / "launch")
    shallow.write_weights(folder / "encoder.weights.h5")
    test_doctor.make_clean(folder / "DIR")
    for number in range(6):
        label = test_doctor.make_label(number, num_classes=2)
        split = "train" if number < 4 else "val"
        test_doctor.write(
            folder / "photos",
            f"{split}/{number}",
            image=test_doctor.make_photo(number),
            mask=label,
        )
    return folder


@pytest.fixture
def in_folder(folder, monkeypatch):
    """Puts the test into the working folder, with few pictures and a short encoder."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(synthetic, "NUM_EXAMPLES", {"train": 16, "test": 8})
    shallow.shorten(monkeypatch)


def test_every_command_is_run_or_listed_with_the_reason():
    commands = _find_commands()
    assert len(commands) > 20
    assert set(_NOT_RUN) <= set(commands)
    # Each other one is of a kind that a test below runs.
    kinds = {_kind(command) for command in commands if command not in _NOT_RUN}
    assert kinds == {
        "script", "help", "evaluate", "predict", "export", "report", "doctor",
        "own data", "training",
    }  # fmt: skip
    unknown = [
        command
        for command in commands
        if command not in _NOT_RUN
        and not command.startswith((_PROGRAM, "... ", "python -m tests."))
    ]
    assert unknown == []


def test_slow_commands_are_in_the_script_that_runs_them():
    script = (_ROOT / "launch" / "test_all.sh").read_text("utf-8")
    slow = [name for name, why in _NOT_RUN.items() if "launch/test_all.sh" in why]
    assert len(slow) > 5
    assert [command for command in slow if command not in script] == []


def test_help_is_printed(capsys):
    for command in _commands_of("help"):
        assert main.main(_expand(command)) == 0
    assert "--train_steps" in capsys.readouterr().out


_SLOW_TOGETHER = ("nofreeze_encoder", "virtual_devices")
"""A step that trains the encoder is traced for long, and for each device."""


def _names_in(command: str) -> set[str]:
    names = re.findall(r"--(\w+)", command)
    return {"slow" if name in _SLOW_TOGETHER else name for name in names}


def _group_by_flags(commands: list[str]) -> list[list[str]]:
    """Joins commands to as few runs as can be, no flag twice in one of them."""
    groups = []
    for command in commands:
        names = _names_in(command)
        for group in groups:
            if not names & {name for other in group for name in _names_in(other)}:
                group.append(command)
                break
        else:
            groups.append([command])
    return groups


def test_commands_train_and_then_evaluate(in_folder, capsys):
    tutorial, *variants = _commands_of("training")
    short = (*_DRAWN, *_SHORT, *_SHORT_TRAINING)
    _run_program(_expand(tutorial), *short)
    for command in _commands_of("evaluate"):
        capsys.readouterr()
        _run_program(_expand(command))
        assert "mean IoU" in capsys.readouterr().out
    for command in _commands_of("predict"):
        _run_program(_expand(command))
    assert len(list(pathlib.Path("masks/labels").rglob("*.png"))) >= 6
    for command in _commands_of("export"):
        _run_program(_expand(command))
        assert "labels as in float32" in capsys.readouterr().out
    for command in _commands_of("report"):
        _run_program(_expand(command))
        assert "report.html" in capsys.readouterr().out
    for page, names in (
        ("README.md", {"photo": np.zeros([40, 50, 3], np.uint8)}),
        ("library.md", {}),
    ):
        for program in pages.code_blocks(pages.read(page)):
            exec(program, names)
        assert names["labels"].shape == names["photo"].shape[:2]
    for number, group in enumerate(_group_by_flags(variants)):
        for command in group:
            flags.read_config(_expand(command))
        added = [a for c in group for a in shlex.split(c.removeprefix("..."))]
        # The evaluation would be traced as long as the training.
        other = (f"--model_dir=runs/variant{number}", "--mode=train")
        _run_program([*_expand(tutorial), *added], *short, *other)


def test_commands_for_own_data_train(in_folder):
    for command in _commands_of("own data"):
        # Two steps are no more than the warm-up of a recipe.
        short = (*_SHORT, *_SHORT_TRAINING, "--warmup_steps=0")
        _run_program(_expand(command), *short)


def test_commands_of_the_doctor_find_a_clean_set_clean(in_folder, capsys):
    for command in _commands_of("doctor"):
        drawn = () if "--dataset" in command else _DRAWN
        # Not where another test has trained: tests/test_second_opinion.py does that.
        other = ("--image_size=32", "--model_dir=runs/examined")
        _run_program(_expand(command), *drawn, *other)
        assert "Nothing" in capsys.readouterr().out


def test_scripts_of_this_repository_run(in_folder, monkeypatch, capsys):
    short = ("--rounds=1", "--secs=0.05", "--batch_size=8", "--image_size=32")
    for command in _commands_of("script"):
        name, *arguments = shlex.split(command.removeprefix("python -m "))
        monkeypatch.setattr(sys, "argv", [name, *arguments, *short])
        assert importlib.import_module(name).main() == 0
        assert capsys.readouterr().out


def test_extras_are_those_of_setup_py():
    extras = set(re.findall(r"pip install '\.\[(\w+)\]'", _TEXT))
    known = set(re.findall(r'^ +"(\w+)": \[', (_ROOT / "setup.py").read_text(), re.M))
    assert extras and extras <= known


def test_files_that_the_pages_name_are_there():
    paths = re.findall(
        r"(?<![\w/])(?:launch|tests|trainer|data|models)/[\w/.-]*\w", _TEXT
    )
    added = {path for path, _ in pages.named_blocks(pages.read("extending.md"))}
    missing = {p for p in paths if not (_ROOT / p).exists()}
    assert missing - added == set()


_OTHER_FLAGS = {
    "all-encoders",
    "distribution",
    "help",
    "version",
    "flagfile",
    "logdir",
    "build-arg",
    "file",
    "gpus-per-node",
    "nodes",
    "ntasks-per-node",
    "partition",
    "port",
    "signal",
    "tag",
    "time",
    "kills",
    "results",
    "workers",
    "averages",
    "encoders",
    "folder",
}
"""Flags of no setting: of absl, TensorBoard, Slurm, Docker, of scripts in tests/."""


def test_only_flags_that_exist_are_named():
    known = {*config.fields_by_name()}
    named = set(re.findall(r"--([a-z][a-z_]*(?:-[a-z]+)*)", _TEXT))
    unknown = {n for n in named if n not in known and n.removeprefix("no") not in known}
    assert unknown == _OTHER_FLAGS


def _flag_values() -> list[str]:
    """Returns what stands as `--name=value` in the pages, but for placeholders."""
    found = re.findall(r"--(\w+)=('[^']+'|[\w/:.,*{}-]*\w)", _TEXT)
    return [
        f"--{name}={value}"
        for name, value in found
        if name not in _OTHER_FLAGS and value not in ("N", "FILE")
    ]


@pytest.mark.parametrize("argument", sorted(set(_flag_values())))
def test_values_are_allowed(argument):
    (argument,) = shlex.split(argument)
    ((name, value),) = flags.parse([argument]).typed.items()
    field = config.fields_by_name()[name]
    if value in field.metadata["refused"]:
        return  # A page says that it is.
    assert fields.is_choice(field, value)
    for bound, is_within in (("minimum", float.__ge__), ("maximum", float.__le__)):
        limit = field.metadata[bound]
        if limit is not None:
            values = value if isinstance(value, tuple) else (value,)
            assert all(is_within(float(v), float(limit)) for v in values)


def _rows_of_flags() -> list[tuple[str, str]]:
    """Returns the rows of tables that are about one flag: its name, and the row."""
    rows = [line for line in _TEXT.splitlines() if line.startswith("|")]
    firsts = [(re.match(r"\| `(?:\.\.\. )?--(\w+)[^`|]*`", row), row) for row in rows]
    return [(match[1], row) for match, row in firsts if match]


def test_words_beside_a_flag_with_choices_are_choices():
    checked = 0
    for name, row in _rows_of_flags():
        choices = config.fields_by_name().get(name.removeprefix("no"), None)
        choices = choices and choices.metadata["choices"]
        for word in re.findall(r"`([a-z_0-9]+)`", row) if choices else ():
            assert word in choices, row
            checked += 1
    assert checked >= 5


def _claimed_defaults() -> list[tuple[str, str]]:
    """Returns names of flags, and what the pages say their defaults are."""
    found = re.findall(r"`--(\w+)` \(([\w.]+)\)", _TEXT)
    found += [(name, "true") for name in re.findall(
        r"`--(\w+)`,\s+which\s+is\s+on\s+by\s+default", _TEXT
    )]  # fmt: skip
    for name, row in _rows_of_flags():
        found += [(name, value) for value in re.findall(r"default `(\w+)`", row)]
        value = re.match(r"\| `(?:\.\.\. )?--\w+=([^`]*)`", row)
        if value and "(the default)" in row:
            found.append((name, value[1]))
    return found


def test_defaults_are_those_of_the_flags():
    claimed = _claimed_defaults()
    assert len(claimed) >= 4
    for name, value in claimed:
        default = config.fields_by_name()[name].default
        assert fields.format_value(default) == value, name


def test_exit_codes_are_those_of_the_errors():
    (table,) = re.findall(r"^\| exit code .*\n((?:\|.*\n)+)", _TEXT, re.M)
    rows = re.findall(r"^\| (\d+) \| ", table, re.M)
    codes = {0, 1, main._DATA_ERROR_EXIT_CODE, main._BROKEN_PIPE_EXIT_CODE}
    codes |= {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.RunError)
    }
    assert {int(code) for code in rows} == codes
