"""Watching the live model: reads new events, moves the drift and accuracy alarms on, and opens alerts.

The leader calls ``tick`` about once a second; a tick reads each event once and keeps its state in the derived area, so
a restart goes on where it was. The watch of a deployment starts fresh: its reference is that of its own bundle. When a
person closes a drift alert without releasing another model, the drift alarm starts anew.
"""

from __future__ import annotations

import base64
import functools
import itertools
import json
import uuid
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa

from keepsight import tasks
from keepsight.delivery import deployments
from keepsight.monitoring import accuracy, alerts
from keepsight.monitoring.drift import DriftBudget, DriftMonitor, Reference
from keepsight.monitoring.latency import LatencyHistogram
from keepsight.monitoring.units import UnitFilter
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.outputs import output_module
from keepsight.store import schema
from keepsight.store.database import upsert
from keepsight.store.workspace import Workspace
from keepsight.training import models

BATCH = 2000
HISTORY_POINTS = 400
# Events of several PostgreSQL sessions may become visible out of order; younger ones wait this long.
SETTLE_S = 2.0
STATE_NAME = "watch"
# What a watch reads of an event; the rest of the row is several times as long.
WATCHED = ("seq", "at", "features", "label", "source", "quality", "confidence", "latency_ms", "decision")


@dataclass(frozen=True)
class Live:
    """The deployment under watch, with its bundle and the variant of its network that answers."""

    deployment_id: int
    created_at: float
    model_number: int
    blob_id: str
    bundle: Bundle
    variant: str


@dataclass
class State:
    """What the watch of one deployment remembers; ``history`` holds [time, units, evidence] points."""

    deployment_id: int
    last_seq: int
    epoch: int = 0
    monitor: bytes | None = None
    units: bytes | None = None
    latency: dict[str, Any] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    decisions: dict[str, int] = field(default_factory=dict)
    history: list[list[float]] = field(default_factory=list)
    drift: dict[str, Any] = field(default_factory=dict)
    saved: bool = False

    def pack(self) -> bytes:
        """JSON, with the binary parts in base64."""
        values = asdict(self) | {"saved": True}
        for name in ("monitor", "units"):
            if values[name] is not None:
                values[name] = base64.b64encode(values[name]).decode()
        return json.dumps(values).encode()

    @classmethod
    def unpack(cls, data: bytes) -> State:
        """The state that ``pack`` wrote; what another version noted beside it is dropped."""
        values = {name: value for name, value in json.loads(data).items() if name in cls.__dataclass_fields__}
        for name in ("monitor", "units"):
            if values[name] is not None:
                values[name] = base64.b64decode(values[name])
        return cls(**values)


def live_model(ws: Workspace, project: str) -> Live | None:
    """The deployment under watch, or None where nothing is deployed."""
    deployment = deployments.current(ws, project)
    if deployment is None:
        return None
    model = models.get(ws, project, deployment.model_number)
    bundle = _bundle(ws, model.blob_id)
    wanted = ws.settings(project)["serving.variant"]
    variant = deployments.serving_variant(ws, project, model.number, bundle=bundle, wanted=wanted)
    return Live(deployment.id, deployment.created_at, model.number, model.blob_id, bundle, variant)


@functools.lru_cache(maxsize=8)
def _bundle(ws: Workspace, blob_id: str) -> Bundle:
    """Bundles never change under their blob id."""
    return Bundle.from_bytes(ws.blobs.get(blob_id))


@functools.lru_cache(maxsize=8)
def _reference(ws: Workspace, blob_id: str, variant: str) -> Reference | None:
    """What the drift of a bundle's variant is measured against; None where it came without."""
    arrays = _bundle(ws, blob_id).reference(variant)
    return None if arrays is None else Reference.from_arrays(arrays)


def tick(ws: Workspace, project: str) -> None:
    """Takes the events since the last tick into account; opens alerts where an alarm is reached."""
    live = live_model(ws, project)
    if live is None:
        return
    state = _load(ws, project, live)
    if not state.saved:
        # Finding where a deployment's events begin is dear, so it is done once.
        _save(ws, project, live, state)
    state = _restart_if_settled(ws, project, live, state)
    rows = _new_events(ws, project, live, state)
    if rows:
        _drift(ws, project, live, state, rows)
        _counts(live, state, rows)
        state.last_seq = rows[-1]["seq"]
        _save(ws, project, live, state)
    if state.drift.get("alarm"):
        _drift_alert(ws, project, live, state)
    _close_others(ws, project, live, state)
    _accuracy_alert(ws, project, live)


