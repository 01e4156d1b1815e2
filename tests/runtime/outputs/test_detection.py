"""Boxes and scores become answers in the picture's own pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keepsight.errors import BundleError
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.outputs.detection import DetectionOutput, decode, faultless, iou, suppress
from keepsight.runtime.preprocess import Preprocessing


def info(*, fit: str = "stretch", temperature: float = 1.0, **thresholds: float) -> BundleInfo:
    return BundleInfo(
        task="detection",
        labels=("cup", "lid"),
        preprocessing=Preprocessing(size=100, fit=fit),
        created_at="2026-01-01T00:00:00+00:00",
        temperature=temperature,
        thresholds=thresholds or {"show": 0.5},
    )


def answer(
    boxes: Any, scores: Any, *, top_k: int = 5, size: tuple[int, int] = (100, 100), **given: Any
) -> DetectionOutput:
    tensors = {"boxes": np.array([boxes], np.float32), "scores": np.array([scores], np.float32)}
    return decode(tensors, info=info(**given), top_k=top_k, sizes=[size])[0]


def test_places_are_pixels_of_the_original_picture() -> None:
    box = [[10.0, 20.0, 50.0, 60.0]]

    stretched = answer(box, [[0.9, 0.0]], size=(400, 200)).boxes[0]
    padded = answer(box, [[0.9, 0.0]], size=(400, 200), fit="pad").boxes[0]

    assert stretched.box == (40, 40, 200, 120)
    # 400 x 200 pixels fill the upper half of the square.
    assert padded.box == (40, 80, 200, 200)
    assert padded.label == "cup"
    assert padded.confidence == pytest.approx(0.9)


def test_overlapping_boxes_of_one_class_are_one_thing_and_of_two_classes_two() -> None:
    boxes = [[10, 10, 50, 50], [11, 11, 51, 51], [60, 60, 90, 90]]

    found = answer(boxes, [[0.9, 0.0], [0.8, 0.6], [0.0, 0.7]])

    assert found.label == "2 lid, 1 cup"
    assert [(item.label, round(item.confidence, 2)) for item in found.boxes] == [
        ("cup", 0.9),
        ("lid", 0.7),
        ("lid", 0.6),
    ]


def test_the_threshold_shows_and_alternatives_fill_up() -> None:
    boxes = [[place * 10, 0, place * 10 + 8, 8] for place in range(8)]
    scores = [[0.95 - 0.1 * place, 0.0] for place in range(8)]

    found = answer(boxes, scores, top_k=6)
    every = answer(boxes, scores, top_k=1000)

    assert len(found.boxes) == 5
    assert len(found.alternatives) == 1
    assert len(every.alternatives) == 3
    assert found.confidence == every.confidence, "how much is listed says nothing about how sure the answer is"
    assert [item.confidence for item in found.boxes] == sorted((item.confidence for item in found.boxes), reverse=True)
    assert list(answer(boxes, scores, top_k=1).alternatives) == []


def test_nothing_is_an_answer_too() -> None:
    found = answer([[0, 0, 5, 5]], [[0.001, 0.0]])

    assert found.as_dict() == {"label": "nothing", "confidence": 1.0, "boxes": [], "alternatives": []}


def test_boxes_end_at_the_rim_and_empty_ones_are_dropped() -> None:
    found = answer([[-20, -20, 30, 130], [120, 0, 140, 50]], [[0.9, 0], [0.9, 0]])

    assert [item.box for item in found.boxes] == [(0, 0, 30, 100)]


def test_confidence_is_the_tempered_chance_that_all_is_right() -> None:
    boxes, scores = [[0, 0, 5, 5], [50, 50, 60, 60], [70, 70, 90, 90]], [[0.9, 0], [0.8, 0], [0.3, 0]]

    assert answer(boxes, scores).confidence == pytest.approx(0.9 * 0.8 * 0.7)
    assert answer(boxes, scores, temperature=2.0).confidence == pytest.approx((0.9 * 0.8 * 0.7) ** 0.5)
    assert faultless(np.array([1.0, 0.0]), shown=1, temperature=1.0) < 1
    assert faultless(np.zeros(0), shown=0, temperature=1.0) == 1


def test_many_boxes_are_decided_like_one_by_one() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 90, (300, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 30, (300, 2))], axis=1)
    classes = rng.integers(0, 3, 300)

    kept = suppress(boxes, classes, overlap=0.5).tolist()

    slow: list[int] = []
    for place in range(300):
        if all(classes[place] != classes[other] or iou(boxes[[place]], boxes[[other]])[0, 0] <= 0.5 for other in slow):
            slow.append(place)
    assert kept == slow


def test_overlap_of_boxes() -> None:
    found = iou(np.array([[0, 0, 10, 10], [5, 5, 5, 9]]), np.array([[0, 0, 10, 5], [20, 20, 30, 30]]))

    assert found.tolist() == [[0.5, 0.0], [0.0, 0.0]]


def test_tensors_that_do_not_fit() -> None:
    with pytest.raises(BundleError, match="2 labels"):
        answer([[0, 0, 5, 5]], [[0.1, 0.2, 0.3]])
    with pytest.raises(BundleError, match="not finite"):
        answer([[0, 0, 5, float("nan")]], [[0.1, 0.2]])
