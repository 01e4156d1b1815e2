"""Figures with their uncertainty: proportions of pictures that may not be independent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % bounds; where there was nothing to measure, no ``value`` and the widest bounds.

    ``n`` is the number of pictures (for a per-class figure: of those that it is about).
    """

    value: float | None
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        """``{"value", "low", "high", "n"}``."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def effective_size(outcomes: ArrayLike, *, groups: ArrayLike | None = None) -> float:
    """The number of independent pictures that would tell as much about the mean of ``outcomes``.

    With groups, n over the design effect of a ratio mean under cluster sampling (Kish 1965), with the correction of
    Korn and Graubard (1998) for few groups. It lies between n^2 / sum(size^2), the case of groups that agree wholly,
    and n. Where all outcomes are equal their spread within groups cannot be estimated, and the lower end is taken.

    Args:
        outcomes: (n,) zeros and ones.
        groups: (n,) group of each, or None for independent pictures.
    """
    x = np.asarray(outcomes, dtype=np.float64)
    n = len(x)
    if groups is None or n <= 1:
        return float(n)
    of = np.unique(np.asarray(groups), return_inverse=True)[1]
    sizes = np.bincount(of).astype(np.float64)
    count = len(sizes)
    least = n * n / float((sizes**2).sum())
    p = float(x.mean())
    if count == n:
        return float(n)
    if count < 2 or p in {0.0, 1.0}:
        return least
    from scipy.special import stdtrit

    off = np.bincount(of, weights=x) - p * sizes
    spread = count / (count - 1) * float((off**2).sum()) / n**2
    if spread <= 0:
        return float(n)
    few = (Z_95 / float(stdtrit(count - 1, 0.975))) ** 2
    return float(min(n, max(least, p * (1 - p) / spread * few)))


def wilson(outcomes: ArrayLike, *, groups: ArrayLike | None = None, z: float = Z_95) -> Interval:
    """The share of ones with its Wilson score interval (Wilson 1927), 95 % unless ``z`` says otherwise.

    Args:
        outcomes: (n,) zeros and ones; n = 0 gives no value and [0, 1].
        groups: (n,) groups of pictures that are not independent (:func:`effective_size`).
        z: Standard normal quantile of the bounds.
    """
    x = np.asarray(outcomes, dtype=np.float64)
    if len(x) == 0:
        return Interval(value=None, low=0.0, high=1.0, n=0)
    p = float(x.mean())
    low, high = wilson_bounds(p, effective_size(x, groups=groups), z=z)
    return Interval(value=p, low=low, high=high, n=len(x))


def wilson_bounds(p: float, n: float, *, z: float = Z_95) -> tuple[float, float]:
    """Wilson's bounds of a share ``p`` among ``n`` (not necessarily whole) independent pictures."""
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half))
