"""What is answered about a picture: who is in it, or what, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.runtime.outputs.recognition.gallery import Gallery, Near

UNKNOWN = "unknown"
NOBODY = "nobody"
# At least two are looked up, since the lead over the second best tells how sure the first is.
_LEAST_COMPARED = 2


@dataclass(frozen=True)
class Subject:
    """One face, or what the whole picture shows.

    Attributes:
        label: The name, or "unknown".
        similarity: Cosine to the most similar name in the gallery; 0 where the gallery is empty.
        confidence: Calibrated chance that the label is right, 0 to 1.
        box: (x1, y1, x2, y2) in pixels of the original upright picture; None for the whole picture.
        nearest: The most similar names, falling, the label among them where it is known.
    """

    label: str
    similarity: float
    confidence: float
    box: tuple[float, float, float, float] | None
    nearest: tuple[Near, ...]

    def as_dict(self) -> dict[str, Any]:
        """``{"label", "similarity", "confidence", "box" where there is one, "alternatives": [{...}]}``."""
        told: dict[str, Any] = {"label": self.label, "similarity": self.similarity, "confidence": self.confidence}
        if self.box is not None:
            told["box"] = list(self.box)
        others = [item for item in self.nearest if item.name != self.label]
        told["alternatives"] = [{"label": item.name, "similarity": item.similarity} for item in others]
        return told


@dataclass(frozen=True)
class RecognitionOutput:
    """Who or what was recognised.

    Attributes:
        subjects: From left to right.
        confidence: Calibrated chance that nothing needs correcting.
    """

    subjects: tuple[Subject, ...]
    confidence: float

    @property
    def label(self) -> str:
        """The names in short; see `in_short`."""
        return in_short([subject.label for subject in self.subjects])

    def as_dict(self) -> dict[str, Any]:
        """``{"label", "confidence", "subjects": [...], "alternatives": [...]}``, the last being the first subject's."""
        subjects = [subject.as_dict() for subject in self.subjects]
        alternatives = subjects[0]["alternatives"] if len(subjects) == 1 else []
        return {
            "label": self.label,
            "confidence": self.confidence,
            "subjects": subjects,
            "alternatives": alternatives,
        }


def in_short(labels: Sequence[str]) -> str:
    """Names in a few words: sorted, each once, strangers counted.

    >>> in_short(["Ben", "unknown", "Anna", "unknown"])
    'Anna, Ben, 2 unknown'
    >>> in_short(["unknown"]), in_short([])
    ('unknown', 'nobody')
    """
    strangers = sum(label == UNKNOWN for label in labels)
    told = sorted({label for label in labels if label != UNKNOWN})
    if strangers:
        told.append(UNKNOWN if strangers == 1 and not told else f"{strangers} {UNKNOWN}")
    return ", ".join(told) or NOBODY


def subject_of(
    gallery: Gallery, vector: NDArray[np.float32], *, box: tuple[float, float, float, float] | None, top_k: int
) -> Subject:
    """Whose vector that is, with up to ``top_k`` names."""
    unit = np.asarray(vector, np.float32) / max(float(np.linalg.norm(vector)), 1e-12)
    found = gallery.search(unit, top=max(_LEAST_COMPARED, top_k))
    threshold = gallery.threshold
    best = found[0].similarity if found else 0.0
    second = found[1].similarity if len(found) > 1 else 0.0
    return Subject(
        label=found[0].name if found and best >= threshold else UNKNOWN,
        similarity=best,
        confidence=gallery.calibration.sure_of(best, second=second, threshold=threshold),
        box=box,
        nearest=tuple(found[: max(1, top_k)]),
    )


def output_of(subjects: Sequence[Subject], *, sure_of_none: float = 0.0) -> RecognitionOutput:
    """The answer about a picture; ``sure_of_none`` is how sure it is that there is nobody, where nobody was found."""
    ordered = sorted(subjects, key=lambda subject: subject.box or (0.0, 0.0, 0.0, 0.0))
    # The subjects are judged one by one, so the chance that all are right is the product.
    sure = prod(subject.confidence for subject in ordered) if ordered else sure_of_none
    return RecognitionOutput(tuple(ordered), float(sure))
