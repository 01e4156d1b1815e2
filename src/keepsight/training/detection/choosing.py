"""What a detector is served with, chosen on held-out pictures: calibration, what is shown, temperature."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.runtime.outputs.detection import DEFAULT_SHOW, faultless, iou
from keepsight.tasks import detection as task
from keepsight.tasks.detection.average_precision import average_precisions
from keepsight.tasks.detection.matching import OVERLAP, corners
from keepsight.training.detection.export import Calibration

Floats = NDArray[np.float64]

# Fewer right and wrong boxes than this say nothing about chances.
_LEAST_BOXES = 20
_ITERATIONS = 50
_RIDGE = 1e-3
_STEEPEST = (0.3, 3.0)
_THRESHOLDS = np.round(np.arange(0.05, 0.91, 0.05), 2)
_TEMPERATURES = np.geomspace(0.05, 20, 60)


def all_boxes(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Boxes and alternatives, the surest first."""
    return sorted((*answer["boxes"], *answer["alternatives"]), key=lambda item: -item["confidence"])


def calibration(
    answers: Sequence[Mapping[str, Any]], values: Sequence[Mapping[str, Any]], *, names: Sequence[str]
) -> Calibration:
    """Chances from scores, fitted to which of the boxes were right (IoU of .5 with a free one of the class).

    A class with few boxes takes the fit over all classes, and where these are few too, scores stay as they are.
    """
    scores, right, labels = _outcomes(answers, values)
    clipped = np.clip(scores, 1e-4, 1 - 1e-4)
    logits = np.log(clipped / (1 - clipped))
    together = _fitted(logits, right, towards=(1.0, 0.0))
    fits = [_fitted(logits[chosen], right[chosen], towards=together) for chosen in (labels == name for name in names)]
    return Calibration(tuple(slope for slope, _ in fits), tuple(offset for _, offset in fits))


def _fitted(logits: Floats, right: NDArray[np.bool_], *, towards: tuple[float, float]) -> tuple[float, float]:
    """Slope and offset of a logistic regression, drawn a little ``towards`` these, which few outcomes leave as is."""
    if min(int(right.sum()), int((~right).sum())) < _LEAST_BOXES:
        return towards
    x = np.stack([logits, np.ones(len(logits))], axis=1)
    weights = start = np.array(towards)
    for _ in range(_ITERATIONS):  # Newton's method
        chance = 1 / (1 + np.exp(-x @ weights))
        gradient = x.T @ (chance - right) + _RIDGE * len(x) * (weights - start)
        curvature = (x * (chance * (1 - chance))[:, None]).T @ x + _RIDGE * len(x) * np.eye(2)
        move = np.linalg.solve(curvature, gradient)
        weights = weights - np.clip(move, -1, 1)
        if np.abs(move).max() < 1e-6:
            break
    return float(np.clip(weights[0], *_STEEPEST)), float(np.clip(weights[1], -5, 5))


def threshold(answers: Sequence[Mapping[str, Any]], values: Sequence[Mapping[str, Any]]) -> float:
    """The threshold of what is shown at which the mean score (F1 of a picture) is highest."""
    if not answers:
        return DEFAULT_SHOW
    means = [
        float(np.mean([task.score(shown(answer, show), value) for answer, value in zip(answers, values, strict=True)]))
        for show in _THRESHOLDS
    ]
    best = np.flatnonzero(np.array(means) >= max(means) - 1e-9)
    return float(_THRESHOLDS[best[len(best) // 2]])


def temperature(answers: Sequence[Mapping[str, Any]], values: Sequence[Mapping[str, Any]]) -> float:
    """What tempers the chance that nothing needs correcting, so that it is as often so (least negative log likelihood).

    Args:
        answers: As they are shown.
        values: Annotations.
    """
    if not answers:
        return 1.0
    right = np.array([task.right(*pair) for pair in zip(answers, values, strict=True)], np.float64)
    logs = np.log(np.clip([confidence(answer, temperature=1.0) for answer in answers], 1e-300, 1 - 1e-9))
    # One picture of each outcome at an even chance keeps few pictures from saying never or always.
    logs, right = np.append(logs, [math.log(0.5)] * 2), np.append(right, [0.0, 1.0])
    losses = []
    for each in _TEMPERATURES:
        chance = np.clip(np.exp(logs / each), 1e-9, 1 - 1e-9)
        losses.append(float(-(right * np.log(chance) + (1 - right) * np.log1p(-chance)).mean()))
    return float(_TEMPERATURES[int(np.argmin(losses))])


def confidence(answer: Mapping[str, Any], *, temperature: float) -> float:
    """The chance that nothing of an answer needs correcting, as it is served with this temperature."""
    chances = np.array([item["confidence"] for item in all_boxes(answer)], np.float64)
    return faultless(chances, shown=len(answer["boxes"]), temperature=temperature)


def shown(answer: Mapping[str, Any], show: float) -> dict[str, Any]:
    """The answer as another threshold would give it."""
    listed = all_boxes(answer)
    count = sum(item["confidence"] >= show for item in listed)
    return {"boxes": listed[:count], "alternatives": listed[count:]}


def precision(
    answers: Sequence[Mapping[str, Any]], values: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> tuple[float, float]:
    """COCO's mean average precision, and at an overlap of one half; 0 where nothing is annotated."""
    groups = np.arange(len(values))
    found = average_precisions(answers, values, names=names, groups=groups, seed=0, resamples=0)
    return found.map.value or 0.0, found.ap50.value or 0.0


def _outcomes(
    answers: Sequence[Mapping[str, Any]], values: Sequence[Mapping[str, Any]]
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.str_]]:
    """Score of each box of the answers, whether it was right, and its class."""
    scores: list[float] = []
    right: list[bool] = []
    labels: list[str] = []
    for answer, value in zip(answers, values, strict=True):
        listed, true = all_boxes(answer), value["boxes"]
        overlaps = iou(corners(listed), corners(true))
        free = np.ones(len(true), np.bool_)
        for item, row in zip(listed, overlaps, strict=True):
            same = np.array([other["label"] == item["label"] for other in true], np.bool_)
            possible = np.where(free & same, row, 0.0)
            hit = bool(len(true)) and float(possible.max()) >= OVERLAP
            if hit:
                free[int(possible.argmax())] = False
            scores.append(item["confidence"])
            right.append(hit)
            labels.append(item["label"])
    return np.array(scores, np.float64), np.array(right, np.bool_), np.array(labels, np.str_)
