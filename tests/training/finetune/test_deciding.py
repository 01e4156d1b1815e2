from __future__ import annotations

import pytest

from keepsight.errors import BudgetError
from keepsight.training.finetune.deciding import Speed, candidates, decide, left_for_training
from keepsight.training.finetune.network import Cut
from keepsight.training.finetune.settings import Plan

EARLY, LATE = Cut("early", (80, 14, 14), 0.95), Cut("late", (112, 14, 14), 0.8)
SPEEDS = [Speed(EARLY, True, 0.008, 0.006, 0.01), Speed(LATE, True, 0.004, 0.003, 0.01)]
DRAFT = Plan("", False, ("light",), ("flip",), 1, 256, 0, 0, "groups")


def plan(left_s: float, pictures: int = 3000) -> Plan:
    return decide(DRAFT, SPEEDS, pictures=pictures, training=pictures * 9 // 10, left_s=left_s)


def test_more_time_trains_more_of_the_network_for_longer() -> None:
    short, long = plan(300), plan(3600)

    assert (short.cut, long.cut) == ("late", "early")
    assert short.steps < long.steps
    assert long.views > short.views


def test_a_plan_fits_into_its_time() -> None:
    chosen = plan(300)
    step_s = chosen.batch * SPEEDS[1].mean_row_s

    assert chosen.estimate_s(step_s=step_s, view_s=0.01, pictures=3000) <= 300


def test_few_pictures_get_small_steps_and_enough_of_them() -> None:
    chosen = plan(600, pictures=24)

    assert chosen.batch == 8
    assert chosen.steps >= 100


def test_too_little_time_tells_how_much_it_would_take() -> None:
    with pytest.raises(BudgetError, match="does not fit") as told:
        plan(20)

    minutes = told.value.details["needed_minutes"]
    assert minutes > 1
    plan(left_for_training(minutes * 60 + 1, 3000))


def test_a_plan_survives_its_record() -> None:
    assert Plan.from_dict(plan(300).as_dict()) == plan(300)


def test_cuts_of_about_one_depth_count_once() -> None:
    cuts = [
        Cut("image", (3, 224, 224), 1.0),
        Cut("a", (80, 14, 14), 0.93),
        Cut("a.wide", (480, 14, 14), 0.91),
        Cut("b", (112, 14, 14), 0.8),
        Cut("c", (192, 7, 7), 0.7),
        Cut("d", (320, 7, 7), 0.1),
    ]

    assert [cut.name for cut in candidates(cuts)] == ["a", "b", "c"]
    assert [cut.name for cut in candidates(cuts[:1])] == ["image"]
