"""By which score the best checkpoint is chosen."""

import math
from typing import NamedTuple


class Criterion(NamedTuple):
    """A score, and which way it is better.

    Attributes:
      metric: name of the score.
      lower_is_better: as of a loss.
      subject: a short hash of what is scored, and how: scores of two subjects cannot be
        compared; empty: not known.
    """

    metric: str = "mean_iou"
    lower_is_better: bool = False
    subject: str = ""

    def is_better(self, score: float, best: float | None) -> bool:
        """Tells whether a score is better than the best so far, None if there is none.

        NaN, the score of a class that is nowhere, is never better.
        """
        if math.isnan(score):
            return False
        if best is None:
            return True
        return score < best if self.lower_is_better else score > best

    def explain_change(self, metric: str, subject: str) -> str:
        """Says why scores so far cannot be compared with those of this criterion.

        Args:
          metric: the name of the scores so far.
          subject: a hash of what they are of; empty: not known, which counts as the
            same.

        Returns:
          A sentence; empty if they can be compared.
        """
        if metric != self.metric:
            return (
                f"The best checkpoint so far was that by {metric}; by {self.metric}, "
                "it is looked for from here on."
            )
        if subject and self.subject and subject != self.subject:
            return (
                "The best checkpoint so far was that of another evaluation: other "
                "examples, --eval_native_size or --tta; it is looked for anew from "
                "here on."
            )
        return ""


MEAN_IOU = Criterion()
