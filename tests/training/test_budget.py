"""Time and money for a run."""

from __future__ import annotations

import math

import pytest

from keepsight.training.budget import Budget, seconds_for
from tests.tiny import Clock


def test_a_budget_runs_down_and_never_below_nothing() -> None:
    clock = Clock(0.0)
    budget = Budget(100.0, used_s=30.0, clock=clock)
    clock.now = 20.0
    assert (budget.spent_s, budget.left_s) == (50.0, 50.0)
    half = budget.share(0.5)
    assert half.left_s == 25.0
    clock.now = 500.0
    assert budget.left_s == half.left_s == 0.0


def test_the_tighter_of_time_and_money_counts() -> None:
    assert seconds_for(minutes=10, cost_eur=None, eur_per_hour=2.0) == 600.0
    assert seconds_for(minutes=10, cost_eur=0.1, eur_per_hour=2.0) == pytest.approx(180.0)
    assert seconds_for(minutes=None, cost_eur=0.1, eur_per_hour=0.0) == math.inf