def status(ws: Workspace, project: str) -> dict[str, Any]:
    """Everything that the dashboard and ``monitor status`` tell: drift, accuracy, latency, classes, open alerts."""
    live = live_model(ws, project)
    state = State(0, 0) if live is None else _load(ws, project, live)
    told = LatencyHistogram() if not state.latency else LatencyHistogram.restore(state.latency)
    return {
        "model": None if live is None else live.model_number,
        "drift": {
            "units": state.drift.get("units", 0 if live is not None else None),
            "alarm": state.drift.get("alarm", False),
            "evidence": state.drift.get("evidence", 0.0),
            "limit": state.drift.get("limit"),
            "explain": state.drift.get("explain", []),
            "watched": state.drift.get("watched", True),
            "history": state.history,
        },
        "accuracy": {
            **audited(ws, project, None if live is None else live.model_number).as_dict(),
            "released_with": None if live is None else _released_accuracy(live),
        },
        "latency": {
            "count": told.count,
            "p50": told.percentile(50),
            "p95": told.percentile(95),
            "p99": told.percentile(99),
        },
        "classes": state.classes,
        "decisions": state.decisions,
        "alerts": [alert.as_dict() for alert in alerts.open_alerts(ws, project)],
    }


def audited(ws: Workspace, project: str, model_number: int | None) -> accuracy.Estimate:
    """Accuracy of a model's answers, from its audits alone; unanswered ones widen the interval."""
    return accuracy.estimate(_verdicts(ws, project, model_number))


def _verdicts(
    ws: Workspace, project: str, model_number: int | None, *, only_audited: bool = False
) -> list[accuracy.Verdict]:
    """What people said of a model's answers, in that order; `only_audited` leaves out all that move no alarm."""
    table = schema.review_item
    query = (
        sa.select(table.c.correct, table.c.selected_by, table.c.probability)
        .where(table.c.project_id == project, table.c.model_number == model_number)
        .order_by(table.c.answered_at, table.c.created_at)
    )
    if only_audited:
        query = query.where(
            table.c.answered_at.is_not(None), table.c.correct.is_not(None), table.c.selected_by == "audit"
        )
    with ws.database.read() as connection:
        return [
            accuracy.Verdict(
                correct=None if row.correct is None else bool(row.correct),
                selected_by=row.selected_by,
                probability=row.probability,
            )
            for row in connection.execute(query)
        ]


def _load(ws: Workspace, project: str, live: Live) -> State:
    table = schema.monitor
    with ws.database.read("derived") as connection:
        data = connection.scalar(
            sa.select(table.c.state).where(
                table.c.project_id == project,
                table.c.name == STATE_NAME,
                table.c.bundle_digest == live.bundle.digest,
                table.c.variant == live.variant,
            )
        )
    if data is not None:
        state = State.unpack(data)
        if state.deployment_id == live.deployment_id:
            return state
    with ws.database.read("events") as connection:
        before = connection.scalar(
            sa.select(sa.func.max(schema.event.c.seq)).where(
                schema.event.c.project_id == project, schema.event.c.at < live.created_at
            )
        )
    return State(live.deployment_id, before or 0)


def _save(ws: Workspace, project: str, live: Live, state: State) -> None:
    row = {
        "project_id": project,
        "name": STATE_NAME,
        "bundle_digest": live.bundle.digest,
        "variant": live.variant,
        "last_seq": state.last_seq,
        "state": state.pack(),
        "updated_at": ws.clock(),
    }
    with ws.database.write("derived") as connection:
        upsert(connection, schema.monitor, [row])


def _new_events(ws: Workspace, project: str, live: Live, state: State) -> list[Any]:
    table = schema.event
    query = (
        sa.select(*(table.c[name] for name in WATCHED))
        .where(
            table.c.project_id == project,
            table.c.seq > state.last_seq,
            table.c.bundle_digest == live.bundle.digest,
            table.c.variant == live.variant,
        )
        .order_by(table.c.seq)
        .limit(BATCH)
    )
    with ws.database.read("events") as connection:
        rows = list(connection.execute(query).mappings())
    if ws.database.dialect != "postgresql":
        return rows
    # Up to the first that is too young, so that none is passed over; one from the future has a wrong clock.
    now = ws.clock()
    return list(itertools.takewhile(lambda row: not now - SETTLE_S <= row["at"] <= now, rows))


def _monitor(ws: Workspace, project: str, live: Live, state: State) -> DriftMonitor | None:
    """The drift alarm of the deployment; None where its bundle came without a reference."""
    reference = _reference(ws, live.blob_id, live.variant)
    if reference is None:
        return None
    if state.monitor is not None:
        return DriftMonitor.restore(state.monitor, reference)
    settings = ws.settings(project)
    every = settings["monitor.drift_false_alarm_every"]
    budget = (
        DriftBudget(mode="ever", alpha=settings["monitor.drift_alpha"])
        if every is None
        else DriftBudget(mode="arl", one_in=int(every))
    )
    return DriftMonitor(reference, seed=live.deployment_id * 1000 + state.epoch, budget=budget)


