"""Architecture, size and steps follow from boxes and time, and from nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from keepsight.training.detection import deciding


def sides(*values: float, each: int = 50) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Boxes of several classes, all of one class with the same side."""
    return np.repeat(values, each).astype(np.float32), np.repeat(np.arange(len(values)), each)


def test_small_boxes_ask_for_a_large_input_and_large_ones_for_default_boxes() -> None:
    small = deciding.candidates(*sides(0.045), architecture=None)
    middle = deciding.candidates(*sides(0.1), architecture=None)
    large = deciding.candidates(*sides(0.4), architecture=None)

    assert (small[0].architecture, small[0].size) == ("fcos", 448)
    assert (middle[0].architecture, middle[0].size) == ("fcos", 320)
    assert (large[0].architecture, large[0].size) == ("ssdlite", 320)
    assert [choice.size for choice in small] == [448, 384, 320, 256]
    assert "4.5%" in small[0].why


def test_few_small_things_count_beside_many_large_ones() -> None:
    many, few = np.full(1000, 0.3, np.float32), np.full(20, 0.05, np.float32)
    classes = np.array([0] * 1000 + [1] * 20)

    assert deciding.candidates(np.concatenate([many, few]), classes, architecture=None)[0].size == 448
    # Two boxes are no class to go by.
    lone = deciding.candidates(np.concatenate([many, few[:2]]), classes[:1002], architecture=None)
    assert lone[0].size == 320


def test_a_wanted_architecture_is_kept() -> None:
    assert deciding.candidates(*sides(0.4), architecture="fcos")[0].architecture == "fcos"


@pytest.mark.parametrize(
    ("seconds", "size", "steps"),
    [(math.inf, 320, 3000), (2000.0, 320, 2000), (400.0, 256, 625), (10.0, 256, 15)],
)
def test_short_time_makes_the_input_smaller(seconds: float, size: int, steps: int) -> None:
    choice, planned = deciding.affordable(
        deciding.candidates(*sides(0.1), architecture=None),
        pictures=200,
        batch=8,
        seconds=seconds,
        step_s=lambda choice: (choice.size / 320) ** 2,
    )

    assert choice.size == size
    assert planned == pytest.approx(steps, abs=1)


def test_what_a_training_needs_is_what_it_gets() -> None:
    assert deciding.left_for_training(deciding.budget_for(300.0)) == pytest.approx(300)


def test_pictures_of_like_proportions_are_stretched_and_others_padded() -> None:
    alike = np.array([[640, 480]] * 19 + [[480, 640]])
    mixed = np.array([[640, 480]] * 12 + [[480, 640]] * 8)

    assert deciding.fit(alike) == "stretch"
    assert deciding.fit(mixed) == "pad"
    box = np.array([[0.0, 0.0, 0.5, 0.5]], np.float32)
    size = np.array([[400, 200]])
    assert deciding.sides([box], size, fit="stretch").tolist() == [0.5]
    assert deciding.sides([box], size, fit="pad").tolist() == pytest.approx([0.5 * 0.5**0.5])
    assert deciding.sides([], np.zeros((0, 2), np.int64), fit="pad").shape == (0,)


def test_default_boxes_span_what_is_there() -> None:
    found = deciding.scales(np.linspace(0.05, 0.6, 200).astype(np.float32))

    assert len(found) == 6
    assert found[0] == pytest.approx(0.105, abs=0.01)
    assert found[-1] == 1
    assert list(found) == sorted(found)
    assert all(scale > 0 for scale in deciding.scales(np.full(5, 0.9, np.float32)))
