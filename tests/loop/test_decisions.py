"""What a person decides about a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keepsight.delivery import deployments
from keepsight.errors import BadInputError, ConflictError
from keepsight.loop import decisions, runs
from keepsight.monitoring import alerts
from keepsight.store.workspace import Workspace
from keepsight.training import models
from tests.tiny import bundle, register, release, workspace_with


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with workspace_with(tmp_path / "ws") as opened:
        yield opened


def judged(ws: Workspace, decision: str, seed: int = 0) -> int:
    """A challenger whose run's gate said so, and the alert about it."""
    run_id = runs.enqueue(ws, "shop", trigger="hand", reason="r", actor="ana")
    number = register(ws, bundle(seed), run_id=run_id).number
    live = deployments.current(ws, "shop")
    champion = None if live is None else live.model_number
    runs.update(ws, run_id, gate={"decision": decision, "checks": [], "champion": champion}, model_number=number)
    runs.finish(ws, run_id, status="done")
    if decision != "deploy":
        alerts.raise_alert(ws, "shop", kind="gate", key=run_id, title="t", text="", data={"model": number})
    return number


def open_kinds(ws: Workspace) -> list[str]:
    return sorted(alert.kind for alert in alerts.open_alerts(ws, "shop"))


def test_a_model_that_passed_needs_no_reason(ws: Workspace) -> None:
    made = decisions.promote(ws, "shop", judged(ws, "deploy"), actor="ana", reason="")
    assert (made.kind, made.reason) == ("promote", "by hand")


@pytest.mark.parametrize("decision", ["ask", "reject"])
def test_overruling_the_gate_needs_a_reason_and_closes_the_alerts(ws: Workspace, decision: str) -> None:
    number = judged(ws, decision)
    for kind in ("drift", "run"):
        alerts.raise_alert(ws, "shop", kind=kind, key="k", title="t", text="")
    with pytest.raises(BadInputError):
        decisions.promote(ws, "shop", number, actor="ana", reason=" ")
    assert open_kinds(ws) == ["drift", "gate", "run"]
    made = decisions.promote(ws, "shop", number, actor="ana", reason=" looked at it ")
    assert (made.kind, made.reason) == ("override", "looked at it")
    assert open_kinds(ws) == ["run"]


def test_a_model_that_was_live_before_may_come_back_without_a_reason(ws: Workspace) -> None:
    release(ws)
    release(ws, bundle(1))
    assert decisions.promote(ws, "shop", 1, actor="ana", reason="").kind == "rollback"


def test_a_model_that_was_compared_with_another_one_needs_a_reason(ws: Workspace) -> None:
    number = judged(ws, "deploy")
    release(ws)
    with pytest.raises(BadInputError):
        decisions.promote(ws, "shop", number, actor="ana", reason="")
    assert decisions.promote(ws, "shop", number, actor="ana", reason="better anyway").kind == "override"


def test_a_model_of_no_run_has_not_passed(ws: Workspace) -> None:
    with pytest.raises(BadInputError):
        decisions.promote(ws, "shop", register(ws).number, actor="ana", reason="")


def test_discarding_closes_the_alert_about_that_model_alone(ws: Workspace) -> None:
    first, second = judged(ws, "ask"), judged(ws, "ask", seed=1)
    decisions.discard(ws, "shop", first, actor="ana", reason="bad")
    assert models.get(ws, "shop", first).status == "discarded"
    assert [alert.data["model"] for alert in alerts.open_alerts(ws, "shop")] == [second]
    with pytest.raises(ConflictError):
        decisions.promote(ws, "shop", first, actor="ana", reason="after all")
