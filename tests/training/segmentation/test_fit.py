"""Training of masks: it learns, keeps the best, stops within its time, goes on after a kill, and can be followed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from keepsight.errors import BudgetError, CancelledError, TrainingError
from keepsight.training.budget import Budget
from keepsight.training.finetune.course import Course
from keepsight.training.segmentation import fit
from keepsight.training.segmentation.fit import Plan, Trainer
from keepsight.training.segmentation.views import Views
from tests import matting

COUNT = 12


class Clock:
    """A clock that goes on a little with each look."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.now, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


def views() -> Views:
    """Discs that are too dark for what the small network takes for foreground."""
    masks = [matting.disc((60, 50), at=(0.3 + 0.03 * n, 0.5), radius=0.2 + 0.01 * n) for n in range(COUNT)]
    pictures = [matting.photo(mask, seed=n, front=100, back=30) for n, mask in enumerate(masks)]
    return Views(
        lambda place: pictures[place],
        [matting.value(mask) for mask in masks],
        preprocessing=matting.PREPROCESSING,
        augment=("light", "crop", "flip"),
        seed=0,
    )


def trainer(folder: Path, **options: Any) -> Trainer:
    torch.set_num_threads(1)
    given: dict[str, Any] = {
        "rows": range(8),
        "held": range(8, COUNT),
        "seed": 1,
        "folder": folder,
        "budget": Budget(math.inf, clock=Clock()),
        "plan": None,
        "progress": lambda values: None,
        **options,
    }
    return Trainer(matting.network(sharpness=4), views(), **given)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network learns in larger and more steps than a pretrained one."""
    monkeypatch.setattr(Trainer, "_decided", lambda self: Plan(Course(steps=30, ended_at=30, kept_at=30), rate=0.05))


@pytest.mark.usefixtures("quick")
def test_it_learns_and_a_replay_gives_the_same_bytes(tmp_path: Path) -> None:
    found = trainer(tmp_path / "a").run()
    assert found.curve[0][0] == 0
    assert found.curve[0][1] < 0.3
    best = max(overlap for _, overlap in found.curve)
    assert best > 0.8
    assert dict(found.curve)[found.plan.course.kept_at] == best
    plan = Plan.from_dict(json.loads(json.dumps(found.plan.as_dict())))
    assert plan == found.plan
    again = trainer(tmp_path / "b", plan=plan).run()
    assert again.model == found.model


@pytest.mark.usefixtures("quick")
def test_it_goes_on_where_it_was_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trainer(tmp_path / "whole").run()
    monkeypatch.setattr(fit, "CHECKPOINT_EVERY_S", -1.0)
    seen = []

    def cut_off(values: Any) -> None:
        seen.append(values)
        if len(seen) == 12:
            raise CancelledError("stopped", expected="", do="")

    with pytest.raises(CancelledError):
        trainer(tmp_path / "cut", progress=cut_off).run()
    rest: list[Any] = []
    went_on = trainer(tmp_path / "cut", progress=rest.append).run()
    assert len(rest) == 30 - 11
    assert went_on.curve == whole.curve
    assert went_on.model == whole.model


def test_time_ends_training_with_a_small_learning_rate(tmp_path: Path) -> None:
    found = trainer(tmp_path, budget=Budget(60.0, clock=Clock(0.25))).run()
    course = found.plan.course
    assert 1 <= course.ended_at <= course.steps
    assert fit.rate_at(1.0) == 0
    assert fit.rate_at(0.05) == pytest.approx(0.5)
    assert fit.rate_at(0.1) == pytest.approx(1)


def test_too_little_time_says_how_much_would_do(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="minutes are left") as caught:
        trainer(tmp_path, budget=Budget(3.0, clock=Clock(0.4))).run()
    assert caught.value.details["needed_minutes"] > 0.05
    assert "pretrained" in caught.value.do


def test_the_pretrained_weights_stay_where_training_makes_it_worse(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    plan = Plan(Course(steps=4, ended_at=4, kept_at=4), rate=0.0)
    made._given = None
    made._decided = lambda: plan  # type: ignore[method-assign]
    found = made.run()
    assert found.plan.course.kept_at == 0


def test_pictures_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made._views = Views(
        lambda place: b"" if place else None,
        [matting.value(matting.disc())] * COUNT,
        preprocessing=matting.PREPROCESSING,
        augment=(),
        seed=0,
    )
    with pytest.raises(TrainingError, match="None of the training pictures"):
        made._batch(0, 4)


def test_random_views_move_picture_and_mask_together() -> None:
    made = views()
    plain = made.plain(0)
    assert plain is not None
    for number in range(12):
        found = made.random(0, number)
        assert found is not None
        image, target = found
        assert image.shape == (3, 32, 32)
        assert target.shape == (32, 32)
        assert 0.4 * plain[1].mean() <= target.mean() <= 2.5 * plain[1].mean()
        inside, outside = image.mean(axis=0)[target > 0.9], image.mean(axis=0)[target < 0.1]
        assert inside.mean() > outside.mean() + 0.05
        again = made.random(0, number)
        assert again is not None
        assert (again[0] == image).all()
    assert not np.array_equal(made.random(0, 1)[0], made.random(0, 2)[0])  # type: ignore[index]
