"""How many things a picture shows: a number, and how sure the whole number next to it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.runtime.manifest import BundleInfo

TENSORS: tuple[str, ...] = ("count",)
SPREAD = "spread"
"""Under this name a bundle's thresholds hold the standard deviation of the count's error."""


@dataclass(frozen=True)
class CountingOutput:
    """The most probable count, its chance, and the counts beside it with theirs, most probable first."""

    count: int
    confidence: float
    alternatives: tuple[tuple[int, float], ...]

    @property
    def label(self) -> str:
        """The count as text."""
        return str(self.count)

    def as_dict(self) -> dict[str, Any]:
        """``{"label", "confidence", "count", "alternatives": [{"count", "confidence"}, ...]}``."""
        return {
            "label": self.label,
            "confidence": self.confidence,
            "count": self.count,
            "alternatives": [{"count": count, "confidence": chance} for count, chance in self.alternatives],
        }


def decode(
    tensors: Mapping[str, NDArray[np.float32]],
    *,
    info: BundleInfo,
    top_k: int = 5,
    sizes: Sequence[tuple[int, int]] = (),
) -> list[CountingOutput]:
    """One answer per row of ``count`` (n, 1); the error is taken to be normally distributed."""
    spread = max(info.thresholds.get(SPREAD, 1.0), 1e-3)
    answers = []
    for (value,) in tensors["count"]:
        middle = max(0, round(float(value)))
        near = range(max(0, middle - 3), middle + 4)
        chances = sorted(((_chance(count, float(value), spread), count) for count in near), key=lambda pair: -pair[0])
        (sure, count), *others = chances[: max(1, top_k)]
        answers.append(CountingOutput(count, sure, tuple((other, chance) for chance, other in others)))
    return answers


def summaries(info: BundleInfo) -> tuple[str, ...]:
    """A count can be any number."""
    return ()


def _chance(count: int, value: float, spread: float) -> float:
    """The chance that ``count`` is right where ``value`` was read; what lies below 0 counts as 0."""
    above = math.erf((count + 0.5 - value) / spread / math.sqrt(2))
    below = -1.0 if count == 0 else math.erf((count - 0.5 - value) / spread / math.sqrt(2))
    return (above - below) / 2
