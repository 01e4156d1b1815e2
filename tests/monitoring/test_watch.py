"""Watching a live model: each event once, over restarts; alarms that open, settle, close and re-arm."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keepsight.delivery import deployments
from keepsight.monitoring import alerts, watch
from keepsight.monitoring.reference import Figures, Reference
from keepsight.runtime.bundle import Bundle
from keepsight.store import schema
from keepsight.store.database import insert_ignore
from keepsight.store.workspace import Workspace
from tests.tiny import LABELS, Clock, bundle, picture, release, workspace_with

DIMENSIONS = 12
METRICS = {"accuracy": {"value": 0.95, "low": 0.9, "high": 0.98}}


def figures(count: int, seed: int) -> Figures:
    rng = np.random.default_rng(seed)
    return Figures(
        features=rng.standard_normal((count, DIMENSIONS)).astype(np.float32),
        quality=rng.uniform(0.5, 1.5, (count, 3)).astype(np.float32),
        confidence=rng.uniform(0.6, 1.0, count),
        predicted=rng.integers(0, 2, count),
    )


def watched(seed: int = 0) -> Bundle:
    """A bundle with a drift reference and an accuracy at release."""
    made = Reference.build(figures(80, 1), figures(100, 2), classes=2, seed=0)
    return bundle(seed, metrics=METRICS, reference=made.to_arrays())


def serve(ws: Workspace, made: Bundle, count: int, *, shift: float = 0.0, seed: int = 5, finite: bool = True) -> None:
    """Events as the server logs them, a minute apart; ``shift`` moves the features and darkens the pictures."""
    assert isinstance(ws.clock, Clock)
    some = figures(count, seed)
    rows = []
    for place in range(count):
        ws.clock.now += 60
        features = (some.features[place] + shift).astype("<f2")
        quality = some.quality[place] + shift
        rows.append(
            {
                "id": uuid.uuid4().hex,
                "project_id": "shop",
                "at": ws.clock.now,
                "model_number": 1,
                "bundle_digest": made.digest,
                "variant": "float",
                "prediction": {},
                "label": LABELS[int(some.predicted[place])],
                "confidence": float(some.confidence[place]),
                "decision": "auto",
                "quality": dict(zip(("blur", "brightness", "contrast"), map(float, quality), strict=True)),
                "reasons": [],
                "features": (features if finite else features * np.float16(np.inf)).tobytes(),
                "picture_id": None,
                "sealed": None,
                "selected_by": None,
                "probability": 0.0,
                "source": "",
                "trace_id": "",
                "meta": {},
                "latency_ms": 10.0,
            }
        )
    with ws.database.write("events") as connection:
        connection.execute(schema.event.insert(), rows)
    ws.clock.now += 60


def review(ws: Workspace, count: int, *, correct: int | None, selected_by: str = "audit", model: int = 1) -> None:
    """Answered review items of a model."""
    kept = ws.blobs.put(picture(0), now=0.0)
    picture_row = {"id": kept, "format": "png", "width": 8, "height": 8, "created_at": 0.0}
    row = {
        "project_id": "shop",
        "picture_id": kept,
        "selected_by": selected_by,
        "probability": 0.5,
        "priority": 0.0,
        "model_number": model,
        "prediction": {},
        "created_at": 1.0,
        "answered_at": 2.0,
        "author": "ana",
        "verdict": None,
        "correct": correct,
    }
    with ws.database.write() as connection:
        insert_ignore(connection, schema.picture, [picture_row])
        connection.execute(schema.review_item.insert(), [{**row, "event_id": uuid.uuid4().hex} for _ in range(count)])


def kinds(ws: Workspace) -> list[str]:
    return sorted(alert.kind for alert in alerts.open_alerts(ws, "shop"))


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with workspace_with(tmp_path / "ws") as opened:
        yield opened


def test_each_event_counts_once_and_a_restart_goes_on(workspace: Workspace) -> None:
    workspace.clock = Clock()
    watch.tick(workspace, "shop")
    assert watch.status(workspace, "shop")["drift"]["units"] is None
    made = watched()
    release(workspace, made)
    serve(workspace, made, 20)
    for _ in range(2):
        watch.tick(workspace, "shop")
    serve(workspace, made, 10, seed=6)
    again = Workspace.open(workspace.config.root, environment={}, clock=workspace.clock)
    watch.tick(again, "shop")
    told = watch.status(workspace, "shop")
    again.close()
    assert (told["drift"]["units"], len(told["drift"]["history"])) == (30, 30)
    assert sum(told["classes"].values()) == told["latency"]["count"] == told["decisions"]["auto"] == 30
    assert not told["drift"]["alarm"]
    assert kinds(workspace) == []


def test_a_change_opens_one_alert_and_a_closed_one_arms_the_alarm_anew(ws: Workspace) -> None:
    made = watched()
    release(ws, made)
    serve(ws, made, 60, shift=3.0)
    for _ in range(2):
        watch.tick(ws, "shop")
    (first,) = alerts.open_alerts(ws, "shop")
    assert first.kind == "drift"
    assert first.data["model"] == 1
    assert first.trace_id is not None
    alerts.close(ws, "shop", first.id, actor="ana")
    # However many alerts came since.
    assert isinstance(ws.clock, Clock)
    for number in range(60):
        ws.clock.now += 1
        alerts.raise_alert(ws, "shop", kind="run", key=str(number), title="t", text="")
    alerts.close_kinds(ws, "shop", ("run",), actor="ana")
    watch.tick(ws, "shop")
    drift = watch.status(ws, "shop")["drift"]
    assert (drift["alarm"], drift["units"], drift["history"]) == (False, 0, [])
    assert kinds(ws) == []
    serve(ws, made, 60, shift=3.0, seed=7)
    watch.tick(ws, "shop")
    (second,) = alerts.open_alerts(ws, "shop")
    assert second.id != first.id
    # What was served is counted over both.
    assert watch.status(ws, "shop")["latency"]["count"] == 120


def test_a_new_deployment_starts_fresh_and_closes_the_alarms_before_it(ws: Workspace) -> None:
    old = watched()
    release(ws, old)
    release(ws, watched(1))
    deployments.rollback(ws, "shop", actor="ana")
    serve(ws, old, 60, shift=3.0)
    watch.tick(ws, "shop")
    assert kinds(ws) == ["drift"]
    # By hand, past the pipeline: nothing else closes the alert.
    new = watched(2)
    release(ws, new)
    serve(ws, old, 5, seed=8)
    serve(ws, new, 5, seed=9)
    watch.tick(ws, "shop")
    told = watch.status(ws, "shop")
    assert (told["model"], told["drift"]["units"], told["latency"]["count"]) == (3, 5, 5)
    assert kinds(ws) == []
    # Going back to a model begins its watch anew.
    deployments.rollback(ws, "shop", actor="ana")
    watch.tick(ws, "shop")
    assert watch.status(ws, "shop")["drift"]["units"] == 0


def test_late_events_of_slow_writers_are_not_passed_over(workspace: Workspace) -> None:
    clock = workspace.clock = Clock()
    made = watched()
    release(workspace, made)
    serve(workspace, made, 1)
    with workspace.database.write("events") as connection:
        young = clock.now - 1.0
        connection.execute(schema.event.update().values(at=young))
    serve(workspace, made, 1, seed=6)
    clock.now = young + 1.0
    with workspace.database.write("events") as connection:
        # Arrived second, happened first.
        connection.execute(schema.event.update().where(schema.event.c.at > young).values(at=young - 5.0))
    watch.tick(workspace, "shop")
    clock.now += 10.0
    watch.tick(workspace, "shop")
    assert watch.status(workspace, "shop")["latency"]["count"] == 2


def test_an_unusable_event_does_not_end_the_watch(ws: Workspace) -> None:
    made = watched()
    release(ws, made)
    serve(ws, made, 1, shift=1.0, finite=False)
    serve(ws, made, 4)
    watch.tick(ws, "shop")
    told = watch.status(ws, "shop")
    assert (told["drift"]["units"], told["latency"]["count"]) == (4, 5)


def test_a_bundle_without_a_reference_is_counted_but_not_watched(ws: Workspace) -> None:
    made = bundle()
    release(ws, made)
    serve(ws, made, 3, shift=9.0)
    watch.tick(ws, "shop")
    told = watch.status(ws, "shop")
    assert (told["drift"]["watched"], told["latency"]["count"]) == (False, 3)
    assert kinds(ws) == []


def test_only_audits_of_the_live_model_raise_the_accuracy_alarm(ws: Workspace) -> None:
    release(ws, watched())
    review(ws, 200, correct=0, selected_by="uncertain")
    review(ws, 200, correct=0, model=2)
    review(ws, 60, correct=1)
    review(ws, 100, correct=None)
    watch.tick(ws, "shop")
    assert kinds(ws) == []
    assert watch.status(ws, "shop")["accuracy"]["released_with"] == 0.95
    review(ws, 60, correct=0)
    for _ in range(2):
        watch.tick(ws, "shop")
    (alert,) = alerts.open_alerts(ws, "shop")
    assert alert.kind == "accuracy"
    assert alert.data["n_answered"] == 120
    assert "at release it was 95%" in alert.text


def test_a_state_of_another_version_is_read(ws: Workspace) -> None:
    state = watch.State(1, 5, monitor=b"\x00\xff")
    packed = state.pack().replace(b'"epoch"', b'"something": 1, "epoch"')
    assert watch.State.unpack(packed) == replace(state, saved=True)
