"""Which of the known classes a picture shows, with calibrated probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keepsight.errors import BundleError
from keepsight.runtime.manifest import BundleInfo

TENSORS: tuple[str, ...] = ("logits",)


@dataclass(frozen=True)
class ClassificationOutput:
    """The most probable class and the ones after it.

    Attributes:
        label: Name of the most probable class.
        confidence: Its calibrated probability, 0 to 1.
        alternatives: The next probable classes and their probabilities, falling; `label` is not among them.
    """

    label: str
    confidence: float
    alternatives: tuple[tuple[str, float], ...]

    def as_dict(self) -> dict[str, Any]:
        """``{"label", "confidence", "alternatives": [{"label", "confidence"}, ...]}``."""
        return {
            "label": self.label,
            "confidence": self.confidence,
            "alternatives": [{"label": label, "confidence": share} for label, share in self.alternatives],
        }


def probabilities(logits: ArrayLike, *, temperature: float) -> NDArray[np.float64]:
    """Calibrated probabilities, float64: softmax of ``logits / temperature`` over the last axis (Guo et al. 2017)."""
    scaled = np.asarray(logits, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def summaries(info: BundleInfo) -> tuple[str, ...]:
    """The classes."""
    return info.labels


def decode(
    tensors: Mapping[str, NDArray[np.float32]],
    *,
    info: BundleInfo,
    top_k: int = 5,
    sizes: Sequence[tuple[int, int]] = (),  # noqa: ARG001 - a class has no place
) -> list[ClassificationOutput]:
    """One answer per row of ``logits`` (n, k): the best class and its ``top_k - 1`` runners-up.

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
    shares = probabilities(logits, temperature=info.temperature)
    # Stable, so that of equally probable classes the first label wins on every machine.
    order = np.argsort(-shares, axis=1, kind="stable")[:, : max(1, top_k)]
    return [
        ClassificationOutput(
            label=info.labels[best[0]],
            confidence=float(row[best[0]]),
            alternatives=tuple((info.labels[index], float(row[index])) for index in best[1:]),
        )
        for row, best in zip(shares, order, strict=True)
    ]
