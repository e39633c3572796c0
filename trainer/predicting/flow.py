"""Photos on their way: read and decoded, predicted, written, each beside the others."""

import collections
import concurrent.futures
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import tensorflow as tf

from data import schema
from trainer.predicting import outputs, photos, predictor, reading

_NUM_THREADS = 4
"""That decode, and as many that write."""
_READ_AHEAD = 32
"""Files that are read before they are decoded."""
_MOST_PIXELS = 64_000_000
"""Of all photos that are in memory at a time; one photo alone may have more."""


_Made = TypeVar("_Made")


class Failure(NamedTuple):
    """A photo that could not be predicted.

    Attributes:
      path: of its file.
      reason: a sentence without a stop.
    """

    path: str
    reason: str


class Flow:
    """Predicts photos one batch after the other, and writes what comes out."""

    def __init__(
        self,
        predict: predictor.Predictor,
        output: outputs.Output,
        *,
        max_pixels: int,
        mask_orientation: str,
        on_done: Callable[[int], None],
    ):
        """Makes a flow.

        Args:
          predict: gives the classes.
          output: takes them.
          max_pixels: that a photo may have.
          mask_orientation: of `--mask_orientation`.
          on_done: called with a number of photos that are written, or cannot be.

        Attributes:
          misfits: photos whose values may not be those of the model; see
            `reading.describe_misfits`.
        """
        self.misfits: dict[str, list[str]] = {}
        self._predict = predict
        self._output = output
        self._max_pixels = max_pixels
        self._undoes_turns = mask_orientation == "stored"
        self._on_done = on_done
        self._failures: list[Failure] = []
        self._files: collections.deque = collections.deque()
        self._decoding: collections.deque = collections.deque()
        self._batch: list[reading.Decoded] = []
        self._writing: collections.deque = collections.deque()
        self._num_pixels = 0  # Of all photos from their decoding to their end.

    def run(self, todo: Sequence[photos.Photo]) -> list[Failure]:
        """Predicts photos.

        Args:
          todo: which.

        Returns:
          Those that cannot be read or decoded.

        Raises:
          errors.WriteError: if what comes out cannot be written.
        """
        rest = collections.deque(todo)
        with (
            concurrent.futures.ThreadPoolExecutor(_NUM_THREADS) as self._readers,
            concurrent.futures.ThreadPoolExecutor(_NUM_THREADS) as self._writers,
        ):
            try:
                while rest or self._files or self._decoding or self._batch:
                    self._read_ahead(rest)
                    self._step()
                while self._writing:
                    self._finish_one()
            finally:
                for pool in (self._readers, self._writers):
                    pool.shutdown(wait=False, cancel_futures=True)
        return self._failures

    def _read_ahead(self, rest: collections.deque) -> None:
        """Has files read, and decoded as far as the memory allows."""
        while rest and len(self._files) < _READ_AHEAD:
            photo = rest.popleft()
            future = self._readers.submit(reading.read, photo, self._max_pixels)
            self._files.append((photo, future))
        while self._files and len(self._decoding) < 2 * self._predict.batch_size:
            photo, future = self._files[0]
            if (encoded := self._result(photo, future)) is None:
                self._files.popleft()
                continue
            total = self._num_pixels + encoded.num_pixels
            if self._num_pixels and total > _MOST_PIXELS:
                return
            self._files.popleft()
            self._num_pixels = total
            future = self._readers.submit(self._decode, encoded)
            self._decoding.append((encoded, future))

    def _step(self) -> None:
        """Does the next thing: what is decoded goes on, or room is made."""
        if self._decoding:
            encoded, future = self._decoding.popleft()
            decoded = self._result(encoded.photo, future)
            if decoded is None:
                self._num_pixels -= encoded.num_pixels
                return
            if decoded.misfit:
                self.misfits.setdefault(decoded.misfit, []).append(encoded.photo.path)
            self._batch.append(decoded)
            if len(self._batch) < self._predict.batch_size and self._decoding:
                return
        if self._batch:
            self._predict_batch()
        elif self._writing:
            self._finish_one()
        while len(self._writing) > 2 * self._predict.batch_size:
            self._finish_one()

    def _result(
        self, photo: photos.Photo, future: concurrent.futures.Future[_Made]
    ) -> _Made | None:
        """Returns what a thread has made of a photo; None if it cannot be used."""
        try:
            return future.result()
        except (schema.DataError, ValueError) as error:
            reason = str(error).rstrip(".")
        except OSError as error:
            reason = f"it cannot be read ({error.strerror or error})"
        self._failures.append(Failure(photo.path, reason))
        self._on_done(1)
        return None

    def _decode(self, encoded: reading.Encoded) -> reading.Decoded:
        trained = self._predict.trained
        pixels = reading.decode(encoded, trained.image_format, self._max_pixels)
        resized = None
        if not self._predict.tile_size:
            trained.check(pixels)
            resized = trained.resize_image(pixels).numpy()
        is_needed = resized is None or "overlay" in self._output.save
        return reading.Decoded(
            photo=encoded.photo,
            orientation=encoded.header.orientation,
            num_pixels=encoded.num_pixels,
            size=pixels.shape[:2],
            pixels=pixels if is_needed else None,
            resized=resized,
            misfit=reading.find_misfit(encoded.header, pixels, trained.image_format),
        )

    def _predict_batch(self) -> None:
        batch, self._batch = self._batch, []
        if self._predict.tile_size:
            for decoded in batch:
                canvas = self._make_canvas(decoded)
                self._predict.paint_in_tiles(canvas, decoded.pixels)
                future = self._writers.submit(self._write, decoded, canvas)
                self._writing.append((decoded, future))
            return
        logits = self._predict.score(np.stack([d.resized for d in batch]))
        for decoded, scores in zip(batch, logits, strict=True):
            future = self._writers.submit(self._paint_and_write, decoded, scores)
            self._writing.append((decoded, future))

    def _make_canvas(self, decoded: reading.Decoded) -> outputs.Canvas:
        num_classes = len(self._output.class_names)
        return outputs.Canvas(decoded.size, num_classes, self._output.save)

    def _paint_and_write(
        self, decoded: reading.Decoded, logits: tf.Tensor
    ) -> outputs.Canvas:
        canvas = self._make_canvas(decoded)
        self._predict.paint(canvas, logits, decoded.size)
        return self._write(decoded, canvas)

    def _write(
        self, decoded: reading.Decoded, canvas: outputs.Canvas
    ) -> outputs.Canvas:
        shown = None
        if "overlay" in self._output.save:
            image_format = self._predict.trained.image_format
            shown = reading.to_rgb(decoded.pixels, image_format)
        turned_by = decoded.orientation if self._undoes_turns else 1
        self._output.write(decoded.photo, canvas, shown, turned_by)
        return canvas

    def _finish_one(self) -> None:
        decoded, future = self._writing.popleft()
        self._output.note(decoded.photo, future.result())
        self._num_pixels -= decoded.num_pixels
        self._on_done(1)
