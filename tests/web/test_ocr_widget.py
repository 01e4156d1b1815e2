"""The widget for documents: what it shows of a prediction, and what its form says."""

from __future__ import annotations

import json

import pytest

from keepsight.errors import AnnotationError
from keepsight.web.widgets import ocr

SIZE = (320, 400)
PREDICTION = {
    "label": "total: 9.00",
    "confidence": 0.61,
    "lines": [{"text": "TOTAL 9.00", "box": [20, 30, 120, 50], "confidence": 0.9}],
    "fields": {"total": "9.00"},
    "found": {"total": {"confidence": 0.55, "line": 0}},
}
CLASSES = {"date": 4, "total": 9}


def test_a_prediction_is_shown_with_its_doubts() -> None:
    editor = ocr.editor(PREDICTION, CLASSES, size=SIZE)
    assert editor.said is not None
    assert editor.said.sure == "is not sure"
    assert [(field.name, field.text, field.key, field.unsure) for field in editor.fields] == [
        ("date", "", "1", True),
        ("total", "9.00", "2", True),
    ]
    assert json.loads(editor.lines) == [{"text": "TOTAL 9.00", "box": [20, 30, 120, 50]}]
    # Lines that nobody has looked at are no labels.
    assert json.loads(editor.value) == {"fields": {"total": "9.00"}}
    assert not editor.checked


def test_where_there_are_no_fields_the_lines_are_the_answer() -> None:
    editor = ocr.editor({**PREDICTION, "fields": {}}, {}, size=SIZE)
    assert editor.checked
    assert json.loads(editor.value) == {"lines": [{"text": "TOTAL 9.00", "box": [20, 30, 120, 50]}]}


def test_a_blind_check_shows_nothing() -> None:
    editor = ocr.editor(None, CLASSES, size=SIZE)
    assert editor.said is None
    assert editor.lines == "[]"
    assert all(field.text == "" and not field.unsure for field in editor.fields)


def test_an_annotation_is_corrected_as_it_is() -> None:
    value = {"fields": {"total": "9.00"}, "lines": PREDICTION["lines"]}
    editor = ocr.editor(value, CLASSES, size=SIZE)
    assert editor.said is None
    assert editor.checked
    assert json.loads(editor.value)["fields"] == {"total": "9.00"}


def test_what_a_form_says() -> None:
    form = {"value": '{"fields": {"total": " 9.00"}}', "new_fields": "yes"}
    assert ocr.read(form) == ({"fields": {"total": "9.00"}}, True)
    assert ocr.read({"value": json.dumps({"fields": {"total": "1"}})})[1] is False
    for empty in ({}, {"value": ""}, {"value": "{}"}, {"value": "{"}):
        with pytest.raises(AnnotationError):
            ocr.read(empty)


def test_words() -> None:
    assert ocr.words(PREDICTION) == "total: 9.00"
