"""Slices and calibration of a model's answers on held-out pictures, as JSON-able figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keepsight.tasks.intervals import Z_95, Interval, wilson
from keepsight.tasks.reliability import expected_calibration_error, reliability_table
from keepsight.training.material import Part
from keepsight.training.slices import LEAST_PICTURES, slices_of


def slice_figures(part: Part, correct: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """The accuracy of each slice of a part, and how far it differs from that of all other pictures.

    ``difference`` is None where fewer than five pictures are left to compare with. ``clear`` says whether a difference
    is one that chance would not show in any of so many slices (Bonferroni at 5 %), either way.

    Args:
        part: The pictures.
        correct: bool (n,), whether each answer was right.
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
            args = (correct[each.rows], correct[rest], part.groups[each.rows], part.groups[rest])
            difference = difference_of_shares(*args).as_dict()
            bounds = difference_of_shares(*args, z=strict)
            clear = bounds.low > 0 or bounds.high < 0
        found.append(
            {
                "key": each.key,
                "value": each.value,
                "n": each.count,
                "accuracy": wilson(correct[each.rows], groups=part.groups[each.rows]).as_dict(),
                "difference": difference,
                "clear": clear,
            }
        )
    return found


def difference_of_shares(
    first: ArrayLike, second: ArrayLike, first_groups: ArrayLike, second_groups: ArrayLike, *, z: float = Z_95
) -> Interval:
    """The share of ones in ``first`` minus that in ``second``, from -1 to 1, two sets of other pictures.

    The interval is the hybrid score interval of Newcombe (1998, method 10) of Wilson's bounds; groups that reach into
    both sets make it wider than it need be. ``n`` counts the pictures of ``first``.

    Args:
        first, second: (n,) and (m,) zeros and ones, neither empty.
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
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], *, temperature: float
) -> dict[str, Any]:
    """How far confidence and accuracy agree ``before`` and ``after`` the model's calibration.

    Args:
        probabilities: (n, k) calibrated probabilities.
        labels: (n,) true classes.
        temperature: By which the logits were divided.
    """
    return {
        "temperature": temperature,
        "before": _reliability(uncalibrated(probabilities, temperature=temperature), labels),
        "after": _reliability(probabilities, labels),
    }


def uncalibrated(probabilities: NDArray[np.float64], *, temperature: float) -> NDArray[np.float64]:
    """What the probabilities (n, k) were at temperature 1: to the power of the temperature, summing to 1 again."""
    # Through logarithms, so that a large temperature underflows no row to zeros; the zeros themselves stay.
    logs = temperature * np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _reliability(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, Any]:
    if not len(labels):
        return {"ece": None, "bins": []}
    bins: Sequence[Any] = reliability_table(probabilities, labels)
    return {"ece": expected_calibration_error(probabilities, labels), "bins": [each.as_dict() for each in bins]}
