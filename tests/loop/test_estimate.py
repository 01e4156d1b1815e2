"""What a run will take, told before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keepsight.data.adding import NewSample, add
from keepsight.loop import estimate, runs
from keepsight.store.workspace import Workspace
from tests.tiny import picture, workspace_with


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with workspace_with(tmp_path / "ws", "train.budget_minutes: 20") as opened:
        items = [NewSample(picture(n), f"{n}.png", {"label": "ab"[n % 2]}, "train") for n in range(6)]
        add(opened, "shop", items, author="ana")
        yield opened


def ran(ws: Workspace, *, seconds: float, pictures: int, recipe: str = "head", status: str = "done") -> None:
    run_id = runs.enqueue(ws, "shop", trigger="hand", reason="r", actor="ana")
    runs.add_record(ws, run_id, {"recipe": recipe, "pictures": {"training": pictures}})
    runs.add_worked(ws, run_id, step="train", seconds=estimate.START_S + seconds)
    runs.finish(ws, run_id, status=status)


def test_the_first_estimate_is_wide_and_says_so(ws: Workspace) -> None:
    found = estimate.of_run(ws, "shop", {})
    assert found.basis == "the speed of this machine"
    assert found.seconds["low"] * 3 == pytest.approx(found.seconds["value"])
    assert estimate.START_S < found.seconds["value"] < 60


def test_earlier_runs_of_the_recipe_say_it_better(ws: Workspace) -> None:
    ran(ws, seconds=30, pictures=3)
    ran(ws, seconds=72, pictures=6)
    ran(ws, seconds=500, pictures=6, status="failed")
    ran(ws, seconds=500, pictures=6, recipe="finetune")
    found = estimate.of_run(ws, "shop", {})
    assert found.basis == "2 earlier runs"
    # 10 and 12 s for a picture, six pictures now
    assert found.seconds["value"] == pytest.approx(estimate.START_S + 66)
    assert estimate.of_run(ws, "shop", {"recipe": "finetune"}).basis == "1 earlier run"
    assert found.seconds["low"] < 68 < 80 < found.seconds["high"]
    price = ws.config["machine.eur_per_hour"]
    assert found.cost_eur["value"] == pytest.approx(found.seconds["value"] / 3600 * price)


def test_an_estimate_is_never_above_what_the_run_may_take(ws: Workspace) -> None:
    ran(ws, seconds=3000, pictures=6)
    assert estimate.of_run(ws, "shop", {}).seconds["high"] == 1200
    assert estimate.of_run(ws, "shop", {"budget_minutes": 0.5}).seconds["value"] == 30
    thorough = estimate.of_run(ws, "shop", {"recipe": "finetune", "budget_minutes": 3})
    assert (thorough.seconds["value"], thorough.seconds["high"]) == (180, 180)
