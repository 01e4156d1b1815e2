"""Widgets: one for each task, found by name; how a classification offers its classes."""

from __future__ import annotations

import pytest

from keepsight import tasks
from keepsight.errors import NotFoundError
from keepsight.web import widgets
from keepsight.web.widgets import classification

SIZE = (640, 480)
PREDICTION = {
    "label": "pear",
    "confidence": 0.61,
    "alternatives": [{"label": "quince", "confidence": 0.3}, {"label": "gone", "confidence": 0.05}],
}


def test_every_task_has_a_widget() -> None:
    assert set(tasks.names()) == set(widgets.names())
    for name in widgets.names():
        widget = widgets.get(name)
        assert callable(widget.words)
        assert callable(widget.editor)
        assert callable(widget.read)


def test_an_unknown_task_names_those_there_are() -> None:
    with pytest.raises(NotFoundError, match="classification"):
        widgets.get("clasification")


def test_few_classes_keep_their_places_whatever_the_model_said() -> None:
    classes = {"apple": 1, "pear": 9, "quince": 3}
    blind, open_ = (
        classification.editor(None, classes, size=SIZE),
        classification.editor(PREDICTION, classes, size=SIZE),
    )
    assert blind.choices == open_.choices
    assert [choice.key for choice in blind.choices] == ["1", "2", "3"]
    assert blind.said is None
    assert open_.said is not None
    assert (open_.said.label, open_.said.sure) == ("pear", "is not sure")


def test_digits_are_their_own_keys() -> None:
    editor = classification.editor(None, {str(n): 1 for n in range(10)}, size=SIZE)
    assert all(choice.key == choice.label for choice in editor.choices)
    assert not editor.many


def test_numbers_that_are_no_digits_are_not_keys() -> None:
    editor = classification.editor(None, {"12": 1, "34": 1}, size=SIZE)
    assert [choice.key for choice in editor.choices] == ["1", "2"]


def test_many_classes_have_a_short_list_first() -> None:
    classes = {f"c{n:02}": n for n in range(40)} | {"pear": 0, "quince": 0}
    shown = classification.editor(PREDICTION, classes, size=SIZE)
    assert shown.many
    # The model's first answer has its own button; a class that is gone is not offered.
    assert [choice.label for choice in shown.choices[:3]] == ["quince", "c39", "c38"]
    assert len(shown.choices) == 42
    blind = classification.editor(None, classes, size=SIZE)
    assert [choice.label for choice in blind.choices[:2]] == ["c39", "c38"]


def test_what_a_form_says() -> None:
    assert classification.read({"label": "fig"}) == ({"label": "fig"}, False)
    assert classification.read({"new_label": " medlar "}) == ({"label": "medlar"}, True)
