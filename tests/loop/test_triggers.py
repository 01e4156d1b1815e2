"""When a project retrains by itself, and when it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keepsight.data import rows, samples, versions
from keepsight.data.adding import NewSample, add
from keepsight.loop import runs, triggers
from keepsight.monitoring import alerts
from keepsight.store.workspace import Workspace
from tests.tiny import Clock, picture, release, workspace_with

SETTINGS = "retrain: {min_new_labels: 2, new_labels: 4, cooldown_minutes: 10}"


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with workspace_with(tmp_path / "ws", SETTINGS) as opened:
        yield opened


def label(ws: Workspace, count: int, *, first: int = 0, origin: str = "review") -> None:
    items = [NewSample(picture(seed), f"{seed}.png", {"label": "a"}, "train") for seed in range(first, first + count)]
    add(ws, "shop", items, author="ana", origin=origin)


def alarm(ws: Workspace, kind: str = "drift") -> None:
    alerts.raise_alert(ws, "shop", kind=kind, key="k", title="The pictures have changed", text="", trace_id="t" * 32)


def run(ws: Workspace, *, trigger: str = "hand", version: int | None = None, status: str = "done") -> None:
    made = runs.enqueue(ws, "shop", trigger=trigger, reason="r", actor="ana")
    runs.update(ws, made, dataset_version=version)
    runs.finish(ws, made, status=status)


def later(ws: Workspace, minutes: float) -> None:
    assert isinstance(ws.clock, Clock)
    ws.clock.now += minutes * 60


def due(ws: Workspace) -> str | None:
    found = triggers.due(ws, "shop")
    return None if found is None else found.name


def test_nothing_starts_by_itself_before_a_first_model_is_live(ws: Workspace) -> None:
    label(ws, 9)
    alarm(ws)
    assert due(ws) is None
    release(ws)
    assert due(ws) == "drift"


@pytest.mark.parametrize("kind", ["drift", "accuracy"])
def test_an_alarm_waits_for_labels(ws: Workspace, kind: str) -> None:
    release(ws)
    alarm(ws, kind)
    label(ws, 1)
    assert due(ws) is None
    label(ws, 1, first=1)
    found = triggers.due(ws, "shop")
    assert found == triggers.Trigger(kind, "The pictures have changed; 2 new labels", "t" * 32)


def test_an_alarm_that_is_switched_off_or_closed_starts_nothing(tmp_path: Path) -> None:
    with workspace_with(tmp_path / "off", "retrain: {min_new_labels: 1, new_labels: 0, on_drift: false}") as ws:
        release(ws)
        label(ws, 2)
        alarm(ws)
        assert due(ws) is None
        alarm(ws, "accuracy")
        assert due(ws) == "accuracy"
        alerts.close_kinds(ws, "shop", ("accuracy",), actor="ana")
        assert due(ws) is None


def test_enough_new_labels_start_a_run_but_imports_do_not_count(ws: Workspace) -> None:
    release(ws)
    label(ws, 8, first=10, origin="import")
    label(ws, 3)
    assert (triggers.new_labels(ws, "shop"), due(ws)) == (3, None)
    label(ws, 1, first=3)
    assert due(ws) == "labels"


def test_the_same_labels_start_no_second_run(ws: Workspace) -> None:
    release(ws)
    alarm(ws)
    label(ws, 5)
    version = versions.commit(ws, "shop", message="m", author="ana")
    assert version is not None
    assert due(ws) == "drift"
    run(ws, trigger="drift", version=version.number)
    later(ws, 60)
    assert (triggers.new_labels(ws, "shop"), due(ws)) == (0, None)
    # A label that was taken away again is none.
    label(ws, 2, first=5)
    assert due(ws) == "drift"
    with ws.database.write() as connection:
        samples.retract(connection, ws, "shop", rows.sample_id("shop", ws.blobs.name(picture(5))))
    assert due(ws) is None


def test_no_start_while_one_is_under_way_or_within_the_cool_down(ws: Workspace) -> None:
    release(ws)
    label(ws, 9)
    run_id = runs.enqueue(ws, "shop", trigger="hand", reason="r", actor="ana")
    later(ws, 60)
    assert due(ws) is None
    runs.finish(ws, run_id, status="failed")
    run(ws, status="failed")
    later(ws, 9.9)
    assert due(ws) is None
    later(ws, 0.2)
    assert due(ws) == "labels"


def test_the_schedule_starts_one_run_each_time(tmp_path: Path) -> None:
    line = 'retrain: {schedule: "0 * * * *", cooldown_minutes: 1}'
    with workspace_with(tmp_path / "ws", line) as ws:
        release(ws)
        assert due(ws) is None
        later(ws, 60)
        assert due(ws) == "schedule"
        run(ws, trigger="schedule")
        later(ws, 2)
        assert due(ws) is None
        later(ws, 60)
        assert due(ws) == "schedule"
