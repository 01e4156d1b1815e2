"""When a project retrains by itself: drift, falling accuracy, enough new labels, or the clock.

An alarm alone teaches a model nothing: a retrain that an alarm starts waits until people have labelled enough pictures
from the changed traffic (``retrain.min_new_labels``). Every automatic start waits for the cool-down since the last run,
and a run that was rejected is not repeated on the same labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from keepsight.delivery import deployments
from keepsight.loop import runs
from keepsight.monitoring import alerts
from keepsight.store import schema
from keepsight.store.workspace import Workspace

MINUTE_S = 60.0


@dataclass(frozen=True)
class Trigger:
    """Why a run should start now."""

    name: str
    reason: str
    trace_id: str | None = None


def new_labels(ws: Workspace, project: str) -> int:
    """Labels given in review since the dataset version of the last run (or ever, before the first)."""
    with ws.database.read() as connection:
        last = connection.scalar(
            sa.select(sa.func.max(schema.run.c.dataset_version)).where(schema.run.c.project_id == project)
        )
        table = schema.annotation
        query = (
            sa.select(sa.func.count())
            .select_from(table)
            .where(table.c.project_id == project, table.c.origin == "review", table.c.removed_in.is_(None))
        )
        if last is not None:
            query = query.where(sa.or_(table.c.added_in.is_(None), table.c.added_in > last))
        return int(connection.scalar(query) or 0)


def due(ws: Workspace, project: str) -> Trigger | None:
    """What should start a run of the project now, or None. A project without a live model never starts by itself."""
    live = deployments.current(ws, project)
    if live is None:
        return None
    settings, now = ws.settings(project), ws.clock()
    last = next(iter(runs.list_runs(ws, project, limit=1)), None)
    if last is not None and not last.finished:
        return None
    if last is not None and now - last.created_at < settings["retrain.cooldown_minutes"] * MINUTE_S:
        return None
    return _alarm(ws, project) or _labels(ws, project) or _schedule(ws, project, since=live.created_at)


def _alarm(ws: Workspace, project: str) -> Trigger | None:
    settings = ws.settings(project)
    labels = new_labels(ws, project)
    if labels < settings["retrain.min_new_labels"]:
        return None
    for kind in ("drift", "accuracy"):
        for alert in alerts.open_alerts(ws, project, kind=kind):
            if settings[f"retrain.on_{kind}"]:
                return Trigger(kind, f"{alert.title}; {labels} new labels", alert.trace_id)
    return None


def _labels(ws: Workspace, project: str) -> Trigger | None:
    wanted = ws.settings(project)["retrain.new_labels"]
    labels = new_labels(ws, project)
    if wanted and labels >= wanted:
        return Trigger("labels", f"{labels} new labels")
    return None


def _schedule(ws: Workspace, project: str, *, since: float) -> Trigger | None:
    line = ws.settings(project)["retrain.schedule"]
    if line is None:
        return None
    from croniter import croniter

    fired = croniter(line, ws.clock(), ret_type=float).get_prev()
    with ws.database.read() as connection:
        last = connection.scalar(
            sa.select(sa.func.max(schema.run.c.created_at)).where(
                schema.run.c.project_id == project, schema.run.c.trigger == "schedule"
            )
        )
    if fired > max(since, last or 0.0):
        return Trigger("schedule", f"scheduled ({line})")
    return None
