from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from keepsight.training.finetune.course import PARTS, Course, Pace
from keepsight.training.finetune.settings import Plan

PLAN = Plan("wide", False, ("light",), (), 2, 32, 60, 12, "groups")


@pytest.mark.parametrize("slowness", [0.5, 1.0, 3.0])
def test_what_was_noted_gives_the_same_shares_without_a_clock(slowness: float) -> None:
    rng = np.random.default_rng(int(10 * slowness))
    live, spent, seen = Pace(1000), 0.0, []
    for step in range(1000):
        spent += slowness * float(rng.exponential()) / 1000
        seen.append(live.measured(step, spent=spent))
        if seen[-1] >= 1:
            break

    followed = Pace(1000, live.marks)

    assert [followed.followed(step) for step in range(len(seen))] == seen
    assert len(live.marks) <= PARTS + 1, "short enough for a run's record"


def test_a_phase_that_is_in_time_notes_nothing() -> None:
    pace = Pace(100)
    for step in range(100):
        pace.measured(step, spent=step / 120)

    assert pace.marks == []


def test_more_time_after_a_stop_is_noted_too() -> None:
    pace = Pace(100)
    shares = [pace.measured(step, spent=spent) for step, spent in enumerate([0.0, 0.3, 0.5, 0.2, 0.21, 0.9])]

    assert [Pace(100, pace.marks).followed(step) for step in range(6)] == shares


def test_a_plan_with_its_course_comes_back_from_a_record() -> None:
    plan = replace(PLAN, first=Course(60, 48, 40, ((3, 7), (9, 30))))

    assert plan.as_dict()["first"]["pace"] == "3:7 9:30", "a line, in a record that people read"
    assert Plan.from_dict(PLAN.as_dict()) == PLAN
    assert Plan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


def test_a_record_without_a_pace_is_followed_as_it_was() -> None:
    old = {name: value for name, value in PLAN.as_dict().items() if name not in {"first", "second"}}

    plan = Plan.from_dict({**old, "stopped_at": 41})

    assert (plan.first, plan.second) == (Course(60, 41, 41), Course(12, 12, 12))
    assert Plan.from_dict({**old, "stopped_at": None}).first == Course(60, 60, 60)
