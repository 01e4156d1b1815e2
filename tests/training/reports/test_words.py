"""Figures in plain words: what a shop owner reads first."""

from __future__ import annotations

from typing import Any

import pytest

from keepsight.training.models import Model
from keepsight.training.reports import words
from keepsight.training.reports.content import Content
from tests.training.reports.sample import content, interval


def summary(**changes: Any) -> str:
    return words.summary(content(**changes))


def test_the_summary_names_how_good_where_weak_and_what_hurts() -> None:
    said = summary()
    assert said.startswith("Model 7 is right on 91 of 100 test pictures (200 pictures; 95 % sure")
    assert 'weakest on "pear": it finds 30 of 60 pictures' in said
    assert 'takes "pear" for "quince" (25 pictures)' in said
    assert "clearly worse where camera is door: right on 70 of 100" in said
    assert "loses most when pictures are blurred (out of focus): from 90 of 100 to 40 of 100" in said
    assert '"plum" it never learned' in said


def test_what_is_not_clear_is_not_said() -> None:
    evaluation = content().evaluation
    slices = [{**row, "clear": False} for row in evaluation["slices"]]
    assert "clearly worse" not in summary(evaluation={**evaluation, "slices": slices})
    card = [{**row, "accuracy": interval(0.895)} for row in evaluation["robustness"]]
    assert "next to nothing" in summary(evaluation={**evaluation, "robustness": card})


def test_classes_with_few_pictures_are_not_called_weak() -> None:
    metrics = content().metrics
    rows = {name: {**row, "support": 4} for name, row in metrics["per_class"].items()}
    assert "weakest" not in summary(metrics={**metrics, "per_class": rows})


def test_without_test_pictures_it_says_so() -> None:
    assert "never tried on test pictures" in summary(metrics={}, evaluation={})


def test_another_task_is_told_by_its_own_figure() -> None:
    said = summary(metrics={"map50": interval(0.61)}, evaluation={})
    assert said == "Model 7 reaches 61.0 % (56.0 to 66.0) on 200 pictures."


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 of 100"), (0.004, "0.4 of 100"), (0.912, "91 of 100"), (0.997, "99.7 of 100"), (1.0, "100 of 100")],
)
def test_all_and_nothing_are_not_claimed_lightly(share: float, text: str) -> None:
    assert words.of_100(share) == text


def test_the_run_is_told_with_budget_and_cost() -> None:
    told = dict(words.run(content()))
    assert told["recipe"] == "finetune"
    assert told["epochs"] == "9"
    assert told["budget"] == "10 min and 2 EUR"
    assert told["worked"] == "5 min"
    assert told["cost"] == "0.0123 EUR"
    assert told["started by"] == "labels: 200 new labels"
    assert "candidates" not in told


def test_a_model_without_a_run_has_little_to_tell() -> None:
    model: Model = content().model
    assert [name for name, _ in words.run(Content("shop", "classification", model, {}, None))] == [
        "dataset version",
        "bundle",
    ]


def test_a_check_that_does_not_bind_is_only_told() -> None:
    assert words.status({"status": "fail", "binding": False}) == "told"
    assert words.status({"status": "pass", "binding": False}) == "pass"
    assert words.status({"status": "fail"}) == "fail"
