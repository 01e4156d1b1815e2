from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keepsight.errors import BudgetError, TrainingError
from keepsight.runtime.session import open_session
from keepsight.training import recipes
from keepsight.training.budget import Budget
from keepsight.training.finetune.recipe import finetune, held_out
from keepsight.training.recipes import Trained
from tests.training.finetune import small

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("torch_installed", "one_core")]


class Killed(Exception):
    """The process is gone."""


def right(trained: Trained, numbers: range) -> float:
    images = np.stack([small.backbone().preprocessing.from_bytes(small.picture(each))[0] for each in numbers])
    session: Any = open_session(trained.model)
    logits = session.run(["logits"], {"image": images})[0]
    return float((logits.argmax(axis=1) == np.array(numbers) % 2).mean())


def test_it_learns_what_its_pictures_show(tmp_path: Path) -> None:
    material = small.material(tmp_path)

    trained = recipes.get("classification", "finetune")(material)

    assert right(trained, range(1000, 1040)) > 0.9
    assert trained.figures["pictures"] == trained.held_out.judged.sum() > 0
    assert not trained.frozen
    session: Any = open_session(trained.model)
    served = session.run(["features"], {"image": small.inputs(40)})[0]
    assert np.abs(served - trained.features).max() < 0.02  # the activations are kept in float16
    assert 0.5 < trained.held_out.confidence[trained.held_out.judged].mean() <= 1


def test_a_replay_needs_no_clock_and_gives_the_same(tmp_path: Path) -> None:
    lost_s = 0.0

    def hurry(values: Any) -> None:
        nonlocal lost_s
        lost_s += 0.5 if values["text"].startswith("training") else 0.0

    budget = Budget(60.0, clock=lambda: lost_s + time.monotonic())
    first = finetune(small.material(tmp_path / "first", count=24, progress=hurry, budget=budget))
    recorded = json.loads(json.dumps(first.plan))
    again = finetune(small.material(tmp_path / "again", count=24, plan=recorded, budget=Budget(0.0)))

    assert recorded["first"]["pace"], "the clock hurried the first run"
    assert json.loads(json.dumps(again.plan)) == recorded
    assert np.abs(again.held_out.confidence - first.held_out.confidence).max() < 1e-3
    assert np.abs(again.features - first.features).max() < 1e-2


@pytest.mark.parametrize(("moment", "least"), [("looking", 16), ("training", 10), ("training with all", 2)])
def test_a_killed_attempt_is_taken_up_again(
    tmp_path: Path, moment: str, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keepsight.training.finetune.fit.CHECKPOINT_EVERY_S", 0.0)
    plan: list[dict[str, Any]] = []
    seen: list[int] = []

    def kill(values: Any) -> None:
        if values["text"].startswith(moment) and values.get("done", 0) >= least:
            raise Killed

    with pytest.raises(Killed):
        finetune(small.material(tmp_path, count=24, progress=kill))

    def watch(values: Any) -> None:
        plan.append(dict(values))
        if values["text"] == "training":
            seen.append(values["done"])

    trained = finetune(small.material(tmp_path, count=24, progress=watch))

    assert "measuring this machine" not in [values["text"] for values in plan]
    assert (seen[:1] or [10])[0] >= (9 if moment == "training" else 0)
    assert moment != "training with all" or seen == []
    assert right(trained, range(1000, 1040)) > 0.9


def test_too_little_time_is_told_before_it_is_spent(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="left for fine-tuning"):
        finetune(small.material(tmp_path, budget=Budget(3.0)))


def test_a_device_without_room_for_the_network_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def full(*_: Any, **__: Any) -> Any:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr("keepsight.training.finetune.recipe.Trainer", full)
    with pytest.raises(TrainingError, match="no room for the network"):
        finetune(small.material(tmp_path, count=24))
    kept = recipes.get("classification", "auto")(small.material(tmp_path, count=24, budget=Budget(300.0)))
    assert kept.plan["chosen"] == "head"
    assert "no room for the network" in kept.plan["why"]


def test_a_budget_is_kept(tmp_path: Path) -> None:
    budget = Budget(20.0)

    finetune(small.material(tmp_path, count=24, budget=budget))

    assert budget.left_s > 0


def test_a_picture_that_is_gone_is_not_judged(tmp_path: Path) -> None:
    material = small.material(tmp_path, count=24, read=lambda place: None if place < 4 else small.picture(place))

    trained = finetune(material)

    assert not trained.held_out.judged[:4].any()
    assert (trained.features[:4] == 0).all()


def test_the_given_val_split_judges_where_it_is_large_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    material = small.material(tmp_path)
    some = np.arange(40) < 6

    assert held_out(replace(material, validation=some))[1] == "groups"
    monkeypatch.setattr("keepsight.training.holdout.LEAST_PICTURES", 6)
    assert np.array_equal(held_out(replace(material, validation=some))[0], some)


def test_pictures_of_one_group_are_all_held_out_or_none(tmp_path: Path) -> None:
    groups = np.arange(40) // 4
    held, _ = held_out(replace(small.material(tmp_path), groups=groups))

    assert 0 < held.sum() < 20
    assert all(len(set(held[groups == group])) == 1 for group in groups)
    assert math.isinf(small.material(tmp_path).budget.total_s)
