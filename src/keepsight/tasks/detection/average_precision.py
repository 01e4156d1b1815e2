"""COCO's average precision (Lin et al. 2014), with intervals from resampled groups of pictures.

The figures are those of the COCO evaluation for boxes: matching by class, ten overlaps from .50 to .95, 101 recall
levels, at most 100 boxes of a class and picture, sizes by area (small below 32 x 32 pixels, large above 96 x 96). They
are computed here and not by pycocotools because the intervals need weighted pictures, which it does not know; a test
compares both. Intervals are percentiles of a bootstrap over whole groups (Efron and Tibshirani 1993).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.runtime.outputs.detection import iou
from keepsight.tasks.detection.matching import corners
from keepsight.tasks.intervals import Interval

Floats = NDArray[np.float64]

OVERLAPS = np.linspace(0.5, 0.95, 10)
SIZES: dict[str, tuple[float, float]] = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
RESAMPLES = 200
_RECALLS = np.linspace(0, 1, 101)
_MOST = 100
# Resamples times boxes that are worked on at once.
_CELLS = 2_000_000


@dataclass(frozen=True)
class _Ranked:
    """The found boxes of one class, surest first, against the annotated ones of one size.

    Attributes:
        picture: int (d,), of each found box.
        hit: bool (overlaps, d), whether it is one of the annotated ones.
        counts: bool (overlaps, d), False where the box is to be ignored (of another size).
        annotated: float (pictures,), annotated boxes of the class and size.
    """

    picture: NDArray[np.int64]
    hit: NDArray[np.bool_]
    counts: NDArray[np.bool_]
    annotated: Floats


@dataclass(frozen=True)
class AveragePrecisions:
    """What was measured; a figure without annotated boxes has no value.

    Attributes:
        map: Mean over classes and overlaps.
        ap50, ap75: Mean over classes at an overlap of .5 and .75.
        by_size: The same as ``map`` for "small", "medium" and "large" boxes.
        per_class: By name: "ap" over all overlaps, and "ap50".
    """

    map: Interval
    ap50: Interval
    ap75: Interval
    by_size: Mapping[str, Interval]
    per_class: Mapping[str, Mapping[str, Interval]]


def average_precisions(
    predictions: Sequence[Mapping[str, Any] | None],
    values: Sequence[Mapping[str, Any]],
    *,
    names: Sequence[str],
    groups: NDArray[np.int64],
    seed: int,
    resamples: int = RESAMPLES,
) -> AveragePrecisions:
    """The figures of predictions (boxes and alternatives together) against annotations.

    Args:
        predictions: As outputs give them; None counts as a picture in which nothing was found.
        values: Annotations.
        names: The classes.
        groups: int (n,) from 0 on, pictures of one group are drawn together.
        seed: Of the resampling.
        resamples: For the intervals; without any they are as wide as they can be.
    """
    listed = [[] if each is None else [*each["boxes"], *each["alternatives"]] for each in predictions]
    sizes = list(SIZES)
    # (class, size, resample, overlap); the first resample is the pictures themselves.
    weights = _weights(groups, len(values), seed=seed, resamples=resamples)
    table = np.full((len(names), len(sizes), len(weights), len(OVERLAPS)), np.nan)
    annotated = np.zeros((len(names), len(sizes)), np.int64)
    for number, name in enumerate(names):
        found = [[item for item in items if item["label"] == name] for items in listed]
        true = [corners([item for item in value["boxes"] if item["label"] == name]) for value in values]
        for place, size in enumerate(sizes):
            ranked = _ranked(found, true, SIZES[size])
            annotated[number, place] = int(ranked.annotated.sum())
            if annotated[number, place]:
                table[number, place] = _precisions(ranked, weights)
    pictures = len(values)
    everything, half, three_quarters = table[:, 0], table[:, 0, :, 0], table[:, 0, :, 5]
    return AveragePrecisions(
        map=_interval(_mean(everything.mean(axis=-1)), pictures),
        ap50=_interval(_mean(half), pictures),
        ap75=_interval(_mean(three_quarters), pictures),
        by_size={
            size: _interval(_mean(table[:, place].mean(axis=-1)), int(annotated[:, place].sum()))
            for place, size in enumerate(sizes)
            if size != "all"
        },
        per_class={
            name: {
                "ap": _interval(everything[number].mean(axis=-1), int(annotated[number, 0])),
                "ap50": _interval(half[number], int(annotated[number, 0])),
            }
            for number, name in enumerate(names)
        },
    )


def _weights(groups: NDArray[np.int64], pictures: int, *, seed: int, resamples: int) -> Floats:
    """How often each picture counts: once, then as drawn, (1 + resamples, pictures)."""
    count = int(groups.max()) + 1 if pictures else 0
    if not count:
        return np.ones((1, pictures))
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return np.concatenate([np.ones((1, pictures)), drawn[:, groups].astype(np.float64)])


def _ranked(found: Sequence[Sequence[Mapping[str, Any]]], true: Sequence[Floats], size: tuple[float, float]) -> _Ranked:
    pictures, chances, hits, counted, annotated = [], [], [], [], []
    for picture, (items, boxes) in enumerate(zip(found, true, strict=True)):
        ordered = sorted(items, key=lambda item: -item["confidence"])[:_MOST]
        hit, counts, inside = _matched(corners(ordered), boxes, size)
        pictures += [picture] * len(ordered)
        chances += [item["confidence"] for item in ordered]
        hits.append(hit)
        counted.append(counts)
        annotated.append(inside)
    order = np.argsort(-np.array(chances, np.float64), kind="stable")
    return _Ranked(
        picture=np.array(pictures, np.int64)[order],
        hit=np.concatenate([np.zeros((len(OVERLAPS), 0), np.bool_), *hits], axis=1)[:, order],
        counts=np.concatenate([np.zeros((len(OVERLAPS), 0), np.bool_), *counted], axis=1)[:, order],
        annotated=np.array(annotated, np.float64),
    )


def _matched(
    boxes: Floats, true: Floats, size: tuple[float, float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], int]:
    """Hits and what counts, both (overlaps, d), and how many annotated boxes are of the size."""
    other = ~_within(true, size)
    hit = np.zeros((len(OVERLAPS), len(boxes)), np.bool_)
    counts = np.repeat(_within(boxes, size)[None], len(OVERLAPS), axis=0)
    overlaps = iou(boxes, true)
    free = np.ones((len(OVERLAPS), len(true)), np.bool_)
    levels = np.arange(len(OVERLAPS))
    for place in np.flatnonzero(overlaps.max(axis=1, initial=0) >= OVERLAPS[0]):
        row = overlaps[place]
        possible = free & (row >= np.minimum(OVERLAPS, 1 - 1e-10)[:, None])
        # An annotated box of another size is taken only where none of this size is there; of equals the last wins.
        rank = np.where(possible, row - 2.0 * other, -9.0)[:, ::-1]
        best = len(true) - 1 - rank.argmax(axis=1)
        taken = possible[levels, best]
        hit[:, place] = taken
        counts[:, place] = np.where(taken, ~other[best], counts[:, place])
        free[levels[taken], best[taken]] = False
    return hit, counts, int((~other).sum())


def _within(boxes: Floats, size: tuple[float, float]) -> NDArray[np.bool_]:
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return np.asarray((area >= size[0]) & (area <= size[1]))


def _precisions(ranked: _Ranked, weights: Floats) -> Floats:
    """Average precision of each resample at each overlap, (resamples, overlaps); nan where none was annotated."""
    total = weights @ ranked.annotated
    result = np.zeros((len(weights), len(OVERLAPS)))
    step = max(1, _CELLS // max(1, len(ranked.picture)))
    for level in range(len(OVERLAPS)):
        counts = ranked.counts[level]
        picture, hit = ranked.picture[counts], ranked.hit[level][counts].astype(np.float64)
        for start in range(0, len(weights), step):
            drawn = weights[start : start + step][:, picture]
            hits = np.cumsum(drawn * hit, axis=1)
            shown = np.cumsum(drawn, axis=1)
            precision = hits / np.maximum(shown, np.spacing(1))
            precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            for row in range(len(drawn)):
                result[start + row, level] = _interpolated(hits[row], precision[row], float(total[start + row]))
    result[total <= 0] = np.nan
    return result


def _interpolated(hits: Floats, precision: Floats, total: float) -> float:
    if total <= 0 or not len(hits):
        return 0.0
    places = np.searchsorted(hits / total, _RECALLS, side="left")
    return float(precision[places[places < len(hits)]].sum() / len(_RECALLS))


def _mean(table: Floats) -> Floats:
    """Over the classes (first axis) that have annotated boxes."""
    there = ~np.isnan(table)
    count = there.sum(axis=0)
    sums = np.where(there, table, 0.0).sum(axis=0)
    return np.asarray(np.where(count > 0, sums / np.maximum(count, 1), np.nan))


def _interval(samples: Floats, n: int) -> Interval:
    value = float(samples[0])
    drawn = samples[1:][~np.isnan(samples[1:])]
    if np.isnan(value) or not len(drawn):
        return Interval(None if np.isnan(value) else value, 0.0, 1.0, n)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value, min(value, float(low)), max(value, float(high)), n)
