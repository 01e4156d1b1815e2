"""Boxes as people write them, and what is wrong with them in words that help."""

from __future__ import annotations

from typing import Any

import pytest

from keepsight.errors import AnnotationError, DataError
from keepsight.tasks import detection

CUP = {"label": "cup", "box": [1.0, 2.0, 30.0, 40.0]}


def value(*boxes: Any) -> dict[str, Any]:
    return {"boxes": [{"label": label, "box": box} for label, box in boxes]}


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (None, "The annotation is empty"),
        ({}, 'has no "boxes"'),
        ("cup", "no JSON"),
        ({"boxes": "cup"}, '"boxes" is a str'),
        ({"boxes": [{"box": [1, 2, 3, 4]}]}, "Box 1 has no label"),
        ({"boxes": [CUP, {"label": "lid", "box": [1, 2, 3]}]}, "Box 2 .lid. has no corners"),
        ({"boxes": [{"label": "lid", "box": [1, 2, True, 4]}]}, "has no corners"),
        ({"boxes": [{"label": "cup", "box": [30, 2, 1, 40]}]}, "has its corners swapped"),
        ({"boxes": [{"label": "cup", "box": [1, 2, 1, 40]}]}, "has no area"),
        ({"boxes": [CUP] * 5001}, "has 5001 boxes"),
    ],
)
def test_what_is_wrong_is_told(raw: Any, told: str) -> None:
    with pytest.raises(AnnotationError, match=told) as caught:
        detection.canonical(detection.parse(raw))
    assert caught.value.expected
    assert caught.value.do


def test_a_box_outside_the_picture_is_refused_and_a_pixel_is_forgiven() -> None:
    detection.fits(value(("cup", [-0.5, 0, 640.9, 480])), (640, 480))
    with pytest.raises(AnnotationError, match="over the rim of its 640 x 480 pixels") as caught:
        detection.fits(value(("cup", [600, 10, 700, 50])), (640, 480))
    assert "turned" in caught.value.do
    with pytest.raises(AnnotationError, match="left of or above"):
        detection.validate(value(("cup", [-20, 10, 70, 50])), ["cup"])


def test_an_unknown_class_names_the_nearest() -> None:
    with pytest.raises(AnnotationError, match='no class "cupp"') as caught:
        detection.validate(value(("cupp", [0, 0, 5, 5])), ["cup", "lid"])
    assert caught.value.details["nearest"] == "cup"


def test_equal_annotations_have_one_form() -> None:
    first = value(("lid", [5, 5, 9, 9]), ("cup", [0, 0, 5.004, 5]), ("cup", [0, 0, 5, 5]))
    second = value(("cup", [0.001, 0, 5, 5]), ("lid", [5, 5, 9, 9]))
    assert detection.canonical(first) == detection.canonical(second)
    assert len(detection.canonical(first)["boxes"]) == 2


def test_words_and_strata() -> None:
    found = value(("RBC", [0, 0, 5, 5]), ("RBC", [5, 5, 9, 9]), ("WBC", [0, 0, 9, 9]))
    assert detection.summary(found) == "2 RBC, 1 WBC"
    assert detection.stratum(found) == "RBC, WBC"
    assert detection.summary({"boxes": []}) == "nothing"
    with pytest.raises(DataError, match="no boxes to learn from"):
        detection.check_trainable("cells", [{"boxes": []}])


def test_score_is_f1_and_class_and_overlap_count() -> None:
    truth = value(("cup", [0, 0, 10, 10]), ("lid", [20, 20, 30, 30]))
    moved = {"boxes": [{"label": "cup", "box": [0, 0, 10, 7], "confidence": 0.9}], "alternatives": []}
    assert detection.score(moved, truth) == pytest.approx(2 / 3)
    far = {"boxes": [{"label": "cup", "box": [0, 0, 10, 4], "confidence": 0.9}], "alternatives": []}
    assert detection.score(far, truth) == 0
    wrong = {"boxes": [{"label": "lid", "box": [0, 0, 10, 10], "confidence": 0.9}], "alternatives": []}
    assert detection.score(wrong, truth) == 0
    twice = {"boxes": [{"label": "cup", "box": [0, 0, 10, 10], "confidence": chance} for chance in (0.9, 0.8)]}
    assert detection.score({**twice, "alternatives": []}, truth) == pytest.approx(0.5)


def test_the_queue_asks_for_the_doubtful_first() -> None:
    def said(*chances: float, maybe: float = 0.0) -> dict[str, Any]:
        boxes = [{"label": "cup", "box": [0, 0, 9, 9], "confidence": chance} for chance in chances]
        return {"boxes": boxes, "alternatives": [{"label": "cup", "box": [9, 9, 12, 12], "confidence": maybe}]}

    order = [said(0.99), said(0.9, 0.9), said(0.9, maybe=0.4), said(0.5, 0.5, 0.5)]
    doubts = [detection.uncertainty(each) for each in order]
    assert doubts == sorted(doubts)
    assert all(0 <= doubt <= 1 for doubt in doubts)
