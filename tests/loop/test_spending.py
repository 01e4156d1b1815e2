"""What training costs, and that a month's money is really the limit."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keepsight.errors import BudgetError
from keepsight.loop import runs, spending
from keepsight.store.workspace import Workspace
from tests.tiny import Clock

NOVEMBER = datetime(2026, 11, 20, tzinfo=UTC).timestamp()
DECEMBER = datetime(2026, 12, 1, 0, 0, 1, tzinfo=UTC).timestamp()
SETTINGS = """machine: {eur_per_hour: 2.0}
projects:
  shop: {train: {max_cost_eur_per_month: 1.0, budget_minutes: 60}}
  other: {}
"""


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    (tmp_path / "keepsight.yaml").write_text(SETTINGS)
    opened = Workspace.open(tmp_path, environment={}, clock=Clock(NOVEMBER))
    for project in opened.config.projects:
        opened.ensure_project(project)
    return opened


def worked(ws: Workspace, project: str, seconds: float) -> None:
    run_id = runs.enqueue(ws, project, trigger="hand", reason="r", actor="ana")
    runs.add_worked(ws, run_id, step="train", seconds=seconds)
    runs.finish(ws, run_id, status="done")


def test_a_month_without_money_lets_no_run_start_and_the_next_one_does(ws: Workspace) -> None:
    clock = ws.clock
    assert isinstance(clock, Clock)
    worked(ws, "shop", 900.0)
    assert spending.month_eur(ws, "shop") == pytest.approx(0.5)
    worked(ws, "shop", 900.0)
    with pytest.raises(BudgetError, match=r"1\.0000 EUR this month"):
        runs.enqueue(ws, "shop", trigger="hand", reason="r", actor="ana")
    worked(ws, "other", 90000.0)
    clock.now = DECEMBER
    assert spending.month_eur(ws, "shop") == 0.0
    runs.enqueue(ws, "shop", trigger="hand", reason="r", actor="ana")


def test_a_run_may_take_the_tightest_of_its_limits(ws: Workspace) -> None:
    settings = ws.settings("shop")
    # one euro a month at two an hour
    assert spending.seconds_of_run(ws, "shop", settings, {}) == 1800.0
    assert spending.seconds_of_run(ws, "shop", settings, {"budget_minutes": 10.0}) == 600.0
    assert spending.seconds_of_run(ws, "shop", settings, {"max_cost_eur": 0.1}) == pytest.approx(180.0)
    worked(ws, "shop", 1500.0)
    assert spending.seconds_of_run(ws, "shop", settings, {}) == pytest.approx(300.0)
    assert spending.seconds_of_run(ws, "other", ws.settings("other"), {}) == 600.0
    assert math.isfinite(spending.seconds_of_run(ws, "other", ws.settings("other"), {"max_cost_eur": 9.0}))


def test_a_run_under_way_counts_before_it_ends(ws: Workspace) -> None:
    run_id = runs.enqueue(ws, "shop", trigger="hand", reason="r", actor="ana")
    runs.add_worked(ws, run_id, step="train", seconds=360.0)
    assert spending.month_eur(ws, "shop") == pytest.approx(0.2)
