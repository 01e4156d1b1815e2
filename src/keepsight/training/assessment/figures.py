"""Slices and calibration of a model's answers on held-out pictures, as JSON-able figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keepsight.tasks.intervals import Z_95, Interval, wilson
from keepsight.tasks.reliability import calibration_error, reliability_bins
from keepsight.training.material import Part
from keepsight.training.slices import LEAST_PICTURES, slices_of


def slice_figures(part: Part, scores: NDArray[Any]) -> list[dict[str, Any]]:
    """The mean score of each slice of a part, and how far it differs from that of all other pictures.

    The mean score is called ``accuracy``: with a class for an answer it is the share of right ones.

    ``difference`` is None where fewer than five pictures are left to compare with. ``clear`` says whether a difference
    is one that chance would not show in any of so many slices (Bonferroni at 5 %), either way.

    Args:
        part: The pictures.
        scores: (n,), how right each answer was, 0 to 1.
    """
    slices = slices_of(part)
    # Two sides share 5 % among all slices.
    strict = NormalDist().inv_cdf(1 - 0.025 / max(1, len(slices)))
    found = []
    for each in slices:
        rest = ~each.rows
        difference = None
        clear = False
        if int(rest.sum()) >= LEAST_PICTURES:
            args = (scores[each.rows], scores[rest], part.groups[each.rows], part.groups[rest])
            difference = difference_of_shares(*args).as_dict()
            bounds = difference_of_shares(*args, z=strict)
            clear = bounds.low > 0 or bounds.high < 0
        found.append(
            {
                "key": each.key,
                "value": each.value,
                "n": each.count,
                "accuracy": wilson(scores[each.rows], groups=part.groups[each.rows]).as_dict(),
                "difference": difference,
                "clear": clear,
            }
        )
    return found


def difference_of_shares(
    first: ArrayLike, second: ArrayLike, first_groups: ArrayLike, second_groups: ArrayLike, *, z: float = Z_95
) -> Interval:
    """The mean of ``first`` minus that of ``second``, from -1 to 1, two sets of other pictures.

    The interval is the hybrid score interval of Newcombe (1998, method 10) of Wilson's bounds; groups that reach into
    both sets make it wider than it need be. ``n`` counts the pictures of ``first``.

    Args:
        first, second: (n,) and (m,) scores from 0 to 1, neither empty.
        first_groups, second_groups: Groups of pictures that are not independent.
        z: Standard normal quantile of the bounds.
    """
    one, other = wilson(first, groups=first_groups, z=z), wilson(second, groups=second_groups, z=z)
    if one.value is None or other.value is None:
        return Interval(None, -1.0, 1.0, one.n)
    value = one.value - other.value
    low = value - math.hypot(one.value - one.low, other.high - other.value)
    high = value + math.hypot(one.high - one.value, other.value - other.low)
    return Interval(value, max(-1.0, low), min(1.0, high), one.n)


def calibration_figures(
    confidence: NDArray[np.float64],
    right: NDArray[np.bool_],
    *,
    uncalibrated: NDArray[np.float64] | None,
    temperature: float,
) -> dict[str, Any]:
    """How far confidence and being right agree ``before`` (None: nothing is known) and ``after`` the calibration.

    Args:
        confidence: (n,) of the answers.
        right: (n,) whether each was right.
        uncalibrated: (n,) what the confidence was before the calibration.
        temperature: By which the logits were divided.
    """
    return {
        "temperature": temperature,
        "before": None if uncalibrated is None else _reliability(uncalibrated, right),
        "after": _reliability(confidence, right),
    }


def _reliability(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> dict[str, Any]:
    if not len(right):
        return {"ece": None, "bins": []}
    bins: Sequence[Any] = reliability_bins(confidence, right)
    return {"ece": calibration_error(confidence, right), "bins": [each.as_dict() for each in bins]}
