"""`--mode=report`: makes one page of what the folders of runs tell."""

import pathlib

from trainer import errors, files
from trainer.reporting import page, reading
from trainer.settings import config as config_lib

_FILE = "report.html"


def run(config: config_lib.Config) -> None:
    """Writes report.html into the folder of the first run.

    Raises:
      errors.RunError: if a folder is not that of a run, or cannot be read or written.
    """
    folders = split_folders(config.run.model_dir)
    path = pathlib.Path(folders[0]) / _FILE
    files.write_text(path, page.render(reading.read_runs(folders)))
    print(f"Report: {path}")


def split_folders(model_dir: str) -> list[str]:
    """Returns the folders of `--model_dir`, which separates several by commas.

    Raises:
      errors.ConfigError: if a name is empty, or a folder is named twice.
    """
    if pathlib.Path(model_dir).is_dir():  # A comma may belong to its name.
        return [model_dir]
    folders = [name.strip() for name in model_dir.split(",")]
    absolute = {pathlib.Path(name).absolute() for name in folders}
    if not all(folders) or len(absolute) < len(folders):
        raise errors.ConfigError(
            f"--model_dir={model_dir}: name each run once, e.g. "
            "--model_dir=runs/first,runs/second."
        )
    return folders
