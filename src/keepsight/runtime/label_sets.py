"""Several labels at once: each has a chance of its own, and where that reaches the label's threshold it is given.

Tasks whose answer is a set of labels (flags of a policy, tags of a product) share this: their networks give ``logits``
(n, k), one column for each label, calibrated in the graph, of which the sigmoid is the chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keepsight.errors import BundleError
from keepsight.runtime.manifest import BundleInfo

TENSORS: tuple[str, ...] = ("logits",)
# Of a label whose bundle names no other: it is given where it is more probable than not.
EVEN = 0.5
TOGETHER = "together"
"""Under this name a bundle's thresholds hold how far errors of labels come together, 0 (never) to 1 (always)."""
# More labels have too many combinations to count each.
MOST_COUNTED = 4


@dataclass(frozen=True)
class Chance:
    """A label, its calibrated chance (0 to 1), and the chance from which on it is given."""

    label: str
    confidence: float
    threshold: float

    def as_dict(self) -> dict[str, Any]:
        """``{"label", "confidence", "threshold"}``."""
        return {"label": self.label, "confidence": self.confidence, "threshold": self.threshold}


@dataclass(frozen=True)
class LabelSet:
    """The labels that a picture gets.

    Attributes:
        given: Those at or above their thresholds, in the order of their names.
        others: The rest, most probable first.
        confidence: Calibrated chance that exactly the given ones are right.
    """

    given: tuple[Chance, ...]
    others: tuple[Chance, ...]
    confidence: float


def threshold_key(label: str) -> str:
    """The name under which a bundle's thresholds hold that of a label.

    >>> threshold_key("plate visible")
    'label plate visible'
    """
    return f"label {label}"


def in_words(labels: Sequence[str], *, nothing: str) -> str:
    """A set of labels as one text, the same for annotations and answers; ``nothing`` for an empty one."""
    return ", ".join(sorted(labels)) or nothing


def chances(logits: ArrayLike) -> NDArray[np.float64]:
    """The sigmoid of logits, float64; it neither overflows nor reaches 0 or 1 by rounding below 36."""
    z = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(z))
    result: NDArray[np.float64] = np.where(z >= 0, 1 / (1 + small), small / (1 + small))
    return result


def agreement(shares: NDArray[np.float64], limits: NDArray[np.float64], *, together: float) -> NDArray[np.float64]:
    """The chance (n,) that every label is given exactly where it is right.

    It lies between the product of the labels' own chances, where their errors have nothing to do with each other, and
    the smallest of them, where one error never comes without the others (the bounds of Hoeffding and Frechet).

    Args:
        shares: (n, k) chances of the labels.
        limits: (k,) their thresholds.
        together: 0 gives the product, 1 the smallest; between them the logarithm is interpolated.
    """
    if not shares.shape[1]:
        return np.ones(len(shares))
    sure = np.log(np.maximum(np.where(shares >= limits, shares, 1 - shares), 1e-12))
    chance: NDArray[np.float64] = np.exp((1 - together) * sure.sum(axis=1) + together * sure.min(axis=1))
    return chance


def decode(tensors: Mapping[str, NDArray[np.float32]], *, info: BundleInfo, top_k: int) -> list[LabelSet]:
    """One set of labels per row of ``logits``; ``top_k`` bounds how many labels are listed, given ones always are.

    Raises:
        BundleError: The logits do not match the labels, or are not finite.
    """
    logits = tensors["logits"]
    if logits.ndim != 2 or logits.shape[1] != len(info.labels):
        raise BundleError(
            f"The network gives logits of shape {logits.shape} for {len(info.labels)} labels.",
            expected=f"shape (n, {len(info.labels)}).",
            do="Check that the network and the labels of its bundle belong together.",
        )
    if not np.isfinite(logits).all():
        raise BundleError(
            "The network gives numbers that are not finite.",
            expected="finite logits.",
            do="Train the model anew; if it is quantised, use the float variant.",
        )
    limits = np.array([info.thresholds.get(threshold_key(label), EVEN) for label in info.labels])
    shares = chances(logits)
    sure = agreement(shares, limits, together=info.thresholds.get(TOGETHER, 0.0))
    return [
        _set(row, limits, info.labels, confidence=float(confidence), top_k=top_k)
        for row, confidence in zip(shares, sure, strict=True)
    ]


def summaries(labels: Sequence[str], *, nothing: str) -> tuple[str, ...]:
    """All texts that ``in_words`` can give for these labels, or none where they are too many to count each."""
    if len(labels) > MOST_COUNTED:
        return ()
    ordered = sorted(labels)
    return tuple(
        in_words([label for place, label in enumerate(ordered) if number >> place & 1], nothing=nothing)
        for number in range(2 ** len(ordered))
    )


def _set(
    row: NDArray[np.float64], limits: NDArray[np.float64], labels: Sequence[str], *, confidence: float, top_k: int
) -> LabelSet:
    every = [Chance(*item) for item in zip(labels, map(float, row), map(float, limits), strict=True)]
    given = sorted((item for item in every if item.confidence >= item.threshold), key=lambda item: item.label)
    # Stable, so that of equally probable labels the first one comes first on every machine.
    others = sorted((item for item in every if item.confidence < item.threshold), key=lambda item: -item.confidence)
    return LabelSet(tuple(given), tuple(others[: max(0, top_k - len(given))]), confidence)
