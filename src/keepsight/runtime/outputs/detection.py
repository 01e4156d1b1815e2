"""Which things of known classes a picture shows, and where: boxes with calibrated chances.

The network gives ``boxes`` (n, m, 4), corners x1, y1, x2, y2 in pixels of its input, and ``scores`` (n, m, k), the
chance of each class for each box. What overlaps a likelier box of its class is left out (non-maximum suppression);
what is left and reaches the threshold ``show`` is the answer, in pixels of the original upright picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import BundleError
from keepsight.runtime.manifest import BundleInfo

TENSORS: tuple[str, ...] = ("boxes", "scores")
SHOW, OVERLAP = "show", "overlap"
# Where a bundle names none of its own.
DEFAULT_SHOW, DEFAULT_OVERLAP = 0.3, 0.6
NOTHING = "nothing"

# Less likely boxes are no possibilities; COCO's evaluation takes a hundred of a picture.
_FLOOR = 0.01
_CANDIDATES = 500
_MOST = 100
# A chance of 0 or 1 is never meant as one.
_SURE = 1e-3
_CHECK = "Check that the network and the labels of its bundle belong together."


@dataclass(frozen=True)
class Detected:
    """One thing: its class, the chance that it is there, and its corners (x1, y1, x2, y2) in pixels of the picture."""

    label: str
    confidence: float
    box: tuple[float, float, float, float]

    def as_dict(self) -> dict[str, Any]:
        """``{"label", "confidence", "box": [x1, y1, x2, y2]}``."""
        return {"label": self.label, "confidence": self.confidence, "box": list(self.box)}


@dataclass(frozen=True)
class DetectionOutput:
    """What was found.

    Attributes:
        label: How many of which class, as in "2 RBC, 1 WBC".
        confidence: The calibrated chance that nothing of the answer needs correcting, 0 to 1.
        boxes: What is shown, the surest first.
        alternatives: The next possibilities below the threshold, falling.
    """

    label: str
    confidence: float
    boxes: tuple[Detected, ...]
    alternatives: tuple[Detected, ...]

    def as_dict(self) -> dict[str, Any]:
        """``{"label", "confidence", "boxes": [{"label", "confidence", "box"}, ...], "alternatives": [...]}``."""
        return {
            "label": self.label,
            "confidence": self.confidence,
            "boxes": [item.as_dict() for item in self.boxes],
            "alternatives": [item.as_dict() for item in self.alternatives],
        }


def summaries(info: BundleInfo) -> tuple[str, ...]:  # noqa: ARG001
    """Nothing: how many things a picture shows has no end."""
    return ()


def summary(labels: Iterable[str]) -> str:
    """How many of which class, the most frequent first.

    >>> summary(["RBC", "WBC", "RBC"]), summary([])
    ('2 RBC, 1 WBC', 'nothing')
    """
    counts = sorted(Counter(labels).items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {label}" for label, count in counts) or NOTHING


def decode(
    tensors: Mapping[str, NDArray[np.float32]],
    *,
    info: BundleInfo,
    top_k: int,
    sizes: Sequence[tuple[int, int]],
) -> list[DetectionOutput]:
    """One answer per picture.

    Args:
        tensors: ``boxes`` and ``scores``.
        info: The bundle's; its thresholds ``show`` and ``overlap`` decide what is shown.
        top_k: Possibilities to list; alternatives fill up what the boxes leave.
        sizes: Width and height of each picture in pixels.

    Raises:
        BundleError: The tensors do not match the labels, or are not finite.
    """
    boxes, scores = tensors["boxes"], tensors["scores"]
    _check(boxes, scores, labels=len(info.labels))
    show = info.thresholds.get(SHOW, DEFAULT_SHOW)
    overlap = info.thresholds.get(OVERLAP, DEFAULT_OVERLAP)
    answers = []
    for corners, chances, size in zip(boxes, scores, sizes, strict=True):
        places, classes, confidences = _candidates(chances)
        found = _in_picture(corners[places], info=info, size=size)
        there = (found[:, 2] - found[:, 0] > 0) & (found[:, 3] - found[:, 1] > 0)
        found, classes, confidences = found[there], classes[there], confidences[there]
        kept = suppress(found, classes, overlap=overlap)[:_MOST]
        shown = int((confidences[kept] >= show).sum())
        listed = [
            Detected(info.labels[classes[place]], float(confidences[place]), _rounded(found[place]))
            for place in kept[: max(shown, top_k)]
        ]
        answers.append(
            DetectionOutput(
                label=summary(item.label for item in listed[:shown]),
                confidence=faultless(confidences[kept], shown=shown, temperature=info.temperature),
                boxes=tuple(listed[:shown]),
                alternatives=tuple(listed[shown:]),
            )
        )
    return answers


def faultless(confidences: NDArray[np.floating], *, shown: int, temperature: float) -> float:
    """The chance that all shown boxes are there and nothing that is not shown, as if each were a case of its own.

    Args:
        confidences: Of the boxes that are left, falling; the first ``shown`` of them are shown.
        shown: How many.
        temperature: Tempers the chance, since the cases are none of their own: chosen on held-out pictures.
    """
    sure = np.clip(np.asarray(confidences, np.float64), _SURE, 1 - _SURE)
    together = np.log(sure[:shown]).sum() + np.log1p(-sure[shown:]).sum()
    return float(np.exp(together / temperature))


def suppress(boxes: NDArray[np.floating], classes: NDArray[np.integer], *, overlap: float) -> NDArray[np.int64]:
    """Places of the boxes that overlap no earlier kept one of their class by more than ``overlap`` (as IoU).

    Args:
        boxes: (n, 4) corners, the likeliest first.
        classes: (n,).
        overlap: 0 to 1.
    """
    beaten = (iou(boxes, boxes) > overlap) & (classes[:, None] == classes[None, :])
    gone = np.zeros(len(boxes), np.bool_)
    kept = []
    for place in range(len(boxes)):
        if not gone[place]:
            kept.append(place)
            gone |= beaten[place]
    return np.array(kept, np.int64)


def iou(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """Intersection over union of each of (n, 4) with each of (m, 4) boxes as corners; (n, m), 0 for empty boxes."""
    a, b = np.asarray(first, np.float64)[:, None], np.asarray(second, np.float64)[None]
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    both = np.maximum(width, 0) * np.maximum(height, 0)
    union = _areas(a) + _areas(b) - both
    shares: NDArray[np.float64] = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    return shares


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))


def _candidates(chances: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Rows, classes and chances of the likeliest entries (m, k), falling."""
    flat = chances.reshape(-1)
    places = np.flatnonzero(flat >= _FLOOR)
    if len(places) > _CANDIDATES:
        places = places[np.argpartition(-flat[places], _CANDIDATES)[:_CANDIDATES]]
    # Stable and by place, so that of equally likely boxes the first wins on every machine.
    places = np.sort(places)
    places = places[np.argsort(-flat[places], kind="stable")]
    return places // chances.shape[1], places % chances.shape[1], flat[places]


