"""What Keras and TensorFlow keep to themselves is used in known places, checked."""

import ast
import importlib
import inspect
import pathlib
import re

import keras
import pytest

from trainer import errors, keras_private

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PRIVATE_MODULES = ("trainer/keras_private.py", "trainer/tensorflow_private.py")
_DOCUMENTED = {"_exit", "_replace", "_asdict", "_fields"}
"""Public in spite of its name: of `os`, and of named tuples."""

_FILES = sorted(
    path
    for package in ("data", "models", "trainer")
    for path in (_ROOT / package).rglob("*.py")
)


def _relative(path: pathlib.Path) -> str:
    return str(path.relative_to(_ROOT))


def _find_private_uses(tree: ast.AST) -> set[str]:
    """Returns what code takes of other objects and packages that is not public."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            is_own = owner.partition(".")[0] in ("self", "cls")
            is_private = node.attr.startswith("_") and not node.attr.endswith("__")
            if "__internal__" in node.attr or (is_private and not is_own):
                found.add(f"{owner}.{node.attr}")
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found |= {n for n in names if _is_private_module(n)}
        elif isinstance(node, ast.ImportFrom) and _is_private_module(node.module or ""):
            found.add(node.module)
    return {use for use in found if use.rpartition(".")[2] not in _DOCUMENTED}


def _is_private_module(name: str) -> bool:
    return name.startswith(("keras.src", "tensorflow.python", "keras._tf"))


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("layer._layers", {"layer._layers"}),
        ("tf.__internal__.distribute", {"tf.__internal__"}),
        ("import keras.src.ops", {"keras.src.ops"}),
        ("from tensorflow.python.eager import context", {"tensorflow.python.eager"}),
        ("self._own, cls._own, a.__name__, tf.raw_ops.Add", set()),
    ],
)
def test_private_uses_are_found(code, found):
    assert _find_private_uses(ast.parse(code)) == found


@pytest.mark.parametrize("path", _FILES, ids=_relative)
def test_private_parts_are_used_in_one_module_alone(path):
    uses = _find_private_uses(ast.parse(path.read_text()))
    if _relative(path) in _PRIVATE_MODULES:
        assert uses
    else:
        assert uses == set()


def _subclasses_of_keras() -> list[type]:
    names = {
        _relative(path).removesuffix(".py").replace("/", ".")
        for path in _FILES
        if path.name != "__init__.py" and "import keras" in path.read_text()
    }
    return [
        kind
        for name in sorted(names)
        for kind in vars(importlib.import_module(name)).values()
        if isinstance(kind, type)
        and kind.__module__ == name
        and issubclass(kind, keras.layers.Layer | keras.optimizers.Optimizer)
    ]


@pytest.mark.parametrize("kind", _subclasses_of_keras(), ids=lambda k: k.__name__)
def test_subclasses_neither_override_nor_use_private_parts_of_keras(kind):
    ours = [c for c in kind.__mro__ if c.__module__.startswith(("models", "trainer"))]
    theirs = [c for c in kind.__mro__ if c.__module__.startswith("keras")]
    assert theirs
    code = "\n".join(inspect.getsource(c) for c in ours)
    defined = {name for c in ours for name in vars(c)}
    defined |= set(re.findall(r"self\.(_\w+)[\w., ]* = ", code))
    used = set(re.findall(r"(?:self|super\(\))\.(_[a-z]\w*)", code))
    assert used <= defined
    of_keras = {name for c in theirs for name in vars(c) if not name.endswith("__")}
    assert {n for n in defined if n.startswith("_")} & of_keras == set()


@pytest.mark.parametrize("name", ["_all_reduce_sum_gradients", "_get_variable_index"])
def test_a_keras_without_a_part_is_refused_with_the_versions_that_work(
    monkeypatch, name
):
    kind = keras.optimizers.Adam
    owner = next(c for c in kind.__mro__ if name in vars(c))
    monkeypatch.delattr(owner, name)
    message = (
        rf"^Keras {re.escape(keras.__version__)} has no {name} in its optimizers, .*; "
        rf"Keras {keras_private.KNOWN_VERSIONS} are known to work: .*install.sh"
    )
    with pytest.raises(errors.ConfigError, match=message):
        keras_private.check_keras()


def test_a_keras_whose_adam_keeps_other_slots_is_refused(monkeypatch):
    def build(self, variables):
        self._moments = variables

    monkeypatch.setattr(keras.optimizers.Adam, "build", build)
    with pytest.raises(errors.ConfigError, match="has no _momentums in its optimizers"):
        keras_private.check_keras()


def test_known_versions_are_the_lowest_and_the_tested_one():
    pins = [
        re.search(r"^keras==(\d+\.\d+)", (_ROOT / "launch" / name).read_text(), re.M)[1]
        for name in ("constraints-lowest.txt", "constraints.txt")
    ]
    assert " to ".join(pins) == keras_private.KNOWN_VERSIONS
