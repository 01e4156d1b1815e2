"""Temperatures that recover the truth, and thresholds that keep their promise."""

from __future__ import annotations

import numpy as np
import pytest

from keepsight.training.calibration import (
    NOTHING_PASSES,
    auto_threshold,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability_table,
)


def draw(random: np.random.Generator, logits: np.ndarray) -> np.ndarray:
    """Labels that follow the logits' probabilities."""
    return np.asarray((logits + random.gumbel(size=logits.shape)).argmax(axis=1))


@pytest.mark.parametrize("truth", [0.2, 1.0, 4.0])
def test_the_temperature_is_found(truth: float) -> None:
    random = np.random.default_rng(0)
    logits = 2 * random.normal(size=(4000, 7))
    labels = draw(random, logits)
    assert fit_temperature(logits * truth, labels) == pytest.approx(truth, rel=0.06)


def test_it_is_the_minimum_and_works_beside_an_offset() -> None:
    random = np.random.default_rng(1)
    logits = 3 * random.normal(size=(3000, 4))
    offset = np.log([0.7, 0.1, 0.1, 0.1])
    labels = draw(random, logits / 2 + offset)
    found = fit_temperature(logits, labels, offset=offset)
    assert found == pytest.approx(2, rel=0.1)
    best = negative_log_likelihood(logits, labels, temperature=found, offset=offset)
    for other in (found * 0.8, found * 1.25):
        assert best < negative_log_likelihood(logits, labels, temperature=other, offset=offset)


def test_few_right_answers_do_not_end_in_certainty() -> None:
    logits = np.array([[2.0, 0.0]] * 5 + [[0.0, 2.0]] * 5)
    found = fit_temperature(logits, np.repeat([0, 1], 5))
    sure = 1 / (1 + np.exp(-2 / found))
    assert 0.85 < sure < 0.95


def test_logits_without_a_difference_give_a_finite_temperature() -> None:
    assert 0 < fit_temperature(np.zeros((5, 3)), np.zeros(5, np.int64)) < 1000
    wrong = np.array([[9.0, 0.0]] * 20)
    assert fit_temperature(wrong, np.ones(20, np.int64)) == pytest.approx(100, rel=0.01)
    absent = np.array([[3.0, 0.0, -1e4], [0.0, 3.0, -1e4]] * 20)
    assert fit_temperature(absent, np.tile([0, 1], 20)) == pytest.approx(
        fit_temperature(absent[:, :2], np.tile([0, 1], 20)), rel=1e-6
    )


def test_calibration_error_and_its_table() -> None:
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    labels = np.array([0] * 9 + [1] + [0] * 4 + [1] * 6)
    assert expected_calibration_error(probabilities, labels) == pytest.approx((0 + 0.2) / 2)
    rows = [row for row in reliability_table(probabilities, labels) if row.n]
    assert [row.n for row in rows] == [10, 10]
    assert [row.confidence for row in rows] == pytest.approx([0.6, 0.9])
    assert [row.accuracy for row in rows] == pytest.approx([0.4, 0.9])
    assert sum(row.n for row in reliability_table(np.array([[0.0, 1.0]]), np.array([1]))) == 1


def test_the_threshold_keeps_its_promise() -> None:
    random = np.random.default_rng(2)
    many = random.random(200_000) ** 0.25  # a right answer is as likely as the confidence says
    missed = passed = 0
    for _ in range(300):
        confidence = random.random(600) ** 0.25
        threshold = auto_threshold(confidence, random.random(600) < confidence, target_accuracy=0.9)
        if threshold != NOTHING_PASSES:
            passed += 1
            missed += many[many >= threshold].mean() < 0.9
    assert missed <= 0.05 * 300
    assert passed > 200


def test_good_models_answer_nearly_all_by_themselves() -> None:
    random = np.random.default_rng(3)
    confidence = random.uniform(0.5, 1, 2000)
    correct = random.random(2000) < 0.985
    assert auto_threshold(confidence, correct, target_accuracy=0.97) == pytest.approx(confidence.min())


def test_too_few_pictures_or_grouped_ones_promise_less() -> None:
    confidence = np.linspace(0.5, 1, 200)
    correct = np.ones(200, dtype=bool)
    assert auto_threshold(confidence, correct, target_accuracy=0.95) == 0.5
    assert auto_threshold(confidence[:30], correct[:30], target_accuracy=0.95) == NOTHING_PASSES
    assert auto_threshold([], [], target_accuracy=0.95) == NOTHING_PASSES
    # Ten shelves of twenty pictures are not two hundred pictures.
    shelves = np.arange(200) % 10
    assert auto_threshold(confidence, correct, target_accuracy=0.95, groups=shelves) == NOTHING_PASSES
    assert auto_threshold(confidence, ~correct, target_accuracy=0.95) == NOTHING_PASSES
