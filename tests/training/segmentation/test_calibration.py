"""From the overlap that a matte expects to the chance of a good mask."""

from __future__ import annotations

import numpy as np

from keepsight.runtime.outputs.segmentation import EVEN, SLOPE
from keepsight.training.segmentation.calibration import Calibration, fit, held_out_chances


def drawn(count: int, *, even: float, slope: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    overlaps = rng.uniform(0.7, 0.995, count)
    return overlaps, rng.random(count) < Calibration(even, slope).chances(overlaps)


def test_without_pictures_it_is_the_usual_one() -> None:
    found = fit(np.zeros(0), np.zeros(0, np.bool_))
    assert (found.even, found.slope) == (EVEN, SLOPE)


def test_many_pictures_give_the_function_that_they_came_from() -> None:
    overlaps, good = drawn(4000, even=0.88, slope=0.7)
    found = fit(overlaps, good)
    assert abs(found.even - 0.88) < 0.01
    assert abs(found.slope - 0.7) < 0.08
    chances = found.chances(overlaps)
    for low in np.arange(0, 1, 0.2):
        part = (chances >= low) & (chances < low + 0.2)
        if part.sum() > 100:
            assert abs(chances[part].mean() - good[part].mean()) < 0.05


def test_few_pictures_that_are_all_good_do_not_make_it_certain() -> None:
    found = fit(np.array([0.95, 0.96, 0.97]), np.ones(3, np.bool_))
    assert abs(found.even - EVEN) < 0.02
    assert 0.1 < found.slope < 1
    assert found.chances(np.array([0.5]))[0] < 0.1


def test_held_out_chances_know_nothing_of_their_own_group() -> None:
    overlaps, good = drawn(60, even=0.9, slope=0.5)
    groups = np.arange(60) // 3
    chances = held_out_chances(overlaps, good, groups, seed=0)
    turned = good.copy()
    turned[groups == 4] = ~turned[groups == 4]
    again = held_out_chances(overlaps, turned, groups, seed=0)
    assert np.array_equal(chances[groups == 4], again[groups == 4])
    assert not np.array_equal(chances, again)
