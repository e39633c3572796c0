"""By which score the best checkpoint is chosen."""

import math
from typing import NamedTuple


class Criterion(NamedTuple):
    """A score, and which way it is better.

    Attributes:
      metric: name of the score.
      lower_is_better: as of a loss.
    """

    metric: str = "mean_iou"
    lower_is_better: bool = False

    def is_better(self, score: float, best: float | None) -> bool:
        """Tells whether a score is better than the best so far, None if there is none.

        NaN, the score of a class that is nowhere, is never better.
        """
        if math.isnan(score):
            return False
        if best is None:
            return True
        return score < best if self.lower_is_better else score > best


MEAN_IOU = Criterion()
