"""Figures of masks against masks: overlap, fit of the outline, error of the matte."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from keepsight.runtime import rle
from keepsight.runtime.outputs.segmentation import GOOD, alpha_at, read_matte
from keepsight.tasks.intervals import Interval, wilson

BOUNDARY_TOLERANCE = 0.008
"""How far an outline may be off, as a share of the picture's diagonal (Perazzi et al. 2016)."""

RESAMPLES = 1000
# Outlines are compared on masks of at most this many pixels along the longer side.
_OUTLINE_SIDE = 1024

Mask = NDArray[np.bool_]


def overlap(first: Mapping[str, Any], second: Mapping[str, Any]) -> float:
    """The overlap (IoU) of two masks in run-length form, 0 to 1; 0 where they have different sizes."""
    if list(first["size"]) != list(second["size"]):
        return 0.0
    return intersection_over_union(rle.decode(first), rle.decode(second))


def intersection_over_union(first: Mask, second: Mask) -> float:
    """The overlap of two masks of one size, 0 to 1; 1 where both are empty."""
    either = int((first | second).sum())
    return int((first & second).sum()) / either if either else 1.0


def boundary_f(found: Mask, true: Mask) -> float:
    """How well the outline of ``found`` fits that of ``true``, 0 to 1: F of precision and recall of outline pixels.

    An outline pixel is right where the other outline passes within 0.8 % of the diagonal, rounded up to whole pixels
    (Perazzi et al. 2016, who match outlines of that width). The picture's border is part of no outline. Masks with more
    than 1,024 pixels along the longer side are reduced to that.
    """
    from scipy.ndimage import distance_transform_edt

    found, true = _reduced(found), _reduced(true)
    outlines = [_outline(mask) for mask in (found, true)]
    if not all(outline.any() for outline in outlines):
        return float(not any(outline.any() for outline in outlines))
    tolerance = math.ceil(BOUNDARY_TOLERANCE * math.hypot(*true.shape))
    away = [distance_transform_edt(~outline) for outline in outlines]
    precision = float((away[1][outlines[0]] <= tolerance).mean())
    recall = float((away[0][outlines[1]] <= tolerance).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@dataclass(frozen=True)
class SegmentationMetrics:
    """Figures of masks on annotated pictures.

    Attributes:
        iou: Mean overlap with the annotated mask.
        boundary_f: Mean fit of the outline, see `boundary_f`.
        mae: Mean absolute error of the matte per pixel, 0 to 1: smaller is better. A picture that could not be read, or
            whose mask has another size, counts as wholly wrong.
        right: Share of pictures with an overlap of at least 0.9.
        worst: Places of the pictures with the smallest overlap, at most ten, the worst first.
        unread: Pictures that could not be read.
    """

    iou: Interval
    boundary_f: Interval
    mae: Interval
    right: Interval
    worst: tuple[int, ...]
    unread: int

    def as_dict(self) -> dict[str, Any]:
        """``{"iou": {"value", "low", "high", "n"}, "boundary_f", "mae", "right", ...}``."""
        return {
            "iou": self.iou.as_dict(),
            "boundary_f": self.boundary_f.as_dict(),
            "mae": self.mae.as_dict(),
            "right": self.right.as_dict(),
            "right_from_iou": GOOD,
            "boundary_tolerance": BOUNDARY_TOLERANCE,
            "worst": list(self.worst),
            "unread": self.unread,
            "per_class": {},
        }


def evaluate(
    predictions: Sequence[Mapping[str, Any] | None],
    values: Sequence[Mapping[str, Any]],
    *,
    names: Sequence[str],  # noqa: ARG001 - the protocol of tasks; masks have no classes
    groups: ArrayLike | None = None,
    seed: int,
) -> SegmentationMetrics:
    """The figures of predicted masks against annotated ones.

    The share of right masks has a Wilson interval. Means have percentile intervals of 1,000 bootstrap samples of whole
    groups; a mean of few pictures that are all alike therefore looks more certain than it is.

    Args:
        predictions: As answers hold them; None where a picture could not be read, which counts as wholly wrong.
        values: Annotations in the same order.
        names: Not used.
        groups: Pictures of one group are not independent.
        seed: Of the bootstrap.
    """
    rows = np.array([_row(found, value) for found, value in zip(predictions, values, strict=True)]).reshape(-1, 3)
    of = np.arange(len(rows)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    means = _means(rows, of, seed=seed)
    return SegmentationMetrics(
        iou=means[0],
        boundary_f=means[1],
        mae=means[2],
        right=wilson(rows[:, 0] >= GOOD, groups=of),
        worst=tuple(int(place) for place in np.argsort(rows[:, 0], kind="stable")[:10]),
        unread=sum(found is None for found in predictions),
    )


def _row(found: Mapping[str, Any] | None, value: Mapping[str, Any]) -> tuple[float, float, float]:
    """Overlap, fit of the outline and error of the matte of one picture."""
    if found is None or list(found["mask"]["size"]) != list(value["mask"]["size"]):
        return 0.0, 0.0, 1.0
    mask, true = rle.decode(found["mask"]), rle.decode(value["mask"])
    height, width = true.shape
    matte = found.get("matte")
    alpha = mask if matte is None else alpha_at(read_matte(matte), (width, height)).astype(np.float32) / 255
    error = float(np.abs(alpha.astype(np.float32) - true).mean())
    return intersection_over_union(mask, true), boundary_f(mask, true), error


def _means(rows: NDArray[np.float64], of: NDArray[np.int64], *, seed: int) -> list[Interval]:
    """The mean of each column with its 95 % interval from resampled groups."""
    n = len(rows)
    if n == 0:
        return [Interval(None, 0.0, 1.0, 0)] * 3
    count = int(of.max()) + 1
    sums = np.zeros((count, 4))
    np.add.at(sums, of, np.column_stack([rows, np.ones(n)]))
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES) @ sums
    samples = draws[:, :3] / draws[:, 3:]
    lows, highs = np.quantile(samples, [0.025, 0.975], axis=0)
    if count == 1:  # nothing tells how much groups differ
        lows, highs = np.zeros(3), np.ones(3)
    return [
        Interval(float(value), float(min(low, value)), float(max(high, value)), n)
        for value, low, high in zip(rows.mean(axis=0), lows, highs, strict=True)
    ]


def _outline(mask: Mask) -> Mask:
    """Pixels of a mask with a neighbour above, below, left or right that does not belong to it."""
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return mask & ~inner


def _reduced(mask: Mask) -> Mask:
    longer = max(mask.shape)
    if longer <= _OUTLINE_SIDE:
        return mask
    height, width = (max(1, round(side * _OUTLINE_SIDE / longer)) for side in mask.shape)
    small = Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BOX)
    return np.asarray(small) >= 128