def _drift(ws: Workspace, project: str, live: Live, state: State, rows: list[Any]) -> None:
    monitor = _monitor(ws, project, live, state)
    if monitor is None:
        state.drift = {"watched": False}
        return
    units = UnitFilter() if state.units is None else UnitFilter.restore(state.units)
    info = live.bundle.info
    # Answers that cannot be listed all count as one.
    places = {label: place for place, label in enumerate(output_module(info.task).summaries(info))}
    names = monitor.reference.quality_names
    for row in rows:
        if row["features"] is None or (places and row["label"] not in places):
            continue
        features = np.frombuffer(row["features"], "<f2").astype(np.float32)
        if not np.isfinite(features).all():
            # Beyond float16: one such picture must not end the watch.
            continue
        if not units.admit(features, at_s=row["at"], source=row["source"] or None):
            continue
        now = monitor.update(
            features,
            np.array([row["quality"][name] for name in names]),
            confidence=row["confidence"],
            predicted=places.get(row["label"], 0),
        )
        state.history.append([row["at"], now.units, now.evidence])
    while len(state.history) > HISTORY_POINTS:
        state.history = state.history[::2]
    now = monitor.current()
    state.monitor, state.units = monitor.state(), units.state()
    state.drift = {
        "units": now.units,
        "alarm": now.alarm,
        "alarmed_at": now.alarmed_at,
        "evidence": now.evidence if np.isfinite(now.evidence) else 0.0,
        "limit": now.limit,
        "explain": [asdict(why) for why in monitor.explain()],
        "watched": True,
    }


def _counts(live: Live, state: State, rows: list[Any]) -> None:
    # Only answers that can be listed are counted: free texts would grow without end.
    info = live.bundle.info
    listed = set(output_module(info.task).summaries(info))
    told = LatencyHistogram() if not state.latency else LatencyHistogram.restore(state.latency)
    for row in rows:
        told.observe(row["latency_ms"])
        if row["label"] in listed:
            state.classes[row["label"]] = state.classes.get(row["label"], 0) + 1
        state.decisions[row["decision"]] = state.decisions.get(row["decision"], 0) + 1
    state.latency = told.state()


def _key(live: Live, state: State) -> str:
    own = "" if live.variant == "float" else f", {live.variant}"
    return f"deployment {live.deployment_id}, watch {state.epoch}{own}"


def _drift_alert(ws: Workspace, project: str, live: Live, state: State) -> None:
    reasons = [why["text"] for why in state.drift["explain"][:3]]
    why = "; ".join(reasons) or "pictures look unlike the reference"
    alerts.raise_alert(
        ws,
        project,
        kind="drift",
        key=_key(live, state),
        title="The pictures have changed",
        text=f"{why[0].upper()}{why[1:]}. Noticed after {state.drift['alarmed_at']} pictures. Review some of the new "
        "pictures, so that the model can learn from them.",
        data={"model": live.model_number, "explain": state.drift["explain"], "units": state.drift["units"]},
        trace_id=uuid.uuid5(uuid.NAMESPACE_URL, f"{project}/{_key(live, state)}").hex,
    )


def _close_others(ws: Workspace, project: str, live: Live, state: State) -> None:
    """Closes the alarms of deployments that are not live any more, whichever way another model came (rollback, too)."""
    own = {
        alerts.alert_id(project, "drift", _key(live, state)),
        alerts.alert_id(project, "accuracy", _accuracy_key(live)),
    }
    for alert in alerts.open_alerts(ws, project):
        if alert.kind in ("drift", "accuracy") and alert.id not in own:
            alerts.close(ws, project, alert.id, actor="keepsight")


def _accuracy_key(live: Live) -> str:
    return f"deployment {live.deployment_id}"


def _restart_if_settled(ws: Workspace, project: str, live: Live, state: State) -> State:
    """A new watch where a person closed the alert of this one."""
    if not state.drift.get("alarm"):
        return state
    alert_id = alerts.alert_id(project, "drift", _key(live, state))
    if not alerts.is_closed(ws, alert_id):
        return state
    fresh = State(live.deployment_id, state.last_seq, epoch=state.epoch + 1)
    fresh.latency, fresh.classes, fresh.decisions = state.latency, state.classes, state.decisions
    _save(ws, project, live, fresh)
    return fresh


def _released_accuracy(live: Live) -> float | None:
    figure = tasks.right_share(live.bundle.info.metrics)
    return None if figure is None or figure["value"] is None else float(figure["value"])


def _accuracy_alert(ws: Workspace, project: str, live: Live) -> None:
    released = _released_accuracy(live)
    settings = ws.settings(project)
    tolerance = settings["monitor.accuracy_tolerance"]
    if released is None or not 0.0 < released - tolerance < 1.0:
        return
    verdicts = _verdicts(ws, project, live.model_number, only_audited=True)
    if not verdicts:
        return
    least = min(verdict.probability for verdict in verdicts)
    monitor = accuracy.AccuracyMonitor(release_accuracy=released, tolerance=tolerance, audit_share=least)
    for verdict in verdicts:
        monitor.update(verdict)
    if not monitor.current().alarm:
        return
    now = audited(ws, project, live.model_number)
    alerts.raise_alert(
        ws,
        project,
        kind="accuracy",
        key=_accuracy_key(live),
        title="The model is wrong more often than it should be",
        text=f"Of {now.n_answered} pictures checked blind, {now.value:.0%} were right "
        f"({now.low:.0%} to {now.high:.0%}); at release it was {released:.0%}.",
        data={"model": live.model_number, **now.as_dict()},
        trace_id=uuid.uuid5(uuid.NAMESPACE_URL, f"{project}/accuracy/{live.deployment_id}").hex,
    )
