"""Times `--mode=predict`, a plain loop over the same photos, and the parts, in turn.

    python -m tests.benchmarks.predicting --model_dir=RUN --input=photos

The plain loop is what one writes first: a photo is opened, resized, given to
`model.predict`, its classes are resized and saved, and then comes the next. The parts
are decoding, scoring at the photos' own sizes, and encoding, each by itself: their sum
is what prediction would take if nothing ran beside anything else. Nobody counts the
start of the process and the restoring of the model.
"""

import argparse
import functools
import io
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tests.benchmarks import report, turns
from trainer import load_run
from trainer.assembly import trained_model
from trainer.predicting import flow, outputs, photos, predictor, reading

_MAX_PIXELS = 100_000_000


def main() -> int:
    """Runs the script; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5, help="measured, after 1 more")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="segloop-") as folder:
        found = photos.find(arguments.input, folder)
        secs = _measure(
            load_run(arguments.model_dir), found, folder, arguments.batch_size,
            rounds=arguments.rounds,
        )  # fmt: skip
    print(_format(secs, len(found)))
    return 0


def _measure(
    trained: trained_model.TrainedModel,
    found: Sequence[photos.Photo],
    folder: str,
    batch_size: int,
    *,
    rounds: int,
) -> dict[str, list[float]]:
    """Returns the seconds of each contender in each round."""
    predict = predictor.Predictor(
        tf.distribute.get_strategy(),
        trained,
        tta=(),
        rows_per_replica=batch_size,
        tile_size=0,
        tile_overlap=0.0,
    )
    output = outputs.Output(folder, ("labels",), trained.class_names, trained.palette)
    parts = _Parts(predict, found)
    contenders = {
        "segloop": functools.partial(_flow, predict, output, found),
        "plain loop": functools.partial(_plain_loop, trained, found, folder),
        "decoding": parts.decode,
        "scoring": parts.score,
        "encoding": functools.partial(parts.encode, output),
    }
    timed = {name: functools.partial(_time, run) for name, run in contenders.items()}
    return turns.take_turns(timed, rounds=rounds, warmup_rounds=1)


def _time(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _flow(
    predict: predictor.Predictor, output: outputs.Output, found: Sequence[photos.Photo]
) -> None:
    output.summary.start([photo.name for photo in found])
    failures = flow.Flow(
        predict,
        output,
        max_pixels=_MAX_PIXELS,
        mask_orientation="shown",
        on_done=lambda count: None,
    ).run(found)
    assert not failures, failures


def _plain_loop(
    trained: trained_model.TrainedModel, found: Sequence[photos.Photo], folder: str
) -> None:
    from PIL import Image

    height, width = trained.image_size
    for number, photo in enumerate(found):
        image = Image.open(photo.path).convert("RGB")
        resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        logits = trained.model.predict(resized[np.newaxis], verbose=0)[0]
        scores = tf.image.resize(logits, image.size[::-1]).numpy()
        labels = Image.fromarray(scores.argmax(-1).astype(np.uint8))
        labels.save(pathlib.Path(folder) / f"{number}.png")


class _Parts:
    """The parts of prediction, each of all photos before the next one begins."""

    def __init__(self, predict: predictor.Predictor, found: Sequence[photos.Photo]):
        self._predict = predict
        self._found = found
        self._images: list[tuple[np.ndarray, tuple[int, int]]] = []
        self._canvases: list[outputs.Canvas] = []

    def decode(self) -> None:
        trained = self._predict.trained
        self._images = []
        for photo in self._found:
            encoded = reading.read(photo, _MAX_PIXELS)
            pixels = reading.decode(encoded, trained.image_format, _MAX_PIXELS)
            resized = trained.resize_image(pixels).numpy()
            self._images.append((resized, pixels.shape[:2]))

    def score(self) -> None:
        if not self._images:
            self.decode()
        count, self._canvases = self._predict.batch_size, []
        for first in range(0, len(self._images), count):
            batch = self._images[first : first + count]
            logits = self._predict.score(np.stack([image for image, _ in batch]))
            for (_, size), scores in zip(batch, logits, strict=True):
                canvas = outputs.Canvas(
                    size, len(self._predict.trained.class_names), ()
                )
                self._predict.paint(canvas, scores, size)
                self._canvases.append(canvas)

    def encode(self, output: outputs.Output) -> None:
        from PIL import Image

        if not self._canvases:
            self.score()
        for canvas in self._canvases:
            Image.fromarray(canvas.labels).save(io.BytesIO(), "PNG", compress_level=3)


def _format(secs: dict[str, list[float]], num_photos: int) -> str:
    best = {name: min(times) for name, times in secs.items()}
    rows = [
        [name, f"{1000 * value / num_photos:.1f}", f"{num_photos / value:.1f}"]
        for name, value in best.items()
    ]
    total = best["decoding"] + best["scoring"] + best["encoding"]
    return "\n".join(
        [
            report.format_table(["", "ms a photo, best", "photos/s"], rows),
            "",
            f"segloop is {best['plain loop'] / best['segloop']:.2f}x as fast as the "
            "plain loop, and takes "
            f"{best['segloop'] / total:.2f} of the parts' sum.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
