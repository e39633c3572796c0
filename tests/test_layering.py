"""Who may import whom, and that every public name says what it does.

The sources are parsed, not imported: an import in a branch or a function counts, too.
"""

import ast
import pathlib
from collections.abc import Iterator

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PACKAGES = ("data", "models", "trainer")

_ALLOWED_EDGES = {
    # module or package: the packages or modules of this project that it may import
    "data": {"data"},
    "models": {"models"},
    "trainer": {"trainer", "data"},
    # The one place where configuration, data and models meet.
    "trainer/assembly": {"trainer", "data", "models"},
    # Of no part in training.
    "trainer/benchmarking": {"trainer", "data", "models"},
    # The names of the parts that --encoder and --decoder choose from.
    "trainer/settings/model.py": {"trainer", "models.registry"},
    # The kinds of data sets that --dataset chooses from.
    "trainer/settings/data.py": {"trainer", "data.schema", "data.sources.registry"},
    # Settings are data: of the rest of the project they know the classes' limits.
    "trainer/errors.py": set(),
    "trainer/namesakes.py": set(),
    "trainer/losses": {"trainer", "data"},
    "trainer/metrics": {"trainer", "data"},
    "data/schema.py": set(),
    "models/registry.py": set(),
}
"""The entry of a module counts before that of its package."""

_FLOORS = {
    "trainer": (
        {"errors", "holders", "namesakes"},
        {"children", "files", "keras_private", "losses", "tensorflow_private"},
        {"metrics", "exporting", "tracking"},
        {"settings", "optimizing"},
        {"steps", "distributing", "drawing", "running", "remote"},
        {"run_folder"},
        {"assembly"},
        {"evaluating", "flags", "reporting"},
        {"loop", "benchmarking", "predicting"},
        {"planning", "suspecting"},
        {"modes"},
        {"main"},
    ),
    "data": (
        {"schema"},
        {"files", "augmentation", "pipeline"},
        {"sources", "preparing"},
        {"stores"},
        {"doctor"},
    ),
    "models": (
        {"registry", "randomness", "scaling", "fast"},
        {"layers"},
        {"encoders", "decoders"},
        {"factory", "stock"},
    ),
}
"""The rooms of each package, from the bottom up. A room may import those of the floors
below it, and of its own floor only itself."""

_EXTRAS = (
    "ai_edge_litert",
    "fsspec",
    "keras_hub",
    "mlflow",
    "onnx",
    "onnxruntime",
    "s3fs",
    "tensorflow_examples",
    "tf2onnx",
    "wandb",
)
_HEAVY = {"tensorflow", "keras", "numpy", "tensorflow_datasets"}
_LIGHT_MODULES = (
    "trainer/__init__.py",
    "trainer/children.py",
    "trainer/distributing/__init__.py",
    "trainer/distributing/peers.py",
    "trainer/settings/config.py",
    "trainer/errors.py",
    "trainer/files.py",
    "trainer/flags.py",
    "trainer/losses/__init__.py",
    "trainer/losses/registry.py",
    "trainer/main.py",
    "trainer/running/memory.py",
    "trainer/metrics/__init__.py",
    "trainer/metrics/groups.py",
    "trainer/metrics/registry.py",
    "trainer/holders.py",
    "trainer/namesakes.py",
    "trainer/remote/__init__.py",
    "trainer/remote/copies.py",
    "trainer/remote/failures.py",
    "trainer/remote/indexes.py",
    "trainer/remote/leases.py",
    "trainer/remote/lines.py",
    "trainer/remote/mirrors.py",
    "trainer/remote/owners.py",
    "trainer/remote/roles.py",
    "trainer/remote/stores.py",
    "trainer/run_folder/__init__.py",
    "trainer/run_folder/checkpoint_folders.py",
    "trainer/run_folder/run_lock.py",
    "trainer/run_folder/run_settings.py",
    "trainer/run_folder/waiting.py",
    "trainer/run_folder/watched.py",
    "trainer/running/__init__.py",
    "trainer/settings/__init__.py",
    *(
        f"trainer/settings/{path.name}"
        for path in sorted((_ROOT / "trainer" / "settings").glob("[a-z]*.py"))
    ),
    "trainer/exporting/__init__.py",
    "trainer/exporting/description.py",
    "trainer/exporting/registry.py",
    "trainer/tracking/__init__.py",
    "trainer/tracking/registry.py",
    "trainer/running/colors.py",
    "trainer/running/determinism.py",
    "trainer/running/signals.py",
    "trainer/running/stall.py",
    "trainer/running/startup_noise.py",
    "trainer/running/streams.py",
    "data/__init__.py",
    "data/augmentation/__init__.py",
    "data/augmentation/registry.py",
    "data/schema.py",
    "data/sources/__init__.py",
    "data/stores/__init__.py",
    "data/stores/file_locks.py",
    "data/stores/user_cache.py",
    "data/sources/registry.py",
    "models/__init__.py",
    "models/registry.py",
)
"""What `--help` and a rejected flag import: they answer at once."""

