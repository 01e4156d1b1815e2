"""``/{project}/monitor``: is the model doing well: alerts, drift, accuracy, classes, times."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from keepsight.monitoring import alerts
from keepsight.web import figures, render
from keepsight.web.pages.common import Actor, Form, Project, Space, back, is_htmx, project_page
from keepsight.web.standing import standing

router = APIRouter(include_in_schema=False)

DAYS = 30
HOURS = 48
CLASSES = 15


@router.get("/{project}/monitor")
def monitor(request: Request, ws: Space, project: Project) -> Response:
    """The whole picture; its figures follow the traffic."""
    now = ws.clock()
    today = figures.day_start(now)
    before = figures.class_mix(ws, project, since=now - DAYS * figures.DAY_S, until=now - figures.DAY_S)
    recent = figures.class_mix(ws, project, since=now - figures.DAY_S, until=now + 1)
    names = list(dict.fromkeys([*recent, *before]))
    context: dict[str, Any] = {
        "project": project,
        "standing": standing(ws, project),
        "open_list": alerts.open_alerts(ws, project),
        "by_hour": figures.pictures_by(ws, project, since=now - HOURS * figures.HOUR_S, length_s=figures.HOUR_S),
        "by_day": figures.audits_by_day(ws, project, since=today - DAYS * figures.DAY_S),
        "mix": [(name, _share(recent, name), _share(before, name)) for name in names[:CLASSES]],
        "mix_hidden": max(0, len(names) - CLASSES),
        "had_before": bool(before),
    }
    if is_htmx(request):
        return render.page(request, "monitor_now.html", **context)
    closed = [alert for alert in alerts.history(ws, project, limit=20) if alert.closed_at is not None]
    return project_page(request, "monitor.html", active="monitor", closed=closed, **context)


@router.post("/{project}/alerts/{alert_id}/close")
def close(ws: Space, project: Project, alert_id: str, who: Actor, form: Form) -> Response:  # noqa: ARG001
    """Closes an alert."""
    alerts.close(ws, project, alert_id, actor=who)
    return back(f"/{project}/monitor", said="closed")


def _share(counts: dict[str, int], name: str) -> float:
    total = sum(counts.values())
    return counts.get(name, 0) / total if total else 0.0
