"""Whether an exported file computes what was trained."""

import os
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING

from trainer import children, errors, files

if TYPE_CHECKING:
    import numpy as np


def run_alone(
    name: str, folder: str, batches: "Mapping[str, np.ndarray]"
) -> "dict[str, np.ndarray]":
    """Runs an exported file in a fresh process, by the format's own runtime.

    Args:
      name: of the format.
      folder: of the file.
      batches: images by any names, each [batch, height, width, channels].

    Returns:
      The labels of each batch, uint8 [batch, height, width].

    Raises:
      errors.ExportError: if that process fails.
      errors.WriteError: if that is for want of room on the disk.
    """
    import numpy as np

    # In the folder, which the next export removes if this one is killed: it is photos.
    with tempfile.TemporaryDirectory(dir=folder, prefix="proof-") as temporary:
        images, outputs = (os.path.join(temporary, f) for f in ("in.npz", "out.npz"))
        np.savez(images, **batches)
        done = children.run(
            "trainer.exporting.trial",
            [name, folder, images, outputs],
            {
                "TF_CPP_MIN_LOG_LEVEL": "3",
                # As the model that the labels are compared with was run.
                "CUDA_VISIBLE_DEVICES": "-1",
            },
        )
        if done.code:
            last = (done.output.strip().splitlines() or ["without a word"])[-1]
            if files.is_full(RuntimeError(last)):
                raise errors.WriteError(
                    f"--export_format={name}: there is no room to try the file that "
                    f"was written ({last}); make room and start again."
                )
            raise errors.ExportError(
                f"--export_format={name}: the file that was written does not run in a "
                f"fresh process ({last}), and was not published; use another format."
            )
        with np.load(outputs) as labels:
            return {key: labels[key] for key in labels.files}


def agreement(
    labels: "np.ndarray", reference: "np.ndarray", is_valid: "np.ndarray"
) -> float:
    """Returns the share of the valid pixels that have the same label twice.

    Args:
      labels: integers [batch, height, width].
      reference: as many.
      is_valid: bool, of the same shape; if it is nowhere true, all pixels count.
    """
    is_same = labels == reference
    return float(is_same[is_valid].mean() if is_valid.any() else is_same.mean())