_KERAS_OVERRIDES = {"build", "call", "compute_output_shape", "get_config"}


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras, and it takes 0.2 s."""


def _modules() -> list[str]:
    return sorted(
        str(path.relative_to(_ROOT))
        for package in _PACKAGES
        for path in (_ROOT / package).rglob("*.py")
    )


def _parse(module: str) -> ast.Module:
    return ast.parse((_ROOT / module).read_text(), filename=module)


def _imports(tree: ast.AST) -> Iterator[str]:
    """Yields the dotted names that are imported, `a.b` for `from a import b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A relative import has no name to judge by, and no place here.
            base = "." * node.level + (node.module or "")
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _top_level_imports(tree: ast.Module) -> Iterator[str]:
    """Yields what importing the module imports at once."""
    for node in tree.body:
        is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == (
            "TYPE_CHECKING"
        )
        if not is_for_types and not isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from _imports(node)


def _covering(name: str, edges: set[str]) -> set[str]:
    """Returns the packages and modules, of those allowed, that a name belongs to."""
    return {edge for edge in edges if name == edge or name.startswith(f"{edge}.")}


def test_there_are_modules_to_look_at():
    assert set(_LIGHT_MODULES) | {"models/factory.py"} <= set(_modules())


@pytest.mark.parametrize("module", _modules())
def test_imports_follow_the_layers(module):
    owners = [module, *map(str, pathlib.PurePath(module).parents)]
    allowed = next(_ALLOWED_EDGES[owner] for owner in owners if owner in _ALLOWED_EDGES)
    used = [
        name
        for name in _imports(_parse(module))
        if name.split(".")[0] in {"", "tests", *_PACKAGES}
    ]
    assert [name for name in used if not _covering(name, allowed)] == []


def _room(name: str) -> str:
    return name.split(".")[1]


@pytest.mark.parametrize("module", _modules())
def test_rooms_import_downwards(module):
    package = module.split("/")[0]
    floors = {
        room: number for number, floor in enumerate(_FLOORS[package]) for room in floor
    }
    own = _room(module.removesuffix(".py").replace("/", "."))
    used = {
        _room(name)
        for name in _imports(_parse(module))
        if name.startswith(f"{package}.") and own != "__init__"
    }
    assert [room for room in used - {own} if floors[room] >= floors[own]] == []


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("module", _modules())
def test_a_file_can_be_read_at_a_sitting_and_a_function_at_a_glance(module):
    assert len((_ROOT / module).read_text().splitlines()) <= 350
    lengths = {f.name: f.end_lineno - f.lineno + 1 for f in _functions(_parse(module))}
    assert {name: n for name, n in lengths.items() if n > 60} == {}


@pytest.mark.parametrize("module", _modules())
def test_private_functions_are_typed_too(module):
    bare = []
    for function in _functions(_parse(module)):
        arguments = [*function.args.args, *function.args.kwonlyargs]
        names = [a.arg for a in arguments if a.annotation is None]
        has_result = function.returns is not None or function.name == "__init__"
        if set(names) - {"self", "cls"} or not has_result:
            bare.append(function.name)
    assert [name for name in bare if name not in _KERAS_OVERRIDES] == []


def test_every_allowed_edge_is_in_use():
    for owner, allowed in _ALLOWED_EDGES.items():
        modules = [m for m in _modules() if m == owner or m.startswith(f"{owner}/")]
        used = [name for m in modules for name in _imports(_parse(m))]
        assert allowed == set().union(*(_covering(n, allowed) for n in used)), owner


def test_only_one_module_knows_that_flags_exist():
    users = {
        module
        for module in _modules()
        if any(name.startswith("absl.flags") for name in _imports(_parse(module)))
    }
    assert users == {"trainer/flags.py"}


def test_only_one_module_starts_processes():
    """Those that it starts end with this one."""
    starters = ("subprocess", "multiprocessing", "concurrent.futures.ProcessPool")
    users = {
        module
        for module in _modules()
        if any(name.startswith(starters) for name in _imports(_parse(module)))
    }
    assert users == {"trainer/children.py"}


def test_no_module_uses_the_command_line_of_tensorflow():
    users = [m for m in _modules() if "compat.v1.flags" in (_ROOT / m).read_text()]
    assert users == []


@pytest.mark.parametrize("module", _LIGHT_MODULES)
def test_what_help_needs_imports_no_heavy_module(module):
    names = {name.split(".")[0] for name in _top_level_imports(_parse(module))}
    assert names & _HEAVY == set()


def test_optional_packages_are_imported_where_they_are_used():
    users = {
        module
        for module in _modules()
        for name in _top_level_imports(_parse(module))
        if name.partition(".")[0] in _EXTRAS
    }
    assert users == set()


@pytest.mark.parametrize("module", _LIGHT_MODULES)
def test_what_help_needs_imports_only_its_like(module):
    names = [
        name
        for name in _top_level_imports(_parse(module))
        if name.split(".")[0] in _PACKAGES
    ]
    # Of `from package.module import name`, the module counts.
    paths = {
        name if (_ROOT / name).is_dir() or (_ROOT / f"{name}.py").exists() else parent
        for name, parent in (
            (path, path.rpartition("/")[0])
            for path in (name.replace(".", "/") for name in names)
        )
    }
    light = {
        path.removesuffix(".py").removesuffix("/__init__") for path in _LIGHT_MODULES
    }
    assert paths <= light


def _public(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Yields the public classes, functions and methods, with dotted names."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        if node.name.startswith("_"):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef):
            for item in node.body:
                if (
                    isinstance(item, ast.FunctionDef)
                    and not item.name.startswith("_")
                    and item.name not in _KERAS_OVERRIDES
                ):
                    yield f"{node.name}.{item.name}", item


@pytest.mark.parametrize("module", _modules())
def test_every_module_and_public_name_has_a_docstring(module):
    tree = _parse(module)
    named = [(module, tree), *_public(tree)]
    assert [name for name, node in named if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("module", _modules())
def test_every_public_function_has_a_return_annotation(module):
    bare = [
        name
        for name, node in _public(_parse(module))
        if isinstance(node, ast.FunctionDef) and node.returns is None
    ]
    assert bare == []


@pytest.mark.parametrize("module", _modules())
def test_docstrings_start_with_one_line(module):
    """The first line would do as an entry of a table: short, ended, alone."""
    tree = _parse(module)
    wrong = []
    for name, node in [(module, tree), *_public(tree)]:
        first, *rest = (ast.get_docstring(node) or ".").splitlines()
        if not first.endswith(".") or any(line.strip() for line in rest[:1]):
            wrong.append(name)
    assert wrong == []
