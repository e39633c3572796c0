"""The command: parses flags, makes the settings, runs one mode."""

import gc
import importlib
import logging as std_logging
import os
import pathlib
import sys
import traceback
import types
import typing
from collections.abc import Sequence

from absl import app, logging

from data import schema
from trainer import errors, flags, memory, modes

_DATA_ERROR_EXIT_CODE = 5
# Not resolved: log records name their files as Python found them, by a link or not.
_ROOT = pathlib.Path(__file__).absolute().parent.parent
_OUR_FOLDERS = frozenset(_ROOT / name for name in ("trainer", "data", "models"))


def main(arguments: Sequence[str]) -> int:
    """Runs the mode that the flags ask for.

    Args:
      arguments: the command line without the program.

    Returns:
      The exit code.
    """
    if flags.is_help(arguments):
        print(flags.format_help())
        return 0
    try:
        config, remarks = flags.read_config(arguments)
        for remark in remarks:
            logging.warning("%s", remark)
        mode = _import_at_once(modes.MODES[config.run.mode].module)
        with memory.explaining_shortage(config):
            mode.run(config)
    except (errors.RunError, schema.DataError) as error:
        # On purpose, and in the user's words: a traceback would only hide them.
        print(f"Error: {error}", file=sys.stderr)
        _exit_at_once(getattr(error, "exit_code", _DATA_ERROR_EXIT_CODE))
    except Exception:
        traceback.print_exc()
        _exit_at_once(1)
    return 0


def _import_at_once(name: str) -> types.ModuleType:
    """Imports a module, TensorFlow with it, without looking for garbage meanwhile.

    The half a million objects that it makes are no garbage; to look at them again and
    again takes a fifth of the import, and some of all that comes after it.
    """
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()


def _exit_at_once(code: int) -> typing.NoReturn:
    """Ends the process without TensorFlow's farewell.

    That waits for workers which are gone, and for threads of an input pipeline which
    wait for Python.
    """
    logging.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _is_of_interest(record: std_logging.LogRecord) -> bool:
    """Keeps this package's log lines, and errors of others.

    TensorFlow and TFDS remark on each data set they open and on their own deprecated
    functions.
    """
    is_ours = not _OUR_FOLDERS.isdisjoint(pathlib.Path(record.pathname).parents)
    return is_ours or record.levelno >= std_logging.ERROR


def run() -> None:
    """Starts the program; the console command `segloop`."""
    # TensorFlow's remarks on its build would bury the first lines of every run.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(_is_of_interest)
    # absl gets none of the arguments: they are flags of this package's own.
    app.run(lambda _: main(sys.argv[1:]), argv=sys.argv[:1])


if __name__ == "__main__":
    run()
