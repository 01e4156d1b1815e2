"""From a matte's own doubts to the chance that a person would leave the mask as it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keepsight.runtime.outputs.segmentation import EVEN, SLOPE, chance, overlap_logit

# How far what is known from elsewhere is trusted: as much as so many pictures near the even point.
_PRIOR = 4.0
_FOLDS = 5


@dataclass(frozen=True)
class Calibration:
    """The logistic function of the expected overlap: one half at ``even``, the wider the larger ``slope`` is."""

    even: float = EVEN
    slope: float = SLOPE

    def chances(self, overlaps: NDArray[np.float64]) -> NDArray[np.float64]:
        """The chance of a good mask for each expected overlap."""
        return np.array([chance(float(each), even=self.even, slope=self.slope) for each in overlaps], np.float64)


def fit(overlaps: NDArray[np.float64], good: NDArray[np.bool_]) -> Calibration:
    """The logistic function with the largest likelihood of ``good``, held near the usual one where pictures are few.

    Platt's (1999) targets keep it from becoming a step where the good and the bad are apart. Without pictures it is the
    usual one.

    Args:
        overlaps: (n,) expected overlaps of held-out pictures.
        good: (n,) whether their masks were good.
    """
    from scipy.optimize import minimize

    if not len(overlaps):
        return Calibration()
    x = np.array([overlap_logit(float(each)) for each in overlaps])
    yes, no = int(good.sum()), int((~good).sum())
    targets = np.where(good, (yes + 1) / (yes + 2), 1 / (no + 2))
    usual = np.array([overlap_logit(EVEN), np.log(SLOPE)])

    def loss(values: NDArray[np.float64]) -> float:
        z = (x - values[0]) / np.exp(values[1])
        likelihood = float(np.sum(np.logaddexp(0, z) - targets * z))
        return likelihood + _PRIOR * float(np.sum((values - usual) ** 2)) / 2

    found = minimize(loss, usual, method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-7}).x
    return Calibration(float(1 / (1 + np.exp(-found[0]))), float(np.exp(found[1])))


def held_out_chances(
    overlaps: NDArray[np.float64], good: NDArray[np.bool_], groups: NDArray[np.int64], *, seed: int
) -> NDArray[np.float64]:
    """The chance of each picture by a function that was fitted without its group."""
    names = np.unique(groups)
    fold_of = dict(zip(np.random.default_rng(seed).permutation(names).tolist(), range(len(names)), strict=True))
    folds = np.array([fold_of[int(group)] % _FOLDS for group in groups], np.int64)
    chances = np.zeros(len(overlaps), np.float64)
    for fold in range(_FOLDS):
        rest = folds != fold
        chances[~rest] = fit(overlaps[rest], good[rest]).chances(overlaps[~rest])
    return chances
