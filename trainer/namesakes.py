"""Packages of other projects that have the names of this one's.

`data`, `models` and `trainer` are common names, and Python imports what it finds first.
This module uses nothing of the project, so that it can run before the rest of it.
"""

import importlib.util
import os
import sys
from importlib import machinery

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PACKAGES = ("data", "models", "trainer")
_MARK = b"segloop"
"""In the first file of each package: by its place alone it may be another project's,
which was installed over this one."""


def check() -> None:
    """Ends the program with one sentence if a package is not this project's."""
    try:
        claim()
    except ImportError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)  # As errors.ConfigError, which cannot be imported yet.


def claim() -> None:
    """Sees to it that `data`, `models` and `trainer` are this project's.

    A mere folder of such a name, which Python takes for a package without a first file,
    is passed over.

    Raises:
      ImportError: if another project's package hides one of them, or has been
        installed over it.
    """
    for name in _PACKAGES:
        spec = _find(name)
        if spec is not None and _is_ours(name, spec):
            _check_first_file(name, spec)
        elif name in sys.modules or (spec is not None and spec.origin):
            raise ImportError(_describe(name, spec), name=name)
        else:
            # Python asks the finder of an editable installation last, after it has
            # looked for folders.
            _import_ours(name)


def _find(name: str) -> machinery.ModuleSpec | None:
    """Returns what `import` would take, or has taken."""
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # A module that a program has made by hand.
        return None


def _is_ours(name: str, spec: machinery.ModuleSpec) -> bool:
    """Whether a package lies beside this one."""
    folder = os.path.realpath(os.path.join(_ROOT, name))
    return bool(spec.origin) and folder == os.path.dirname(
        os.path.realpath(spec.origin)
    )


def _import_ours(name: str) -> None:
    """Imports a package by its place."""
    folder = os.path.join(_ROOT, name)
    spec = importlib.util.spec_from_file_location(
        name,
        os.path.join(folder, "__init__.py"),
        submodule_search_locations=[folder],
    )
    _check_first_file(name, spec)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def _check_first_file(name: str, spec: machinery.ModuleSpec) -> None:
    """Sees whether the file is there, and nobody else's."""
    try:
        is_whole = _MARK in spec.loader.get_data(spec.origin)
    except OSError:
        is_whole = False
    if not is_whole:
        raise ImportError(
            f"segloop's package {name} is not whole: {spec.origin} is missing or of "
            f"another project, which also has a package {name}; install segloop again, "
            "into a virtual environment of its own.",
            name=name,
        )


def _describe(name: str, spec: machinery.ModuleSpec | None) -> str:
    """Says which module hides a package, and what helps."""
    places = (
        [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    )
    place = next(filter(None, places), "made by this program")
    folder = os.path.dirname(os.path.realpath(place))
    if os.path.realpath(sys.path[0]) in (folder, os.path.dirname(folder)):
        remedy = (
            "start with `segloop` instead of `python -m`, which looks into the working "
            "folder first, or start in another folder"
        )
    else:
        remedy = (
            "take it out of PYTHONPATH, or install segloop into a virtual environment "
            "of its own"
        )
    return (
        f"segloop's package {name} ({os.path.join(_ROOT, name)}) is hidden by another "
        f"module of that name, {place}; {remedy}."
    )
