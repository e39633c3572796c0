"""How a run shows that it moves: a bar on a terminal, lines in a log."""

import datetime

import tqdm
from absl import logging

_LINE = (
    "{desc} {n_fmt}/{total_fmt} |{bar}| {percentage:.0f}%{postfix}, {remaining} left"
)


class Progress:
    """Shows steps, loss, speed and the time that is left."""

    def __init__(self, *, start_step: int, num_steps: int):
        """Starts the bar, if anybody watches.

        Args:
          start_step: steps done before.
          num_steps: length of the run.
        """
        self._num_steps = num_steps
        self._bar = tqdm.tqdm(
            total=num_steps,
            initial=start_step,
            desc="Step",
            bar_format=_LINE,
            dynamic_ncols=True,
            # None: shown on terminals only.
            disable=None if logging.level_info() else True,
        )

    def advance(self, steps: int) -> None:
        """Moves the bar on."""
        self._bar.update(steps)

    def report(
        self,
        step: int,
        *,
        loss: float,
        mean_iou: float,
        step_secs: float | None,
        images_per_sec: float | None,
    ) -> None:
        """Shows where training is: in the bar, or in a line of the log.

        Args:
          step: steps done.
          loss: mean of the steps since the last report.
          mean_iou: of the pixels of these steps.
          step_secs: mean duration of a step, None if there is no measure yet.
          images_per_sec: over all replicas, None likewise.
        """
        speed = f", {images_per_sec:.1f} images/s" if images_per_sec else ""
        if not self._bar.disable:
            self._bar.set_postfix_str(
                f"loss {loss:.3f}, mean IoU {mean_iou:.3f}{speed}"
            )
            return
        if step_secs:
            left = round((self._num_steps - step) * step_secs)
            speed += f", {1000 * step_secs:.0f} ms/step"
            speed += f", {datetime.timedelta(seconds=left)} left"
        logging.info("Step %d/%d: loss %.4f%s.", step, self._num_steps, loss, speed)

    def say(self, message: str, *args) -> None:
        """Logs a line without tearing the bar."""
        with self._bar.external_write_mode():
            logging.info(message, *args)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._bar.close()
