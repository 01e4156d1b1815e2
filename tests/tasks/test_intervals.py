"""Intervals that cover the truth as often as they say, for grouped pictures too."""

from __future__ import annotations

import numpy as np
import pytest

from keepsight.tasks.intervals import effective_size, wilson


def test_wilson_of_a_known_case() -> None:
    found = wilson(np.arange(100) < 90)
    assert (found.value, found.n) == (0.9, 100)
    assert found.low == pytest.approx(0.8256, abs=1e-3)
    assert found.high == pytest.approx(0.9448, abs=1e-3)
    nothing = wilson([])
    assert (nothing.value, nothing.low, nothing.high) == (None, 0, 1)
    assert wilson([1, 1, 1]).high == 1
    assert wilson([1, 1, 1]).low < 0.5


def test_grouped_pictures_count_less() -> None:
    random = np.random.default_rng(0)
    alike = (random.random(100) < 0.8).repeat(5)
    assert 75 < effective_size(alike, groups=np.arange(100).repeat(5)) < 130
    apart = random.random(500) < 0.8
    assert effective_size(apart, groups=np.arange(100).repeat(5)) > 300
    assert effective_size(apart, groups=np.arange(500)) == 500
    assert effective_size(np.ones(50), groups=np.arange(10).repeat(5)) == pytest.approx(10)
    assert effective_size(apart, groups=np.zeros(500)) == pytest.approx(1)


@pytest.mark.parametrize("share", [0.7, 0.95])
def test_grouped_intervals_cover_the_truth(share: float) -> None:
    random = np.random.default_rng(1)
    groups = np.arange(60).repeat(random.integers(1, 9, size=60))
    covered = 0
    for _ in range(400):
        # Half of the groups' pictures agree with their group, the others are independent.
        common = (random.random(60) < share)[groups]
        outcomes = np.where(random.random(len(groups)) < 0.5, common, random.random(len(groups)) < share)
        found = wilson(outcomes, groups=groups)
        covered += found.low <= share <= found.high
    assert covered / 400 > 0.9
