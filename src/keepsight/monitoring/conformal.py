"""Online conformal p-values: where a new value ranks among all values before it.

If the reference values and the stream are exchangeable, the smoothed rank of each new value among the reference and
all earlier stream values is uniform on (0, 1) and independent of the earlier ranks (Vovk, Gammerman and Shafer,
Algorithmic Learning in a Random World, 2nd ed. 2022, chapter 2). No model of the values is needed, and a small
reference costs power, not validity: each value that comes joins the pool.

Values enter as bins of a grid fixed beforehand. Ties are broken at random, so the p-values stay exactly uniform, and
the pool is a table of counts that never grows and holds nothing about a single picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 512
# Standardised values go through asinh (its argument in standard deviations), so +-1,490 of them fit between the ends.
_REACH = 8.0
_MASK = 2**64 - 1
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def bins_of(values: NDArray[np.floating[Any]]) -> Ints:
    """Bins 0 to BINS - 1 of values on the asinh scale; 0.03 wide, open at the ends."""
    places = (np.asarray(values, np.float64) + _REACH) * (BINS / (2.0 * _REACH))
    return np.minimum(np.maximum(places, 0), BINS - 1).astype(np.int64)


def uniforms(seed: int, index: int, count: int) -> Floats:
    """``count`` random numbers strictly between 0 and 1 that depend on ``seed`` and ``index`` alone.

    A hash of a counter (splitmix64: Steele, Lea and Flood 2014), so a restored monitor draws what an uninterrupted one
    would have drawn.
    """
    start = _mixed(_mixed(seed & _MASK) + (index + 1) * _GOLDEN & _MASK)
    x = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(start)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(_FIRST)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(_SECOND)
    x ^= x >> np.uint64(31)
    return ((x >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def _mixed(value: int) -> int:
    """One splitmix64 output of a 64-bit number."""
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


class Ranks:
    """One pool of binned values per row, and the p-values of new ones.

    Attributes:
        cumulative: Counts of shape (rows, BINS + 1); entry ``b`` is the number of pooled values in bins below ``b``.
    """

    def __init__(self, rows: int) -> None:
        self.cumulative: Ints = np.zeros((rows, BINS + 1), np.int64)
        self._row = np.arange(rows)

    def fill(self, row: int, bins: Ints) -> None:
        """Replaces the pool of ``row`` by the values in ``bins``."""
        self.cumulative[row, 0] = 0
        self.cumulative[row, 1:] = np.cumsum(np.bincount(bins, minlength=BINS))

    def add(self, bins: Ints, noise: Floats) -> Floats:
        """P-values of one new value per row, which then joins its pool.

        Args:
            bins: Bin of each row's value, shape (rows,).
            noise: Uniform numbers that break ties, shape (rows,).

        Returns:
            Near 0 where the value is higher than the pool, near 1 where it is lower; strictly between 0 and 1.
        """
        below, upto = self.cumulative[self._row, bins], self.cumulative[self._row, bins + 1]
        size = self.cumulative[:, -1]
        p = (size - upto + noise * (upto - below + 1)) / (size + 1)
        for row, place in enumerate(bins.tolist()):
            self.cumulative[row, place + 1 :] += 1
        # Rounding must not give 0 or 1, where the bets have no value.
        return np.minimum(np.maximum(p, 1e-12), 1.0 - 1e-12)