def _in_picture(corners: NDArray[np.float32], *, info: BundleInfo, size: tuple[int, int]) -> NDArray[np.float64]:
    """Corners in pixels of the picture, inside it."""
    scale_x, scale_y, left, top = info.preprocessing.place(size)
    scales, shifts = np.array([scale_x, scale_y] * 2), np.array([left, top] * 2)
    ends = np.array(size * 2, np.float64)
    return np.asarray(np.clip((corners.astype(np.float64) - shifts) / scales, 0, ends))


def _rounded(box: NDArray[np.float64]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (round(float(value), 2) for value in box)
    return x1, y1, x2, y2


def _check(boxes: NDArray[np.float32], scores: NDArray[np.float32], *, labels: int) -> None:
    fits = boxes.ndim == scores.ndim == 3 and boxes.shape[:2] == scores.shape[:2] and boxes.shape[2] == 4
    if not fits or scores.shape[2] != labels:
        raise BundleError(
            f"The network gives boxes of shape {boxes.shape} and scores of shape {scores.shape} for {labels} labels.",
            expected=f"shapes (n, m, 4) and (n, m, {labels}).",
            do=_CHECK,
        )
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise BundleError(
            "The network gives numbers that are not finite.",
            expected="finite boxes and scores.",
            do="Train the model anew; if it is quantised, use the float variant.",
        )
