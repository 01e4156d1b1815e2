"""How far confidence and accuracy agree: reliability tables and the expected calibration error."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions whose confidence lies in (low, high]: how many, how sure on average, how often right."""

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None

    def as_dict(self) -> dict[str, Any]:
        """The bin as JSON-able values."""
        return asdict(self)


def confidence_bins(confidence: NDArray[np.floating], *, bins: int) -> NDArray[np.int64]:
    """The bin 0..bins-1 of each confidence: (0, 1/bins], (1/bins, 2/bins], ...; 0 itself is in the first."""
    number = np.ceil(np.asarray(confidence, dtype=np.float64) * bins) - 1
    return np.asarray(np.clip(number, 0, bins - 1), dtype=np.int64)


def expected_calibration_error(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], *, bins: int = CALIBRATION_BINS
) -> float:
    """The mean distance of confidence and accuracy over equal-width bins, weighted by their pictures (Naeini 2015).

    0 is perfect. The estimate is biased upwards by about sqrt(bins / n) / 3: below a few hundred pictures a perfectly
    calibrated model shows several hundredths.

    Args:
        probabilities: (n, k) probabilities, n >= 1.
        labels: (n,) true classes.
        bins: Number of bins of the highest probability.
    """
    return calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, bins=bins)


def calibration_error(
    confidence: NDArray[np.floating], right: NDArray[np.bool_], *, bins: int = CALIBRATION_BINS
) -> float:
    """As :func:`expected_calibration_error`, of answers (n,) that were given with a confidence and right or not."""
    confidence = np.asarray(confidence, np.float64)
    gap = confidence - right
    sums = np.bincount(confidence_bins(confidence, bins=bins), weights=gap, minlength=bins)
    return float(np.abs(sums).sum() / len(gap))


def reliability_table(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], *, bins: int = CALIBRATION_BINS
) -> tuple[ReliabilityBin, ...]:
    """One row per bin of the highest probability; empty bins have no confidence and no accuracy."""
    return reliability_bins(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, bins=bins)


def reliability_bins(
    confidence: NDArray[np.floating], right: NDArray[np.bool_], *, bins: int = CALIBRATION_BINS
) -> tuple[ReliabilityBin, ...]:
    """One row per confidence bin of answers (n,) that were right or not."""
    confidence = np.asarray(confidence, np.float64)
    of = confidence_bins(confidence, bins=bins)
    rows = []
    for number in range(bins):
        inside = of == number
        n = int(inside.sum())
        rows.append(
            ReliabilityBin(
                low=number / bins,
                high=(number + 1) / bins,
                n=n,
                confidence=float(confidence[inside].mean()) if n else None,
                accuracy=float(right[inside].mean()) if n else None,
            )
        )
    return tuple(rows)
