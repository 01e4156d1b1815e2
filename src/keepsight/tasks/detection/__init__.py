"""Detection: an annotation is a list of boxes with classes, ``{"boxes": [{"label": "RBC", "box": [x1, y1, x2, y2]}]}``.

Metrics are COCO's (:mod:`keepsight.tasks.detection.average_precision`), beside them recall and precision of what is
shown, and the share of pictures in which nothing needs correcting; each with a 95 % interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keepsight.errors import DataError
from keepsight.runtime.outputs import detection as outputs
from keepsight.tasks.detection.annotation import canonical, fits, parse, validate
from keepsight.tasks.detection.average_precision import AveragePrecisions, average_precisions
from keepsight.tasks.detection.matching import Matched, match
from keepsight.tasks.intervals import Interval, wilson

__all__ = [
    "FIGURES",
    "FIXED_PLACES",
    "HEADLINE",
    "canonical",
    "check_trainable",
    "classes",
    "evaluate",
    "fits",
    "parse",
    "right",
    "score",
    "stratum",
    "summary",
    "uncertainty",
    "validate",
]

HEADLINE = "map"
FIXED_PLACES = True
FIGURES = {
    "map": "mAP@[.5:.95]",
    "ap50": "AP50",
    "ap75": "AP75",
    "recall": "boxes found",
    "precision": "boxes that are right",
    "f1": "F1 of a picture",
    "right": "pictures with nothing to correct",
    "map_small": "mAP, small boxes",
    "map_medium": "mAP, medium boxes",
    "map_large": "mAP, large boxes",
}
"""The figures in words, in the order to read them."""


def classes(value: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes of the boxes, each once, sorted."""
    return tuple(sorted({item["label"] for item in value["boxes"]}))


def summary(value: Mapping[str, Any]) -> str:
    """How many of which class, as in "2 RBC, 1 WBC"; "nothing" without boxes."""
    return outputs.summary(item["label"] for item in value["boxes"])


def stratum(value: Mapping[str, Any]) -> str:
    """Which classes the picture shows together."""
    return ", ".join(classes(value))


def uncertainty(prediction: Mapping[str, Any]) -> float:
    """The corrections to be expected for each box, 0..1: shown boxes that may be none, and hidden ones that may be."""
    shown = [float(item["confidence"]) for item in prediction["boxes"]]
    hidden = [float(item["confidence"]) for item in prediction.get("alternatives") or ()]
    expected = sum(1 - chance for chance in shown) + sum(hidden)
    return min(1.0, max(0.0, expected / (1 + len(shown))))


def score(prediction: Mapping[str, Any], value: Mapping[str, Any]) -> float:
    """F1 of the shown boxes, each of which has to overlap one of its class by half (IoU); 1 where there are none."""
    return match(prediction, value).f1


