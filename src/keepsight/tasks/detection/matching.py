"""Which found boxes are which annotated ones, at an overlap of one half: counts, F1, right or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.runtime.outputs.detection import iou

OVERLAP = 0.5


@dataclass(frozen=True)
class Matched:
    """A prediction beside its annotation.

    Attributes:
        found: bool, for each shown box of the prediction: whether an annotated one of its class is there.
        told: Their classes.
        missed: bool, for each annotated box: whether no shown box is there.
        true: Their classes.
    """

    found: NDArray[np.bool_]
    told: tuple[str, ...]
    missed: NDArray[np.bool_]
    true: tuple[str, ...]

    @property
    def f1(self) -> float:
        """2 TP / (boxes shown + boxes annotated); 1 where neither has any (van Rijsbergen 1979)."""
        boxes = len(self.told) + len(self.true)
        return 2 * int(self.found.sum()) / boxes if boxes else 1.0

    @property
    def right(self) -> bool:
        """Whether nothing needs correcting."""
        return bool(self.found.all()) and not self.missed.any()


def match(prediction: Mapping[str, Any] | None, value: Mapping[str, Any]) -> Matched:
    """The shown boxes, surest first, each with the free annotated one of its class that it overlaps most, from .5 on.

    A picture that could not be read (None) shows nothing, and nothing of it is right.
    """
    shown = [] if prediction is None else sorted(prediction["boxes"], key=lambda item: -item.get("confidence", 1.0))
    told = tuple(item["label"] for item in shown)
    true = tuple(item["label"] for item in value["boxes"])
    overlaps = iou(corners(shown), corners(value["boxes"]))
    overlaps *= np.array([[one == other for other in true] for one in told], np.bool_).reshape(overlaps.shape)
    found, free = np.zeros(len(told), np.bool_), np.ones(len(true), np.bool_)
    if true:
        for place, row in enumerate(overlaps):
            best = int(np.argmax(np.where(free, row, -1.0)))
            if free[best] and row[best] >= OVERLAP:
                found[place], free[best] = True, False
    return Matched(found, told, free, true)


def corners(items: Any) -> NDArray[np.float64]:
    """The corners of boxes, (n, 4)."""
    return np.array([item["box"] for item in items], np.float64).reshape(-1, 4)
