"""The search for a plan: which settings to measure, and what follows from it."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from trainer.planning import costs, notes, rules, sizes

Probe = Callable[[Mapping[str, Any]], notes.Measured | None]
"""From settings to what they take; None if there is not the memory."""

_WIDER = 2.5
"""The second shape that is measured has at least so many times the pixels of the
first."""
_FASTEST = 2.5
"""Another number format is taken to be at most so many times as fast as float32."""
_LONGER = 1.1
"""Times a budget that is too small, the next that is tried."""


class Plan(NamedTuple):
    """What to do.

    Attributes:
      choices: by the name of the setting, in the order of a flagfile.
      secs: how long the run will take.
      memory_bytes: how much memory it will take at most.
      num_steps: its length in steps; 0: not even one fits.
      epochs: its length in epochs.
      shortest_secs: the smallest budget in which there is a run.
    """

    choices: dict[str, notes.Choice]
    secs: float
    memory_bytes: float
    num_steps: int
    epochs: float
    shortest_secs: float


def search(
    facts: notes.Facts, given: Mapping[str, Any], probe: Probe, *, secs: float
) -> Plan:
    """Finds what to train in a time.

    Args:
      facts: of data and machine.
      given: settings that are not to be chosen, by name.
      probe: measures settings.
      secs: the time.

    Raises:
      MemoryError: if not even the smallest shape fits, however the batch is split, or
        as it is split where that is given.
    """
    return _Search(facts, given, probe, secs).run()


class _Search:
    """Measures as few settings as will do."""

    def __init__(
        self,
        facts: notes.Facts,
        given: Mapping[str, Any],
        probe: Probe,
        secs: float,
    ):
        self._facts = facts
        self._given = given
        self._probe = probe
        self._secs = secs
        self._choices = {
            **rules.choose_model(facts, given),
            "batch_size": rules.choose_batch_size(facts),
            **{name: notes.Choice(value, "") for name, value in rules.RECIPE.items()},
            "loss": rules.choose_loss(facts),
        }
        self._batch_size = given.get("batch_size", self._choices["batch_size"].value)
        self._num_parts = 1
        self._why_split = self._why_cut = ""  # What there was not the memory for.
        self._measured: dict[int, notes.Measured] = {}  # By place.
        self._has_shape = bool(given.keys() & {"image_size", "crop_size"})
        self._shapes = sizes.shapes_to_try(facts, given)
        self._num_shapes = len(self._shapes)
        self._needed = rules.needed_epochs(facts.num_train)

    def run(self) -> Plan:
        self._measured[0] = self._measure_first()
        measured = None
        while measured is None:  # Each time there are fewer shapes to choose from.
            place, reason = self._choose_shape()
            measured = self._at(place)
        shape = self._shapes[place]
        measured = self._split_batch(shape, measured)
        self._choices["image_size"] = notes.Choice(shape.image_size, reason)
        if shape.crop_size:
            self._choices["crop_size"] = notes.Choice(
                shape.crop_size, "the files are large: windows of them"
            )
        self._choices["cache"] = rules.choose_cache(self._facts, shape)
        return self._finish(measured)

    def _at(self, place: int) -> notes.Measured | None:
        """Returns what the shape at a place takes; measures it if it was not.

        If there is not the memory, returns None, and this shape and those that are
        larger are no longer among those to choose from.
        """
        if place not in self._measured:
            try:
                self._measured[place] = self._measure(self._shapes[place])
            except MemoryError:
                self._shapes = self._shapes[:place]
                return None
        return self._measured[place]

    def _measure_first(self) -> notes.Measured:
        """Measures the smallest shape, and decides on encoder and number format."""
        shape, is_open = self._shapes[0], False
        if self._facts.has_weights:
            self._choices |= rules.choose_freezing(is_frozen=False)
            is_open = "freeze_encoder" not in self._given
        measured = self._measure(shape)
        if is_open and _FASTEST * self._epochs(measured) < self._needed:
            measured, is_open = self._freeze(), False
        if not self._facts.has_gpu and "mixed_precision" not in self._given:
            in_16_bits = self._measure(shape, mixed_precision="bfloat16")
            choice = rules.choose_precision(measured.costs.step, in_16_bits.costs.step)
            self._choices["mixed_precision"] = choice
            measured = in_16_bits if choice.value == "bfloat16" else measured
        if is_open and self._epochs(measured) < self._needed:
            measured = self._freeze()
        return measured

    def _freeze(self) -> notes.Measured:
        """Keeps the encoder as it is, and measures the smallest shape so."""
        self._choices.pop("encoder_lr_multiplier")
        self._choices |= rules.choose_freezing(is_frozen=True)
        self._num_parts, self._why_split = 1, ""  # It takes less memory, too.
        return self._measure(self._shapes[0])

    def _choose_shape(self) -> tuple[int, str]:
        """Returns the place of the shape, and why that one; measures one more."""
        if self._has_shape:
            return 0, "as it was given"
        first, shapes = self._measured[0], self._shapes
        if len(shapes) == 1 or self._epochs(first) < self._needed:
            return self._choose_of([self._epochs(first)])
        wide = (
            n for n, s in enumerate(shapes) if s.pixels >= _WIDER * shapes[0].pixels
        )
        second = self._at(next(wide, len(shapes) - 1))
        if second is None:
            return self._choose_shape()
        epochs = [
            self._epochs(
                notes.interpolate(first, second, self._place_between(s.pixels))
            )
            for s in shapes
        ]
        return self._choose_of(epochs)

    def _choose_of(self, epochs: list[float]) -> tuple[int, str]:
        """Returns the place of the shape by how many epochs of each fit, and why."""
        shapes = self._shapes[: len(epochs)]
        place, reason = sizes.choose_shape(shapes, epochs, self._needed)
        is_largest = place + 1 == len(self._shapes) and epochs[place] >= self._needed
        if is_largest and len(self._shapes) < self._num_shapes:
            reason = f"the largest that fits: {self._why_cut}"
        return place, reason

    def _place_between(self, pixels: int) -> float:
        """Returns where pixels lie, from 0 for the first shape to 1 for the second."""
        first, second = (
            self._shapes[place].pixels for place in sorted(self._measured)[:2]
        )
        return (pixels - first) / (second - first)

    def _measure(self, shape: notes.Shape, **others: Any) -> notes.Measured:
        """Measures a shape; splits the batch where there is not the memory.

        Raises:
          MemoryError: if it cannot be split so often.
        """
        settings = {name: choice.value for name, choice in self._choices.items()}
        settings |= shape.settings()
        settings["cache"] = rules.choose_cache(self._facts, shape).value
        changes = self._choose_changes(1)
        settings |= {name: choice.value for name, choice in changes.items()}
        settings |= {"ema_decay": 0.9, **others}
        num_parts, refused = self._num_parts, self._why_split
        while True:
            split = {"gradient_accumulation_steps": num_parts}
            measured = self._probe({**settings, **split, **self._given})
            if measured is not None:
                self._num_parts, self._why_split = num_parts, refused
                return dataclasses.replace(measured, num_parts=num_parts)
            refused = (
                f"there is not the memory for {rules.describe_part(num_parts)} of "
                f"{shape.describe()}"
            )
            is_given = "gradient_accumulation_steps" in self._given
            if is_given or self._most_parts % (2 * num_parts):
                self._why_cut = refused
                raise MemoryError
            num_parts *= 2

    @property
    def _most_parts(self) -> int:
        """Into how many parts a device can split its share of a batch."""
        return self._batch_size // self._facts.num_replicas

    def _split_batch(
        self, shape: notes.Shape, measured: notes.Measured
    ) -> notes.Measured:
        """Chooses the parts of a batch; measures once more if they are others.

        A GPU that has not the memory refuses, so that the parts in which the batch was
        measured will do. A host has more memory than is free, but it gets slow.
        """
        if "gradient_accumulation_steps" in self._given:
            return measured
        refused = self._why_split if measured.num_parts > 1 else ""
        if self._facts.has_gpu:
            if refused:
                self._choose_parts(measured, refused)
            return measured
        choice = rules.choose_parts(
            measured.memory_bytes,
            self._fixed_memory(),
            self._facts.memory_bytes,
            self._most_parts,
            parts=measured.num_parts,
        )
        if choice.value > measured.num_parts:
            self._num_parts = choice.value
            measured = self._measure(shape)
        self._choose_parts(measured, "; ".join(filter(None, [refused, choice.reason])))
        return measured

    def _choose_parts(self, measured: notes.Measured, reason: str) -> None:
        self._choices["gradient_accumulation_steps"] = notes.Choice(
            measured.num_parts, reason
        )

    def _fixed_memory(self) -> float:
        """Returns what a run would take with batches of next to nothing."""
        if len(self._measured) < 2:
            return 0.0
        places = sorted(self._measured)[:2]
        first, second = (self._measured[place] for place in places)
        low, high = (
            self._shapes[place].pixels / self._measured[place].num_parts
            for place in places
        )
        if low == high:
            return 0.0
        return notes.interpolate(first, second, low / (low - high)).memory_bytes

    def _rhythm(self) -> costs.Rhythm:
        """Returns how often the parts of the run come, as far as it is given."""
        return costs.Rhythm(
            num_examples=self._facts.num_train,
            batch_size=self._batch_size,
            epochs_between_evals=self._given.get("epochs_between_evals", 1),
            checkpoint_interval=self._given.get("checkpoint_interval", 0),
        )

    @property
    def _least_steps(self) -> int:
        """The length of the shortest run: training refuses a warm-up of all steps."""
        return self._given.get("warmup_steps", 0) + 1

    @property
    def _most_steps(self) -> int:
        """The length beyond which more time is of no use."""
        most = rules.most_steps(self._facts, self._batch_size)
        return max(most, self._least_steps)

    def _length(
        self, measured: notes.Measured, secs: float | None = None
    ) -> tuple[int, int]:
        """Returns the steps, 0 for too little time, and epochs between evaluations."""
        num_steps, between = rules.choose_rhythm(
            measured.costs,
            self._rhythm(),
            self._secs if secs is None else secs,
            most=self._most_steps,
            between=self._given.get("epochs_between_evals"),
        )
        return (num_steps if num_steps >= self._least_steps else 0), between

    def _epochs(self, measured: notes.Measured) -> float:
        num_steps, _ = self._length(measured)
        return num_steps * self._batch_size / self._facts.num_train

    def _choose_changes(self, epochs: float) -> dict[str, notes.Choice]:
        """Returns how examples are changed; a given --augment says all of it."""
        if "augment" in self._given:
            return {}
        return rules.choose_changes(self._facts, epochs)

    def _finish(self, measured: notes.Measured) -> Plan:
        """Chooses what depends on the length of the run."""
        num_steps, between = self._length(measured)
        epochs = num_steps * self._batch_size / self._facts.num_train
        rhythm = dataclasses.replace(self._rhythm(), epochs_between_evals=between)
        facts, steps = self._facts, max(num_steps, 1)
        is_all = num_steps == self._most_steps
        length = f"{epochs:.1f} epochs" + (", and more are of no use" if is_all else "")
        self._choices |= {
            **self._choose_changes(epochs),
            "class_weights": rules.choose_class_weights(facts),
            "learning_rate": rules.choose_learning_rate(
                self._batch_size,
                facts.has_weights,
                self._given.get("optimizer", rules.RECIPE["optimizer"]),
            ),
            "warmup_steps": rules.choose_warmup(steps),
            "ema_decay": rules.choose_ema(steps),
            "train_steps": notes.Choice(num_steps, length),
            "epochs_between_evals": notes.Choice(
                between,
                f"{rhythm.num_evaluations(steps)} evaluations of "
                f"{measured.costs.evaluation:.1f} s, each with a save",
            ),
        }
        return Plan(
            choices={n: c for n, c in self._choices.items() if n not in self._given},
            secs=costs.duration(measured.costs, rhythm, steps),
            memory_bytes=measured.memory_bytes,
            num_steps=num_steps,
            epochs=epochs,
            shortest_secs=self._shortest_secs(measured),
        )

    def _shortest_secs(self, measured: notes.Measured) -> float:
        """Returns the smallest budget, about, in which there is a run."""
        # Of a run of one step, which has one evaluation and one save.
        secs = costs.smallest_budget(measured.costs, self._rhythm(), 1)
        while not self._length(measured, secs)[0]:
            secs = float(math.ceil(_LONGER * secs))
        return secs
