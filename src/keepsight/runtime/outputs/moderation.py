"""Which flags of a policy a picture raises, and whether it is blocked for them."""

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
ALLOWED = "allowed"
BLOCK, ALLOW = "block", "allow"


@dataclass(frozen=True)
class ModerationOutput:
    """The flags that a picture raises.

    Attributes:
        label: The flags, or "allowed" where there are none.
        confidence: Calibrated chance that exactly these flags are right.
        flags: Raised flags with their calibrated chances and thresholds, in the order of their names.
        alternatives: The flags that were not raised, most probable first.
    """

    label: str
    confidence: float
    flags: tuple[Chance, ...]
    alternatives: tuple[Chance, ...]

    @property
    def action(self) -> str:
        """ "block" where a flag is raised, else "allow"."""
        return BLOCK if self.flags else ALLOW

    def as_dict(self) -> dict[str, Any]:
        """``{"label", "confidence", "action", "flags": [{"label", "confidence", "threshold"}], "alternatives"}``."""
        return {
            "label": self.label,
            "confidence": self.confidence,
            "action": self.action,
            "flags": [flag.as_dict() for flag in self.flags],
            "alternatives": [flag.as_dict() for flag in self.alternatives],
        }


def decode(
    tensors: Mapping[str, NDArray[np.float32]],
    *,
    info: BundleInfo,
    top_k: int = 5,
    sizes: Sequence[tuple[int, int]] = (),  # noqa: ARG001 - the answer is about the whole picture
) -> list[ModerationOutput]:
    """One answer per row of ``logits`` (n, k); ``info.thresholds`` hold from which chance on a flag is raised.

    Raises:
        BundleError: The logits do not match the flags, or are not finite.
    """
    return [
        ModerationOutput(
            label=label_sets.in_words([flag.label for flag in found.given], nothing=ALLOWED),
            confidence=found.confidence,
            flags=found.given,
            alternatives=found.others,
        )
        for found in label_sets.decode(tensors, info=info, top_k=top_k)
    ]


def summaries(info: BundleInfo) -> tuple[str, ...]:
    """Every combination of flags; none where there are too many to count each."""
    return label_sets.summaries(info.labels, nothing=ALLOWED)
