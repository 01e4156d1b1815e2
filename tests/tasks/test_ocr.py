"""Annotations of documents, and how readings are judged."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsight.errors import AnnotationError, DataError
from keepsight.tasks import ocr
from keepsight.tasks.ocr.distance import blocks, edit_distance

LINE = {"text": "TOTAL 9.00", "box": [10, 20, 110, 40]}


def line(text: str, left: float, top: float, right: float = 0) -> dict[str, Any]:
    return {"text": text, "box": [left, top, right or left + 10 * len(text), top + 20]}


def test_an_annotation_has_one_form() -> None:
    told = {"lines": [{"text": "TOTAL  9.00 ", "box": (10, 20, 110.04, 40)}], "fields": {"total": 9.5, "date": ""}}
    value = ocr.parse(told)
    assert value == {"lines": [{"text": "TOTAL 9.00", "box": [10.0, 20.0, 110.0, 40.0]}], "fields": {"total": "9.5"}}
    assert ocr.canonical(value) == value
    assert ocr.parse('{"fields": {"b": "2", "a": "1"}, "confidence": 0.4}') == {"fields": {"a": "1", "b": "2"}}
    assert ocr.classes(value) == ("total",)
    assert ocr.stratum({"fields": {"b": "2", "a": "1"}}) == "a, b"


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ({"lines": [], "fields": {}}, "is empty"),
        ({"fields": {"total": " "}}, "is empty"),
        ({"lines": [{"text": "", "box": [0, 0, 1, 1]}]}, "is empty"),
        ({"label": "apple"}, "neither lines nor fields"),
        ("nonsense", "not JSON"),
        (7, "is a int"),
        ({"lines": "TOTAL"}, "lines are a str"),
        ({"lines": [{"text": "a"}]}, "Line 1 has no text or no box"),
        ({"lines": [LINE, {"text": "a", "box": [1, 2, 3]}]}, "box of line 2"),
        ({"lines": [{"text": "a", "box": [5, 5, 5, 9]}]}, "is empty"),
        ({"lines": [{"text": "a", "box": [1, 2, float("nan"), 3]}]}, "box of line 1"),
        ({"lines": [{"text": "a\x07", "box": [1, 2, 3, 4]}]}, "control characters"),
        ({"fields": ["total"]}, "fields are a list"),
        ({"fields": {"total": ["9.00"]}}, 'field "total" is a list'),
        ({"fields": {" ": "9.00"}}, "has the name"),
    ],
)
def test_what_is_none_is_told(raw: Any, found: str) -> None:
    with pytest.raises(AnnotationError, match=found) as caught:
        ocr.parse(raw)
    assert "lines" in caught.value.expected


def test_fields_must_be_known() -> None:
    ocr.validate({"fields": {"total": "9.00"}}, ["date", "total"])
    with pytest.raises(AnnotationError, match='no field "totl"') as caught:
        ocr.validate({"fields": {"totl": "9.00"}}, ["date", "total"])
    assert 'Did you mean "total"' in caught.value.do


def test_a_box_outside_the_picture_is_named() -> None:
    ocr.fits({"lines": [LINE]}, (110, 40))
    with pytest.raises(AnnotationError, match=r'line 1 \("TOTAL 9.00"\) lies outside'):
        ocr.fits({"lines": [LINE]}, (100, 40))


def test_nothing_to_learn_from_is_told() -> None:
    ocr.check_trainable("shop", [{"fields": {"total": "9.00"}}])
    with pytest.raises(DataError, match="no annotated documents"):
        ocr.check_trainable("shop", [])


@given(st.text("abc", max_size=12), st.text("abc", max_size=12))
def test_edit_distance_is_levenshteins(first: str, second: str) -> None:
    table = list(range(len(second) + 1))
    for row, sign in enumerate(first, start=1):
        above, table[0] = table[0], row
        for column, other in enumerate(second, start=1):
            above, table[column] = table[column], min(above + (sign != other), table[column] + 1, table[column - 1] + 1)
    assert edit_distance(first, second) == table[-1]


def test_split_and_joined_lines_lose_no_text() -> None:
    true = [line("TOTAL 9.00", 0, 0), line("THANK YOU", 0, 40)]
    split = [line("TOTAL", 0, 0), line("9.00", 60, 0), line("THANK YOU", 0, 40)]
    assert sorted(blocks(split, true)) == [("THANK YOU", "THANK YOU"), ("TOTAL 9.00", "TOTAL 9.00")]
    assert sorted(blocks(true, split)) == [("THANK YOU", "THANK YOU"), ("TOTAL 9.00", "TOTAL 9.00")]
    assert ("", "THANK YOU") in blocks(true[:1], true)
    assert ("THANK YOU", "") in blocks(true, true[:1])


def test_a_score_is_the_share_of_right_fields_or_of_right_characters() -> None:
    told = {"fields": {"total": "RM 9.00", "date": "1/2/2026"}, "lines": [line("TOTAI 9.00", 0, 0)], "confidence": 0.7}
    assert ocr.score(told, {"fields": {"total": "rm9.00", "date": "1/3/2026"}}) == 0.5
    assert ocr.score(told, {"lines": [line("TOTAL 9.00", 0, 0)]}) == pytest.approx(0.9)
    assert ocr.right(told, {"fields": {"total": "RM9.00"}})
    assert not ocr.right(told, {"lines": [line("TOTAL 9.00", 0, 0)]})
    assert ocr.score({}, {"lines": [LINE]}) == 0.0
    assert ocr.uncertainty(told) == pytest.approx(0.3)


def test_figures() -> None:
    true: list[dict[str, Any]] = [
        {"lines": [line("ABCDE", 0, 0), line("FG HI", 0, 40)], "fields": {"total": "9.00", "date": "1"}},
        {"lines": [line("ABCDE", 0, 0)], "fields": {"total": "8.00"}},
        {"fields": {"total": "7.00"}},
    ]
    told: list[dict[str, Any] | None] = [
        {"lines": [line("abcdE", 0, 0), line("FG HX", 0, 40)], "fields": {"total": "9.00", "date": "2"}},
        {"lines": [line("ABCDE", 300, 0)], "fields": {"total": "8.00", "date": "5"}},
        None,
    ]
    found = ocr.evaluate(told, true, names=("date", "total"), seed=0).as_dict()
    assert found["cer"]["value"] == pytest.approx((4 + 1 + 10) / 15)
    assert found["cer_caseless"]["value"] == pytest.approx((1 + 10) / 15)
    assert found["wer"]["value"] == pytest.approx((1 + 1 + 2) / 4)
    assert found["found"]["value"] == pytest.approx(2 / 3)
    assert found["fields"]["value"] == pytest.approx(2 / 4)
    assert found["score"]["value"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert found["right"] == {**found["right"], "value": pytest.approx(1 / 3), "n": 3}
    total, date = found["per_class"]["total"], found["per_class"]["date"]
    assert total["recall"]["value"] == pytest.approx(2 / 3)
    assert total["precision"]["value"] == 1
    assert total["f1"]["value"] == pytest.approx(2 * 2 / (3 + 2))
    assert (date["recall"]["value"], date["precision"]["value"], date["support"]) == (0, 0, 1)
    assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in (found["cer"], found["wer"]))


def test_figures_of_nothing() -> None:
    found = ocr.evaluate([], [], names=(), seed=0).as_dict()
    assert found["score"]["value"] is None
    assert found["cer"]["value"] is None
    assert found["per_class"] == {}
