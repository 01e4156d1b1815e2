"""Which of the known labels fit a picture: any number of them, each with a calibrated chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.runtime import label_sets
from keepsight.runtime.label_sets import Chance
from keepsight.runtime.manifest import BundleInfo

TENSORS = label_sets.TENSORS
NOTHING = "(none)"


@dataclass(frozen=True)
class MultilabelOutput:
    """The labels that fit a picture.

    Attributes:
        label: The labels, or "(none)".
        confidence: Calibrated chance that exactly these labels are right.
        labels: Those that fit with their calibrated chances and thresholds, in the order of their names.
        alternatives: The others, most probable first.
    """

    label: str
    confidence: float
    labels: tuple[Chance, ...]
    alternatives: tuple[Chance, ...]

    def as_dict(self) -> dict[str, Any]:
        """``{"label", "confidence", "labels": [{"label", "confidence", "threshold"}, ...], "alternatives": [...]}``."""
        return {
            "label": self.label,
            "confidence": self.confidence,
            "labels": [item.as_dict() for item in self.labels],
            "alternatives": [item.as_dict() for item in self.alternatives],
        }


def decode(
    tensors: Mapping[str, NDArray[np.float32]],
    *,
    info: BundleInfo,
    top_k: int = 5,
    sizes: Sequence[tuple[int, int]] = (),  # noqa: ARG001 - the answer is about the whole picture
) -> list[MultilabelOutput]:
    """One answer per row of ``logits`` (n, k); a label is given from its threshold in ``info.thresholds`` on.

    Raises:
        BundleError: The logits do not match the labels, or are not finite.
    """
    return [
        MultilabelOutput(
            label=label_sets.in_words([item.label for item in found.given], nothing=NOTHING),
            confidence=found.confidence,
            labels=found.given,
            alternatives=found.others,
        )
        for found in label_sets.decode(tensors, info=info, top_k=top_k)
    ]


def summaries(info: BundleInfo) -> tuple[str, ...]:
    """Every combination of labels; none where there are too many to count each."""
    return label_sets.summaries(info.labels, nothing=NOTHING)