def right(prediction: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Whether every annotated box was found, with its class and an overlap of half, and nothing else."""
    return match(prediction, value).right


def check_trainable(project: str, values: Sequence[Mapping[str, Any]]) -> None:
    """Makes sure that there is something to learn.

    Raises:
        DataError: No boxes.
    """
    if not any(value["boxes"] for value in values):
        raise DataError(
            f"{project} has no boxes to learn from." if values else f"{project} has no labelled training pictures.",
            expected="pictures in train or val with boxes around what is to be found.",
            do=f"Import some with their boxes (COCO, Pascal VOC, YOLO): `keepsight data import {project} FOLDER/`.",
        )


@dataclass(frozen=True)
class ClassMetrics:
    """Figures of one class; ``support`` is the number of its annotated boxes, ``predicted`` of its shown ones."""

    recall: Interval
    precision: Interval
    ap: Interval
    ap50: Interval
    support: int
    predicted: int

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON-able values."""
        return {
            "recall": self.recall.as_dict(),
            "precision": self.precision.as_dict(),
            "ap": self.ap.as_dict(),
            "ap50": self.ap50.as_dict(),
            "support": self.support,
            "predicted": self.predicted,
        }


@dataclass(frozen=True)
class DetectionMetrics:
    """Figures of a detector on annotated pictures.

    Attributes:
        precisions: COCO's, over all listed boxes.
        recall, precision: Of the shown boxes, at an overlap of half, over all classes.
        f1: Mean over the pictures.
        right: Share of pictures with nothing to correct.
        per_class: By name.
        names: The classes.
    """

    precisions: AveragePrecisions
    recall: Interval
    precision: Interval
    f1: Interval
    right: Interval
    per_class: Mapping[str, ClassMetrics]
    names: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """``{"map": {"value", "low", "high", "n"}, "ap50", ..., "per_class": {name: ...}, "names": [...]}``."""
        return {
            "map": self.precisions.map.as_dict(),
            "ap50": self.precisions.ap50.as_dict(),
            "ap75": self.precisions.ap75.as_dict(),
            **{f"map_{size}": figure.as_dict() for size, figure in self.precisions.by_size.items()},
            "recall": self.recall.as_dict(),
            "precision": self.precision.as_dict(),
            "f1": self.f1.as_dict(),
            "right": self.right.as_dict(),
            "per_class": {name: figures.as_dict() for name, figures in self.per_class.items()},
            "names": list(self.names),
            "absent": [name for name, figures in self.per_class.items() if figures.support == 0],
        }


def evaluate(
    predictions: Sequence[Mapping[str, Any] | None],
    values: Sequence[Mapping[str, Any]],
    *,
    names: Sequence[str],
    groups: ArrayLike | None = None,
    seed: int,
) -> DetectionMetrics:
    """The figures of predictions against annotations.

    Shares of boxes and of pictures have Wilson intervals with the effective number of independent ones (boxes of one
    group of pictures are not); COCO's figures have those of a bootstrap over groups.

    Args:
        predictions: As outputs give them, with all their alternatives; None where the picture could not be read.
        values: Annotations, in the same order.
        names: The classes.
        groups: (n,) groups of pictures that are not independent.
        seed: Of the bootstrap.
    """
    given = np.arange(len(values)) if groups is None else np.asarray(groups)
    of = np.unique(given, return_inverse=True)[1].astype(np.int64)
    matched = [match(*pair) for pair in zip(predictions, values, strict=True)]
    precisions = average_precisions(predictions, values, names=names, groups=of, seed=seed)
    per_class = {}
    for name in names:
        recall, support = _share(matched, of, told=False, name=name)
        precision, predicted = _share(matched, of, told=True, name=name)
        found = precisions.per_class[name]
        per_class[name] = ClassMetrics(recall, precision, found["ap"], found["ap50"], support, predicted)
    read = [each is not None for each in predictions]
    return DetectionMetrics(
        precisions=precisions,
        recall=_share(matched, of, told=False)[0],
        precision=_share(matched, of, told=True)[0],
        f1=wilson([there * each.f1 for there, each in zip(read, matched, strict=True)], groups=of),
        right=wilson([there and each.right for there, each in zip(read, matched, strict=True)], groups=of),
        per_class=per_class,
        names=tuple(names),
    )


def _share(
    matched: Sequence[Matched], of: NDArray[np.int64], *, told: bool, name: str | None = None
) -> tuple[Interval, int]:
    """The share of shown boxes that are there (``told``), or of annotated ones that were found, and how many."""
    outcomes: list[bool] = []
    groups: list[int] = []
    for each, group in zip(matched, of, strict=True):
        good, labels = (each.found, each.told) if told else (~each.missed, each.true)
        chosen = [bool(ok) for ok, label in zip(good, labels, strict=True) if name is None or label == name]
        outcomes += chosen
        groups += [int(group)] * len(chosen)
    return wilson(outcomes, groups=groups if outcomes else None), len(outcomes)
