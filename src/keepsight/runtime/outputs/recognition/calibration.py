"""From which similarity on two pictures show the same, and how sure an answer is.

**Threshold.** An unknown one is accepted where its best similarity to anybody in the gallery reaches the threshold, so
the threshold is an order statistic of such best similarities: those of held-out pictures to everybody but themselves.
With n of them, the value of rank ``ceil((n + 1) q)`` is exceeded by a new one of the same kind with a chance of at most
1 - q (the argument of split conformal prediction, Vovk et al. 2005). The best of M strangers grows with M: where the
held-out ones were compared with N others and the gallery now holds M, ``q = (1 - rate) ^ (N / M)``, as for independent
comparisons. Where n is too small for that rank, the larger of their maximum and the network's usual threshold counts.

**Confidence.** Two logistic functions (Platt 1999): of the distance to the threshold and the lead over the second best
for an accepted one, of the distance below the threshold for a rejected one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Used until there are held-out pictures: an accepted one is surer with its distance and its lead, 0.1 being a lot.
USUAL_KNOWN = (0.0, 10.0, 10.0)
USUAL_UNKNOWN = (0.0, 10.0)
_MOST_STRANGERS = 20_000


@dataclass(frozen=True)
class Calibration:
    """What held-out pictures say about similarities.

    Attributes:
        false_accepts: The share of unknown ones that may be taken for somebody, above 0 and below 1.
        usual: The threshold where too few held-out pictures are there.
        strangers: float32, sorted: the best similarity of held-out pictures to others than themselves.
        others: With how many others each of them was compared.
        known: Weights of 1, the distance above the threshold, and the lead over the second best.
        unknown: Weights of 1 and the distance below the threshold.
    """

    false_accepts: float
    usual: float
    strangers: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    others: int = 0
    known: tuple[float, float, float] = USUAL_KNOWN
    unknown: tuple[float, float] = USUAL_UNKNOWN

    def threshold(self, people: int) -> float:
        """The lowest similarity that is accepted in a gallery of so many."""
        n = len(self.strangers)
        if not n:
            return self.usual
        level = (1 - self.false_accepts) ** (max(1, self.others) / max(1, people))
        rank = math.ceil((n + 1) * level)
        if rank <= n:
            return float(self.strangers[rank - 1])
        return max(self.usual, float(self.strangers[-1]))

    def sure_of(self, similarity: float, *, second: float, threshold: float) -> float:
        """The chance that this name, or this "unknown", is right."""
        if similarity >= threshold:
            bias, distance, lead = self.known
            return _logistic(bias + distance * (similarity - threshold) + lead * (similarity - max(second, 0.0)))
        bias, distance = self.unknown
        return _logistic(bias + distance * (threshold - similarity))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The numbers as ``gallery.npz`` keeps them."""
        strangers = np.sort(self.strangers.astype(np.float32))
        if len(strangers) > _MOST_STRANGERS:
            # The upper end decides; it stays as it is.
            kept = np.linspace(0, len(strangers) - 1, _MOST_STRANGERS).round().astype(np.int64)
            strangers = strangers[kept]
        return {
            "rate": np.array([self.false_accepts, self.usual], np.float64),
            "strangers": strangers,
            "others": np.array(self.others, np.int64),
            "known": np.array(self.known, np.float64),
            "unknown": np.array(self.unknown, np.float64),
        }

    @classmethod
    def of_arrays(cls, arrays: Any) -> Calibration:
        """The calibration that `arrays` wrote.

        Raises:
            KeyError, ValueError: Something is missing or has another shape.
        """
        rate, usual = (float(value) for value in arrays["rate"])
        bias, distance, lead = (float(value) for value in arrays["known"])
        base, below = (float(value) for value in arrays["unknown"])
        return cls(
            false_accepts=rate,
            usual=usual,
            strangers=np.asarray(arrays["strangers"], np.float32),
            others=int(arrays["others"]),
            known=(bias, distance, lead),
            unknown=(base, below),
        )


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-min(60.0, max(-60.0, value))))
