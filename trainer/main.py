"""The command: parses flags, makes the settings, runs one mode."""
# ruff: noqa: E402

from trainer import namesakes

namesakes.check()  # Before `data` is imported, which may be another project's.

import contextlib
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
from trainer import errors, files, flags
from trainer.distributing import peers
from trainer.remote import mirrors
from trainer.running import (
    colors,
    determinism,
    memory,
    signals,
    stall,
    startup_noise,
    streams,
)
from trainer.settings import modes

_DATA_ERROR_EXIT_CODE = 5
_BROKEN_PIPE_EXIT_CODE = 128 + 13
"""As the shell reports a process that SIGPIPE ended."""
_EXIT_CODES_BY_KIND = {
    "cache_dir": errors.ConfigError.exit_code,
    "cache_full": errors.WriteError.exit_code,
}
"""Of errors of the data that are not those of examples."""
# Not resolved: log records name their files as Python found them, by a link or not.
_ROOT = pathlib.Path(__file__).absolute().parent.parent
_OUR_FOLDERS = frozenset(_ROOT / name for name in ("trainer", "data", "models"))


def main(arguments: Sequence[str], *, owns_process: bool = False) -> int:
    """Runs the mode that the flags ask for.

    Args:
      arguments: the command line without the program.
      owns_process: whether standard error and logging are this call's to arrange.

    Returns:
      The exit code.
    """
    noise = startup_noise.Noise()
    try:
        if flags.is_help(arguments):
            print(flags.format_help(), flush=True)
            return 0
        if flags.is_version(arguments):
            # Here alone: to look for packages takes longer to import than all the rest.
            from trainer.run_folder import environment

            print(environment.format_versions(), flush=True)
            return 0
        with contextlib.ExitStack() as listening, mirrors.session():
            # It may take minutes: --watch waits for its run, files are downloaded.
            with signals.listening(_exit_on_signal):
                config, remarks = flags.read_config(arguments)
            if owns_process:
                set_log_level(config.runtime.log_level)
                if config.runtime.log_level != "debug":
                    # It forks, and a thread that listens would keep the end waiting:
                    # its pipe would stay open in the other process.
                    noise = startup_noise.keep_back()
            # To the end of the session, which may upload files for minutes.
            listening.enter_context(signals.listening(_exit_on_signal))
            for remark in remarks:
                logging.warning("%s", remark)
            with stall.watching_start(config.runtime.stall_timeout):
                mode = _import_at_once(modes.MODES[config.run.mode].module)
                with (
                    peers.explaining_loss(config.runtime.distribution_strategy),
                    memory.explaining_shortage(config),
                    determinism.explaining_refusal(config),
                ):
                    mode.run(config)
                sys.stdout.flush()  # It may be a file on a full disk.
            noise.drop()
    except Exception as error:
        _end(error, noise)
    return 0


def _end(error: Exception, noise: startup_noise.Noise) -> typing.NoReturn:
    """Says why the run ends, and ends the process."""
    if isinstance(error, BrokenPipeError):
        # Whoever read the output, `head` for instance, has seen enough.
        noise.drop()
        os._exit(_BROKEN_PIPE_EXIT_CODE)
    code = _exit_code(error)
    with contextlib.suppress(OSError):  # There may be no room for the log, either.
        if code == 1 and not isinstance(error, errors.RunError):
            traceback.print_exception(error)
        else:
            # In the user's words: a traceback would only hide them, and so would what
            # TensorFlow says of its start.
            noise.drop()
            start = colors.paint("Error:", colors.RED, sys.stderr)
            print(f"{start} {_message(error)}", file=sys.stderr)
    _exit_at_once(code)


def _exit_code(error: Exception) -> int:
    if isinstance(error, schema.DataError):
        return _EXIT_CODES_BY_KIND.get(error.kind, _DATA_ERROR_EXIT_CODE)
    if isinstance(error, errors.RunError):
        return error.exit_code
    return errors.WriteError.exit_code if files.is_full(error) else 1


def _message(error: Exception) -> str:
    if isinstance(error, schema.DataError | errors.RunError):
        return mirrors.as_typed(str(error))
    return f"There is no room on the disk ({error}); make room and start again."


def _exit_on_signal(name: str) -> None:
    """Ends a process that has nothing to save; training itself listens later on."""
    logging.info("%s: exiting; nothing is unsaved.", name)
    _exit_at_once(errors.Stopped.exit_code)


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
    for flush in (logging.flush, sys.stdout.flush, sys.stderr.flush):
        with contextlib.suppress(OSError):
            flush()
    os._exit(code)


def _is_of_interest(record: std_logging.LogRecord) -> bool:
    """Keeps this package's log lines, and errors of others.

    TensorFlow and TFDS remark on each data set they open and on their own deprecated
    functions.
    """
    is_ours = not _OUR_FOLDERS.isdisjoint(pathlib.Path(record.pathname).parents)
    return is_ours or record.levelno >= std_logging.ERROR


def set_log_level(level: str) -> None:
    """Arranges what is logged, for `--log_level`; before TensorFlow is imported."""
    handler = logging.get_absl_handler()
    logging.set_verbosity(level)
    if level == "debug":
        handler.removeFilter(_is_of_interest)
    else:
        # TensorFlow's remarks on its build would bury the first lines of every run.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        handler.addFilter(_is_of_interest)


class _Formatter(logging.PythonFormatter):
    """That of absl; on a terminal, what is no mere news stands out."""

    def format(self, record: std_logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno < std_logging.WARNING:
            return text
        is_error = record.levelno >= std_logging.ERROR
        return colors.paint(text, colors.RED if is_error else colors.YELLOW, sys.stderr)


def run() -> None:
    """Starts the program; the console command `segloop`."""
    streams.open_closed()
    logging.set_verbosity(logging.INFO)  # Until the flags are read.
    logging.get_absl_handler().addFilter(_is_of_interest)
    logging.get_absl_handler().setFormatter(_Formatter())
    # absl gets none of the arguments: they are flags of this package's own.
    app.run(lambda _: main(sys.argv[1:], owns_process=True), argv=sys.argv[:1])


if __name__ == "__main__":
    run()
