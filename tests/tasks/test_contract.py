"""What holds for every task, those from outside included: the same words, figures and forms on every floor.

A task joins by an entry in ``tests/tasks/cases.py``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keepsight import tasks
from keepsight.errors import AnnotationError, DataError, NotFoundError
from keepsight.runtime.outputs import output_module
from keepsight.runtime.predictor import Predictor
from keepsight.training import recipes
from keepsight.web import render, widgets
from tests.plugins.installed import on_path
from tests.tasks.cases import CASES, Case, Value

OUTSIDE = "counting"
FORM = """{% import "widgets/" ~ task ~ ".html" as widget with context %}{{ widget.over(editor) }}
{% if told %}{{ widget.said(editor) }}{% endif %}{{ widget.choose(editor) }}{{ widget.add() }}"""


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest, counting: Path) -> Iterator[str]:
    if request.param != OUTSIDE:
        yield request.param
        return
    with on_path(counting):
        yield request.param


@pytest.fixture
def case(name: str) -> Case:
    return CASES[name]


@pytest.fixture
def task(name: str) -> tasks.Task:
    return tasks.get(name)


def test_every_task_is_here() -> None:
    assert {*tasks.names(), OUTSIDE} == set(CASES)


def test_annotations_have_one_form(task: tasks.Task, case: Case) -> None:
    for value in case.values:
        assert task.parse(value) == task.canonical(value) == value
        assert json.loads(json.dumps(value)) == value
    for raw, value in case.raw:
        once = task.canonical(task.parse(raw))
        assert once == value
        assert task.canonical(task.parse(once)) == once
    for raw in case.refused:
        with pytest.raises(AnnotationError):
            task.canonical(task.parse(raw))


def test_a_prediction_can_become_an_annotation(task: tasks.Task, case: Case) -> None:
    for value in case.values:
        assert task.canonical(task.parse(case.prediction(value))) == value


def test_classes_are_known_or_refused(task: tasks.Task, case: Case) -> None:
    for value in case.values:
        task.validate(value, case.labels)
        assert set(task.classes(value)) <= set(case.labels)
        assert list(task.classes(value)) == sorted(set(task.classes(value)))
    if case.unknown is not None:
        with pytest.raises(AnnotationError):
            task.validate(case.unknown, case.labels)


def test_annotation_and_prediction_are_told_in_the_same_words(task: tasks.Task, name: str, case: Case) -> None:
    for value in case.values:
        said = case.prediction(value)
        assert task.summary(value) == task.summary(said) == said["label"]
        assert widgets.get(name).words(value) == widgets.get(name).words(said)
        assert isinstance(task.stratum(value), str)


def test_only_the_truth_is_right(task: tasks.Task, case: Case) -> None:
    for said in case.values:
        prediction = case.prediction(said)
        assert 0 <= task.uncertainty(prediction) <= 1
        for value in case.values:
            assert task.right(prediction, value) is (said == value)
            score = task.score(prediction, value)
            assert 0 <= score <= 1
            assert (score == 1) is (said == value)


def test_figures_have_one_shape(task: tasks.Task, case: Case) -> None:
    values = [value for value in case.values for _ in range(6)]
    said: list[Value | None] = [case.prediction(value) for value in values]
    perfect = measured(task, said, values, case)
    assert perfect[task.HEADLINE]["value"] == pytest.approx(1)
    assert tasks.right_share(perfect)["value"] == 1  # type: ignore[index]
    worse = measured(task, [None, *said[1:]], values, case)
    assert tasks.right_share(worse)["value"] == pytest.approx(1 - 1 / len(values))  # type: ignore[index]
    assert worse[task.HEADLINE]["value"] <= perfect[task.HEADLINE]["value"]
    nothing = task.evaluate([], [], names=case.labels, seed=0).as_dict()
    assert nothing[task.HEADLINE]["value"] is None
    for label in perfect.get("per_class", {}):
        assert label in case.labels


def measured(task: tasks.Task, said: list[Value | None], values: list[Value], case: Case) -> dict[str, Any]:
    groups = np.arange(len(values)) // 2
    found = task.evaluate(said, values, names=case.labels, groups=groups, seed=0).as_dict()
    assert json.loads(json.dumps(found)) == found
    assert task.evaluate(said, values, names=case.labels, groups=groups, seed=0).as_dict() == found
    figures = [figure for figure in found.values() if isinstance(figure, dict) and "value" in figure]
    figures += [rows["recall"] for rows in found.get("per_class", {}).values() if "recall" in rows]
    assert figures
    for figure in figures:
        assert set(figure) == {"value", "low", "high", "n"}
        assert figure["value"] is None or figure["low"] <= figure["value"] <= figure["high"]
    return found


def test_there_must_be_something_to_learn(task: tasks.Task, case: Case) -> None:
    task.check_trainable("shop", list(case.values))
    with pytest.raises(DataError, match="shop"):
        task.check_trainable("shop", [])


def test_recipes_are_found(name: str) -> None:
    assert callable(recipes.get(name, "auto"))
    with pytest.raises(NotFoundError, match="auto"):
        recipes.get(name, "magic")


def test_a_model_answers(task: tasks.Task, name: str, case: Case) -> None:
    bundle = case.bundle()
    predictor = Predictor(bundle)
    predictor.warm()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*case.size[::-1], 3), dtype=np.uint8))
    file = io.BytesIO()
    picture.save(file, "PNG")
    for top_k in (1, 5, 1000):
        prediction = predictor.predict(file.getvalue(), top_k=top_k)
        said = json.loads(json.dumps(prediction.output.as_dict()))
        assert said["label"] == prediction.output.label == task.summary(said)
        assert said["confidence"] == prediction.output.confidence
        assert 0 <= prediction.output.confidence <= 1
        assert prediction.features.ndim == 1
        assert prediction.features.dtype == np.float32
        assert np.isfinite(prediction.features).all()
        assert 0 <= task.uncertainty(said) <= 1
        assert task.right(said, task.canonical(task.parse(said))) is True
    labels = output_module(name).summaries(bundle.info)
    assert not labels or said["label"] in labels
    assert len(set(labels)) == len(labels)


def test_what_is_saved_is_what_is_seen(name: str, task: tasks.Task, case: Case) -> None:
    widget = widgets.get(name)
    classes = dict.fromkeys(case.labels, 1)
    for value in case.values:
        for shown in (case.prediction(value), value):
            editor = widget.editor(shown, classes, size=case.size)
            raw, new = widget.read(filled(name, editor, case, value, told="confidence" in shown))
            assert task.canonical(task.parse(raw)) == value
            assert new is False


def filled(name: str, editor: Any, case: Case, value: Value, *, told: bool) -> dict[str, str]:
    """What a browser without scripts sends when the button that saves is pressed, and nothing else was touched."""
    page = render.environment().from_string(FORM).render(task=name, editor=editor, told=told)
    fields = Fields()
    fields.feed(page)
    entered = next((attributes for attributes in fields.buttons if attributes.get("data-key") == "Enter"), None)
    if entered is None:
        assert case.press is not None, f"no button of {name} has the key Enter"
        wanted = case.press(value)
        pressed = [
            attributes for attributes in fields.buttons if (attributes.get("name"), attributes.get("value")) == wanted
        ]
        assert pressed, f"no button {wanted} in {page}"
        entered = pressed[0]
    return fields.values | ({entered["name"]: entered.get("value", "")} if entered.get("name") else {})


class Fields(HTMLParser):
    """The successful controls of a form, and its buttons."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self.buttons: list[dict[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {key: value or "" for key, value in attrs}
        if tag == "button":
            self.buttons.append(attributes)
        elif tag == "input" and attributes.get("name") and "disabled" not in attributes:
            if attributes.get("type") in {"checkbox", "radio"}:
                if "checked" in attributes:
                    self.values[attributes["name"]] = attributes.get("value", "on")
            else:
                self.values[attributes["name"]] = attributes.get("value", "")
