"""Confidence that means what it says: the temperature of a head, and the threshold above which nobody need look.

Both are fitted on out-of-fold predictions of the training data, never on the test split.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keepsight.tasks.reliability import ReliabilityBin, expected_calibration_error, reliability_table

__all__ = [
    "ABSENT_LOGIT",
    "NOTHING_PASSES",
    "ReliabilityBin",
    "auto_threshold",
    "expected_calibration_error",
    "fit_temperature",
    "negative_log_likelihood",
    "reliability_table",
]

ABSENT_LOGIT = -1e4
"""Logit of a class that a fit has not seen: its probability is 0 for all purposes, at any temperature."""

NOTHING_PASSES = 1.01
"""A threshold above every confidence: each prediction goes to review."""

_TEMPERATURES = (0.01, 100.0)
_COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def fit_temperature(
    logits: NDArray[np.floating], labels: NDArray[np.integer], *, offset: NDArray[np.floating] | None = None
) -> float:
    """The temperature T > 0 for which softmax(logits / T + offset) has the smallest negative log likelihood (Guo 2017).

    The targets are Platt's (1999): the right class gets 1 - e and the others share e = 1 / (n + 2), so that few
    pictures, all answered rightly, do not end in a confidence of 1. The likelihood is convex in 1 / T: Newton's steps
    inside a bracket. T stays within 0.01 to 100.

    Args:
        logits: (n, k) logits of held-out predictions, k >= 2, n >= 1.
        labels: (n,) true classes.
        offset: (k,) added after the division (log priors).
    """
    z = np.asarray(logits, dtype=np.float64)
    n, k = z.shape
    z = z - z.max(axis=1, keepdims=True)
    added = np.zeros(k) if offset is None else np.asarray(offset, dtype=np.float64)
    share = 1 / (n + 2)
    # Mean of the targets' logits: (1 - e) z_true + e * mean of the others.
    # Classes that the fit behind a row has not seen are no others.
    true = z[np.arange(n), labels]
    others = z > ABSENT_LOGIT / 2
    others[np.arange(n), labels] = False
    mean = np.where(others, z, 0).sum(axis=1) / np.maximum(others.sum(axis=1), 1)
    wanted = ((1 - share) * true + share * mean).mean()

    low, high = 1 / _TEMPERATURES[1], 1 / _TEMPERATURES[0]
    inverse = 1.0
    for _ in range(100):
        raised = inverse * z + added
        raised -= raised.max(axis=1, keepdims=True)
        weights = np.exp(raised)
        weights /= weights.sum(axis=1, keepdims=True)
        expected = np.einsum("nk,nk->n", weights, z)
        # First and second derivative of the mean negative log likelihood by 1 / T; the first grows with 1 / T.
        slope = float(expected.mean() - wanted)
        bend = float((np.einsum("nk,nk,nk->n", weights, z, z) - expected**2).mean())
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        following = inverse - slope / bend if bend > 0 else math.inf
        if not low < following < high:
            following = math.sqrt(low * high)
        if abs(following - inverse) <= 1e-10 * inverse:
            break
        inverse = following
    return 1 / following


def negative_log_likelihood(
    logits: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    temperature: float = 1.0,
    offset: NDArray[np.floating] | None = None,
) -> float:
    """The mean of -log p(true class) in nats, with p = softmax(logits / temperature + offset)."""
    z = np.asarray(logits, dtype=np.float64) / temperature
    if offset is not None:
        z = z + offset
    z = z - z.max(axis=1, keepdims=True)
    return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]).mean())


def auto_threshold(
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    target_accuracy: float,
    groups: ArrayLike | None = None,
    error_rate: float = 0.05,
) -> float:
    """The lowest confidence at which predictions may be answered without review, or :data:`NOTHING_PASSES`.

    The rule: ten shares of the pictures (all, the surest 90 %, ..., the surest 10 %) are tried. A share passes when
    the exact one-sided lower bound (Clopper-Pearson 1934) of its accuracy, at level ``error_rate`` / 10, reaches
    ``target_accuracy``; the largest that passes gives the threshold. Because all ten bounds hold at once (Bonferroni;
    the setting of "Learn then test", Angelopoulos et al. 2021), the chance that the accuracy above the threshold is
    below the target is at most ``error_rate``, for pictures like the held-out ones. A rule that took the lowest
    threshold whose plain accuracy reaches the target would be wrong about half of the time.

    What it needs: without a single mistake, about log(10 / error_rate) / (1 - target) answered pictures (106 at 0.95).

    Args:
        confidence: (n,) calibrated confidence of held-out predictions, 0..1.
        correct: (n,) whether they were right.
        target_accuracy: Accuracy wanted among what is answered without review, below 1.
        groups: (n,) groups of pictures that are not independent; their number of effective pictures is used.
        error_rate: Chance allowed for a threshold that misses the target.
    """
    from scipy.special import betaincinv

    from keepsight.tasks.intervals import effective_size

    sure = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(correct, dtype=bool)
    of = None if groups is None else np.asarray(groups)
    order = np.argsort(-sure, kind="stable")
    for coverage in _COVERAGES:
        wanted = math.floor(coverage * len(sure))
        if wanted < 1:
            break
        threshold = float(sure[order[wanted - 1]])
        taken = sure >= threshold
        n = effective_size(right[taken], groups=None if of is None else of[taken])
        hits = n * float(right[taken].mean())
        bound = float(betaincinv(hits, n - hits + 1, error_rate / len(_COVERAGES))) if hits > 0 else 0.0
        if bound >= target_accuracy:
            return threshold
    return NOTHING_PASSES
