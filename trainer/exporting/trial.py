"""Runs an exported file, in a process of its own that `trainer.exporting.proof` starts.

Nothing that made the file is imported, so that nothing of it can help.
"""

import importlib
import sys
from collections.abc import Sequence

from trainer.exporting import registry

_MAKERS = ("data", "models", "trainer.assembly", "trainer.steps")


def main(arguments: Sequence[str]) -> None:
    """Runs a file on all batches.

    Args:
      arguments: the name of the format; the folder of the file; a `.npz` file of
        batches of images; the `.npz` file to write, of labels by the same names.

    Raises:
      RuntimeError: if what made the file was imported, too.
    """
    import numpy as np

    name, folder, images, outputs = arguments
    run = importlib.import_module(registry.FORMATS[name].module).load(folder)
    with np.load(images) as batches:
        labels = {key: run(batches[key])["labels"] for key in batches.files}
    if helpers := [module for module in _MAKERS if module in sys.modules]:
        raise RuntimeError(f"{', '.join(helpers)} was imported")
    np.savez(outputs, **labels)
