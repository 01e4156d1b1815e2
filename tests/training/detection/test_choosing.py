"""Calibration, threshold and temperature come from how held-out pictures were answered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keepsight.training.detection import choosing
from keepsight.training.detection.export import Calibration


def answers(count: int, *, chance: float, seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Pictures with four places, of which each holds a thing as often as ``chance`` of its score says."""
    rng = np.random.default_rng(seed)
    found, values = [], []
    for _ in range(count):
        scores = np.sort(rng.uniform(0.05, 0.95, 4))[::-1]
        boxes = [[30.0 * place, 0.0, 30.0 * place + 20, 20.0] for place in range(4)]
        there = rng.random(4) < scores * chance
        listed = [
            {"label": "a", "box": box, "confidence": float(score)} for box, score in zip(boxes, scores, strict=True)
        ]
        found.append({"boxes": listed, "alternatives": []})
        values.append({"boxes": [{"label": "a", "box": box} for box, ok in zip(boxes, there, strict=True) if ok]})
    return found, values


def test_scores_become_chances() -> None:
    found, values = answers(800, chance=0.5)

    fitted = choosing.calibration(found, values, names=("a",))

    score = 0.8
    chance = 1 / (1 + np.exp(-(fitted.slopes[0] * np.log(score / (1 - score)) + fitted.offsets[0])))
    assert chance == pytest.approx(0.4, abs=0.06)
    honest = choosing.calibration(*answers(800, chance=1.0), names=("a",))
    assert honest.slopes[0] == pytest.approx(1, abs=0.15)
    assert honest.offsets[0] == pytest.approx(0, abs=0.15)


def test_classes_are_calibrated_apart_where_they_have_boxes_enough() -> None:
    modest, sure = answers(300, chance=0.4), answers(300, chance=1.0, seed=1)
    renamed = [
        {key: [{**item, "label": "b"} for item in items] for key, items in each.items()}
        for each in (*sure[0], *sure[1])
    ]
    found, values = [*modest[0], *renamed[:300]], [*modest[1], *renamed[300:]]

    fitted = choosing.calibration(found, values, names=("a", "b", "c"))

    assert fitted.offsets[0] < fitted.offsets[1] - 0.5
    assert fitted.offsets[0] < fitted.offsets[2] < fitted.offsets[1], "a class without boxes takes the fit over all"


def test_few_boxes_say_nothing_about_chances() -> None:
    assert choosing.calibration(*answers(5, chance=0.5), names=("a",)) == Calibration.none(1)
    assert choosing.calibration([], [], names=("a", "b")) == Calibration.none(2)


def test_what_is_shown_is_what_gives_the_best_pictures() -> None:
    found, values = answers(400, chance=1.0)
    best = choosing.threshold(found, values)

    def mean(show: float) -> float:
        from keepsight.tasks import detection

        return float(np.mean([detection.score(choosing.shown(a, show), v) for a, v in zip(found, values, strict=True)]))

    assert all(mean(best) >= mean(other) - 1e-9 for other in (0.05, 0.2, 0.5, 0.8))
    assert choosing.threshold([], []) == pytest.approx(0.3)


def test_confidence_is_as_often_right_as_it_says() -> None:
    from keepsight.tasks import detection

    found, values = answers(600, chance=1.0)
    shown = [choosing.shown(answer, 0.5) for answer in found]

    temperature = choosing.temperature(shown, values)

    said = np.array([choosing.confidence(answer, temperature=temperature) for answer in shown])
    right = np.array([detection.right(*pair) for pair in zip(shown, values, strict=True)])
    assert temperature == pytest.approx(1, abs=0.25)
    assert said.mean() == pytest.approx(right.mean(), abs=0.05)
    assert choosing.temperature([], []) == 1


def test_a_model_that_is_never_wholly_right_is_never_sure() -> None:
    found, values = answers(60, chance=1.0)
    wrong = [{"boxes": [*value["boxes"], {"label": "b", "box": [0.0, 50.0, 9.0, 60.0]}]} for value in values]

    temperature = choosing.temperature([choosing.shown(answer, 0.5) for answer in found], wrong)

    assert max(choosing.confidence(answer, temperature=temperature) for answer in found) < 0.3
